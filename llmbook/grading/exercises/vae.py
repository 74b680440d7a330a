"""Checks of the exercises in ch-vae, against independent references."""

from collections.abc import Callable
from itertools import pairwise
from math import exp, inf, log
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- vae-2: divergence between two diagonal Gaussians --------------------------------


def _kl_reference(
    m1: np.ndarray, s1: np.ndarray, m2: np.ndarray, s2: np.ndarray
) -> np.ndarray:
    """By covariance matrices, row by row."""
    rows = []
    for a, u, b, v in zip(m1, s1, m2, s2, strict=True):
        first, second = np.diag(np.exp(2 * u)), np.diag(np.exp(2 * v))
        inverse = np.linalg.inv(second)
        spread = np.trace(inverse @ first) + (b - a) @ inverse @ (b - a) - len(a)
        volumes = np.linalg.slogdet(second)[1] - np.linalg.slogdet(first)[1]
        rows.append((spread + volumes) / 2)
    return np.array(rows)


def _kl_values(f: F) -> None:
    rng = np.random.default_rng()
    for n, d in ((3, 4), (5, 1), (1, 3), (4, 4)):
        m1, s1, m2, s2 = rng.normal(size=(4, n, d)) * [[[1.0]], [[0.5]], [[2]], [[0.4]]]
        wanted = _kl_reference(m1, s1, m2, s2)
        close(f(m1, s1, m2, s2), wanted, f"batch of {n}, {d} units", 1e-9, 1e-9)


def _kl_known(f: F) -> None:
    zero, one = np.zeros((2, 3)), np.ones((2, 3))
    close(f(one, one / 3, one, one / 3), [0.0, 0.0], "a distribution and itself")
    close(f(one, zero, zero, zero), [1.5, 1.5], "means apart by 1 in three units")
    wide = 3 * ((exp(2) - 1) / 2 - 1)
    close(f(zero, one, zero, zero), [wide, wide], "the first e times as wide")
    narrow = 3 * ((exp(-2) - 1) / 2 + 1)
    close(f(zero, zero, zero, one), [narrow, narrow], "the second e times as wide")


# --- vae-3: leave-one-out baseline ----------------------------------------------------


def _rloo_reference(f: np.ndarray, score: np.ndarray) -> np.ndarray:
    n = len(f)
    total = np.zeros(score.shape[1])
    for i in range(n):
        others = [f[j] for j in range(n) if j != i]
        total += (f[i] - sum(others) / (n - 1)) * score[i]
    return total / n


def _rloo_values(g: F) -> None:
    rng = np.random.default_rng()
    for n, p in ((2, 3), (7, 2), (5, 1), (4, 4)):
        f, score = rng.normal(size=n) - 3, rng.normal(size=(n, p)) + 0.5
        close(g(f, score), _rloo_reference(f, score), f"{n} draws, {p} parameters")


def _rloo_shift(g: F) -> None:
    rng = np.random.default_rng()
    f, score = rng.normal(size=6), rng.normal(size=(6, 3))
    close(g(f + 1000, score), g(f, score), "1,000 added to every value", 1e-8)
    close(g(np.full(6, 2.5), score), np.zeros(3), "equal values")


def _rloo_single(g: F) -> None:
    for n in (0, 1):
        try:
            g(np.ones(n), np.ones((n, 2)))
        except ValueError:
            continue
        raise AssertionError(f"{n} draws leave nobody to compare with: no ValueError")
    g(np.ones(2), np.ones((2, 2)))


# --- vae-4: importance-weighted bound -------------------------------------------------


def _iwae_reference(log_w: list[list[float]], k: int) -> list[float]:
    out = []
    for row in log_w:
        groups = [row[a:b] for a, b in pairwise(range(0, len(row) + 1, k))]
        bounds = []
        for group in groups:
            top = max(group)
            mean = sum(exp(v - top) for v in group) / k if top > -inf else 0.0
            bounds.append(top + log(mean) if mean > 0 else -inf)
        out.append(sum(bounds) / len(bounds))
    return out


def _iwae_on(f: F, log_w: np.ndarray, k: int, what: str) -> None:
    wanted = _iwae_reference(log_w.tolist(), k)
    with np.errstate(all="ignore"):
        close(f(log_w.copy(), k), wanted, what, 1e-9, 1e-12)


def _iwae_values(f: F) -> None:
    rng = np.random.default_rng()
    for n, samples, k in ((3, 8, 4), (2, 9, 3), (4, 6, 6), (5, 7, 1), (1, 4, 2)):
        log_w = 2 * rng.normal(size=(n, samples))
        _iwae_on(f, log_w, k, f"{n} images, {samples} draws, k = {k}")


def _iwae_range(f: F) -> None:
    rng = np.random.default_rng()
    log_w = rng.normal(size=(3, 6))
    for shift in (-2000.0, 2000.0):
        _iwae_on(f, log_w + shift, 3, f"log-weights near {shift:g}")
    mixed = np.array([[-1500.0, -20.0, 3.0, -3000.0, -2990.0, -3100.0]])
    _iwae_on(f, mixed, 3, "groups of very different size")
    _iwae_on(f, np.concatenate([mixed, mixed + 5000.0]), 2, "images far apart")


def _iwae_impossible(f: F) -> None:
    log_w = np.array([[-inf, -3.0, -4.0, -2.0], [-1.0, -inf, -inf, 0.5]])
    _iwae_on(f, log_w, 2, "impossible draws")
    _iwae_on(f, np.array([[-inf, -inf, 0.0, 1.0]]), 2, "a group of impossible draws")


def _iwae_rest(f: F) -> None:
    for samples, k in ((7, 2), (3, 4)):
        try:
            f(np.zeros((2, samples)), k)
        except ValueError:
            continue
        raise AssertionError(f"{samples} draws do not divide into groups of {k}")


EXERCISES = {
    "vae-2": Exercise(
        function="gaussian_kl",
        checks=(
            Check("values", _kl_values, hint="One number per row: sum over units."),
            Check("known cases", _kl_known, hint="Arguments hold log σ, not σ."),
        ),
    ),
    "vae-3": Exercise(
        function="leave_one_out",
        checks=(
            Check("values", _rloo_values, hint="Others: (sum − own) / (n − 1)."),
            Check("a shift", _rloo_shift, hint="The baseline removes a constant."),
            Check("too few draws", _rloo_single, hint="Raise ValueError below two."),
        ),
    ),
    "vae-4": Exercise(
        function="weighted_bound",
        checks=(
            Check("values", _iwae_values, hint="Log of the mean, then mean of logs."),
            Check("range", _iwae_range, hint="Subtract each group's own maximum."),
            Check("impossible", _iwae_impossible, hint="−∞ − (−∞) is NaN: guard it."),
            Check("remainder", _iwae_rest, hint="Raise ValueError on a remainder."),
        ),
    ),
}

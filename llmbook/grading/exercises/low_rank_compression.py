"""Exercises of ch-low-rank-compression."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise

Function = Callable[..., Any]


# --- 1: compressed_size ---------------------------------------------------------


def _one(f: Function) -> None:
    cases = [(6, 10, 3, 48), (10, 6, 1, 16), (7, 5, 2, 24), (20, 2, 1, 22)]
    for m, n, k, wanted in cases:
        found = f([(m, n)], [k], 0)
        assert found == wanted, (
            f"a {m} × {n} matrix at rank {k} needs {wanted} numbers, got {found}"
        )


def _dense(f: Function) -> None:
    found = f([(6, 10)], [5], 0)
    assert found == 60, (
        f"rank 5 of 6 × 10: 80 numbers in factors, 60 dense; got {found}"
    )
    for m, n in [(20, 2), (2, 20)]:
        found = f([(m, n)], [2], 0)
        assert found == 40, (
            f"rank 2 of {m} × {n}: 44 numbers in factors, 40 dense; got {found}"
        )


def _total(f: Function) -> None:
    found = f([(6, 10), (9, 4), (8, 8)], [3, 4, 2], 11)
    assert found == 48 + 36 + 32 + 11, f"expected 127 for three and a rest, got {found}"
    assert f([], [], 5) == 5, "with no matrices only the rest is stored"


# --- 2: truncate_layer ----------------------------------------------------------


def _layer(seed: int, N: int, m: int, n: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, m)) * rng.uniform(0.2, 3, m) + rng.normal(0, 4, m)
    return rng.standard_normal((m, n)), rng.standard_normal(n), X


LAYERS = [(1, 40, 6, 4, 2), (2, 50, 5, 8, 3), (3, 9, 7, 7, 1)]


def _layer_shapes(f: Function) -> None:
    for seed, N, m, n, k in LAYERS:
        W, bias, X = _layer(seed, N, m, n)
        A, B, new = f(W, bias, X, k)
        found = (np.shape(A), np.shape(B), np.shape(new))
        assert found == ((m, k), (k, n), (n,)), (
            f"for W {m} × {n} and k = {k} the shapes must be "
            f"{((m, k), (k, n), (n,))}, got {found}"
        )


def _layer_mean(f: Function) -> None:
    for seed, N, m, n, k in LAYERS:
        W, bias, X = _layer(seed, N, m, n)
        A, B, new = f(W, bias, X, k)
        off = np.abs(((X @ W + bias) - (X @ A @ B + new)).mean(axis=0)).max()
        assert off < 1e-8, f"the outputs' means differ by up to {off:.3g}"


def _layer_best(f: Function) -> None:
    for seed, N, m, n, k in LAYERS:
        W, bias, X = _layer(seed, N, m, n)
        A, B, new = f(W, bias, X, k)
        error = np.sum(((X @ W + bias) - (X @ A @ B + new)) ** 2)
        Y = X @ W
        s = np.linalg.svd(Y - Y.mean(axis=0), compute_uv=False)
        best = np.sum(s[k:] ** 2)
        assert error <= best * (1 + 1e-6) + 1e-9, (
            f"squared error {error:.4g}, but {best:.4g} is possible"
        )


# --- 3: pack --------------------------------------------------------------------


def _factors(seed: int, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, k)), rng.standard_normal((k, n))


FACTORS = [(1, 6, 5, 2), (2, 4, 9, 3), (3, 5, 5, 1), (4, 4, 4, 4)]


def _pack_shapes(f: Function) -> None:
    for seed, m, n, k in FACTORS:
        C, T = f(*_factors(seed, m, n, k))
        found = (np.shape(C), np.shape(T))
        assert found == ((m, k), (k, n - k)), (
            f"for m, n, k = {m}, {n}, {k} the shapes must be {((m, k), (k, n - k))}, "
            f"got {found}"
        )


def _pack_product(f: Function) -> None:
    for seed, m, n, k in FACTORS:
        A, B = _factors(seed, m, n, k)
        C, T = f(A, B)
        off = np.abs(A @ B - C @ np.hstack([np.eye(k), T])).max()
        assert off < 1e-9, f"C [I T] differs from A B by up to {off:.3g}"


EXERCISES = {
    "low_rank_compression-1": Exercise(
        function="compressed_size",
        checks=(
            Check("one matrix in factors", _one, "Two factors: m × k and k × n."),
            Check("dense when factors are larger", _dense, "Take the smaller one."),
            Check("several matrices and a rest", _total, "Each matrix decides alone."),
        ),
    ),
    "low_rank_compression-2": Exercise(
        function="truncate_layer",
        checks=(
            Check("shapes", _layer_shapes, "Project the n outputs on k directions."),
            Check(
                "the mean output is exact",
                _layer_mean,
                "What does the truncation do to the mean input? Put it in the bias.",
            ),
            Check(
                "no rank-k layer does better",
                _layer_best,
                "Which directions matter once the mean is taken care of?",
            ),
        ),
    ),
    "low_rank_compression-3": Exercise(
        function="pack",
        checks=(
            Check("shapes", _pack_shapes, "C has A's shape; T lacks k columns of B."),
            Check(
                "the same product",
                _pack_product,
                "Insert Q and its inverse; what must Q be for B to start with I?",
            ),
        ),
    ),
}

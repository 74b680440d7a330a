"""Checks of the exercises in ch-support-vector-machines, written independently."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
from scipy.spatial.distance import pdist

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close, same

F = Callable[..., Any]


# --- support_vector_machines-1: complementary slackness ------------------------------


def _broken(alpha: np.ndarray, edge: np.ndarray, C: float) -> np.ndarray:
    out = []
    for a, m in zip(alpha, edge, strict=True):
        if a == 0:
            out.append(1 - m if m < 1 else 0.0)
        elif a == C:
            out.append(m - 1 if m > 1 else 0.0)
        else:
            out.append(abs(m - 1))
    return np.array(out)


def _kind(f: F, weight: float) -> None:
    rng = np.random.default_rng()
    for C in (1.0, 0.2, 30.0):
        edge = np.append(rng.normal(1, 2, size=12), [1.0, -3.0, 4.0])
        alpha = np.full(15, weight * C)
        name = {0.0: "resting", 1.0: "capped"}.get(weight, "free")
        close(f(alpha, edge, C), _broken(alpha, edge, C), f"{name} rows, C = {C:g}")


def _resting(f: F) -> None:
    _kind(f, 0.0)


def _free(f: F) -> None:
    _kind(f, 0.4)
    _kind(f, 0.999)


def _capped(f: F) -> None:
    _kind(f, 1.0)


def _mixed(f: F) -> None:
    rng = np.random.default_rng()
    C = 2.5
    alpha = rng.permutation(np.r_[np.zeros(5), np.full(4, C), rng.uniform(0.1, C, 6)])
    edge = rng.normal(1, 1.5, size=15)
    close(f(alpha, edge, C), _broken(alpha, edge, C), "rows of all kinds")


# --- support_vector_machines-2: dual coordinate descent -----------------------------


def _table(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    X = rng.normal(size=(n, d)) * rng.uniform(0.3, 2, size=d)
    y = np.where(X[:, 0] + rng.normal(size=n) > 0.2, 1.0, -1.0)
    return X, y


def _by_matrix(
    X: np.ndarray, y: np.ndarray, C: float, epochs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinate ascent on the dual written with its full matrix."""
    Q = (X * y[:, None]) @ (X * y[:, None]).T
    alpha = np.zeros(len(y))
    for i in list(range(len(y))) * epochs:
        rest = Q[i] @ alpha - Q[i, i] * alpha[i]
        goal = (1 - rest) / Q[i, i] if Q[i, i] > 0 else np.inf
        alpha[i] = np.clip(goal, 0, C)
    return (alpha * y) @ X, alpha


def _coordinate(f: F, C: float, epochs: int, X: np.ndarray, y: np.ndarray) -> None:
    before = X.copy(), y.copy()
    w, alpha = f(X, y, C, epochs)
    wanted_w, wanted_alpha = _by_matrix(*before, C, epochs)
    what = f"{len(y)} rows, C = {C:g}, {epochs} epochs"
    close(alpha, wanted_alpha, f"alpha, {what}", atol=1e-7)
    close(w, wanted_w, f"w, {what}", atol=1e-7)
    if not (np.array_equal(X, before[0]) and np.array_equal(y, before[1])):
        raise AssertionError("your function changed its arguments in place")


def _one_epoch(f: F) -> None:
    for n, d in ((1, 3), (7, 2), (9, 4)):
        _coordinate(f, 50.0, 1, *_table(n, d))


def _boxed(f: F) -> None:
    for C in (0.05, 0.5, 2.0):
        _coordinate(f, C, 3, *_table(15, 3))


def _gap(
    X: np.ndarray, y: np.ndarray, C: float, w: np.ndarray, alpha: np.ndarray
) -> float:
    """The primal objective at w, less the dual one."""
    hinge = np.maximum(0, 1 - y * (X @ w)).sum()
    return float(w @ w / 2 + C * hinge - (alpha.sum() - w @ w / 2))


def _many_epochs(f: F) -> None:
    X, y = _table(20, 3)
    w, alpha = (np.asarray(part) for part in f(X, y, 0.3, 60))
    gap, least = _gap(X, y, 0.3, w, alpha), _gap(X, y, 0.3, *_by_matrix(X, y, 0.3, 60))
    close(w, (alpha * y) @ X, "w against the sum of alpha y x", atol=1e-7)
    if not -1e-7 <= gap <= least + 1e-6:
        raise AssertionError(
            f"after 60 epochs the duality gap is {gap:.3g}, it can be {least:.3g}"
        )
    _coordinate(f, 0.3, 5, X, y)


def _zero_row(f: F) -> None:
    X, y = _table(8, 3)
    X[3] = 0.0
    _coordinate(f, 0.7, 2, X, y)


# --- support_vector_machines-3: random features of e^(q.k) --------------------------


def _wave(rows: np.ndarray, omega: np.ndarray, beta: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), len(beta)))
    for t, x in enumerate(rows):
        for m in range(len(beta)):
            angle = sum(x[c] * omega[c, m] for c in range(len(x))) + beta[m]
            out[t, m] = np.cos(angle) * np.exp(x @ x / 2) * (2 / len(beta)) ** 0.5
    return out


def _features(f: F) -> None:
    rng = np.random.default_rng()
    for T, d, D in ((3, 2, 5), (4, 6, 3), (1, 3, 8)):
        X, omega = 0.7 * rng.normal(size=(T, d)), rng.normal(size=(d, D))
        beta = rng.uniform(0, 2 * np.pi, D)
        wanted = _wave(X, omega, beta)
        ours = np.asarray(f(X, omega, beta))
        if ours.shape != wanted.shape:
            raise AssertionError(f"shape {ours.shape}, wanted {wanted.shape}")
        close(ours @ ours.T, wanted @ wanted.T, f"inner products, {T} rows, d = {d}")


def _estimate(f: F) -> None:
    rng = np.random.default_rng(5)
    X = 0.6 * rng.normal(size=(6, 4))
    D = 40_000
    phi = np.asarray(f(X, rng.normal(size=(4, D)), rng.uniform(0, 2 * np.pi, D)))
    true = np.exp(X @ X.T)
    size = np.exp((X**2).sum(1) / 2)
    close(
        phi @ phi.T / np.outer(size, size),
        true / np.outer(size, size),
        "estimate of e^(q.k), relative to the rows' sizes, with 40,000 features",
        atol=0.04,
    )


# --- support_vector_machines-4: votes -----------------------------------------------


def _counted(values: np.ndarray, k: int) -> np.ndarray:
    out = []
    for row in values:
        votes = [0] * k
        for value, (a, b) in zip(row, combinations(range(k), 2), strict=True):
            votes[a if value > 0 else b] += 1
        out.append(votes.index(max(votes)))
    return np.array(out)


def _votes(f: F) -> None:
    rng = np.random.default_rng()
    for rows, k in ((30, 3), (12, 5), (40, 7), (6, 2)):
        values = rng.normal(size=(rows, k * (k - 1) // 2))
        same(f(values, k), _counted(values, k), f"{rows} messages, {k} classes")


def _ties(f: F) -> None:
    cycle = np.array([[2.0, -9.0, 3.0], [-1.0, 5.0, -1.0]])  # a > b > c > a
    same(f(cycle, 3), np.array([0, 0]), "three classes with a vote each")
    values = np.random.default_rng().choice([-1.0, 1.0], size=(60, 6))
    same(f(values, 4), _counted(values, 4), "many ties, four classes")


def _at_zero(f: F) -> None:
    values = np.zeros((2, 6))
    values[1, 0] = 1e-12
    same(f(values, 4), _counted(values, 4), "values of exactly zero")


# --- support_vector_machines-5: the median distance -----------------------------------


def _median(f: F) -> None:
    rng = np.random.default_rng()
    for n, d in ((6, 3), (11, 2), (20, 5)):
        X = rng.normal(size=(n, d)) * 10 ** rng.uniform(-2, 2, size=d) + 3
        wanted = 1 / np.median(pdist(X, "seuclidean", V=X.var(axis=0)) ** 2)
        close(f(X), wanted, f"{n} rows, {d} columns", rtol=1e-7)


def _median_constant(f: F) -> None:
    rng = np.random.default_rng()
    X = rng.normal(size=(9, 3)) * [1, 5, 0.2]
    wanted = 1 / np.median(pdist(X, "seuclidean", V=X.var(axis=0)) ** 2)
    X = np.insert(X, 1, 0.5, axis=1)  # its standard deviation is exactly zero
    before = X.copy()
    with np.errstate(all="ignore"):
        close(f(X), wanted, "a constant column among three others", rtol=1e-7)
    if not np.array_equal(X, before):
        raise AssertionError("your function changed its argument in place")


EXERCISES = {
    "support_vector_machines-1": Exercise(
        function="violations",
        checks=(
            Check("resting rows", _resting, hint="alpha = 0 demands y f >= 1."),
            Check("free rows", _free, hint="They stand exactly on the edge."),
            Check("capped rows", _capped, hint="alpha = C demands y f <= 1."),
            Check("all kinds", _mixed, hint="Each row by its own weight."),
        ),
    ),
    "support_vector_machines-2": Exercise(
        function="coordinate_descent",
        checks=(
            Check(
                "one visit to each row",
                _one_epoch,
                hint="The slope along alpha_i is 1 - y_i w.x_i, the curvature x_i.x_i.",
            ),
            Check("the box", _boxed, hint="Clip alpha_i to [0, C], then move w."),
            Check(
                "a gap that closes",
                _many_epochs,
                hint="w moves by the change of alpha_i, times y_i x_i.",
            ),
            Check("a row of zeros", _zero_row, hint="Its curvature is zero."),
        ),
        equivalent={
            "w @ x → x @ w": "the dot product of two vectors is symmetric",
            "(best - alpha[i]) * y[i] → (best - alpha[i]) / y[i]": (
                "labels are +1 or -1, and equal to their inverses"
            ),
        },
    ),
    "support_vector_machines-3": Exercise(
        function="attention_features",
        checks=(
            Check(
                "values",
                _features,
                hint="sqrt(2 / M) cos(x.omega + beta), times e^(|x|²/2).",
            ),
            Check("the estimate", _estimate, hint="|q - k|² = |q|² - 2 q.k + |k|²."),
        ),
    ),
    "support_vector_machines-4": Exercise(
        function="vote",
        checks=(
            Check("votes", _votes, hint="np.triu_indices(k, 1) lists the pairs."),
            Check("ties", _ties, hint="argmax returns the first of equal entries."),
            Check("zero", _at_zero, hint="Only a positive value is for the first."),
        ),
        equivalent={
            "(winners[..., None] == np.arange(n_classes)).sum → "
            "(winners[..., None] == np.arange(n_classes)).mean": (
                "shares of votes have the same largest entry as counts"
            ),
        },
    ),
    "support_vector_machines-5": Exercise(
        function="median_gamma",
        checks=(
            Check(
                "the median over pairs",
                _median,
                hint="Different rows only: the zeros on the diagonal do not count.",
            ),
            Check(
                "a constant column",
                _median_constant,
                hint="Division by zero: leave the column out first.",
            ),
        ),
    ),
}

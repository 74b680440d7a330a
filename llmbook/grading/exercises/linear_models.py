"""Checks of the exercises in ch-linear-models. References are written independently."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


def _table(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of different means and sizes, correlated, and an outcome."""
    rng = np.random.default_rng()
    mix = np.eye(d) + 0.5 * np.triu(rng.normal(size=(d, d)), 1)  # never near singular
    X = rng.normal(size=(n, d)) @ mix * rng.uniform(0.5, 2.0, size=d)
    X = X + 2 * rng.normal(size=d)
    return X, 3.0 + X @ rng.normal(size=d) + rng.normal(size=n)


# --- linear_models-1: left-out errors of ridge ----------------------------------------


def _refit(X: np.ndarray, y: np.ndarray, alpha: float) -> np.ndarray:
    """Leave each row out and fit the rest, centred, so that no column is for ones."""
    out = np.empty(len(y))
    for i in range(len(y)):
        keep = [k for k in range(len(y)) if k != i]
        A, b = X[keep], y[keep]
        middle, level = A.mean(axis=0), b.mean()
        A = A - middle
        w = np.linalg.solve(A.T @ A + alpha * np.eye(X.shape[1]), A.T @ (b - level))
        out[i] = y[i] - level - (X[i] - middle) @ w
    return out


def _left_out(f: F) -> None:
    for (n, d), alpha in (((9, 2), 0.7), ((12, 4), 5.0), ((7, 1), 2.5)):
        X, y = _table(n, d)
        what = f"{n} rows, {d} columns, alpha = {alpha}"
        close(f(X, y, alpha), _refit(X, y, alpha), what, 1e-7)


def _left_out_plain(f: F) -> None:
    X, y = _table(10, 3)
    close(f(X, y, 0.0), _refit(X, y, 0.0), "no penalty", 1e-6, 1e-6)


def _left_out_level(f: F) -> None:
    X, y = _table(10, 2)
    wanted = _refit(X, y, 30.0)
    close(f(X, y + 1000.0, 30.0), wanted, "1,000 added to every y", 1e-6)
    close(f(X + 50.0, y, 30.0), wanted, "50 added to every column", 1e-6)


def _left_out_wide(f: F) -> None:
    X, y = _table(5, 8)
    close(f(X, y, 1.5), _refit(X, y, 1.5), "more columns than rows", 1e-7)


# --- linear_models-2: errors for grouped rows -----------------------------------------


def _sandwich(X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[Any, Any]:
    """Sum over all pairs of rows that share a group."""
    n, d = X.shape
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    e = [float(y[i] - X[i] @ w) for i in range(n)]
    M = np.zeros((d, d))
    for i in range(n):
        for j in range(n):
            if groups[i] == groups[j]:
                M += e[i] * e[j] * np.outer(X[i], X[j])
    bread = np.linalg.pinv(X).T  # X (X'X)^-1
    inverse = bread.T @ bread
    G = len(set(groups.tolist()))
    V = inverse @ M @ inverse * G * (n - 1) / ((G - 1) * (n - d))
    return w, np.sqrt(np.diag(V))


def _grouped(n: int, d: int, labels: list[Any]) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng()
    X, y = _table(n, d)
    groups = rng.permutation(np.resize(np.asarray(labels), n))
    return np.c_[np.ones(n), X], y, groups


def _cluster_values(f: F) -> None:
    for n, d, labels in ((14, 2, range(5)), (20, 3, range(7)), (11, 1, range(4))):
        X, y, groups = _grouped(n, d, list(labels))
        w, errors = f(X, y, groups)
        wanted = _sandwich(X, y, groups)
        what = f"{n} rows in {len(labels)} groups"
        close(w, wanted[0], f"weights, {what}", 1e-7, 1e-7)
        close(errors, wanted[1], f"errors, {what}", 1e-7, 1e-7)


def _cluster_labels(f: F) -> None:
    X, y, groups = _grouped(15, 2, ["ann", "bob", "eve", "kim"])
    close(f(X, y, groups)[1], _sandwich(X, y, groups)[1], "names as labels", 1e-7, 1e-7)
    X, y, groups = _grouped(15, 2, [40, -3, 7])
    close(
        f(X, y, groups)[1], _sandwich(X, y, groups)[1], "labels 40, -3, 7", 1e-7, 1e-7
    )


def _cluster_single(f: F) -> None:
    X, y, _ = _grouped(12, 2, [0])
    alone = np.arange(12)
    close(f(X, y, alone)[1], _sandwich(X, y, alone)[1], "one row per group", 1e-7, 1e-7)


# --- linear_models-3: a Poisson step ----------------------------------------


def _poisson_data(n: int, d: int) -> tuple[Any, ...]:
    rng = np.random.default_rng()
    X = np.c_[np.ones(n), 0.5 * rng.normal(size=(n, d - 1))]
    hours = rng.uniform(0.5, 6.0, size=n)
    w = 0.4 * rng.normal(size=d)
    y = rng.poisson(hours * np.exp(X @ w)).astype(float)
    return X, y, hours, 0.3 * rng.normal(size=d)


def _poisson_values(f: F) -> None:
    for n, d in ((30, 2), (40, 3), (25, 1)):
        X, y, hours, w = _poisson_data(n, d)
        gradient, hessian = np.zeros(d), np.zeros((d, d))
        for i in range(n):  # Newton, written as sums
            mean = hours[i] * np.exp(float(X[i] @ w))
            gradient += (mean - y[i]) * X[i]
            hessian += mean * np.outer(X[i], X[i])
        wanted = w - np.linalg.inv(hessian) @ gradient
        close(f(X, y, hours, w), wanted, f"one step, {n} rows, {d} weights", 1e-7)


def _poisson_rest(f: F) -> None:
    X, y, hours, _ = _poisson_data(60, 2)
    y = y + 1.0
    w = np.array([np.log(y.sum() / hours.sum()), 0.0])
    for _ in range(20):
        w = np.asarray(f(X, y, hours, w))
    slope = X.T @ (hours * np.exp(X @ w) - y)
    close(slope, np.zeros(2), "gradient after 20 of your steps", 1e-6)


# --- linear_models-4: cross-fitted means ----------------------------------------


def _by_rows(
    codes: np.ndarray, y: np.ndarray, folds: np.ndarray, m: float
) -> np.ndarray:
    out = []
    for i in range(len(y)):
        others = [k for k in range(len(y)) if folds[k] != folds[i]]
        level = sum(y[k] for k in others) / len(others)
        same = [y[k] for k in others if codes[k] == codes[i]]
        out.append((sum(same) + m * level) / (len(same) + m))
    return np.array(out)


def _encoding_data(n: int, n_codes: int, n_folds: int) -> tuple[Any, ...]:
    rng = np.random.default_rng()
    codes = rng.permutation(np.resize(np.arange(n_codes), n))
    folds = rng.permutation(np.resize(np.arange(n_folds), n))
    return codes, 5.0 + rng.normal(size=n) + codes, folds


def _encode_values(f: F) -> None:
    for n, n_codes, n_folds, m in ((20, 4, 3, 1.5), (15, 2, 5, 4.0), (12, 3, 2, 0.5)):
        codes, y, folds = _encoding_data(n, n_codes, n_folds)
        wanted = _by_rows(codes, y, folds, m)
        close(f(codes, y, folds, m), wanted, f"{n} rows, {n_folds} folds", 1e-9)


def _encode_unseen(f: F) -> None:
    codes, y, folds = _encoding_data(14, 3, 2)
    codes[4] = 99  # one row only: no other fold has it
    close(f(codes, y, folds, 2.0), _by_rows(codes, y, folds, 2.0), "a rare code", 1e-9)


def _encode_own(f: F) -> None:
    codes, y, folds = _encoding_data(16, 3, 4)
    before = np.asarray(f(codes, y, folds, 1.0)).copy()
    other = y.copy()
    other[folds == 2] += 100.0
    after = np.asarray(f(codes, other, folds, 1.0))
    close(
        after[folds == 2], before[folds == 2], "fold 2, after changing its own y", 1e-9
    )


def _encode_integers(f: F) -> None:
    codes, y, folds = _encoding_data(18, 3, 3)
    flags = (y > np.median(y)).astype(int)
    wanted = _by_rows(codes, flags, folds, 2.0)
    close(f(codes, flags, folds, 2.0), wanted, "outcomes 0 and 1, integers", 1e-9)


def _encode_names(f: F) -> None:
    codes, y, folds = _encoding_data(15, 3, 3)
    names, parts = np.array(["x", "y", "z"])[codes], np.array([7, -2, 40])[folds]
    wanted = _by_rows(codes, y, folds, 1.0)
    close(f(names, y, parts, 1.0), wanted, "names for codes, folds -2, 7, 40", 1e-9)


EXERCISES = {
    "linear_models-1": Exercise(
        function="ridge_left_out",
        checks=(
            Check(
                "errors equal honest refits",
                _left_out,
                hint="Write the fit as a hat matrix; the shortcut divides by 1 - h.",
            ),
            Check(
                "the intercept is free",
                _left_out_level,
                hint="Only the columns of X are penalised, not the column of ones.",
            ),
            Check(
                "no penalty is least squares",
                _left_out_plain,
                hint="Which leverage belongs to a fit with an intercept?",
            ),
            Check(
                "more columns than rows",
                _left_out_wide,
                hint="With a penalty the matrix to solve has full rank.",
            ),
        ),
        equivalent={"hat @ y → y @ hat": "the hat matrix is symmetric"},
    ),
    "linear_models-2": Exercise(
        function="clustered_errors",
        checks=(
            Check(
                "weights and errors",
                _cluster_values,
                hint="Add x_i e_i within a group first, then square; two factors.",
            ),
            Check(
                "labels of any kind",
                _cluster_labels,
                hint="np.unique lists labels; they need not be 0, 1, 2.",
            ),
            Check(
                "groups of one",
                _cluster_single,
                hint="Then M is the sum of e_i^2 x_i x_i^T, as for HC0.",
            ),
        ),
        equivalent={
            "groups == g → groups != g": "all x_i e_i sum to zero, so the rows "
            "outside a group sum to minus those inside; the sign is squared away",
        },
    ),
    "linear_models-3": Exercise(
        function="poisson_step",
        checks=(
            Check(
                "one Newton step",
                _poisson_values,
                hint="Gradient X^T(mean - y), Hessian X^T diag(mean) X.",
            ),
            Check(
                "steps arrive where the gradient is zero",
                _poisson_rest,
                hint="The mean is hours times exp(Xw); the response stands for Xw.",
            ),
        ),
    ),
    "linear_models-4": Exercise(
        function="cross_fitted_means",
        checks=(
            Check(
                "means over the other folds",
                _encode_values,
                hint="Both the code's mean and the overall mean leave the fold out.",
            ),
            Check(
                "a code that no other fold has",
                _encode_unseen,
                hint="Sum and count are 0: the overall mean is left.",
            ),
            Check(
                "a row's own fold does not matter",
                _encode_own,
                hint="Is the overall mean taken over all rows?",
            ),
            Check(
                "outcomes that are integers",
                _encode_integers,
                hint="A mean of whole numbers is seldom whole: which dtype is filled?",
            ),
            Check(
                "labels of any kind",
                _encode_names,
                hint="Compare labels; do not index with them.",
            ),
        ),
    ),
}

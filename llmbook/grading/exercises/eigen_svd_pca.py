"""Checks of the exercises in ch-eigen-svd-pca. References are written independently."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


def _close(ours: object, wanted: object, what: str, atol: float = 1e-6) -> None:
    close(ours, wanted, what, atol)


# --- eigen_svd_pca-2: the largest singular triple -------------------------------------


def _matrix(shape: tuple[int, int], ratio: float) -> np.ndarray:
    rng = np.random.default_rng()
    small = min(shape)
    u = linalg.qr(rng.normal(size=(shape[0], small)), mode="economic")[0]
    v = linalg.qr(rng.normal(size=(shape[1], small)), mode="economic")[0]
    s = 3.7 * np.r_[1.0, ratio * np.linspace(1, 0.1, small - 1)]
    return (u * s) @ v.T


def _triple(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((6, 4), (4, 6), (5, 5)):
        a = _matrix(shape, 0.4)
        sigma, u, v = f(a.copy(), 40, rng.normal(size=shape[1]) + 0.5)
        wanted = linalg.svd(a)[1][0]
        _close(sigma, wanted, f"σ₁ of a {shape} matrix")
        _close(np.outer(u, v) * wanted, _rank_one(a), f"σ₁ u₁ v₁ᵀ, {shape}")
        _close(np.linalg.norm(v), 1.0, "length of v₁")


def _rank_one(a: np.ndarray) -> np.ndarray:
    u, s, vt = linalg.svd(a)
    return s[0] * np.outer(u[:, 0], vt[0])


def _signs(f: F) -> None:
    rng = np.random.default_rng()
    # In the first case the entries of v₁ differ in sign, whatever is drawn.
    cases = [(np.diag([2.0, 1.5]), np.array([3.0, -1.0]))]
    cases += [(_matrix((5, 4), 0.3), rng.normal(size=4)) for _ in range(6)]
    for a, start in cases:
        for x in (start, -start):
            _, u, v = f(a.copy(), 30, x)
            v = np.asarray(v)
            if v[np.abs(v).argmax()] <= 0:
                raise AssertionError("the entry of v₁ largest in size is not positive")
            if not float(np.asarray(u) @ a @ v) > 0:
                raise AssertionError("A v₁ points against u₁: turn both or none")


def _steps(f: F) -> None:
    a = np.diag([2.0, 1.0])
    for n_steps in (0, 1, 3):
        _, _, v = f(a, n_steps, np.array([3.0, 4.0]))
        wanted = np.array([3.0 * 4.0**n_steps, 4.0])
        _close(
            np.asarray(v) / np.linalg.norm(v),
            wanted / np.linalg.norm(wanted),
            f"v after {n_steps} steps of diag(2, 1) from (3, 4)",
            1e-12,
        )


def _tiny(f: F) -> None:
    a = _matrix((4, 3), 0.3)
    for scale in (1e-60, 1e60):
        sigma = f(a * scale, 30, np.ones(3) + np.arange(3))[0]
        _close(sigma / scale, linalg.svd(a)[1][0], f"σ₁ of a matrix times {scale:g}")


class _Watched(np.ndarray):
    """A matrix that takes vectors, also as one column or row, and no other matrix."""

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: object, **kwargs: object
    ) -> object:
        if ufunc is np.matmul:
            _refuse(*inputs)
        out = kwargs.pop("out", ())
        if isinstance(out, tuple) and out:
            kwargs["out"] = tuple(np.asarray(x) for x in out)
        return getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **kwargs)

    def __array_function__(  # type: ignore[override]
        self, func: F, types: object, args: tuple[object, ...], kwargs: object
    ) -> object:
        if func is np.dot:
            _refuse(*args[:2])
        return super().__array_function__(func, types, args, kwargs)  # type: ignore

    def dot(self, other: object) -> object:  # type: ignore[override]
        return self @ np.asarray(other)


def _refuse(*factors: object) -> None:
    if all(np.ndim(x) == 2 and min(np.shape(x)) > 1 for x in map(np.asarray, factors)):
        raise AssertionError("A is multiplied with a matrix: never form AᵀA")


def _products(f: F) -> None:
    for shape in ((6, 4), (4, 6)):
        a = _matrix(shape, 0.4)
        sigma = f(a.view(_Watched), 40, np.arange(1.0, shape[1] + 1))[0]
        _close(sigma, linalg.svd(a)[1][0], f"σ₁ of a {shape} matrix")


# --- eigen_svd_pca-3: fit on train, apply to test -------------------------------------


def _rebuilt(train: np.ndarray, test: np.ndarray, share: float) -> np.ndarray:
    mean = train.mean(axis=0)
    lam, v = linalg.eigh(np.cov(train, rowvar=False))
    lam, v = lam[::-1], v[:, ::-1]
    r = next(i for i in range(1, len(lam) + 1) if lam[:i].sum() >= share * lam.sum())
    return mean + (test - mean) @ v[:, :r] @ v[:, :r].T


def _table(n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng()
    turn = linalg.qr(rng.normal(size=(d, d)))[0]
    spread = 2.0 ** -np.arange(d)
    return (rng.normal(size=(n, d)) * spread) @ turn + rng.normal(size=d) * 5


def _compress_values(f: F) -> None:
    for n, d in ((40, 6), (25, 5)):
        table = _table(n + 7, d)
        train, test = table[:n], table[n:] + 0.3
        for share in (0.5, 0.9, 0.99):
            ours = f(train.copy(), test.copy(), share)
            wanted = _rebuilt(train, test, share)
            _close(ours, wanted, f"{n} × {d}, {share:.0%}", 1e-8)


def _compress_one_row(f: F) -> None:
    table = _table(31, 5)
    train, test = table[:30], table[30:]
    _close(f(train, test, 0.9), _rebuilt(train, test, 0.9), "a single test row", 1e-8)


def _compress_exact_share(f: F) -> None:
    # Two directions of variance 4 and 1, exactly: 0.8 needs one, a bit more two.
    train = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    test = np.array([[1.0, 1.0]])
    _close(f(train, test, 0.79), [[1.0, 0.0]], "79 % of variances 4 : 1", 1e-9)
    _close(f(train, test, 0.81), [[1.0, 1.0]], "81 % of variances 4 : 1", 1e-9)


def _compress_wide(f: F) -> None:
    table = _table(9, 12)
    train, test = table[:6], table[6:]
    mean = train.mean(axis=0)
    _, s, vt = linalg.svd(train - mean)
    r = next(i for i in range(1, 6) if (s[:i] ** 2).sum() >= 0.9 * (s**2).sum())
    wanted = mean + (test - mean) @ vt[:r].T @ vt[:r]
    _close(f(train, test, 0.9), wanted, "fewer rows than columns", 1e-8)


# --- eigen_svd_pca-4: oversampling ----------------------------------------------------


def _oversampling(f: F) -> None:
    for r in (2, 5, 20, 64):
        for factor in (1.05, 1.3, 1.9, 3.0, 20.0):
            wanted = next(
                p for p in range(2, 10**5) if np.sqrt(1 + r / (p - 1)) <= factor
            )
            got = f(r, factor)
            if got != wanted:
                raise AssertionError(
                    f"r = {r}, factor {factor}: {got}, wanted {wanted}"
                )


def _oversampling_edge(f: F) -> None:
    # 1 + 9 / 3 = 4 = 2²: the promise is met with equality at p = 4.
    if f(9, 2.0) != 4:
        raise AssertionError(
            f"r = 9, factor 2: {f(9, 2.0)}, wanted 4 (equality counts)"
        )


EXERCISES = {
    "eigen_svd_pca-2": Exercise(
        function="top_singular",
        checks=(
            Check("σ₁, u₁ and v₁", _triple, hint="v turns under AᵀA; u₁ = A v₁ / σ₁."),
            Check("signs", _signs, hint="Turn v first, then compute u from it."),
            Check("n_steps is the number of steps", _steps, hint="0 steps: start."),
            Check(
                "AᵀA is not formed", _products, hint="A.T @ (A @ v), not A.T @ A @ v."
            ),
            Check("no overflow", _tiny, hint="Divide by the length in each step."),
        ),
        equivalent={
            "v * np.sign(v[np.abs(v).argmax()]) → v / np.sign(v[np.abs(v).argmax()])": (
                "dividing by a sign is multiplying with it"
            ),
        },
    ),
    "eigen_svd_pca-3": Exercise(
        function="compress",
        checks=(
            Check("values", _compress_values, hint="Whose mean do you subtract?"),
            Check("a single row", _compress_one_row, hint="Its own mean is itself."),
            Check("the share", _compress_exact_share, hint="Variance is σ², not σ."),
            Check("wide tables", _compress_wide, hint="Use the thin SVD."),
        ),
        equivalent={
            "np.linalg.svd(train - mean, full_matrices=False) → "
            "np.linalg.svd(train - mean)": "the rows it adds come after those kept",
            "False → True": "the rows it adds come after those kept",
        },
    ),
    "eigen_svd_pca-4": Exercise(
        function="oversampling",
        checks=(
            Check("smallest p", _oversampling, hint="Square both sides."),
            Check("equality", _oversampling_edge, hint="At most: ≤."),
        ),
    ),
}

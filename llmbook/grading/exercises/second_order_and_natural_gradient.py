"""Checks of the exercises in ch-second-order-and-natural-gradient."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close, same

F = Callable[..., Any]


def _rotation(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


# --- 1: saddle-free step ---


def _saddle_values(f: F) -> None:
    rng = np.random.default_rng()
    for n in (1, 3, 6):
        Q, g = _rotation(rng, n), rng.normal(size=n)
        values = rng.uniform(0.5, 4.0, n) * rng.choice([-1.0, 1.0], n)
        values[0] = -2.5
        H = Q @ np.diag(values) @ Q.T
        size = Q @ np.diag(np.abs(values)) @ Q.T
        close(f(H, g, 0.1), -np.linalg.solve(size, g), f"{n} curvatures", atol=1e-8)


def _saddle_floor(f: F) -> None:
    rng = np.random.default_rng()
    Q, g = _rotation(rng, 5), rng.normal(size=5)
    H = Q @ np.diag([-3.0, -0.01, 0.0, 0.02, 2.0]) @ Q.T
    for floor in (0.3, 1.5):
        size = np.maximum([3.0, 0.01, 0.0, 0.02, 2.0], floor)
        wanted = -np.linalg.solve(Q @ np.diag(size) @ Q.T, g)
        close(f(H, g, floor), wanted, f"small curvatures, floor {floor}", atol=1e-8)


# --- 2: Fisher-vector product ---


def _fisher_case(f: F, n: int, c: int, size: int, shift: float) -> None:
    rng = np.random.default_rng()
    J, z = rng.normal(size=(n, c, size)), rng.normal(size=(n, c)) * 2
    z[0] += shift
    v = rng.normal(size=size)
    whole = np.zeros((size, size))
    for i in range(n):
        power = np.exp(z[i] - z[i].max())
        p = power / power.sum()
        for k in range(c):  # each label with its probability
            g = J[i].T @ (p - np.eye(c)[k])
            whole += p[k] * np.outer(g, g) / n

    def jvp(w: np.ndarray) -> np.ndarray:
        return np.einsum("nki,i->nk", J, w)

    def vjp(u: np.ndarray) -> np.ndarray:
        u = np.asarray(u)
        if u.shape != (n, c):
            raise AssertionError(f"vjp was given shape {u.shape}, wanted {(n, c)}")
        return np.einsum("nki,nk->i", J, u)

    with np.errstate(all="ignore"):
        ours = f(jvp, vjp, z.copy(), v.copy())
    close(ours, whole @ v, f"{n} examples, {c} classes, {size} weights", atol=1e-8)


def _fisher_values(f: F) -> None:
    for n, c, size in ((4, 3, 6), (1, 2, 5), (3, 5, 3)):
        _fisher_case(f, n, c, size, 0.0)


def _fisher_large(f: F) -> None:
    _fisher_case(f, 3, 4, 5, 1000.0)


# --- 3: natural step in logits ---


def _logits_case(f: F, z: np.ndarray, counts: np.ndarray, lr: float) -> None:
    power = np.exp(z - z.max())
    p = power / power.sum()
    fisher = np.diag(p) - np.outer(p, p)
    gradient = p - counts / counts.sum()
    wanted = z - lr * np.linalg.pinv(fisher, rcond=1e-9) @ gradient
    before = z.copy()
    ours = f(z, counts, lr)
    if not np.array_equal(z, before):
        raise AssertionError("the logits were changed in place")
    close(ours, wanted, f"{len(z)} tokens, lr {lr}", atol=1e-7)


def _logits_values(f: F) -> None:
    rng = np.random.default_rng()
    for n, lr in ((2, 1.0), (3, 0.1), (7, 0.5)):
        counts = rng.integers(0, 9, n)
        counts[0] += 3
        _logits_case(f, rng.normal(size=n) + 1.5, counts, lr)


def _logits_still(f: F) -> None:
    z = np.log([0.2, 0.5, 0.3]) + 4.0
    close(f(z, np.array([2, 5, 3]), 1.0), z, "data that the model already fits")


# --- 4: exact damping of a Kronecker product ---


def _positive(rng: np.random.Generator, n: int, rank: int) -> np.ndarray:
    X = rng.normal(size=(n, rank))
    return X @ X.T / rank


def _kronecker(f: F) -> None:
    rng = np.random.default_rng()
    for m, n in ((3, 5), (4, 2), (1, 3)):
        A, G, V = (
            _positive(rng, n, n + 2),
            _positive(rng, m, m + 2),
            rng.normal(size=(m, n)),
        )
        for damping in (0.03, 1.5):
            dense = np.kron(A, G) + damping * np.eye(m * n)
            x = np.linalg.solve(dense, V.T.reshape(-1))
            wanted = x.reshape(n, m).T
            what = f"V of shape {V.shape}, damping {damping}"
            close(f(A, G, V, damping), wanted, what, atol=1e-7, rtol=1e-7)


def _kronecker_singular(f: F) -> None:
    rng = np.random.default_rng()
    A, G, V = _positive(rng, 6, 2), _positive(rng, 4, 1), rng.normal(size=(4, 6))
    dense = np.kron(A, G) + 0.1 * np.eye(24)
    wanted = np.linalg.solve(dense, V.T.reshape(-1)).reshape(6, 4).T
    close(f(A, G, V, 0.1), wanted, "factors of rank 2 and 1", atol=1e-7)


# --- 5: the cubic Newton–Schulz iteration ---


def _cubic_steps(G: np.ndarray, tol: float) -> int:
    """Steps from the singular values alone; tol is met with room on either side."""
    U, s, Vt = np.linalg.svd(G, full_matrices=False)
    Q = U if G.shape[0] <= G.shape[1] else Vt.T
    s = s / np.sqrt(np.sum(s**2))
    for n_steps in range(200):
        if np.abs((Q * s**2) @ Q.T - np.eye(len(s))).max() <= tol:
            return n_steps
        s = s * (3 - s**2) / 2
    raise RuntimeError("no convergence")


def _patience(tol: float) -> np.float64:
    """A tolerance that can be asked 300 times: an endless loop fails, not hangs."""
    asked = 0

    def counted(compare: F) -> F:
        def ask(_: object, other: float) -> bool:
            nonlocal asked
            asked += 1
            if asked > 300:
                raise AssertionError(f"tol = {tol:g} was not met in 300 tests of it")
            return compare(tol, other)

        return ask

    names = ("lt", "le", "gt", "ge")
    body = {f"__{name}__": counted(getattr(operator, name)) for name in names}
    return type("Patience", (np.float64,), body)(tol)


def _polar_cases(f: F, cases: tuple[tuple[int, int], ...], tol: float) -> None:
    rng = np.random.default_rng()
    for m, n in cases:
        G = rng.normal(size=(m, n)) * 7.0
        U, _, Vt = np.linalg.svd(G, full_matrices=False)
        X, n_steps = f(G.copy(), _patience(tol))
        what = f"shape {(m, n)}, tol {tol}"
        same(n_steps, np.array(_cubic_steps(G, tol)), f"steps, {what}")
        close(X, U @ Vt, what, atol=2 * tol)


def _polar_wide(f: F) -> None:
    _polar_cases(f, ((3, 7), (1, 4), (4, 4)), 1e-6)


def _polar_tall(f: F) -> None:
    _polar_cases(f, ((6, 3), (5, 1)), 1e-6)


def _polar_loose(f: F) -> None:
    rng = np.random.default_rng()
    G = np.diag([2.0, 2.0, 2.0]) @ _rotation(rng, 3)
    for tol in (0.05, 0.2):
        same(
            f(G, _patience(tol))[1], np.array(_cubic_steps(G, tol)), f"steps, tol {tol}"
        )
    done = np.eye(1, 5) * 3.0  # one row: its norm makes it orthogonal at once
    X, n_steps = f(done, _patience(0.0))  # met exactly
    same(n_steps, np.array(0), "steps for a single row")
    close(X, np.eye(1, 5), "a single row")


EXERCISES = {
    "second_order_and_natural_gradient-1": Exercise(
        function="saddle_free_step",
        checks=(
            Check("curvatures of both signs", _saddle_values, hint="Divide by |λ|."),
            Check("the floor", _saddle_floor, hint="The floor applies to |λ|, not λ."),
        ),
    ),
    "second_order_and_natural_gradient-2": Exercise(
        function="fisher_product",
        checks=(
            Check(
                "equals the enumerated Fisher",
                _fisher_values,
                hint="Jv, then diag(p) − p pᵀ for each example, then Jᵀ; a mean.",
            ),
            Check("large logits", _fisher_large, hint="Subtract each row's maximum."),
        ),
    ),
    "second_order_and_natural_gradient-3": Exercise(
        function="natural_logits",
        checks=(
            Check(
                "equals the pseudo-inverse",
                _logits_values,
                hint="Which x solves (diag(p) − p pᵀ) x = p − q? Then remove its mean.",
            ),
            Check("no step at the fit", _logits_still, hint="There q / p is one."),
        ),
    ),
    "second_order_and_natural_gradient-4": Exercise(
        function="damped_solve",
        checks=(
            Check(
                "equals the dense solve",
                _kronecker,
                hint="(A ⊗ G) vec(X) is vec(G X A): which side does each basis go on?",
            ),
            Check(
                "singular factors",
                _kronecker_singular,
                hint="The damping is added to each product of eigenvalues.",
            ),
        ),
    ),
    "second_order_and_natural_gradient-5": Exercise(
        function="polar",
        checks=(
            Check("wide and square", _polar_wide, hint="X Xᵀ has the shorter side."),
            Check("tall", _polar_tall, hint="Iterate on the transpose."),
            Check("stops in time", _polar_loose, hint="Test before each step."),
        ),
    ),
}

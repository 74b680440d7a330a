"""Checks of the exercises in ch-learning-paradigms, with references of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- learning_paradigms-1: one EM step for round clusters ----------------------------


def _round_step(
    X: np.ndarray, means: np.ndarray, variance: float
) -> tuple[np.ndarray, float]:
    """One step, a point at a time, in extended precision."""
    X, means = X.astype(np.longdouble), means.astype(np.longdouble)
    rows = []
    for x in X:
        log = np.array([-np.sum((x - m) ** 2) / (2 * variance) for m in means])
        powers = np.exp(log - log.max())
        rows.append(powers / powers.sum())
    r = np.array(rows)  # (N, k)
    new = np.array([np.average(X, axis=0, weights=w) for w in r.T])
    total = sum(
        r[i, j] * np.sum((X[i] - new[j]) ** 2)
        for i in range(len(X))
        for j in range(len(new))
    )
    return new.astype(float), float(total / (X.shape[0] * X.shape[1]))


def _compare_step(
    f: F, X: np.ndarray, means: np.ndarray, variance: float, what: str
) -> None:
    kept, kept_means = X.copy(), means.copy()
    answer = f(X, means, variance)
    if not (np.array_equal(X, kept) and np.array_equal(means, kept_means)):
        raise AssertionError("your function changed its arguments in place")
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise AssertionError("wanted two results: the means and the variance")
    wanted = _round_step(X, means, variance)
    close(answer[0], wanted[0], f"means, {what}", atol=1e-9, rtol=1e-9)
    close(answer[1], wanted[1], f"variance, {what}", atol=1e-9, rtol=1e-9)


def _round_values(f: F) -> None:
    rng = np.random.default_rng()
    for n, d, k in ((7, 2, 3), (5, 4, 2), (9, 1, 4)):
        X, means = rng.normal(size=(n, d)), rng.normal(size=(k, d))
        variance = float(rng.uniform(0.5, 2.0))
        what = f"{n} points in {d} dimensions, {k} means"
        _compare_step(f, X, means, variance, what)


def _round_far(f: F) -> None:
    rng = np.random.default_rng()
    X = rng.normal(size=(6, 3)) + 1e3
    means = np.stack([np.zeros(3), np.full(3, 5.0)])
    means[1] += rng.normal(size=3)
    with np.errstate(all="ignore"):
        # The second mean takes all points; keep the first from an empty sum.
        _compare_step(f, np.vstack([X, np.zeros((1, 3))]), means, 0.7, "far points")


# --- learning_paradigms-2: value iteration with a bound -------------------------------


def _world(S: int, A: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    P = rng.random((S, A, S)) ** 3
    return P / P.sum(axis=2, keepdims=True), rng.normal(size=(S, A))


def _sweeps(P: np.ndarray, R: np.ndarray, gamma: float, tol: float) -> np.ndarray:
    """By loops; the bound is compared without a division."""
    S, A = R.shape
    old = np.zeros(S)
    while True:
        new = np.array(
            [
                max(R[s, a] + gamma * float(P[s, a] @ old) for a in range(A))
                for s in range(S)
            ]
        )
        if gamma * np.max(np.abs(new - old)) <= tol * (1 - gamma):
            return new
        old = new


def _values_agree(f: F) -> None:
    for S, A, gamma, tol in ((4, 3, 0.6, 1e-3), (3, 2, 0.3, 1e-2), (5, 2, 0.7, 0.3)):
        P, R = _world(S, A)
        ours = f(P, R, gamma, tol)
        what = f"{S} states, {A} moves, γ = {gamma}, tol = {tol}"
        close(ours, _sweeps(P, R, gamma, tol), what)


def _values_slow(f: F) -> None:
    P, R = np.ones((1, 1, 1)), np.ones((1, 1))
    for gamma in (0.9, 0.97):
        error = abs(float(np.asarray(f(P, R, gamma, 0.5))[0]) - 1 / (1 - gamma))
        if not error <= 0.5 + 1e-9:
            raise AssertionError(f"γ = {gamma}, tol = 0.5: the error is {error:.2f}")
    P, R = _world(3, 2)
    close(f(P, R, 0.9, 0.5), _sweeps(P, R, 0.9, 0.5), "γ = 0.9, tol = 0.5")


def _values_edge(f: F) -> None:
    P, R = np.ones((1, 1, 1)), np.ones((1, 1))
    # γ = 1/2: V_k = 2 - 2^(1-k) and the bound is 2^(1-k), both without rounding.
    close(f(P, R, 0.5, 0.25), [1.75], "a bound that equals tol")
    close(f(P, -R, 0.5, 0.25), [-1.75], "negative rewards")
    close(f(P, R, 0.5, 50.0), [1.0], "a tolerance that one sweep meets")
    # Beside it a state that pays nothing: its value never changes.
    stay, pay = np.eye(2)[:, None, :], np.array([[0.0], [1.0]])
    close(f(stay, pay, 0.5, 0.25), [0.0, 1.75], "one state of two is still at once")


# --- learning_paradigms-3: leave-one-out policy gradient ------------------------------


def _group(actions: np.ndarray, rewards: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Answer by answer, with the policy that ought to cancel."""
    p = np.exp(logits - logits.max())
    p = p / p.sum()
    total = np.zeros(len(logits))
    for i, a in enumerate(actions):
        others = np.delete(rewards, i).mean()
        slope = -p.copy()
        slope[a] += 1.0
        total += (rewards[i] - others) * slope
    return total / len(actions)


def _group_values(f: F) -> None:
    rng = np.random.default_rng()
    for G, n in ((5, 3), (8, 4), (2, 6)):
        actions, rewards = rng.integers(n, size=G), rng.normal(size=G)
        wanted = _group(actions, rewards, rng.normal(size=n))
        close(f(actions, rewards, n), wanted, f"{G} answers, {n} possible ones")


def _group_two(f: F) -> None:
    actions, rewards = np.array([0, 2]), np.array([1.0, 0.0])
    close(f(actions, rewards, 3), [0.5, 0.0, -0.5], "one right of two answers")
    same = np.array([1, 1, 3])
    close(f(same, np.full(3, 0.7), 4), np.zeros(4), "all rewards equal")


def _group_shift(f: F) -> None:
    rng = np.random.default_rng()
    actions, rewards = rng.integers(4, size=6), rng.normal(size=6)
    wanted = _group(actions, rewards, np.zeros(4))
    close(f(actions, rewards + 10.0, 4), wanted, "10 added to every reward")


EXERCISES = {
    "learning_paradigms-1": Exercise(
        function="round_em_step",
        checks=(
            Check(
                "means and variance of one step",
                _round_values,
                hint="Responsibilities by the old means, squares around the new ones, "
                "one mean square per coordinate.",
            ),
            Check(
                "points far from every mean",
                _round_far,
                hint="A softmax that subtracts its maximum does not underflow.",
            ),
        ),
    ),
    "learning_paradigms-2": Exercise(
        function="values_within",
        checks=(
            Check(
                "the first table within tol",
                _values_agree,
                hint="Sweep, then bound the error by γ / (1 - γ) times the change.",
            ),
            Check(
                "a discount near 1",
                _values_slow,
                hint="A small change is not a small error: the factor is γ / (1 - γ).",
            ),
            Check(
                "a bound that equals tol is small enough",
                _values_edge,
                hint="'At most tol' includes tol; at least one sweep is made.",
            ),
        ),
    ),
    "learning_paradigms-3": Exercise(
        function="group_gradient",
        checks=(
            Check(
                "every answer against the others",
                _group_values,
                hint="Leave the answer itself out of its own baseline.",
            ),
            Check(
                "two answers, and equal rewards",
                _group_two,
                hint="With two answers each is the other's baseline.",
            ),
            Check(
                "a constant added to all rewards",
                _group_shift,
                hint="It must cancel between a reward and its baseline.",
            ),
        ),
    ),
}

"""Checks for the exercises of chapter 1.10, learning_rate_limit."""

import math
from collections.abc import Callable

import numpy as np

from llmbook.grading import Check, Exercise

# --- learning-rate-limit-1: steps until the error passes a limit --------------------


def _simulated(lr: float, curvature: float, distance: float, limit: float) -> int:
    steps, w = 0, distance
    while abs(w) < limit:
        w -= lr * curvature * w
        steps += 1
    return steps


def _steps(f: Callable[..., float]) -> None:
    for case in [
        (0.7, 4.0, 1e-3, 10.0),
        (0.31, 7.0, 0.02, 5e3),
        (3.0, 1.0, 0.5, 1e6),
        (0.05, 43.0, 2.0, 300.0),
        (0.2, 10.6, 1e-6, 1.0),
        (6.0, 1.0, 1.0, 125.0),  # reaches the limit exactly: a logarithm overshoots
        (0.501, 4.0, 1e-3, 10.0),  # slow growth: more than two thousand steps
    ]:
        want, got = _simulated(*case), f(*case)
        assert got == want, f"f{case}: a simulation needs {want} steps, got {got}"


def _stable(f: Callable[..., float]) -> None:
    for lr, curvature in [(0.1, 4.0), (0.49, 4.0), (0.25, 4.0), (0.5, 4.0), (0.3, 0.0)]:
        got = f(lr, curvature, 0.1, 100.0)
        assert got == math.inf, (
            f"lr {lr}, curvature {curvature}: the error never grows, got {got}"
        )


def _downhill(f: Callable[..., float]) -> None:
    case = (0.2, -3.0, 0.01, 7.0)
    want, got = _simulated(*case), f(*case)
    assert got == want, f"negative curvature, f{case}: expected {want}, got {got}"


# --- learning-rate-limit-2: the rate at which one step stops helping -----------------


def _parabola(slope: float, curvature: float) -> Callable[[float], float]:
    return lambda lr: 3.0 - slope * lr + curvature * lr**2 / 2


def _parabolas(f: Callable[..., float]) -> None:
    for slope, curvature, rate in [(1.0, 2.0, 0.1), (4.0, 0.5, 1.0), (0.3, 7.0, 2.0)]:
        want = 2 * slope / curvature
        got = f(_parabola(slope, curvature), rate)
        assert abs(got - want) < 1e-6 * want, (
            f"a parabola that rises above its start at {want:.6f}: got {got}"
        )


def _first_crossing(f: Callable[..., float]) -> None:
    def bump(lr: float) -> float:
        return 1.0 if 1.6 < lr < 2.8 or lr > 9.1 else -1.0 if lr > 0 else 0.0

    got = f(bump, 1.0)
    assert abs(got - 1.6) < 1e-6, (
        "a loss above its start between 1.6 and 2.8 and again beyond 9.1, tried "
        f"first at 1: doubling finds 1.6, got {got}"
    )


def _plateau(f: Callable[..., float]) -> None:
    got = f(lambda lr: max(0.0, lr - 1.0), 0.3)
    assert abs(got - 1.0) < 1e-6, (
        f"a loss equal to its start up to 1 has not risen before 1, got {got}"
    )


def _bracket(f: Callable[..., float]) -> None:
    got = f(_parabola(1.0, 0.6), 1.0, 4)  # crosses at 10/3, bracket 2 to 4
    assert got == 3.375, (
        "first rate 1, crossing at 3.33: the bracket is 2 to 4, after 4 halvings "
        f"3.25 to 3.375, and the answer its upper end; got {got}"
    )


def _default(f: Callable[..., float]) -> None:
    calls = []

    def loss(lr: float) -> float:
        calls.append(lr)
        return _parabola(1.0, 3.0)(lr)

    f(loss, 1.0)  # crosses at 2/3: one call at 0, one at 1, then the halvings
    assert len(calls) == 42, f"1 call at 0, 1 at 1, 40 halvings; got {len(calls)} calls"
    assert calls[0] == 0, f"the loss to compare with is at 0, yours is at {calls[0]}"


# --- learning-rate-limit-3: Nesterov's limit ----------------------------------------


def _radius(lr: float, curvature: float, beta: float) -> float:
    keep = 1 - lr * curvature
    matrix = np.array([[(1 + beta) * keep, -beta * keep], [1.0, 0.0]])
    return float(abs(np.linalg.eigvals(matrix)).max())


def _bisected(curvature: float, beta: float) -> float:
    low, high = 0.0, 4 / curvature
    for _ in range(60):
        middle = (low + high) / 2
        stable = _radius(middle, curvature, beta) < 1
        low, high = (middle, high) if stable else (low, middle)
    return low


def _nesterov(f: Callable[..., float]) -> None:
    for curvature, beta in [(4.0, 0.9), (0.3, 0.5), (11.0, 0.99), (2.0, 0.2)]:
        want, got = _bisected(curvature, beta), f([curvature], beta)
        assert abs(got - want) < 1e-6 * want, (
            f"curvature {curvature}, momentum {beta}: the step matrix becomes unstable "
            f"at {want:.6f}, got {got}"
        )


def _no_momentum(f: Callable[..., float]) -> None:
    got = f([5.0], 0.0)
    assert abs(got - 0.4) < 1e-9, f"without momentum: 2/5, got {got}"


def _all_modes(f: Callable[..., float]) -> None:
    want, got = _bisected(8.0, 0.6), f(np.array([3.0, 8.0, 0.1]), 0.6)
    assert abs(got - want) < 1e-6 * want, (
        f"curvatures 3, 8, 0.1, momentum 0.6: the limit is {want:.6f}, got {got}"
    )


EXERCISES = {
    "learning_rate_limit-1": Exercise(
        function="steps_to_reach",
        checks=(
            Check("diverging runs", _steps, hint="The error is multiplied every step."),
            Check("stable runs", _stable, hint="What if the factor is exactly 1?"),
            Check("negative curvature", _downhill, hint="The factor is |1 − ηλ|."),
        ),
    ),
    "learning_rate_limit-2": Exercise(
        function="critical_rate",
        checks=(
            Check("parabolas", _parabolas, hint="Bracket the crossing, then halve."),
            Check("the first crossing", _first_crossing, hint="Double, not more."),
            Check("a flat start", _plateau, hint="Equal is not higher."),
            Check("a known bracket", _bracket, hint="The lower end is the last good."),
            Check("number of passes", _default, hint="One forward pass per halving."),
        ),
    ),
    "learning_rate_limit-3": Exercise(
        function="nesterov_limit",
        checks=(
            Check("against the step matrix", _nesterov, hint="Set its root to −1."),
            Check("no momentum", _no_momentum, hint="It must reduce to 2/λ."),
            Check("several modes", _all_modes, hint="Which mode breaks first?"),
        ),
    ),
}

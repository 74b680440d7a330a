"""Checks of the exercises in ch-pretraining-run, against independent references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise

F = Callable[..., Any]


def _number(value: object, wanted: float, what: str, rtol: float = 1e-9) -> None:
    if not isinstance(value, (int, float, np.number)):
        raise AssertionError(f"{what}: returned {type(value).__name__}, not a number")
    if not np.isclose(float(value), wanted, rtol=rtol, atol=0):
        raise AssertionError(f"{what}: {float(value):.6g}, wanted {wanted:.6g}")


# --- pretraining-run-1: warmup, plateau, cooldown -----------------------------------


def _shape(n_steps: int, lr: float, warmup: int, cooldown: int) -> list[float]:
    """The whole schedule by laying out its three parts."""
    up = [lr * i / (warmup + 1) for i in range(1, warmup + 1)]
    down = [lr * i / (cooldown + 1) for i in range(cooldown, 0, -1)]
    return up + [lr] * (n_steps - warmup - cooldown) + down


def _schedule(f: F, n_steps: int, warmup: int, cooldown: int) -> None:
    lr = float(np.random.default_rng().uniform(1e-4, 1e-2))
    for step, wanted in enumerate(_shape(n_steps, lr, warmup, cooldown)):
        what = f"step {step} of {n_steps}, warmup {warmup}, cooldown {cooldown}"
        _number(f(step, n_steps, lr, warmup, cooldown), wanted, what)


def _three_parts(f: F) -> None:
    _schedule(f, 40, 7, 12)


def _edges(f: F) -> None:
    _schedule(f, 9, 0, 3)
    _schedule(f, 9, 3, 0)
    _schedule(f, 6, 0, 0)


# --- pretraining-run-2: the best size for a budget ----------------------------------


def _laws() -> list[tuple[float, ...]]:
    rng = np.random.default_rng()
    return [
        (
            10 ** rng.uniform(16, 22),
            rng.uniform(100, 500),
            rng.uniform(0.25, 0.4),
            rng.uniform(100, 900),
            rng.uniform(0.45, 0.6),
        )
        for _ in range(4)
    ]


def _budget_spent(f: F) -> None:
    for flops, *law in _laws():
        n, k = f(flops, *law)
        _number(6 * n * k, flops, "6 N K for the N and K you return, in FLOPs")


def _no_better(f: F) -> None:
    for flops, A, a, B, b in _laws():
        n, _ = f(flops, A, a, B, b)
        if not (isinstance(n, (float, np.floating)) and 0 < n < np.inf):
            raise AssertionError(f"N = {n!r} is no positive number")

        def loss(size: float) -> float:
            return A / size**a + B / (flops / 6 / size) ** b  # noqa: B023

        grid = np.exp(np.linspace(np.log(1e2), np.log(flops / 1e2), 4001))
        best = grid[np.argmin([loss(size) for size in grid])]
        if not abs(np.log(n / best)) < 0.05:
            raise AssertionError(f"a search finds N = {best:.3g}, yours is {n:.3g}")
        here = loss(float(n))
        if any(loss(float(n) * factor) < here for factor in (0.999, 1.001)):
            raise AssertionError("a neighbouring N has a lower loss at the same budget")


# --- pretraining-run-3: epochs that survive a restart -------------------------------


def _order(f: F) -> None:
    for n_windows, batch_size, seed in ((10, 3, 0), (12, 4, 5), (7, 7, 1), (9, 1, 2)):
        lots = n_windows // batch_size
        for epoch in range(3):
            order = np.random.default_rng((seed, epoch)).permutation(n_windows)
            for i in range(lots):
                ours = np.asarray(f(epoch * lots + i, batch_size, n_windows, seed))
                wanted = order[i * batch_size : (i + 1) * batch_size]
                what = f"step {epoch * lots + i}, {n_windows} windows, seed {seed}"
                if ours.shape != (batch_size,):
                    raise AssertionError(f"{what}: shape {ours.shape}")
                if not np.array_equal(ours, wanted):
                    raise AssertionError(f"{what}: {ours}, wanted {wanted}")


def _once(f: F) -> None:
    rows = [np.asarray(f(step, 4, 22, 3)) for step in range(10)]
    for epoch in (rows[:5], rows[5:]):
        seen = np.concatenate(epoch)
        if len(np.unique(seen)) != 20:
            raise AssertionError("a window comes twice within an epoch")
    if np.array_equal(rows[0], rows[5]):
        raise AssertionError("the second epoch repeats the order of the first")


def _any_start(f: F) -> None:
    forward = [np.array(f(step, 2, 9, 1)) for step in range(8)]
    backward = [np.array(f(step, 2, 9, 1)) for step in reversed(range(8))][::-1]
    if not all(np.array_equal(a, b) for a, b in zip(forward, backward, strict=True)):
        raise AssertionError("the windows of a step depend on the calls before it")


EXERCISES = {
    "pretraining_run-1": Exercise(
        function="trapezoid",
        checks=(
            Check(
                "rises, stays, falls",
                _three_parts,
                hint="the rate is the lowest of three: the ramp up, lr, the ramp down",
            ),
            Check(
                "no warmup, no cooldown",
                _edges,
                hint="with a ramp of length 0 the first or last step has the full lr",
            ),
        ),
    ),
    "pretraining_run-2": Exercise(
        function="best_size",
        checks=(
            Check(
                "the budget is spent",
                _budget_spent,
                hint="return N and then K = C / (6 N)",
            ),
            Check(
                "no other size is better",
                _no_better,
                hint="put K = C / (6 N) into the law and set the slope in N to zero",
            ),
        ),
    ),
    "pretraining_run-3": Exercise(
        function="windows_of",
        checks=(
            Check(
                "the permutation of the epoch, in slices",
                _order,
                hint="divmod(step, batches per epoch) gives epoch and place",
            ),
            Check(
                "each window at most once an epoch",
                _once,
                hint="leave out an incomplete last batch; reorder each epoch",
            ),
            Check(
                "a step needs no step before it",
                _any_start,
                hint="make the generator inside, from the seed and the epoch",
            ),
        ),
    ),
}

"""Checks of the exercises in ch-learning-rate-schedules."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- learning_rate_schedules-1: cosine to a floor ---------------------------------


def _cosine_warmup(f: F) -> None:
    for warmup, peak in ((4, 0.5), (7, 2.0)):
        for t in range(warmup):
            wanted = peak * (t + 1) / (warmup + 1)
            close(f(t, 40, warmup, peak, 0.1), wanted, f"step {t} of {warmup} warmup")
        close(f(warmup, 40, warmup, peak, 0.1), peak, "the end of the warmup")


def _cosine_decay(f: F) -> None:
    for n_steps, warmup, peak, floor in ((40, 4, 0.5, 0.1), (33, 0, 3.0, 0.0)):
        for t in range(warmup, n_steps + 1, 3):
            angle = math.pi * (t - warmup) / (n_steps - warmup)
            # Half-angle form of the same curve.
            wanted = floor + (peak - floor) * math.cos(angle / 2) ** 2
            close(f(t, n_steps, warmup, peak, floor), wanted, f"step {t} of {n_steps}")


def _cosine_after(f: F) -> None:
    for t in (40, 41, 60, 90):
        close(f(t, 40, 4, 0.5, 0.1), 0.1, f"step {t} of 40")


# --- learning_rate_schedules-2: branches ------------------------------------------


def _branch_reference(t: int, warmup: int, starts: list[int], length: int) -> list:
    out = []
    for start in starts:
        if t < warmup:
            out.append(t / warmup)
        elif t <= start:
            out.append(1.0)
        elif t >= start + length:
            out.append(0.0)
        else:
            out.append(1.0 - math.sqrt((t - start) / length))
    return out


def _branch_all(f: F) -> None:
    for warmup, starts, length in ((5, [5, 20, 33], 8), (3, [10, 4], 5)):
        for t in range(50):
            wanted = _branch_reference(t, warmup, starts, length)
            close(f(t, warmup, starts, length), wanted, f"step {t}, starts {starts}")


def _branch_edges(f: F) -> None:
    close(f(0, 4, [9], 3), [0.0], "the first step of the warmup")
    close(f(4, 4, [4, 9], 4), [1.0, 1.0], "the end of the warmup, a branch there")
    close(f(5, 4, [4, 9], 4), [0.5, 1.0], "one step later")
    close(f(0, 0, [0, 2], 4), [1.0, 1.0], "no warmup at all")


# --- learning_rate_schedules-3: the best constant rate ----------------------------


def _loss_reference(lam: np.ndarray, s: float, n_steps: int, lr: float) -> float:
    # Closed form of the recursion: geometric decay towards its fixed point.
    total = 0.0
    for curvature in lam:
        r = (1 - lr * curvature) ** 2
        total += curvature * (r**n_steps + (lr * s) ** 2 * (1 - r**n_steps) / (1 - r))
    return total / 2


def _constant_values(f: F) -> None:
    rng = np.random.default_rng(5)
    rates = np.geomspace(0.003, 1.3, 60)
    seen = set()
    for n_steps in (1, 2, 7, 40, 300):
        for s in (0.02, 0.3, 1.5):
            lam = rng.uniform(0.05, 1.4, size=6)
            losses = [_loss_reference(lam, s, n_steps, lr) for lr in rates]
            wanted = rates[int(np.argmin(losses))]
            seen.add(wanted)
            what = f"{n_steps} steps, s = {s}"
            close(f(lam.tolist(), s, n_steps, rates.tolist()), wanted, what)
    assert len(seen) > 5


def _constant_order(f: F) -> None:
    rates = [0.9, 0.01, 0.3]
    wanted = min(rates, key=lambda lr: _loss_reference(np.array([1.0]), 0.5, 9, lr))
    close(f([1.0], 0.5, 9, rates), wanted, "rates in no order, one curvature")


EXERCISES = {
    "learning_rate_schedules-1": Exercise(
        function="cosine_lr",
        checks=(
            Check("warmup", _cosine_warmup, hint="(t + 1) / (warmup + 1)."),
            Check("decay", _cosine_decay, hint="Scale between floor and peak."),
            Check("after the end", _cosine_after, hint="Progress stops at 1."),
        ),
        equivalent={
            "t < warmup → t <= warmup": "both lines give the peak at t = warmup",
        },
    ),
    "learning_rate_schedules-2": Exercise(
        function="branch",
        checks=(
            Check("three branches", _branch_all, hint="Clip the progress to 0…1."),
            Check("edges", _branch_edges, hint="At its start a branch is at 1."),
        ),
    ),
    "learning_rate_schedules-3": Exercise(
        function="best_constant",
        checks=(
            Check("values", _constant_values, hint="The noise term is η² s²."),
            Check("order", _constant_order, hint="Return the rate, not its index."),
        ),
    ),
}

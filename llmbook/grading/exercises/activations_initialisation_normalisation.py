"""Checks of the exercises in ch-activations-initialisation-normalisation.

References are written independently of the solutions: loops over layers, layers run
one after the other, whole batches, and central differences.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- 1: how deep a gradient carries -------------------------------------------------


def _by_layers(chi: float, smallest: float) -> int:
    """Add layers one by one until the root mean square is too small."""
    n_layers, root = 0, chi**0.5
    while root >= smallest:
        n_layers, root = n_layers + 1, root * chi**0.5
    return n_layers


def _depth_values(f: F) -> None:
    for chi, smallest in ((1 / 6, 6e-5), (0.9, 0.01), (0.5, 0.011), (0.03, 1e-9)):
        wanted = _by_layers(chi, smallest)
        close(f(chi, smallest), wanted, f"chi {chi:.3g}, smallest {smallest:g}")


def _depth_shallow(f: F) -> None:
    for chi, smallest in ((0.01, 0.5), (0.3, 0.5), (0.26, 0.5)):
        wanted = _by_layers(chi, smallest)
        close(f(chi, smallest), wanted, f"chi {chi:g}, smallest {smallest:g}")


def _depth_endless(f: F) -> None:
    for chi in (1.0, 1.47, 2.5):
        with np.errstate(all="ignore"):
            close(f(chi, 0.01), np.inf, f"chi {chi:g}")


# --- 2: fold batch norm -------------------------------------------------------------


def _fold(f: F, n_in: int, n_out: int, eps: float, var: float = 1.0) -> None:
    rng = np.random.default_rng()
    W, x = rng.normal(size=(n_in, n_out)), rng.normal(size=(7, n_in))
    b, gain, shift, mean = rng.normal(size=(4, n_out))
    variance = var * rng.uniform(0.2, 3.0, n_out)
    kept = [a.copy() for a in (W, b, gain, shift, mean, variance)]
    new_W, new_b = f(W, b, gain, shift, mean, variance, eps)
    what = f"{n_in} inputs, {n_out} outputs, eps {eps:g}"
    close(np.shape(new_W), (n_in, n_out), f"shape of the new W, {what}")
    close(np.shape(new_b), (n_out,), f"shape of the new b, {what}")
    wanted = np.array(
        [
            [
                gain[j] * (row @ W[:, j] + b[j] - mean[j]) / (variance[j] + eps) ** 0.5
                + shift[j]
                for j in range(n_out)
            ]
            for row in x
        ]
    )
    close(x @ new_W + new_b, wanted, f"outputs, {what}", rtol=1e-9)
    now = (W, b, gain, shift, mean, variance)
    if not all(np.array_equal(a, c) for a, c in zip(kept, now, strict=True)):
        raise AssertionError("your function changed its arguments in place")


def _fold_values(f: F) -> None:
    for n_in, n_out in ((5, 3), (2, 6), (4, 4)):
        _fold(f, n_in, n_out, 1e-5)


def _fold_eps(f: F) -> None:
    _fold(f, 3, 4, 0.5)
    _fold(f, 3, 4, 1e-3, var=1e-4)


# --- 3: merge moments ---------------------------------------------------------------


def _merge(f: F, counts: tuple[int, ...], channels: int, shift: float) -> None:
    rng = np.random.default_rng()
    parts = [
        rng.normal(size=(n, channels)) * rng.uniform(0.5, 2)
        + shift * rng.normal(size=channels)
        for n in counts
    ]
    means = np.array([p.mean(0) for p in parts])
    variances = np.array([p.var(0) for p in parts])
    whole = np.concatenate(parts)
    wanted = (whole.mean(0), whole.var(0), whole.var(0, ddof=1))
    names = ("mean", "biased variance", "unbiased variance")
    ours = f(means, variances, np.array(counts))
    for name, a, b in zip(names, ours, wanted, strict=True):
        close(a, b, f"{name} of parts of {counts}", rtol=1e-9)


def _merge_even(f: F) -> None:
    _merge(f, (5, 5, 5), 4, 0.0)


def _merge_uneven(f: F) -> None:
    for counts in ((2, 9), (1, 4, 3), (6, 2, 11, 1)):
        _merge(f, counts, 3, 3.0)


def _merge_one(f: F) -> None:
    _merge(f, (7,), 2, 1.0)


# --- 4: group norm, backward --------------------------------------------------------


def _group_norm(x: np.ndarray, n_groups: int, eps: float) -> np.ndarray:
    """Forward, one example and one group at a time."""
    out, width = np.empty_like(x), x.shape[1] // n_groups
    for i in range(len(x)):
        for k in range(n_groups):
            part = x[i, k * width : (k + 1) * width]
            spread = (np.mean((part - part.mean()) ** 2) + eps) ** 0.5
            out[i, k * width : (k + 1) * width] = (part - part.mean()) / spread
    return out


def _group(f: F, shape: tuple[int, ...], n_groups: int, eps: float) -> None:
    rng = np.random.default_rng()
    x = rng.normal(size=shape) * 1.5 + 2.0
    grad = rng.normal(size=shape) + 0.5
    wanted, step = np.empty(shape), 1e-5
    for i in np.ndindex(shape):
        values = []
        for sign in (1, -1):
            moved = x.copy()
            moved[i] += sign * step
            values.append((grad * _group_norm(moved, n_groups, eps)).sum())
        wanted[i] = (values[0] - values[1]) / (2 * step)
    ours = f(grad.copy(), x.copy(), n_groups, eps)
    close(ours, wanted, f"x of shape {shape}, {n_groups} groups", atol=2e-6)


def _group_values(f: F) -> None:
    _group(f, (2, 6, 3), 3, 1e-5)
    _group(f, (3, 4, 2), 2, 1e-5)


def _group_extremes(f: F) -> None:
    _group(f, (2, 4, 3), 1, 1e-5)
    _group(f, (2, 3, 5), 3, 1e-5)


def _group_eps(f: F) -> None:
    _group(f, (2, 4, 3), 2, 2.0)


EXERCISES = {
    "activations_initialisation_normalisation-1": Exercise(
        function="deepest",
        checks=(
            Check(
                "values",
                _depth_values,
                hint="chi is a factor of the mean square; its root acts per layer.",
            ),
            Check(
                "a factor of one or more",
                _depth_endless,
                hint="Such a gradient never falls below the bound.",
            ),
            Check(
                "few layers",
                _depth_shallow,
                hint="The gradient must still be large enough: round down.",
            ),
        ),
    ),
    "activations_initialisation_normalisation-2": Exercise(
        function="fold",
        checks=(
            Check(
                "the same outputs",
                _fold_values,
                hint="Write out gain (x W + b - mean) / root + shift, and collect x.",
            ),
            Check(
                "epsilon inside the root",
                _fold_eps,
                hint="Batch norm divides by the root of (var + eps).",
            ),
        ),
    ),
    "activations_initialisation_normalisation-3": Exercise(
        function="merge",
        checks=(
            Check(
                "parts of equal size",
                _merge_even,
                hint="Unbiased: n / (n - 1) times biased, n being the whole batch.",
            ),
            Check(
                "parts of different sizes and means",
                _merge_uneven,
                hint="Weigh by counts, and add the spread of the means.",
            ),
            Check("a single part", _merge_one, hint="It must come back unchanged."),
        ),
    ),
    "activations_initialisation_normalisation-4": Exercise(
        function="group_backward",
        checks=(
            Check(
                "central differences",
                _group_values,
                hint="A group is n_groups consecutive blocks of channels, all places.",
            ),
            Check(
                "one group, and a group per channel",
                _group_extremes,
                hint="The means run over channels of the group and places together.",
            ),
            Check(
                "a large epsilon",
                _group_eps,
                hint="Epsilon belongs under the root, in both uses of it.",
            ),
        ),
    ),
}

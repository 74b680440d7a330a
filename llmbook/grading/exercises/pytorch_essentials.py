"""Checks of the exercises in ch-pytorch-essentials, against references by loops."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- pytorch_essentials-1: a root with slopes ---------------------------------------


def _roots(f: F, shape: tuple[int, ...]) -> tuple[Any, Any, np.ndarray]:
    """Return values, slopes under random weights, and the entries."""
    rng = np.random.default_rng()
    x = rng.normal(size=shape)
    x.flat[0], x.flat[1], x.flat[2] = 0.0, -0.4, 0.3
    weights = rng.uniform(1, 2, shape)
    leaf = torch.tensor(x, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True):
        values = f(leaf)
        if not isinstance(values, torch.Tensor):
            raise AssertionError(f"a tensor is wanted, not {type(values).__name__}")
        loss = (values * torch.tensor(weights)).sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the stack that anomaly mode shows
            try:
                loss.backward()
            except RuntimeError as error:
                raise AssertionError(f"in the backward pass: {error}") from error
    slopes = np.zeros(shape) if leaf.grad is None else leaf.grad.numpy() / weights
    return values.detach().numpy(), slopes, x


def _root_values(f: F) -> None:
    for shape in ((7,), (2, 3), (2, 2, 2)):
        values, _, x = _roots(f, shape)
        wanted = np.array([v**0.5 if v > 0 else 0.0 for v in x.flat]).reshape(shape)
        close(values, wanted, f"values of shape {shape}", 1e-12)


def _root_slopes(f: F) -> None:
    for shape in ((7,), (3, 2)):
        _, slopes, x = _roots(f, shape)
        wanted = [0.5 / v**0.5 if v > 0 else 0.0 for v in x.flat]
        close(slopes, np.reshape(wanted, shape), f"slopes of shape {shape}", 1e-9)


# --- pytorch_essentials-2: batches under a budget of tokens ---------------------------


def _batches(lengths: list[int], budget: int) -> list[list[int]]:
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    out: list[list[int]] = []
    while order:
        size = 1
        while size < len(order) and (size + 1) * lengths[order[size]] <= budget:
            size += 1
        out.append(order[:size])
        order = order[size:]
    return out


def _same_batches(f: F, lengths: list[int], budget: int) -> None:
    ours = f(np.array(lengths), budget)
    try:
        ours = [[int(i) for i in batch] for batch in ours]
    except TypeError as error:
        raise AssertionError("a list of lists of indices is wanted") from error
    wanted = _batches(lengths, budget)
    if ours != wanted:
        raise AssertionError(
            f"lengths {lengths}, budget {budget}: got {ours}, wanted {wanted}"
        )


def _batches_small(f: F) -> None:
    _same_batches(f, [3, 5, 2], 6)
    _same_batches(f, [4, 4, 4, 4], 8)
    _same_batches(f, [7], 7)


def _batches_random(f: F) -> None:
    rng = np.random.default_rng()
    for n, budget in ((12, 20), (30, 25), (17, 40)):
        _same_batches(f, rng.integers(1, 13, n).tolist(), budget)


def _batches_long(f: F) -> None:
    for lengths, budget in (([3, 9, 2], 8), ([5], 4)):
        try:
            answer = f(np.array(lengths), budget)
        except ValueError:
            continue
        raise AssertionError(f"lengths {lengths}, budget {budget}: got {answer}")


# --- pytorch_essentials-3: an order without a state -----------------------------------


def _epochs(f: F, n: int, B: int, n_epochs: int = 3) -> None:
    seed, step = int(np.random.default_rng().integers(1000)), 0
    for epoch in range(n_epochs):
        left = np.random.default_rng((seed, epoch)).permutation(n).tolist()
        while left:
            wanted, left = left[:B], left[B:]
            ours = np.asarray(f(step, n, B, seed)).tolist()
            if ours != wanted:
                raise AssertionError(
                    f"n = {n}, B = {B}, step {step}: got {ours}, wanted {wanted}"
                )
            step += 1


def _order_even(f: F) -> None:
    _epochs(f, 12, 4)
    _epochs(f, 5, 1)


def _order_short(f: F) -> None:
    _epochs(f, 11, 4)
    _epochs(f, 9, 4)
    _epochs(f, 3, 8)


EXERCISES = {
    "pytorch_essentials-1": Exercise(
        function="safe_root",
        checks=(
            Check(
                "values",
                _root_values,
                hint="Zero wherever x is not positive, negative entries included.",
            ),
            Check(
                "slopes",
                _root_slopes,
                hint="The branch not taken has a slope too: give the root something "
                "harmless there.",
            ),
        ),
        equivalent={
            "1.0 → 2.0": "any positive number keeps the unused branch finite",
        },
    ),
    "pytorch_essentials-2": Exercise(
        function="token_batches",
        checks=(
            Check(
                "three batches by hand",
                _batches_small,
                hint="A batch costs its size times its longest text; equal to the "
                "budget still fits.",
            ),
            Check(
                "random lengths",
                _batches_random,
                hint="Sort first, keeping the order of equal lengths, then fill.",
            ),
            Check(
                "a text that fits nowhere",
                _batches_long,
                hint="Raise ValueError before filling anything.",
            ),
        ),
    ),
    "pytorch_essentials-3": Exercise(
        function="batch_at",
        checks=(
            Check(
                "batches that divide the data",
                _order_even,
                hint="divmod of the step by the batches in an epoch.",
            ),
            Check(
                "a short last batch",
                _order_short,
                hint="Round the number of batches up; the next epoch starts new.",
            ),
        ),
    ),
}

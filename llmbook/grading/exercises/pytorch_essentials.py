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
    x.flat[:5] = 0.0, -0.4, 0.3, 1e-14, 1e8  # no ε may stand in for the guard
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
        close(values, wanted, f"values of shape {shape}", 1e-12, rtol=1e-12)
    for dtype in (torch.float32, torch.float64):
        values = f(torch.tensor([[4.0, -1.0]], dtype=dtype))
        if values.dtype != dtype:
            raise AssertionError(f"{dtype} went in, {values.dtype} came out")


def _root_slopes(f: F) -> None:
    for shape in ((7,), (3, 2)):
        _, slopes, x = _roots(f, shape)
        wanted = [0.5 / v**0.5 if v > 0 else 0.0 for v in x.flat]
        what = f"slopes of shape {shape}"
        close(slopes, np.reshape(wanted, shape), what, 1e-9, rtol=1e-9)


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
    _same_batches(f, rng.integers(1, 4, 200).tolist(), 24)  # many of equal length


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


# --- pytorch_essentials-5: which position reads which ---------------------------------


def _reads(f: F, name: str, model: F, x: torch.Tensor, wanted: np.ndarray) -> None:
    before = x.clone()
    ours = f(model, x)
    if not torch.equal(x, before) or x.requires_grad:
        raise AssertionError(f"{name}: the caller's x was changed")
    ours = np.asarray(ours)
    if ours.shape != wanted.shape:
        raise AssertionError(f"{name}: shape {ours.shape}, wanted {wanted.shape}")
    if ours.dtype != bool:
        raise AssertionError(f"{name}: booleans are wanted, not {ours.dtype}")
    if (ours != wanted).any():
        t, s = (int(i) for i in np.argwhere(ours != wanted)[0])
        raise AssertionError(
            f"{name}: entry ({t}, {s}) is {bool(ours[t, s])}, wanted {wanted[t, s]}"
        )


def _input(T: int, D: int) -> torch.Tensor:
    rng = np.random.default_rng()
    return torch.tensor(rng.uniform(0.5, 1.5, (T, D)))


def _reads_masks(f: F) -> None:
    weights = torch.tensor(np.random.default_rng().uniform(0.5, 1.5, (3, 2)))
    for T in (5, 4):
        causal = np.tril(np.ones((T, T), dtype=bool))
        leaky = causal.copy()
        leaky[1, 3] = True  # one entry of one mask, set by mistake
        for name, mask in (("causal mixing", causal), ("one leak", leaky)):
            mix = torch.tensor(mask.astype(float))
            _reads(f, name, lambda x, m=mix: m @ x @ weights, _input(T, 3), mask)


def _reads_cancelling(f: F) -> None:
    own = np.eye(4, dtype=bool)
    x = _input(4, 3)
    _reads(f, "z beside -z", lambda x: torch.cat([x, -x], dim=1), x, own)
    _reads(f, "one column less another", lambda x: x[:, :1] - x[:, 1:2], x, own)
    _reads(f, "falling", lambda x: -x[:, 2:], x, own)
    _reads(
        f, "one row of many", lambda x: torch.stack([x[:, 0], x[:, 0] * 0], 1), x, own
    )


def _reads_shapes(f: F) -> None:
    pairs = np.kron(np.eye(3, dtype=bool), np.ones((1, 2), dtype=bool))
    _reads(
        f,
        "mean of pairs",
        lambda x: x.view(3, 2, -1).mean(1)[:, :1],
        _input(6, 4),
        pairs,
    )
    none = np.zeros((2, 5), dtype=bool)
    _reads(f, "a constant", lambda x: torch.ones(2, 3), _input(5, 2), none)
    last = np.zeros((3, 4), dtype=bool)
    last[1, 3] = True
    row = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    _reads(f, "one row reads the last", lambda x: row * x[3], _input(4, 2), last)


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
    "pytorch_essentials-5": Exercise(
        function="reads",
        checks=(
            Check(
                "masks",
                _reads_masks,
                hint="One row for each output position, one column for each input.",
            ),
            Check(
                "slopes that would cancel",
                _reads_cancelling,
                hint="Keep the slopes of every number apart until you have asked "
                "whether they are zero.",
            ),
            Check(
                "other lengths",
                _reads_shapes,
                hint="T' and D' are the output's own; an output may read nothing.",
            ),
        ),
    ),
}

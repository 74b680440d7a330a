"""Checks of the exercises in ch-matrices-and-tensors, against other references."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


def _rtol(ours: object, wanted: object, what: str) -> None:
    close(ours, wanted, what, atol=0.0, rtol=1e-9)


def _pair(answer: object, n: int, what: str) -> tuple[Any, ...]:
    if not isinstance(answer, (tuple, list)) or len(answer) != n:
        raise AssertionError(f"{what}: return {n} values, in a tuple")
    return tuple(answer)


def _kept(arrays: list[np.ndarray], before: list[np.ndarray]) -> None:
    for a, b in zip(arrays, before, strict=True):
        if not np.array_equal(a, b):
            raise AssertionError("your function changed an argument in place")


# --- matrices_and_tensors-1: backward pass of RMSNorm --------------------------------


def _rms_autograd(
    x: np.ndarray, gain: np.ndarray, grad: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    tx = torch.tensor(x, requires_grad=True)
    tg = torch.tensor(gain, requires_grad=True)
    y = torch.nn.functional.rms_norm(tx, (x.shape[-1],), tg, eps)
    y.backward(torch.tensor(grad))
    if tx.grad is None or tg.grad is None:
        raise RuntimeError("autograd returned nothing")
    return tx.grad.numpy(), tg.grad.numpy()


def _rms(f: F, shape: tuple[int, ...], eps: float, scale: float = 1.0) -> None:
    rng = np.random.default_rng()
    x, grad = scale * rng.normal(size=shape), rng.normal(size=shape)
    gain = rng.uniform(0.5, 2, shape[-1])
    before = [a.copy() for a in (x, gain, grad)]
    dx, dgain = _pair(f(x, gain, grad, eps), 2, "RMSNorm")
    _kept([x, gain, grad], before)
    wanted = _rms_autograd(x, gain, grad, eps)
    close(dx, wanted[0], f"gradient for x of shape {shape}")
    close(dgain, wanted[1], f"gradient for the gain, x of shape {shape}")


def _rms_rows(f: F) -> None:
    _rms(f, (5, 3), 1e-6)
    _rms(f, (1, 4), 1e-6)


def _rms_axes(f: F) -> None:
    _rms(f, (2, 3, 5), 1e-6)
    _rms(f, (2, 3, 2, 4), 1e-6)
    _rms(f, (6,), 1e-6)


def _rms_eps(f: F) -> None:
    _rms(f, (4, 3), 0.7)
    _rms(f, (2, 2, 5), 1e-3, 0.01)


# --- matrices_and_tensors-2: grouped-query scores, backward ---------------------------


def _grouped_autograd(
    q: np.ndarray, k: np.ndarray, grad: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    tq, tk = (torch.tensor(a, requires_grad=True) for a in (q, k))
    shared = tk.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    (tq @ shared.mT / q.shape[-1] ** 0.5).backward(torch.tensor(grad))
    if tq.grad is None or tk.grad is None:
        raise RuntimeError("autograd returned nothing")
    return tq.grad.numpy(), tk.grad.numpy()


def _groups(f: F, B: int, H: int, G: int, T: int, S: int, d: int) -> None:
    rng = np.random.default_rng()
    q, k = rng.normal(size=(B, H, T, d)), rng.normal(size=(B, G, S, d))
    grad = rng.normal(size=(B, H, T, S))
    before = [q.copy(), k.copy(), grad.copy()]
    dq, dk = _pair(f(q, k, grad), 2, "grouped-query scores")
    _kept([q, k, grad], before)
    wanted = _grouped_autograd(q, k, grad)
    close(dq, wanted[0], f"slopes by q, {H} query heads, {G} key heads")
    close(dk, wanted[1], f"slopes by k, {H} query heads, {G} key heads")


def _groups_plain(f: F) -> None:
    _groups(f, 2, 3, 3, 4, 5, 6)


def _groups_shared(f: F) -> None:
    for sizes in ((2, 6, 2, 3, 5, 4), (3, 6, 3, 2, 7, 5), (1, 8, 2, 1, 3, 2)):
        _groups(f, *sizes)
    _groups(f, 2, 4, 1, 3, 2, 3)


def _groups_uneven(f: F) -> None:
    q, k = np.ones((2, 6, 3, 4)), np.ones((2, 4, 5, 4))
    try:
        f(q, k, np.ones((2, 6, 3, 5)))
    except ValueError:
        return
    raise AssertionError("6 query heads, 4 key heads: no ValueError was raised")


# --- matrices_and_tensors-3: what broadcasting will do --------------------------------


def _plan(f: F, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    shape, copies_a, copies_b = _pair(f(a, b), 3, f"{a} with {b}")
    zeros_a, zeros_b = np.zeros(a), np.zeros(b)
    whole = np.broadcast(zeros_a, zeros_b)
    if tuple(shape) != whole.shape:
        raise AssertionError(f"{a} with {b}: shape {shape}, wanted {whole.shape}")
    wanted = (whole.size // zeros_a.size, whole.size // zeros_b.size)
    for number in (*shape, copies_a, copies_b):
        if not isinstance(number, (int, np.integer)):
            raise AssertionError(f"{a} with {b}: {number!r} is no whole number")
    if (copies_a, copies_b) != wanted:
        got = f"{copies_a} and {copies_b}"
        raise AssertionError(
            f"{a} with {b}: entries used {got} times, wanted {wanted[0]} and "
            f"{wanted[1]}"
        )


def _plan_equal(f: F) -> None:
    for shape in ((3,), (2, 5), (4, 1, 3)):
        _plan(f, shape, shape)


def _plan_stretch(f: F) -> None:
    for a, b in (
        ((7, 1), (7,)),
        ((7,), (7, 1)),
        ((2, 3, 4), (3, 1)),
        ((4,), (5, 3, 4)),
        ((1, 3), (2, 1)),
        ((), (2, 3)),
        ((6, 1, 5), (1, 4, 1)),
        ((1,), (1, 1, 1)),
    ):
        _plan(f, a, b)


def _plan_refuse(f: F) -> None:
    for a, b in (((2, 3), (3, 2)), ((4,), (5,)), ((2, 4), (2,)), ((3, 2), (4, 3, 4))):
        try:
            f(a, b)
        except ValueError:
            continue
        raise AssertionError(f"{a} with {b}: no ValueError was raised")


# --- matrices_and_tensors-4: intensity of a decoding step -----------------------------


def _intensity(f: F, context: int, batch: int) -> None:
    rng = np.random.default_rng()
    n_layers, kv = (int(i) for i in rng.integers(2, 9, 2))
    d_model, n_params = kv * int(rng.integers(2, 6)), int(rng.integers(900, 2000))
    n_bytes = float(rng.choice([0.5, 1.0, 2.0, 4.0]))
    flops = moved = 0.0
    moved += n_bytes * n_params
    for _ in range(batch):
        flops += 2 * n_params
        for _ in range(n_layers):
            flops += 2 * d_model * context  # scores
            flops += 2 * d_model * context  # weighted sum of the values
            moved += n_bytes * kv * context  # keys
            moved += n_bytes * kv * context  # values
    ours = f(n_params, n_layers, d_model, kv, context, batch, n_bytes)
    _rtol(ours, flops / moved, f"{batch} sequences of {context} tokens")


def _intensity_weights(f: F) -> None:
    for batch in (1, 2, 9):
        _intensity(f, 0, batch)


def _intensity_cache(f: F) -> None:
    for context, batch in ((1, 1), (50, 1), (7, 3), (200, 16)):
        _intensity(f, context, batch)


# --- matrices_and_tensors-5: patches as a view ----------------------------------------


def _patches_by_loops(x: np.ndarray, k: int, stride: int) -> np.ndarray:
    tops = range(0, x.shape[2] - k + 1, stride)
    lefts = range(0, x.shape[3] - k + 1, stride)
    rows = [
        np.stack([x[:, :, i : i + k, j : j + k] for j in lefts], axis=2) for i in tops
    ]
    return np.stack(rows, axis=2)


def _patches(f: F, x: np.ndarray, k: int, stride: int, what: str) -> None:
    wanted = _patches_by_loops(x, k, stride)
    ours = f(x, k, stride)
    what = f"{what}, k = {k}, stride {stride}"
    if not isinstance(ours, np.ndarray) or ours.shape != wanted.shape:
        shape = getattr(ours, "shape", None)
        raise AssertionError(f"{what}: shape {shape}, wanted {wanted.shape}")
    low, high = byte_bounds(ours)
    if np.may_share_memory(ours, x):
        first, last = byte_bounds(x)
        if low < first or high > last:
            raise AssertionError(f"{what}: the view reaches beyond the array")
    close(ours, wanted, what, atol=0.0)
    if not np.shares_memory(ours, x):
        raise AssertionError(f"{what}: the numbers were copied")
    if ours.flags.writeable:
        raise AssertionError(f"{what}: the view can be written to")


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng().normal(size=shape)


def _patches_plain(f: F) -> None:
    _patches(f, _random(2, 3, 5, 7), 3, 1, "contiguous")
    _patches(f, _random(1, 2, 4, 6), 2, 1, "contiguous")


def _patches_stride(f: F) -> None:
    _patches(f, _random(2, 2, 7, 9), 3, 2, "contiguous")
    _patches(f, _random(2, 1, 8, 6), 2, 3, "contiguous")
    _patches(f, _random(1, 2, 5, 5), 5, 2, "contiguous")


def _patches_memory(f: F) -> None:
    channels_last = _random(2, 6, 5, 3).transpose(0, 3, 1, 2)
    _patches(f, channels_last, 3, 1, "channels last in memory")
    every_other = _random(4, 2, 6, 14)[::2, :, :, ::2]
    _patches(f, every_other, 2, 2, "every other column of a larger array")
    upside_down = _random(1, 2, 6, 5)[:, :, ::-1]
    _patches(f, upside_down, 3, 1, "rows in reverse")


EXERCISES = {
    "matrices_and_tensors-1": Exercise(
        function="rmsnorm_backward",
        checks=(
            Check(
                "a batch of rows",
                _rms_rows,
                hint="Each x acts twice: on its own output and through the mean.",
            ),
            Check(
                "any number of axes",
                _rms_axes,
                hint="All rows share the gain: sum over every axis but the last.",
            ),
            Check(
                "eps is part of the root",
                _rms_eps,
                hint="Differentiate 1 / sqrt(mean(x²) + eps) as it stands.",
            ),
        ),
    ),
    "matrices_and_tensors-2": Exercise(
        function="grouped_backward",
        checks=(
            Check(
                "as many key heads as query heads",
                _groups_plain,
                hint="Exchange an operand's letters with the output's; "
                "keep the root of d.",
            ),
            Check(
                "neighbouring query heads share keys",
                _groups_shared,
                hint="Give the groups an axis of their own, (B, G, H // G, T, d), "
                "and sum over it where the keys were shared.",
            ),
            Check(
                "groups must come out even",
                _groups_uneven,
                hint="reshape refuses by itself when the sizes do not multiply up.",
            ),
        ),
    ),
    "matrices_and_tensors-3": Exercise(
        function="broadcast_plan",
        checks=(
            Check(
                "equal shapes repeat nothing",
                _plan_equal,
                hint="Every entry is then used once.",
            ),
            Check(
                "axes of length one are repeated",
                _plan_stretch,
                hint="Missing axes are added on the left, with length one.",
            ),
            Check(
                "other mismatches are refused",
                _plan_refuse,
                hint="Two lengths fit if they are equal or one of them is 1.",
            ),
        ),
    ),
    "matrices_and_tensors-4": Exercise(
        function="decode_intensity",
        checks=(
            Check(
                "without any context",
                _intensity_weights,
                hint="All sequences share one reading of the weights.",
            ),
            Check(
                "each sequence brings its own cache",
                _intensity_cache,
                hint="Keys and values are read once for each sequence and layer; "
                "queries are d_model wide, keys kv_width.",
            ),
        ),
    ),
    "matrices_and_tensors-5": Exercise(
        function="patches",
        checks=(
            Check(
                "every patch, in place",
                _patches_plain,
                hint="The last two axes walk inside a patch, with the image's strides.",
            ),
            Check(
                "patches may stand apart",
                _patches_stride,
                hint="Between patches the strides are `stride` times the image's.",
            ),
            Check(
                "whatever the memory looks like",
                _patches_memory,
                hint="Take the strides from the array, never from its shape.",
            ),
        ),
    ),
}

"""Checks of the exercises in ch-recurrent-networks, with references by loops."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- recurrent_networks-1: a forget bias for a wanted memory -------------------------


def _half_lives(f: F) -> None:
    for steps in (1, 2, 3.5, 10, 40, 250):
        b = float(f(steps))
        kept = (1 / (1 + np.exp(-b))) ** steps
        close(kept, 0.5, f"share kept after {steps} steps, bias {b:.4g}", 1e-12)


def _short(f: F) -> None:
    for steps in (0.01, 0.2, 0.5):
        b = float(f(steps))
        exponent = -steps * np.log1p(np.exp(-b))
        close(exponent, np.log(0.5), f"log share kept after {steps} steps", 1e-9)


def _long(f: F) -> None:
    for steps in (1e6, 1e9, 1e13, 1e17):
        b = float(f(steps))
        close(b, np.log(steps / np.log(2)), f"bias for {steps:g} steps", 1e-6)


# --- recurrent_networks-2: clipping by the joint norm --------------------------------


def _grads(*sizes: float) -> list[np.ndarray]:
    rng = np.random.default_rng()
    shapes: list[tuple[int, ...]] = [(3, 4), (5,), (2, 3, 2)]
    return [s * rng.normal(size=shape) for s, shape in zip(sizes, shapes)]


def _joint(grads: list[np.ndarray]) -> float:
    return float(np.linalg.norm(np.concatenate([g.ravel() for g in grads])))


def _compare(f: F, grads: list[np.ndarray], limit: float, what: str) -> None:
    before = [g.copy() for g in grads]
    norm = _joint(grads)
    clipped, told = f(grads, limit)
    close(told, norm, f"{what}: the norm before clipping", rtol=1e-12)
    if len(clipped) != len(grads):
        raise AssertionError(f"{what}: {len(clipped)} arrays for {len(grads)}")
    factor = limit / norm if norm > limit else 1.0
    for i, (ours, g) in enumerate(zip(clipped, before)):
        close(ours, factor * g, f"{what}: array {i}", 1e-12, rtol=1e-12)
    if not all(np.array_equal(a, b) for a, b in zip(grads, before)):
        raise AssertionError(f"{what}: your function changed its arguments")


def _above(f: F) -> None:
    for sizes, limit in (((1, 10, 0.1), 1.0), ((100, 1, 3), 0.25), ((1, 1, 1), 2.0)):
        _compare(f, _grads(*sizes), limit, f"limit {limit}")


def _below(f: F) -> None:
    grads = _grads(0.1, 0.2, 0.1)
    _compare(f, grads, 50.0, "far below the limit")
    _compare(f, grads, _joint(grads) * 1.001, "just below the limit")


def _zero(f: F) -> None:
    with np.errstate(all="raise"):
        _compare(f, _grads(0.0, 0.0, 0.0), 1.0, "gradients of zero")


# --- recurrent_networks-3: backward through one LSTM step ----------------------------


def _lstm(parts: torch.Tensor, c_prev: torch.Tensor) -> tuple[torch.Tensor, ...]:
    i, f, n, o = parts.chunk(4, -1)
    c = torch.sigmoid(f) * c_prev + torch.sigmoid(i) * torch.tanh(n)
    return torch.sigmoid(o) * torch.tanh(c), c


def _backward(f: F, B: int, D: int, size: float, dh_on: bool, dc_on: bool) -> None:
    rng = np.random.default_rng()
    parts, c_prev = size * rng.normal(size=(B, 4 * D)), rng.normal(size=(B, D))
    dh, dc = rng.normal(size=(2, B, D))
    dh, dc = dh * dh_on, dc * dc_on
    p = torch.tensor(parts, requires_grad=True)
    q = torch.tensor(c_prev, requires_grad=True)
    h, c = _lstm(p, q)
    loss = (h * torch.tensor(dh)).sum() + (c * torch.tensor(dc)).sum()
    wanted = torch.autograd.grad(loss, [p, q])
    ours = f(dh, dc, parts, c_prev)
    names = ("gradient in the four parts", "gradient in the old cell")
    for name, a, b in zip(names, ours, wanted):
        close(a, b.numpy(), f"{name}, B = {B}, D = {D}", 1e-10)


def _cell_only(f: F) -> None:
    _backward(f, 3, 4, 1.0, False, True)
    _backward(f, 1, 2, 0.5, False, True)


def _output_only(f: F) -> None:
    _backward(f, 2, 5, 1.0, True, False)


def _both(f: F) -> None:
    for B, D, size in ((3, 4, 1.0), (1, 1, 2.0), (5, 2, 0.3)):
        _backward(f, B, D, size, True, True)


# --- recurrent_networks-4: a scan with document boundaries ---------------------------


def _by_loop(a: np.ndarray, b: np.ndarray, starts: np.ndarray) -> np.ndarray:
    h, out = np.zeros(b.shape[1:]), []
    for a_t, b_t, new in zip(a, b, starts):
        h = b_t if new else a_t * h + b_t
        out.append(h)
    return np.array(out)


def _case(f: F, T: int, D: int, starts: np.ndarray, low: float = -1.2) -> None:
    rng = np.random.default_rng()
    a, b = rng.uniform(low, 1.2, size=(T, D)), rng.normal(size=(T, D))
    kept = [x.copy() for x in (a, b, starts)]
    ours = f(a, b, starts)
    if not all(np.array_equal(x, y) for x, y in zip((a, b, starts), kept)):
        raise AssertionError("your function changed its arguments in place")
    where = np.flatnonzero(starts).tolist()
    close(ours, _by_loop(*kept), f"T = {T}, documents start at {where}", 1e-8)


def _starts(T: int, *places: int) -> np.ndarray:
    starts = np.zeros(T, dtype=bool)
    starts[list(places)] = True
    return starts


def _one_document(f: F) -> None:
    for T, D in ((1, 3), (2, 2), (3, 1), (8, 2), (13, 4)):
        _case(f, T, D, _starts(T, 0))
        _case(f, T, D, _starts(T))


def _several(f: F) -> None:
    _case(f, 12, 3, _starts(12, 0, 5, 6, 11))
    _case(f, 7, 2, _starts(7, 3))
    _case(f, 9, 2, np.ones(9, dtype=bool))


def _underflow(f: F) -> None:
    rng = np.random.default_rng()
    a, b = rng.uniform(0, 1e-3, size=(400, 2)), rng.normal(size=(400, 2))
    starts = _starts(400, 0, 250)
    with np.errstate(all="ignore"):
        ours = f(a, b, starts)
    close(ours, _by_loop(a, b, starts), "factors whose product underflows", 1e-9)


def _no_loop(f: F) -> None:
    T, events = 1100, 0

    def count(frame: Any, event: str, arg: Any) -> Any:  # noqa: ANN401 - a tracer
        nonlocal events
        events += 1
        return count

    rng = np.random.default_rng()
    a, b = rng.choice([-1.0, 1.0], size=(T, 2)), rng.normal(size=(T, 2))
    starts = _starts(T, 0, 20)  # factors of size 1: nothing fades, every round counts
    before = sys.gettrace()
    sys.settrace(count)
    try:
        ours = f(a, b, starts)
    finally:
        sys.settrace(before)
    close(ours, _by_loop(a, b, starts), f"T = {T}, factors of size 1", 1e-9)
    if events > T // 2:
        raise AssertionError(
            f"{events} lines run for {T} steps: eleven rounds need a few dozen"
        )


EXERCISES = {
    "recurrent_networks-1": Exercise(
        function="forget_bias",
        checks=(
            Check(
                "half is left after the wanted steps",
                _half_lives,
                hint="Solve sigmoid(b) ** steps = 1/2 for b.",
            ),
            Check("memories shorter than a step", _short, hint="b may be negative."),
            Check(
                "memories of a million steps and more",
                _long,
                hint="2 ** (1 / steps) - 1 cancels: NumPy has expm1.",
            ),
        ),
    ),
    "recurrent_networks-2": Exercise(
        function="clip_by_norm",
        checks=(
            Check(
                "too long: same direction, length max_norm",
                _above,
                hint="One norm over all arrays together, one factor for all.",
            ),
            Check(
                "short enough: untouched",
                _below,
                hint="The factor is at most 1; clipping never lengthens.",
            ),
            Check("zero gradients", _zero, hint="Do not divide by a norm of zero."),
        ),
    ),
    "recurrent_networks-3": Exercise(
        function="lstm_step_backward",
        checks=(
            Check(
                "what arrives through the cell",
                _cell_only,
                hint="With dh = 0 the output gate gets nothing.",
            ),
            Check(
                "what arrives through the output",
                _output_only,
                hint="dh reaches the cell through o * (1 - tanh(c) ** 2).",
            ),
            Check("both together", _both, hint="The two gradients in c_t add."),
        ),
    ),
    "recurrent_networks-4": Exercise(
        function="packed_scan",
        checks=(
            Check(
                "one document",
                _one_document,
                hint="Absorb one place back, then two, then four.",
            ),
            Check(
                "several documents in a row",
                _several,
                hint="What factor makes a step forget its past?",
            ),
            Check("no division", _underflow, hint="Scan; do not divide by products."),
            Check("few rounds", _no_loop, hint="Slice; do not step through time."),
        ),
        equivalent={
            "shift < len(a) → shift <= len(a)": "a shift of T slices nothing",
        },
    ),
}

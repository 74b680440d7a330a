"""Checks of the exercises in ch-pytorch-performance."""

import math
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- 1: graphs --------------------------------------------------------------------


def _graphs_reference(sizes: list[int]) -> int:
    """Play the compiler: a list of graphs, each with the lengths it serves."""
    exact: set[int] = set()
    general = False
    for call, n in enumerate(sizes):
        if n in exact or (general and n >= 2):
            continue
        if n >= 2 and call > 0:
            general = True
        else:
            exact.add(n)
    return len(exact) + general


def _graphs(f: F, cases: list[list[int]]) -> None:
    for sizes in cases:
        before, wanted = list(sizes), _graphs_reference(sizes)
        got = f(sizes)
        if sizes != before:
            raise AssertionError("your function changed its argument")
        if got != wanted:
            raise AssertionError(f"lengths {sizes}: {got} graphs, wanted {wanted}")


def _graphs_plain(f: F) -> None:
    _graphs(f, [[5], [5, 5, 5], [5, 7, 9], [2, 3], [3, 2, 2], [9, 4, 4, 4, 9]])


def _graphs_special(f: F) -> None:
    _graphs(f, [[1], [0], [1, 1], [0, 1], [1, 0, 1], [5, 1], [5, 0, 6, 7, 1]])
    _graphs(f, [[1, 5], [1, 5, 7], [0, 2, 2], [1, 2], [5, 1, 7, 5], [2, 1, 2, 0]])


def _graphs_random(f: F) -> None:
    rng = np.random.default_rng()
    for high in (3, 4, 9):
        for length in (3, 8):
            _graphs(f, [[int(n) for n in rng.integers(0, high, length)]])


# --- 2: softcap -------------------------------------------------------------------

_CAPS = ((4.0, (3, 5)), (0.7, (2, 2, 3)), (30.0, (1,)))


def _cap_values(f: F) -> None:
    for cap, shape in _CAPS:
        x = torch.randn(shape, dtype=torch.float64) * cap
        wanted = cap * torch.tanh(x / cap)
        close(f(x, cap).detach().numpy(), wanted.numpy(), f"values, cap = {cap}")


def _cap_gradient(f: F) -> None:
    for cap, shape in _CAPS:
        x = (torch.randn(shape, dtype=torch.float64) * cap).requires_grad_()
        dy = torch.randn(shape, dtype=torch.float64)
        (wanted,) = torch.autograd.grad(cap * torch.tanh(x / cap), x, dy)
        (ours,) = torch.autograd.grad(f(x, cap), x, dy)
        close(ours.numpy(), wanted.numpy(), f"gradient, cap = {cap}")
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for test in (gradcheck, gradgradcheck):
        if not test(lambda x: f(x, 1.5), (x,), raise_exception=False):
            raise AssertionError(f"{test.__name__} fails")


def _cap_saved(f: F) -> None:
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(6, 7, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = f(x, 2.0)
    if len(kept) != 1:
        raise AssertionError(f"{len(kept)} tensors are kept, wanted 1, the output")
    if kept[0].untyped_storage().data_ptr() != y.untyped_storage().data_ptr():
        raise AssertionError("what is kept is not the output")


# --- 3: chunked loss --------------------------------------------------------------


class _Watch(TorchDispatchMode):
    """Record the largest tensor that is made, and the most entries alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.shapes.append(tuple(leaf.shape))
                storage = leaf.untyped_storage()
                entries = storage.nbytes() // leaf.element_size()
                self.alive[storage._cdata] = StorageWeakRef(storage), entries
        self.alive = {k: v for k, v in self.alive.items() if not v[0].expired()}
        self.peak = max(self.peak, sum(entries for _, entries in self.alive.values()))
        return out


def _loss_case(N: int, D: int, V: int) -> tuple[torch.Tensor, ...]:
    h = torch.randn(N, D, dtype=torch.float64)
    W = torch.randn(V, D, dtype=torch.float64)
    return h, W, torch.randint(V, (N,))


def _loss_values(f: F) -> None:
    for (N, D, V), chunk in (((6, 3, 5), 2), ((7, 2, 4), 3), ((5, 4, 3), 9)):
        h, W, target = _loss_case(N, D, V)
        before = h.clone(), W.clone(), target.clone()
        loss, dh, dW = f(h, W, target, chunk)
        if not all(map(torch.equal, before, (h, W, target))):
            raise AssertionError("your function changed its arguments")
        a, b = h.clone().requires_grad_(), W.clone().requires_grad_()
        wanted = torch.nn.functional.cross_entropy(a @ b.T, target)
        wanted.backward()
        what = f"N = {N}, chunk = {chunk}"
        close(loss.detach().numpy(), wanted.detach().numpy(), f"loss, {what}")
        assert a.grad is not None and b.grad is not None
        close(dh.detach().numpy(), a.grad.numpy(), f"gradient by h, {what}")
        close(dW.detach().numpy(), b.grad.numpy(), f"gradient by W, {what}")


def _loss_stable(f: F) -> None:
    h, W, target = _loss_case(4, 3, 5)
    loss, dh, dW = f(300 * h, 10 * W, target, 2)
    wanted = torch.nn.functional.cross_entropy(3000 * h @ W.T, target)
    close(loss.detach().numpy(), wanted.numpy(), "loss of huge logits", rtol=1e-9)
    close(torch.isfinite(dh).all(), 1.0, "gradients of huge logits are finite")
    close(torch.isfinite(dW).all(), 1.0, "gradients of huge logits are finite")


def _loss_memory(f: F) -> None:
    N, D, V, chunk = 96, 2, 50, 4
    case = _loss_case(N, D, V)
    watch = _Watch()
    with watch:
        f(*case, chunk)
    largest = max(watch.shapes, key=math.prod)
    if math.prod(largest) > max(chunk * V, V * D, N * D):
        raise AssertionError(
            f"a tensor of shape {largest} was made; {chunk} rows of {V} logits are "
            f"the most"
        )
    if watch.peak > N * V / 2:
        raise AssertionError(
            f"tensors with {watch.peak:,} entries were alive at once, half of the "
            f"{N * V:,} logits or more: the chunks pile up"
        )


# --- 4: calls to pay --------------------------------------------------------------


def _pay_reference(
    compile_s: list[float],
    eager: list[list[float]],
    done: list[list[float]],
    shares: list[float],
) -> float:
    gain = sum(
        p * median(a - b for a, b in zip(before, after))
        for p, before, after in zip(shares, eager, done)
    )
    return math.inf if gain <= 0 else math.ceil(1000 * sum(compile_s) / gain)


def _pay(f: F, cases: tuple[tuple[list, ...], ...]) -> None:
    for args in cases:
        got, wanted = f(*args), _pay_reference(*args)
        if got != wanted:
            raise AssertionError(f"{args}: {got}, wanted {wanted}")


def _pay_values(f: F) -> None:
    quiet, gained = [5.0, 5.5, 5.25], [2.5, 2.5, 2.75]
    _pay(
        f,
        (
            ([3.0], [quiet], [gained], [1.0]),
            ([7.0], [[5.0]], [[2.0]], [1.0]),
            ([10.3, 4.1], [quiet, gained], [gained, [2.0, 1.5, 2.0]], [0.7, 0.3]),
            (
                [2.0, 9.0, 4.0],
                [[8.0, 8.5], [2.0, 2.5], [5.0, 5.0]],
                [[3.0, 3.0], [1.0, 1.25], [5.5, 5.25]],
                [0.2, 0.5, 0.3],
            ),
        ),
    )


def _pay_noise(f: F) -> None:
    """A busy minute hits both rivals of a turn, an interruption hits one."""
    busy = [2.0, 9.0, 2.5, 30.0, 2.25]
    _pay(
        f,
        (
            ([3.0], [busy], [[1.0, 7.5, 1.25, 28.5, 40.0]], [1.0]),
            ([2.0], [[4.0, 60.0, 4.5, 4.25]], [[3.0, 3.0, 3.25, 3.5]], [1.0]),
            (
                [3.0, 5.0],
                [busy, [6.0, 6.5, 90.0, 6.25, 6.5]],
                [[1.0, 7.5, 1.25, 28.5, 40.0], [5.5, 5.0, 5.25, 5.75, 80.0]],
                [0.25, 0.75],
            ),
        ),
    )


def _pay_never(f: F) -> None:
    for args in (
        ([3.0], [[2.0, 2.0]], [[2.0, 2.0]], [1.0]),
        ([3.0], [[2.0, 2.25]], [[2.5, 2.5]], [1.0]),
        ([1.0, 1.0], [[4.0, 4.0], [3.0, 3.0]], [[3.0, 3.0], [7.0, 7.0]], [0.5, 0.5]),
    ):
        got = f(*args)
        if got != math.inf:
            raise AssertionError(f"{args}: {got}, wanted inf: nothing is gained")
    got = f([3.0, 2.0], [[2.0], [4.0]], [[2.5], [3.0]], [0.5, 0.5])
    if got != 20_000:
        raise AssertionError(f"one shape loses 0.5 ms, one gains 1: {got}, not 20000")


EXERCISES = {
    "pytorch_performance-1": Exercise(
        function="n_graphs",
        checks=(
            Check("lengths of two and more", _graphs_plain, hint="One, then one."),
            Check(
                "lengths 0 and 1",
                _graphs_special,
                hint="After a first call of length 1, is there a graph for one "
                "large length alone?",
            ),
            Check("random calls", _graphs_random, hint="Go through them by hand."),
        ),
    ),
    "pytorch_performance-2": Exercise(
        function="softcap",
        checks=(
            Check("values", _cap_values, hint="c tanh(x / c)."),
            Check(
                "gradients",
                _cap_gradient,
                hint="tanh' = 1 - tanh²; what is tanh(x / c) in terms of y?",
            ),
            Check(
                "one tensor kept",
                _cap_saved,
                hint="ctx.save_for_backward(y), with the y that you return.",
            ),
        ),
    ),
    "pytorch_performance-3": Exercise(
        function="chunked_loss",
        checks=(
            Check(
                "loss and gradients",
                _loss_values,
                hint="Per row: softmax minus one-hot. Divide by N once, at the end.",
            ),
            Check("huge logits", _loss_stable, hint="log_softmax, not log of softmax."),
            Check(
                "memory",
                _loss_memory,
                hint="Loop over h.split(chunk), and finish the gradients of a chunk "
                "before the next: what autograd keeps for later stays alive.",
            ),
        ),
        equivalent={"-1 → 1": "logits have two axes: the last is axis 1"},
    ),
    "pytorch_performance-4": Exercise(
        function="calls_to_pay",
        checks=(
            Check("known cases", _pay_values, hint="Seconds against milliseconds."),
            Check(
                "interrupted rounds",
                _pay_noise,
                hint="Subtract within each round first; then take the median.",
            ),
            Check("never", _pay_never, hint="A gain of zero never pays."),
        ),
    ),
}

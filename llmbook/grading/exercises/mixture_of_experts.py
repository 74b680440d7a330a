"""Checks of the exercises in ch-mixture-of-experts, with independent references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close, same

F = Callable[..., Any]


# --- mixture_of_experts-1: sigmoid scores and a bias --------------------------------


def _sigmoid(x: float) -> float:
    power = float(np.exp(-abs(x)))
    return 1 / (1 + power) if x >= 0 else power / (1 + power)


def _routes(
    logits: np.ndarray, bias: np.ndarray, k: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Token by token, with Python's own sort."""
    chosen = np.zeros((*logits.shape[:-1], k), dtype=int)
    gates = np.zeros(chosen.shape)
    for at in np.ndindex(logits.shape[:-1]):
        score = [_sigmoid(float(x)) for x in logits[at]]
        ranked = sorted(range(len(score)), key=lambda i: -(score[i] + bias[i]))
        total = sum(score[i] for i in ranked[:k])
        chosen[at] = ranked[:k]
        gates[at] = [scale * score[i] / total for i in ranked[:k]]
    return chosen, gates


def _route_case(f: F, shape: tuple[int, ...], k: int, spread: float) -> None:
    rng = np.random.default_rng([*shape, k])
    logits = 2 * rng.normal(size=shape)
    bias = spread * rng.normal(size=shape[-1])
    chosen, gates = f(logits.copy(), bias, k, 2.5)
    wanted, weights = _routes(logits, bias, k, 2.5)
    what = f"logits {shape}, k = {k}"
    same(chosen, wanted, f"chosen, {what}")
    close(gates, weights, f"gates, {what}")


def _route_plain(f: F) -> None:
    for shape, k in (((7, 5), 2), ((3, 6), 3), ((4, 9), 1)):
        _route_case(f, shape, k, 0.0)


def _route_bias(f: F) -> None:
    for shape, k in (((8, 6), 2), ((5, 9), 4)):
        _route_case(f, shape, k, 1.0)


def _route_axes(f: F) -> None:
    _route_case(f, (2, 3, 7), 2, 0.5)
    _route_case(f, (6,), 3, 0.5)


def _route_large(f: F) -> None:
    logits = np.array([[800.0, 1.0, -0.5, -2500.0], [-3.0, -1000.0, 0.5, -2.0]])
    bias = np.array([0.0, 0.1, 0.3, 0.0])
    with np.errstate(all="ignore"):
        chosen, gates = f(logits.copy(), bias, 2, 1.5)
    wanted, weights = _routes(logits, bias, 2, 1.5)
    same(chosen, wanted, "chosen, logits in the thousands")
    close(gates, weights, "gates, logits in the thousands")


# --- mixture_of_experts-2: balancing gradient of sigmoid scores ---------------------


def _loss_by_loops(
    logits: np.ndarray, k: int, mask: np.ndarray, counted: np.ndarray
) -> float:
    """N sum f Q over the tokens under the mask; loads from ``counted``."""
    n = logits.shape[1]
    load, prob, tokens = np.zeros(n), np.zeros(n), 0
    for row, row_counted, real in zip(logits, counted, mask, strict=True):
        if not real:
            continue
        tokens += 1
        scores = np.array([_sigmoid(float(x)) for x in row])
        prob += scores / scores.sum()
        for i in sorted(range(n), key=lambda i: -row_counted[i])[:k]:
            load[i] += 1 / k
    return n * float((load / tokens) @ (prob / tokens))


def _differences(logits: np.ndarray, k: int, mask: np.ndarray) -> np.ndarray:
    out, h = np.zeros(logits.shape), 1e-5
    for at in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[at] += h
        down[at] -= h
        ends = [_loss_by_loops(x, k, mask, logits) for x in (up, down)]
        out[at] = (ends[0] - ends[1]) / (2 * h)
    return out


def _gradient_case(f: F, shape: tuple[int, int], k: int, padded: int) -> None:
    rng = np.random.default_rng([*shape, k, padded])
    logits = rng.normal(size=shape) + np.linspace(0, 2, shape[1])
    mask = np.ones(shape[0], dtype=bool)
    mask[rng.permutation(shape[0])[:padded]] = False
    wanted = _differences(logits, k, mask)
    what = f"logits {shape}, k = {k}, {padded} padded"
    close(f(logits.copy(), k, mask), wanted, what, 1e-7)


def _gradient_plain(f: F) -> None:
    _gradient_case(f, (7, 4), 1, 0)
    _gradient_case(f, (4, 6), 2, 0)


def _gradient_mask(f: F) -> None:
    _gradient_case(f, (8, 5), 2, 3)
    _gradient_case(f, (6, 3), 1, 4)


def _gradient_unused(f: F) -> None:
    """The last experts are never chosen; their load is 0, not missing."""
    rng = np.random.default_rng(54)
    logits = rng.normal(size=(5, 4))
    logits[:, 2:] -= 6
    mask = np.array([True, True, False, True, True])
    wanted = _differences(logits, 2, mask)
    close(f(logits.copy(), 2, mask), wanted, "two experts without tokens", 1e-7)


def _gradient_large(f: F) -> None:
    rng = np.random.default_rng(64)
    logits = rng.normal(size=(6, 4))
    logits[3] = [1500.0, -1500.0, 0.0, 20.0]  # rows that spread widely
    logits[4] = [-0.5, -2000.0, 800.0, 0.5]
    mask = np.array([True, False, True, True, True, True])
    wanted = _differences(logits, 2, mask)
    with np.errstate(all="ignore"):
        ours = f(logits.copy(), 2, mask)
    close(ours, wanted, "logits in the thousands", 1e-7)


# --- mixture_of_experts-3: buffers by choice, then by token -------------------------


def _seats(chosen: np.ndarray, n_experts: int, capacity: int) -> np.ndarray:
    rows: list[list[int]] = [[] for _ in range(n_experts)]
    for j in range(chosen.shape[1]):
        for t in range(chosen.shape[0]):
            row = rows[int(chosen[t, j])]
            if len(row) < capacity:
                row.append(t)
    return np.array([row + [-1] * (capacity - len(row)) for row in rows])


def _dispatch_case(f: F, T: int, n_experts: int, k: int, capacity: int) -> None:
    rng = np.random.default_rng([T, n_experts, k, capacity])
    chosen = rng.random((T, n_experts)).argsort(axis=1)[:, :k]
    ours = f(chosen.copy(), n_experts, capacity)
    wanted = _seats(chosen, n_experts, capacity)
    same(ours, wanted, f"{T} tokens, {n_experts} experts, k = {k}, C = {capacity}")


def _dispatch_roomy(f: F) -> None:
    _dispatch_case(f, 9, 4, 1, 9)
    _dispatch_case(f, 7, 5, 2, 14)


def _dispatch_tight(f: F) -> None:
    for T, n, k, C in ((12, 3, 1, 2), (11, 4, 2, 3), (10, 5, 3, 1)):
        _dispatch_case(f, T, n, k, C)


def _dispatch_order(f: F) -> None:
    """Second choices of early tokens against first choices of late ones."""
    chosen = np.array([[0, 1], [2, 1], [1, 0], [1, 2]])
    same(f(chosen, 3, 2), _seats(chosen, 3, 2), "first choices go first")
    same(f(chosen, 4, 3), _seats(chosen, 4, 3), "an expert nobody wants")


EXERCISES = {
    "mixture_of_experts-1": Exercise(
        function="route_sigmoid",
        checks=(
            Check(
                "no bias",
                _route_plain,
                hint="Sort by score, best first; divide by the sum over the chosen.",
            ),
            Check(
                "the bias tips the choice, not the gates",
                _route_bias,
                hint="Sort by scores + bias, then read the scores at those places.",
            ),
            Check(
                "any number of axes",
                _route_axes,
                hint="Experts share the last axis.",
            ),
            Check(
                "large logits",
                _route_large,
                hint="exp(800) is infinite; log(1 + exp(-x)) need not be.",
            ),
        ),
        equivalent={
            "np.argsort(-(scores + bias), axis=-1) → np.argsort(-(scores + bias))": (
                "the last axis is argsort's default"
            ),
            "np.take_along_axis(scores, chosen, axis=-1) → "
            "np.take_along_axis(scores, chosen)": "the last axis is the default",
        },
    ),
    "mixture_of_experts-2": Exercise(
        function="balance_gradient",
        checks=(
            Check(
                "equal to central differences",
                _gradient_plain,
                hint="Differentiate q by the scores, then the scores by the logits.",
            ),
            Check(
                "padding does not count",
                _gradient_mask,
                hint="Loads, means and T are over real tokens; padded rows are zero.",
            ),
            Check(
                "idle experts have load 0",
                _gradient_unused,
                hint="np.bincount stops at the largest number seen, unless told.",
            ),
            Check(
                "large logits",
                _gradient_large,
                hint="Compute the sigmoid without exp of a large positive number.",
            ),
        ),
        equivalent={
            "np.argsort(-logits, axis=1) → np.argsort(-logits)": (
                "of two axes the last is axis 1, and argsort's default"
            ),
        },
    ),
    "mixture_of_experts-3": Exercise(
        function="dispatch",
        checks=(
            Check(
                "room for all",
                _dispatch_roomy,
                hint="One row per expert: the tokens that chose it, then -1.",
            ),
            Check(
                "no more than the capacity",
                _dispatch_tight,
                hint="Cut each expert's queue after capacity tokens.",
            ),
            Check(
                "first choices before second ones",
                _dispatch_order,
                hint="Put all first choices in the queue, then all second choices.",
            ),
        ),
    ),
}

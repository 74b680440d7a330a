"""Checks of the exercises in ch-multilayer-perceptron-and-backprop."""

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- 1: parity by hand ------------------------------------------------------------


def _corners(n: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def _network(f: F, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    W, b, v = (np.asarray(a, dtype=float) for a in f(n))
    if W.ndim != 2 or len(W) != n:
        raise AssertionError(f"n = {n}: W has shape {W.shape}, wanted ({n}, units)")
    units = W.shape[1]
    if b.shape != (units,) or v.shape != (units,):
        raise AssertionError(
            f"n = {n}: b {b.shape} and v {v.shape} must both be ({units},)"
        )
    return W, b, v


def _parity_values(f: F) -> None:
    for n in (2, 1, 3, 5, 8):
        W, b, v = _network(f, n)
        X = _corners(n)
        ours = np.maximum(X @ W + b, 0) @ v
        close(ours, X.sum(1) % 2, f"parity of {n} bits, all {2**n} inputs")


def _parity_units(f: F) -> None:
    for n in (1, 4, 7):
        units = _network(f, n)[0].shape[1]
        if units > n:
            raise AssertionError(f"{units} hidden units for {n} bits; {n} suffice")


# --- 2: rounds of the backward pass -----------------------------------------------


def _longest(inputs: dict[Any, list[Any]], root: object) -> list[set[Any]]:
    """Rounds as longest distances from the root, by repeated relaxation."""
    depth = {root: 0}
    changed = True
    while changed:
        changed = False
        for node, needs in inputs.items():
            for x in needs if node in depth else []:
                if depth.get(x, -1) <= depth[node]:
                    depth[x], changed = depth[node] + 1, True
    rounds: list[set[Any]] = [set() for _ in range(max(depth.values()) + 1)]
    for node, k in depth.items():
        rounds[k].add(node)
    return rounds


def _rounds(f: F, inputs: dict[Any, list[Any]], root: object, what: str) -> None:
    before = {k: list(v) for k, v in inputs.items()}
    ours = [list(group) for group in f(inputs, root)]
    if inputs != before:
        raise AssertionError(f"{what}: your function changed the graph")
    wanted = _longest(inputs, root)
    if len(ours) != len(wanted):
        raise AssertionError(f"{what}: {len(ours)} rounds, wanted {len(wanted)}")
    for k, (a, b) in enumerate(zip(ours, wanted)):
        if sorted(a, key=str) != sorted(b, key=str):
            raise AssertionError(f"{what}: round {k} holds {a}, wanted {sorted(b)}")


def _rounds_small(f: F) -> None:
    _rounds(f, {"x": []}, "x", "a single value")
    chain = {"c": ["b"], "b": ["a"], "a": []}
    _rounds(f, chain, "c", "a chain of three")
    diamond = {"x": [], "f": ["x"], "y": ["x", "f"], "loss": ["y"]}
    _rounds(f, diamond, "loss", "one residual block")


def _rounds_reuse(f: F) -> None:
    _rounds(f, {"a": [], "b": ["a", "a"], "c": ["b", "b"]}, "c", "a value used twice")
    _rounds(
        f,
        {"x": [], "u": ["x"], "loss": ["u"], "other": ["x", "u"]},
        "loss",
        "a user that the loss never sees",
    )


def _rounds_random(f: F) -> None:
    rng = np.random.default_rng()
    for n in (6, 12, 20):
        graph: dict[Any, list[Any]] = {0: []}
        for i in range(1, n):
            size = int(rng.integers(1, 4))
            graph[i] = [int(j) for j in rng.integers(max(0, i - 5), i, size)]
        _rounds(f, graph, n - 1, f"a random graph of {n} values")


def _rounds_deep(f: F) -> None:
    n = 3000
    graph: dict[Any, list[Any]] = {0: []}
    for i in range(1, n):
        graph[i] = [i - 1, max(0, i - 2)]
    ours = [list(group) for group in f(graph, n - 1)]
    if ours != [[i] for i in reversed(range(n))]:
        raise AssertionError(f"{n} values in a row: the order is wrong")


# --- 3: the step for a second difference ------------------------------------------


def _bound(h: np.ndarray, size: float, fourth: float, eps: float) -> np.ndarray:
    return h**2 * fourth / 12 + 4 * eps * size / h**2


_CASES = ((1.0, 1.0, 2.0**-53), (3.0, 50.0, 1e-7), (200.0, 0.02, 1e-16))


def _step_best(f: F) -> None:
    for size, fourth, eps in _CASES:
        h, _ = f(size, fourth, eps)
        # Golden-section search on log h: no calculus, hence independent.
        low, high, ratio = np.log(1e-8), np.log(1e4), (5**0.5 - 1) / 2
        for _i in range(120):
            a, b = high - ratio * (high - low), low + ratio * (high - low)
            lower = _bound(np.exp(a), size, fourth, eps)
            if lower < _bound(np.exp(b), size, fourth, eps):
                high = b
            else:
                low = a
        close(h / np.exp(low), 1.0, "your step over the best one", atol=1e-5)


def _step_error(f: F) -> None:
    for size, fourth, eps in _CASES:
        h, error = f(size, fourth, eps)
        wanted = _bound(h, size, fourth, eps)
        close(error / wanted, 1.0, "your error bound over the one at your step")


# --- 4: a chain with few stored values --------------------------------------------


class _Output:
    """A layer's output that only the layers can read: no copy escapes the count."""

    def __init__(self, values: np.ndarray, forward: bool) -> None:
        self.values, self.forward = values, forward


def _sealed(h: object) -> _Output:
    if not isinstance(h, _Output):
        raise AssertionError(
            f"f and pull want x or an output of f as it came, not a {type(h).__name__}"
        )
    return h


def _chain(f: F, n: int, every: int) -> tuple[int, int, set[int]]:
    """Check value and slope; return layer calls, peak of live outputs, inputs kept."""
    rng = np.random.default_rng()
    weights = rng.normal(size=(n, 3, 3))
    alive, peak, calls, kept = 0, 0, 0, set()

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def layer(i: int, h: _Output) -> _Output:
        nonlocal alive, peak, calls
        if not 0 <= i < n:
            raise AssertionError(f"layer {i} asked for; layers are 0 to {n - 1}")
        if _sealed(h).forward and calls >= n:
            kept.add(i)
        out = _Output(np.tanh(weights[i] @ h.values), calls < n)
        weakref.finalize(out, gone)
        alive, calls = alive + 1, calls + 1
        peak = max(peak, alive)
        return out

    def pull(i: int, h: _Output, g: np.ndarray) -> np.ndarray:
        if _sealed(h).forward:
            kept.add(i)
        y = np.tanh(weights[i] @ h.values)
        return weights[i].T @ (np.asarray(g) * (1 - y**2))

    x, g = rng.normal(size=(2, 3))
    ours = f(layer, pull, _Output(x, True), n, every, g)
    values = [x]
    for W in weights:
        values.append(np.tanh(W @ values[-1]))
    slope = g
    for W, y in zip(weights[::-1], values[:0:-1]):
        slope = W.T @ (slope * (1 - y**2))
    what = f"{n} layers, a checkpoint every {every}"
    if not isinstance(ours[0], _Output):
        raise AssertionError(f"{what}: return the last output as f gave it")
    close(ours[0].values, values[-1], f"output, {what}")
    close(np.asarray(ours[1]), slope, f"slope, {what}")
    return calls, peak, kept


def _chain_values(f: F) -> None:
    for n, every in ((6, 2), (7, 3), (5, 1), (4, 9), (1, 1), (8, 4)):
        _chain(f, n, every)


def _chain_memory(f: F) -> None:
    for n, every in ((49, 7), (60, 4)):
        _, peak, _ = _chain(f, n, every)
        limit = -(-n // every) + every + 2
        if peak > limit:
            raise AssertionError(
                f"{n} layers, a checkpoint every {every}: {peak} outputs were alive "
                f"at once; {limit} suffice"
            )


def _chain_kept(f: F) -> None:
    for n, every in ((12, 3), (11, 4), (9, 1), (5, 8)):
        kept, wanted = _chain(f, n, every)[2], set(range(0, n, every))
        if kept != wanted:
            raise AssertionError(
                f"{n} layers, a checkpoint every {every}: the way back used the stored "
                f"inputs of layers {sorted(kept)}, wanted {sorted(wanted)}"
            )


def _chain_calls(f: F) -> None:
    for n, every in ((20, 4), (13, 5), (6, 6)):
        calls, _, _ = _chain(f, n, every)
        if calls > 2 * n:
            raise AssertionError(
                f"{n} layers were evaluated {calls} times; twice each, {2 * n}, "
                "is enough"
            )


_E = "multilayer_perceptron_and_backprop"
EXERCISES = {
    f"{_E}-1": Exercise(
        function="parity_network",
        checks=(
            Check(
                "right on every corner",
                _parity_values,
                hint="Parity depends on the sum only. Draw it over the sum: where does "
                "it bend, and by how much?",
            ),
            Check(
                "no more units than bits",
                _parity_units,
                hint="One unit for each bend, and the first bend is at 0.",
            ),
        ),
    ),
    f"{_E}-2": Exercise(
        function="backward_rounds",
        checks=(
            Check(
                "chain and diamond",
                _rounds_small,
                hint="A value is ready when its last user has run, not its first.",
            ),
            Check(
                "reuse, and users that do not count",
                _rounds_reuse,
                hint="Count each use; count only users that the root depends on.",
            ),
            Check(
                "random graphs",
                _rounds_random,
                hint="Compare by hand on a small one: the round is the longest path "
                "from the root.",
            ),
            Check(
                "three thousand values deep",
                _rounds_deep,
                hint="Keep a list of what is ready; no recursion, no path twice.",
            ),
        ),
    ),
    f"{_E}-3": Exercise(
        function="second_difference_step",
        checks=(
            Check(
                "the step is the best one",
                _step_best,
                hint="Set the slope of the sum of both errors by h to zero.",
            ),
            Check(
                "the error is that of the step",
                _step_error,
                hint="Truncation h² f''''/12, rounding 4 eps |f| / h².",
            ),
        ),
    ),
    f"{_E}-4": Exercise(
        function="chain_slope",
        checks=(
            Check(
                "output and slope",
                _chain_values,
                hint="Segments backward, and layers backward inside each; the last "
                "segment may be short.",
            ),
            Check(
                "few outputs alive",
                _chain_memory,
                hint="Keep every k-th input and one segment; drop what is done.",
            ),
            Check(
                "the inputs that were asked for",
                _chain_kept,
                hint="Store the input of layer i when i is a multiple of every, and "
                "recompute the others.",
            ),
            Check(
                "no layer more than twice",
                _chain_calls,
                hint="Recompute a segment once, from its checkpoint, and keep it.",
            ),
        ),
    ),
}

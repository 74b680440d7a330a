"""Checks of the exercises in ch-entropy-and-divergence, by independent references."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- entropy_and_divergence-1: Jensen–Shannon from counts -----------------------------


def _js_by_loops(a: np.ndarray, b: np.ndarray) -> float:
    """One pair of count vectors, from the definition by two KLs."""
    bits, n, m = 0.0, int(a.sum()), int(b.sum())
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        p, q = i / n, j / m
        if p > 0:
            bits += 0.5 * p * math.log2(2 * p / (p + q))
        if q > 0:
            bits += 0.5 * q * math.log2(2 * q / (p + q))
    return bits


def _js_wanted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(a.shape[:-1])
    for i in np.ndindex(out.shape):
        out[i] = _js_by_loops(a[i], b[i])
    return out


def _js_equal_totals(f: F) -> None:
    rng = np.random.default_rng()
    for K in (2, 5):
        a, b = rng.multinomial(40, rng.dirichlet(np.full(K, 2.0)), 2) + 1
        close(f(a, b), _js_by_loops(a, b), f"two windows over {K} events")


def _js_other_totals(f: F) -> None:
    rng = np.random.default_rng()
    a, b = rng.integers(1, 9, 4), rng.integers(100, 900, 4)
    close(f(a, b), _js_by_loops(a, b), "windows of very different length")


def _js_zeros(f: F) -> None:
    rng = np.random.default_rng()
    a, b = rng.integers(1, 9, 5), rng.integers(1, 9, 5)
    a[1], b[3], a[4], b[4] = 0, 0, 0, 0
    with np.errstate(all="ignore"):
        close(f(a, b), _js_by_loops(a, b), "events that a window has not seen")
        apart = f(np.array([3, 0]), np.array([0, 7]))
    close(apart, 1.0, "windows without a common event")


def _js_shapes(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((4, 3), (2, 3, 4)):
        a, b = rng.integers(1, 30, (2, *shape))
        close(f(a, b), _js_wanted(a, b), f"counts of shape {shape}")


# --- entropy_and_divergence-2: one step of an asymmetric numeral system ---------------


def _encode(x: int, symbol: int, frequencies: list[int]) -> int:
    """The state after a symbol, by counting slots instead of dividing."""
    slots = [s for s, n in enumerate(frequencies) for _ in range(n)]
    own = [i for i, s in enumerate(slots) if s == symbol]
    return len(slots) * (x // len(own)) + own[x % len(own)]


def _step(f: F, x: int, symbol: int, frequencies: list[int], what: str) -> None:
    result = f(_encode(x, symbol, frequencies), list(frequencies))
    if not (isinstance(result, tuple) and len(result) == 2):
        raise AssertionError(f"{what}: return (symbol, state), not {result!r}")
    for name, value, wanted in zip(("symbol", "state"), result, (symbol, x)):
        if type(value) is not int or value != wanted:
            raise AssertionError(f"{what}: {name} {value!r}, wanted {wanted} as int")


def _ans_small(f: F) -> None:
    rng = np.random.default_rng()
    for _ in range(20):
        frequencies = rng.integers(1, 6, int(rng.integers(1, 5))).tolist()
        symbol = int(rng.integers(len(frequencies)))
        x = int(rng.integers(0, 200))
        _step(f, x, symbol, frequencies, f"frequencies {frequencies}, from state {x}")


def _ans_zeros(f: F) -> None:
    for frequencies, symbol in (([0, 3, 0, 2], 3), ([0, 3, 0, 2], 1), ([4, 0, 1], 2)):
        for x in (0, 1, 5, 12):
            _step(f, x, symbol, frequencies, f"frequencies {frequencies}, state {x}")


def _ans_message(f: F) -> None:
    rng = np.random.default_rng()
    frequencies = [5, 1, 9, 2]
    message = rng.integers(0, 4, 60).tolist()
    x = 1
    for symbol in message:
        x = _encode(x, symbol, frequencies)
    back = []
    for _ in message:
        symbol, x = f(x, list(frequencies))
        back.append(symbol)
    if back[::-1] != message or x != 1:
        raise AssertionError(
            f"60 symbols in a state of over 100 bits: {back[:5]} … came back last "
            f"to first, wanted {message[::-1][:5]} …; final state {x}, wanted 1"
        )


# --- entropy_and_divergence-3: k3 with weights ----------------------------------------


def _tables(B: int, T: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng()
    logp, logp_ref, logp_old = rng.uniform(-4, -0.1, (3, B, T))
    mask = rng.random((B, T)) < 0.6
    mask[0, :2] = True, False
    return logp, logp_ref, logp_old, mask


def _penalty(
    logp: np.ndarray, ref: np.ndarray, old: np.ndarray, mask: np.ndarray
) -> float:
    total, n = 0.0, 0
    for i in np.ndindex(mask.shape):
        if mask[i]:
            q, p, before = (math.exp(t[i]) for t in (logp, ref, old))
            total += q / before * (p / q - 1 - math.log(p / q))
            n += 1
    return total / n


def _k3_on_policy(f: F) -> None:
    for B, T in ((2, 5), (3, 4)):
        logp, ref, _, _ = _tables(B, T)
        everything = np.ones((B, T), dtype=bool)
        wanted = _penalty(logp, ref, logp, everything)
        close(f(logp, ref, logp.copy(), everything), wanted, "same policy, no filler")


def _k3_weights(f: F) -> None:
    logp, ref, old, _ = _tables(3, 5)
    everything = np.ones((3, 5), dtype=bool)
    wanted = _penalty(logp, ref, old, everything)
    close(f(logp, ref, old, everything), wanted, "samples of an older policy")


def _k3_mask(f: F) -> None:
    tables = _tables(4, 6)
    close(f(*tables), _penalty(*tables), "with filler")
    filled = [np.where(tables[3], t, bad) for t, bad in zip(tables[:3], _BAD)]
    with np.errstate(all="ignore"):
        ours = f(*filled, tables[3])
    close(ours, _penalty(*tables), "filler that holds -inf and nan")


_BAD = (-np.inf, np.nan, -np.inf)


# --- entropy_and_divergence-4: gain ratio ---------------------------------------------


def _bits(counts: list[int]) -> float:
    n = sum(counts)
    return -sum(c / n * math.log2(c / n) for c in counts)


def _ratio(part: list[int], label: list[int]) -> float:
    n, gain = len(part), _bits(list(Counter(label).values()))
    for one in set(part):
        inside = [y for s, y in zip(part, label, strict=True) if s == one]
        gain -= len(inside) / n * _bits(list(Counter(inside).values()))
    return gain / _bits(list(Counter(part).values()))


def _ratio_on(f: F, n_parts: int, n_classes: int, n: int, what: str) -> None:
    rng = np.random.default_rng()
    part = rng.integers(0, n_parts, n)
    label = np.where(
        rng.random(n) < 0.6, part % n_classes, rng.integers(0, n_classes, n)
    )
    part[:2], label[:2] = (0, 1), (1, 0)
    order = rng.permutation(n)
    part, label = part[order], label[order]
    close(f(part, label), _ratio(part.tolist(), label.tolist()), what)


def _ratio_two(f: F) -> None:
    for n in (15, 40):
        _ratio_on(f, 2, 2, n, f"two parts, two classes, {n} examples")


def _ratio_many(f: F) -> None:
    _ratio_on(f, 5, 3, 60, "five parts, three classes")
    _ratio_on(f, 2, 4, 60, "two parts, four classes")


def _ratio_numbers(f: F) -> None:
    label = np.array([0, 1, 1, 0, 2, 1])
    numbers = np.array([40, 7, -3, 8, 100, 12])
    wanted = _bits([2, 3, 1]) / math.log2(6)
    close(f(numbers, label), wanted, "every example in a part of its own")


def _ratio_single(f: F) -> None:
    with np.errstate(all="ignore"):
        for label in ([0, 1, 1], [2, 2, 2]):
            close(f(np.array([7, 7, 7]), np.array(label)), 0.0, "one part only")
        pure = f(np.array([0, 1, 1, 0]), np.array([3, 3, 3, 3]))
    close(pure, 0.0, "two parts, one class: nothing to gain")


EXERCISES = {
    "entropy_and_divergence-1": Exercise(
        function="js_of_counts",
        checks=(
            Check(
                "two windows of one length",
                _js_equal_totals,
                hint="The mixture is the mean of the two; bits are log base 2.",
            ),
            Check(
                "windows of other lengths",
                _js_other_totals,
                hint="Divide each window by its own total before mixing.",
            ),
            Check(
                "zeros",
                _js_zeros,
                hint="0 log 0 is 0: special.entr and special.rel_entr know it.",
            ),
            Check(
                "leading axes",
                _js_shapes,
                hint="Events share the last axis; keep it while dividing.",
            ),
        ),
    ),
    "entropy_and_divergence-2": Exercise(
        function="ans_decode",
        checks=(
            Check(
                "one step undone",
                _ans_small,
                hint="x mod M lies in the part of one symbol: which, and how far in?",
            ),
            Check(
                "symbols of frequency 0",
                _ans_zeros,
                hint="A part without width holds no place.",
            ),
            Check(
                "a whole message",
                _ans_message,
                hint="Python's int has no limit, NumPy's has: use // and %.",
            ),
        ),
    ),
    "entropy_and_divergence-3": Exercise(
        function="kl_penalty",
        checks=(
            Check(
                "k3 of the policy's own samples",
                _k3_on_policy,
                hint="r is reference over policy: exp(logp_ref - logp).",
            ),
            Check(
                "samples of an older policy",
                _k3_weights,
                hint="Each term is weighted by exp(logp - logp_old).",
            ),
            Check(
                "only real tokens count",
                _k3_mask,
                hint="Select the real tokens first: nan times 0 is nan.",
            ),
        ),
    ),
    "entropy_and_divergence-4": Exercise(
        function="gain_ratio",
        checks=(
            Check(
                "two parts",
                _ratio_two,
                hint="Gain: H(label) minus the mean of the parts' entropies.",
            ),
            Check(
                "several parts and classes",
                _ratio_many,
                hint="The divisor is the entropy of the parts' shares.",
            ),
            Check(
                "a customer number",
                _ratio_numbers,
                hint="Parts may carry any whole numbers; the gain is H(label).",
            ),
            Check(
                "nothing to divide by",
                _ratio_single,
                hint="One part has entropy 0: return 0.0 then.",
            ),
        ),
    ),
}

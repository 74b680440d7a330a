"""Checks of the exercises in ch-pretraining-objectives. References are their own."""

import copy
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import same

F = Callable[..., Any]


# --- pretraining_objectives-1: whole words ------------------------------------------


def _masked(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """Token by token, with no array operation to get wrong."""
    inputs, labels = [], []
    for t, token in enumerate(case["ids"]):
        word = case["words"][t]
        asked = word >= 0 and case["word_draw"][word] < case["rate"]
        labels.append(token if asked else -100)
        shown = token
        if asked and case["token_draw"][t] < 0.8:
            shown = case["mask_id"]
        elif asked and case["token_draw"][t] < 0.9:
            shown = case["other"][t]
        inputs.append(shown)
    return np.array(inputs), np.array(labels)


def _case(rate: float, n: int = 60) -> dict:
    rng = np.random.default_rng()
    words = np.cumsum(rng.random(n) < 0.6) - 1
    words -= words[0]  # word 0 begins at once
    n_words = int(words[-1]) + 1
    words[[3, n - 1]] = -1  # special tokens
    return {
        "ids": rng.integers(100, 200, n),
        "words": words,
        "word_draw": rng.random(n_words),
        "token_draw": rng.random(n),
        "other": rng.integers(300, 400, n),
        "mask_id": 7,
        "rate": rate,
    }


def _ask(f: F, case: dict, what: str) -> None:
    given = copy.deepcopy(case)
    inputs, labels = f(**given)
    wanted_inputs, wanted_labels = _masked(case)
    same(labels, wanted_labels, f"labels, {what}")
    same(inputs, wanted_inputs, f"inputs, {what}")
    for name, value in case.items():
        if not np.array_equal(given[name], value):
            raise AssertionError(f"your function changed {name} in place")


def _whole_words(f: F) -> None:
    for rate in (0.3, 0.6):
        case = _case(rate)
        case["word_draw"][0] = 0.0
        _ask(f, case, f"rate {rate}")


def _edges(f: F) -> None:
    case = _case(0.5)
    case["word_draw"][:3] = [0.5, 0.0, 0.49]  # the rate itself is not below the rate
    case["word_draw"][3:] = 0.1
    case["token_draw"][::3] = 0.8
    case["token_draw"][1::3] = 0.9
    _ask(f, case, "draws that equal 0.8, 0.9 or the rate")


def _specials(f: F) -> None:
    case = _case(0.5)
    case["word_draw"][:] = 0.9
    case["word_draw"][-1] = 0.0  # index -1 would pick this one
    case["words"][5:8] = -1
    _ask(f, case, "special tokens among the words")


def _both(f: F) -> None:
    case = _case(0.99)
    case["word_draw"] *= 0.9
    case["token_draw"] = np.linspace(0, 0.999, len(case["ids"]))
    _ask(f, case, "every word asked for")


# --- pretraining_objectives-2: spans back in their places -----------------------------


def _corrupted(n: int, spans: list[tuple[int, int]]) -> tuple[list, list, list, list]:
    text = [*range(10, 50), *range(60, 100)]
    ids = np.random.default_rng().permutation(text)[:n].tolist()
    sentinels = [56, 52, 58, 54]  # between the ids of the text, and in no order
    inputs, targets, at = [], [], 0
    for k, (start, stop) in enumerate(spans):
        inputs += [*ids[at:start], sentinels[k]]
        targets += [sentinels[k], *ids[start:stop]]
        at = stop
    return ids, inputs + ids[at:], [*targets, sentinels[len(spans)]], sentinels


def _undo(f: F, n: int, spans: list[tuple[int, int]]) -> None:
    ids, inputs, targets, sentinels = _corrupted(n, spans)
    ours = list(f(list(inputs), list(targets), list(sentinels)))
    if ours != ids:
        raise AssertionError(f"{inputs} with {targets} gave {ours}, wanted {ids}")


def _undo_spans(f: F) -> None:
    _undo(f, 12, [(2, 4), (7, 8)])
    _undo(f, 15, [(3, 7), (8, 9), (11, 14)])


def _undo_ends(f: F) -> None:
    _undo(f, 9, [(0, 3), (6, 9)])
    _undo(f, 5, [(0, 5)])
    _undo(f, 4, [])


def _undo_odd(f: F) -> None:
    ids, inputs, targets, sentinels = _corrupted(12, [(2, 4), (7, 9)])
    cut = targets[: targets.index(sentinels[1])]  # the model stopped too early
    wanted = [*ids[:7], sentinels[1], *ids[9:]]
    ours = list(f(list(inputs), cut, list(sentinels)))
    if ours != wanted:
        raise AssertionError(f"one span unanswered: {ours}, wanted {wanted}")
    swapped = [sentinels[1], *ids[7:9], sentinels[0], *ids[2:4]]
    ours = list(f(list(inputs), swapped, list(sentinels)))
    if ours != ids:
        raise AssertionError(f"answers in another order: {ours}, wanted {ids}")


def _undo_empty(f: F) -> None:
    ids, inputs, targets, sentinels = _corrupted(12, [(2, 4), (7, 9)])
    empty = [sentinels[0], *targets[targets.index(sentinels[1]) :]]
    wanted = [*ids[:2], *ids[4:]]
    ours = list(f(list(inputs), empty, list(sentinels)))
    if ours != wanted:
        raise AssertionError(f"an empty answer: {ours}, wanted {wanted}")
    ours = list(f(list(inputs), [*ids[:2], *targets], list(sentinels)))
    if ours != ids:
        raise AssertionError(f"tokens before all sentinels: {ours}, wanted {ids}")
    ours = list(f(list(inputs), [], list(sentinels)))
    if ours != inputs:
        raise AssertionError(f"no answer at all: {ours}, wanted {inputs}")


# --- pretraining_objectives-3: product of conditionals --------------------------------


def _by_cells(joint: np.ndarray) -> np.ndarray:
    out = np.zeros(joint.shape)
    for cell in product(*(range(n) for n in joint.shape)):
        value = 1.0
        for axis in range(joint.ndim):
            line: list[Any] = list(cell)
            line[axis] = slice(None)
            total = joint[tuple(line)].sum()
            value *= joint[cell] / total if total > 0 else 0.0
        out[cell] = value
    return out


def _pseudo(f: F, joint: np.ndarray, what: str) -> None:
    before = joint.copy()
    with np.errstate(all="ignore"):
        ours = np.asarray(f(joint))
    wanted = _by_cells(before)
    if ours.shape != wanted.shape:
        raise AssertionError(f"{what}: shape {ours.shape}, wanted {wanted.shape}")
    if not np.isfinite(ours).all():
        raise AssertionError(f"{what}: holds NaN or infinity")
    gap = float(np.abs(ours - wanted).max())
    if gap > 1e-9:
        raise AssertionError(f"{what}: off by up to {gap:.3g}")
    if not np.array_equal(joint, before):
        raise AssertionError("your function changed the table in place")


def _table(*shape: int) -> np.ndarray:
    joint = np.random.default_rng().random(shape) + 0.05
    return joint / joint.sum()


def _pseudo_two(f: F) -> None:
    for shape in ((2, 3), (4, 2)):
        _pseudo(f, _table(*shape), f"table {shape}")


def _pseudo_many(f: F) -> None:
    for shape in ((3,), (2, 3, 4), (2, 2, 3, 2)):
        _pseudo(f, _table(*shape), f"table {shape}")


def _pseudo_zero(f: F) -> None:
    joint = _table(3, 2, 2)
    joint[1] = 0.0
    joint[0, 0] = 0.0
    _pseudo(f, joint / joint.sum(), "a table with impossible words")


# --- pretraining_objectives-4: the longest text that fits -----------------------------


def _total(n: int, density: float, mean_span: float) -> int:
    hidden = max(1, round(n * density))
    spans = max(1, round(hidden / mean_span))
    visible = n - hidden + spans
    return 1 + visible + hidden + spans + 1


def _fits(f: F, budgets: tuple[int, ...], density: float, mean_span: float) -> None:
    for budget in budgets:
        ours = f(budget, density, mean_span)
        n = 1
        while _total(n + 1, density, mean_span) <= budget:
            n += 1
        if ours != n:
            total = _total(int(ours), density, mean_span) if ours >= 1 else math.nan
            raise AssertionError(
                f"budget {budget}, density {density}, spans of {mean_span}: "
                f"{ours} tokens fill {total} places, and {n} would fit"
            )


def _fits_t5(f: F) -> None:
    _fits(f, (64, 128, 512), 0.15, 3)


def _fits_other(f: F) -> None:
    _fits(f, tuple(range(30, 100)), 0.5, 3)
    _fits(f, tuple(range(30, 100)), 0.15, 8)
    _fits(f, tuple(range(30, 80)), 0.3, 1.5)
    _fits(f, tuple(range(6, 40)), 0.15, 1)


def _fits_short(f: F) -> None:
    _fits(f, tuple(range(5, 16)), 0.15, 3)


EXERCISES = {
    "pretraining_objectives-1": Exercise(
        function="mask_words",
        checks=(
            Check(
                "a word is asked for as a whole",
                _whole_words,
                hint="word_draw[words] gives every token the draw of its word.",
            ),
            Check(
                "8 of 10 masked, 1 replaced, 1 shown",
                _both,
                hint="One draw decides: below 0.8, below 0.9, or the rest.",
            ),
            Check(
                "special tokens are never asked for",
                _specials,
                hint="Index -1 does not fail in NumPy: it is the last word.",
            ),
            Check(
                "draws on the edge",
                _edges,
                hint="Every comparison is a strict <, as a uniform draw can be 0.",
            ),
        ),
    ),
    "pretraining_objectives-2": Exercise(
        function="undo_spans",
        checks=(
            Check(
                "spans inside the text",
                _undo_spans,
                hint="Read the targets first: which ids follow which sentinel?",
            ),
            Check(
                "spans at the ends, all, none",
                _undo_ends,
                hint="The closing sentinel has no ids and stands in no input.",
            ),
            Check(
                "an answer missing or out of order",
                _undo_odd,
                hint="Look answers up by sentinel, not by their number.",
            ),
            Check(
                "an empty answer, stray tokens, no answer",
                _undo_empty,
                hint="An empty list is an answer; a missing one is not.",
            ),
        ),
    ),
    "pretraining_objectives-3": Exercise(
        function="pseudo_likelihood",
        checks=(
            Check(
                "two words",
                _pseudo_two,
                hint="p(first | second) divides by the sum over the first axis.",
            ),
            Check(
                "one word, three, four",
                _pseudo_many,
                hint="One factor per axis; keepdims lets it divide.",
            ),
            Check(
                "impossible words",
                _pseudo_zero,
                hint="0 / 0 is to be 0: divide only where the sum is positive.",
            ),
        ),
    ),
    "pretraining_objectives-4": Exercise(
        function="longest_text",
        checks=(
            Check(
                "T5's setting",
                _fits_t5,
                hint="Start, visible text, a sentinel per span on each side, the end.",
            ),
            Check(
                "other rates and span lengths",
                _fits_other,
                hint="Round the hidden tokens first, then the spans.",
            ),
            Check(
                "short budgets",
                _fits_short,
                hint="At least one token is hidden, in at least one span.",
            ),
        ),
    ),
}

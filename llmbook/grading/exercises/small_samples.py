"""Checks of the exercises in ch-small-samples, against independent references."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- small_samples-1: new words, one message left out at a time -----------------------


def _left_out(messages: list[list[str]]) -> float:
    """Take each message out and look its words up among the others."""
    shares = []
    for i, message in enumerate(messages):
        others = [w for j, m in enumerate(messages) if j != i for w in m]
        shares.append(Fraction(sum(w not in others for w in message), len(message)))
    return float(sum(shares) / len(shares))


def _messages(n: int, words: str, longest: int) -> list[list[str]]:
    rng = np.random.default_rng()
    return [
        [words[k] for k in rng.integers(len(words), size=rng.integers(1, longest))]
        for _ in range(n)
    ]


def _new_by_hand(f: F) -> None:
    small = [["my", "card"], ["my", "pin", "pin"], ["a", "loan", "for", "my"]]
    close(f(small), (1 / 2 + 2 / 3 + 3 / 4) / 3, "three messages")
    close(f([["my", "card"], ["card", "my"]]), 0.0, "the same words twice")


def _new_random(f: F) -> None:
    for n, words, longest in ((6, "abcdefgh", 5), (9, "abcdefghijklmnop", 8)):
        for _ in range(3):
            messages = _messages(n, words, longest)
            close(f(messages), _left_out(messages), f"messages {messages}")


def _new_repeats(f: F) -> None:
    messages = [["no", "no", "no", "way"], ["way", "out"], ["no", "hat", "hat"]]
    messages[2][0] = "yes"
    close(f(messages), _left_out(messages), f"messages {messages}")


def _new_lengths(f: F) -> None:
    messages = [["x"], ["a", "b", "c", "d", "e", "y"], ["a", "b", "c", "d", "y"]]
    close(f(messages), _left_out(messages), "messages of very different length")


# --- small_samples-2: the spread of a planned comparison ------------------------------


def _planned(d: np.ndarray, n_draws: float, n_items: float) -> float:
    """Variance components by explicit sums over the table."""
    D, M = d.shape
    mean = d.sum() / (D * M)
    row = [sum(d[s]) / M for s in range(D)]
    column = [sum(d[:, i]) / D for i in range(M)]
    rest = sum(
        (d[s, i] - row[s] - column[i] + mean) ** 2 for s in range(D) for i in range(M)
    ) / ((D - 1) * (M - 1))
    of_row = sum((x - mean) ** 2 for x in row) / (D - 1) - rest / M
    of_column = sum((x - mean) ** 2 for x in column) / (M - 1) - rest / D
    of_row, of_column = max(of_row, 0.0), max(of_column, 0.0)
    return math.sqrt(of_row / n_draws + of_column / n_items + rest / n_draws / n_items)


def _table(D: int, M: int, a: float, b: float, e: float) -> np.ndarray:
    rng = np.random.default_rng()
    effects = a * rng.normal(size=(D, 1)) + b * rng.normal(size=M)
    return effects + e * rng.normal(size=(D, M)) + rng.normal()


def _plan_values(f: F) -> None:
    for D, M, n_draws, n_items in ((4, 9, 7, 3), (6, 5, 2, 40), (3, 12, 3, 12)):
        d = _table(D, M, 2.0, 1.5, 0.5)
        what = f"pilot {D} × {M}, plan {n_draws} × {n_items}"
        close(f(d, n_draws, n_items), _planned(d, n_draws, n_items), what, rtol=1e-9)


def _plan_no_effect(f: F) -> None:
    rng = np.random.default_rng()
    for axis, what in ((1, "draws"), (0, "items")):
        d = rng.normal(size=(5, 8))
        d = d - d.mean(axis=axis, keepdims=True)  # this lottery has no effect at all
        close(f(d, 4, 6), _planned(d, 4, 6), f"no effect of the {what}", rtol=1e-9)


def _plan_limits(f: F) -> None:
    d = _table(6, 10, 1.0, 2.0, 0.7)
    for plan in ((1e12, 10), (6, 1e12)):
        close(f(d, *plan), _planned(d, *plan), f"plan {plan}", rtol=1e-9)


# --- small_samples-3: how many labels a target costs ----------------------------------


def _needed(sizes: list[int], accuracy: list[float], target: float) -> float:
    """Walk along the curve in small equal steps of log n, between the points."""
    if accuracy[0] >= target:
        return float(sizes[0])
    for k in range(len(sizes) - 1):
        if accuracy[k] < target <= accuracy[k + 1]:
            low, high = math.log(sizes[k]), math.log(sizes[k + 1])
            share = (target - accuracy[k]) / (accuracy[k + 1] - accuracy[k])
            return math.exp(low + share * (high - low))
    return math.inf


def _compare_needed(
    f: F, sizes: list[int], accuracy: list[float], target: float
) -> None:
    what = f"sizes {sizes}, accuracy {accuracy}, target {target}"
    close(f(sizes, accuracy, target), _needed(sizes, accuracy, target), what, rtol=1e-9)


def _needed_between(f: F) -> None:
    _compare_needed(f, [10, 1000], [0.25, 0.75], 0.5)  # half way in log n: 100
    _compare_needed(f, [5, 10, 20, 50], [0.3, 0.45, 0.5, 0.8], 0.7)
    _compare_needed(f, [3, 7, 40], [0.1, 0.6, 0.9], 0.35)


def _needed_ends(f: F) -> None:
    _compare_needed(f, [5, 20, 100], [0.5, 0.4, 0.9], 0.5)
    _compare_needed(f, [5, 20, 100], [0.5, 0.6, 0.9], 0.3)
    _compare_needed(f, [5, 20, 100], [0.2, 0.6, 0.5], 0.6)
    _compare_needed(f, [5, 20, 100], [0.2, 0.3, 0.6], 0.6)


def _needed_never(f: F) -> None:
    _compare_needed(f, [5, 20, 100], [0.2, 0.3, 0.6], 0.61)
    _compare_needed(f, [4, 8], [0.5, 0.5], 0.7)


def _needed_first(f: F) -> None:
    _compare_needed(f, [5, 10, 20, 40], [0.3, 0.7, 0.4, 0.9], 0.6)
    _compare_needed(f, [5, 10, 20, 40], [0.3, 0.5, 0.2, 0.8], 0.6)


EXERCISES = {
    "small_samples-1": Exercise(
        function="new_words",
        checks=(
            Check(
                "three messages by hand",
                _new_by_hand,
                hint="A word is new to the others when only this message has it.",
            ),
            Check(
                "a word twice in one message is still new to the others",
                _new_repeats,
                hint="Count messages that hold a word, not occurrences.",
            ),
            Check(
                "a short message counts as much as a long one",
                _new_lengths,
                hint="Take the share of each message first, then their mean.",
            ),
            Check("random messages", _new_random),
        ),
    ),
    "small_samples-2": Exercise(
        function="planned_error",
        checks=(
            Check(
                "other numbers of draws and items than the pilot's",
                _plan_values,
                hint="Solve the three expected mean squares for the variances.",
            ),
            Check(
                "a lottery without effect",
                _plan_no_effect,
                hint="An estimated variance below zero counts as zero.",
            ),
            Check(
                "endless draws, endless items",
                _plan_limits,
                hint="Only the terms divided by that number vanish.",
            ),
        ),
    ),
    "small_samples-3": Exercise(
        function="labels_needed",
        checks=(
            Check(
                "between two sizes",
                _needed_between,
                hint="Equal ratios of n are equal distances.",
            ),
            Check(
                "exactly at a size",
                _needed_ends,
                hint="Reached means at least; nothing is needed beyond the first.",
            ),
            Check("never", _needed_never, hint="A curve that ends below says inf."),
            Check(
                "the first time counts",
                _needed_first,
                hint="Curves fall by chance; stop at the first crossing.",
            ),
        ),
    ),
}

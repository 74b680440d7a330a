"""Checks of the exercises in ch-mutual-information, references written independently.

Loops over cells stand against the solutions' array formulas.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- mutual_information-1: conditional mutual information -----------------------------


def _conditional_reference(counts: np.ndarray) -> float:
    """The mean over z of the mutual information within z, cell by cell."""
    total, out = counts.sum(), 0.0
    for z in range(counts.shape[2]):
        part = counts[:, :, z]
        n = part.sum()
        for x, y in np.argwhere(part > 0):
            c = part[x, y]
            out += c / total * math.log(c * n / (part[x].sum() * part[:, y].sum()))
    return out


def _conditional_on(f: F, counts: np.ndarray, what: str) -> None:
    before = counts.copy()
    with np.errstate(all="ignore"):
        ours = f(counts)
    close(ours, _conditional_reference(before), what)
    if not np.array_equal(counts, before):
        raise AssertionError("your function changed its argument in place")


def _conditional_values(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((2, 3, 4), (5, 2, 2), (3, 4, 1)):
        counts = rng.integers(1, 30, shape).astype(float)
        _conditional_on(f, counts, f"counts of shape {shape}")


def _conditional_empty(f: F) -> None:
    rng = np.random.default_rng()
    counts = rng.integers(0, 3, (3, 4, 5)).astype(float)
    counts[1], counts[:, 2], counts[:, :, 3] = 0, 0, 0
    counts[0, 0, 0] = 7
    _conditional_on(f, counts, "an empty row, column and layer")


def _conditional_cases(f: F) -> None:
    xor = np.zeros((2, 2, 2))
    for a, b in np.ndindex(2, 2):
        xor[a, b, a ^ b] = 5.0
    _conditional_on(f, xor, "exclusive or: log 2")
    copies = np.zeros((3, 3, 3))
    for i in range(3):
        copies[i, i, i] = 4.0 + i
    _conditional_on(f, copies, "three copies of one variable: 0")


# --- mutual_information-2: a loss with several partners -------------------------------


def _shared_reference(scores: np.ndarray, same: np.ndarray) -> float:
    halves = []
    for s, t in ((scores, same), (scores.T, same.T)):
        rows = []
        for row, partner in zip(s, t):
            if not partner.any():
                continue
            row = np.asarray(row, dtype=np.longdouble)
            total = row.max() + np.log(np.exp(row - row.max()).sum())
            rows.append(np.mean([total - v for v in row[partner]]))
        halves.append(np.mean(rows))
    return float(np.mean(halves))


def _shared_on(f: F, scores: np.ndarray, same: np.ndarray, what: str) -> None:
    kept = scores.copy(), same.copy()
    with np.errstate(all="ignore"):
        ours = f(scores, same)
    close(ours, _shared_reference(*kept), what, atol=1e-8)
    if not (np.array_equal(scores, kept[0]) and np.array_equal(same, kept[1])):
        raise AssertionError("your function changed its arguments in place")


def _shared_values(f: F) -> None:
    rng = np.random.default_rng()
    for n in (3, 6):
        same = np.eye(n, dtype=bool)
        _shared_on(f, rng.normal(size=(n, n)), same, f"one partner each, {n} pairs")
    digit = np.array([0, 1, 0, 2, 1, 0])
    same = digit[:, None] == digit
    _shared_on(f, 2 * rng.normal(size=(6, 6)), same, "several partners")


def _shared_oblong(f: F) -> None:
    rng = np.random.default_rng()
    rows, columns = np.array([0, 1, 1, 3, 0]), np.array([1, 0, 2, 0, 1, 1, 5])
    same = rows[:, None] == columns
    what = "5 images, 7 captions, some without a partner"
    _shared_on(f, rng.normal(size=(5, 7)), same, what)
    _shared_on(f, rng.normal(size=(7, 5)), same.T, "the same, turned")


def _shared_large(f: F) -> None:
    rng = np.random.default_rng()
    digit = np.array([0, 1, 0, 1])
    scores = 300 * rng.normal(size=(4, 4)) + np.array([[2e3], [-2e3], [0], [0]])
    same = digit[:, None] == digit
    _shared_on(f, scores, same, "scores in the thousands")


# --- mutual_information-3: the best pair of columns -----------------------------------


def _joint_entropy(*columns: np.ndarray) -> float:
    n = len(columns[0])
    counts = Counter(zip(*(c.tolist() for c in columns)))
    return -sum(c / n * math.log(c / n) for c in counts.values())


def _pair_reference(
    X: np.ndarray, y: np.ndarray, shuffles: np.ndarray
) -> tuple[tuple[int, int], float]:
    def told(i: int, j: int, y: np.ndarray) -> float:
        a, b = X[:, i], X[:, j]
        return _joint_entropy(a, b) + _joint_entropy(y) - _joint_entropy(a, b, y)

    best = (0, 1), -math.inf
    for i in range(X.shape[1]):
        for j in range(i + 1, X.shape[1]):
            null = float(np.mean([told(i, j, s) for s in shuffles]))
            gain = told(i, j, y) - null
            if gain > best[1]:
                best = (i, j), gain
    return best


def _pair_on(
    f: F, X: np.ndarray, y: np.ndarray, rng: np.random.Generator, what: str
) -> None:
    shuffles = np.array([rng.permutation(y) for _ in range(4)])
    pair, gain = f(X.copy(), y.copy(), shuffles.copy())
    wanted, value = _pair_reference(X, y, shuffles)
    if tuple(int(i) for i in pair) != wanted:
        raise AssertionError(f"{what}: chose {tuple(pair)}, wanted {wanted}")
    close(gain, value, f"{what}: information above the shuffles")


def _pair_xor(f: F) -> None:
    rng = np.random.default_rng()
    for place in ((0, 1), (1, 3), (2, 3)):
        X = rng.integers(0, 2, (80, 4))
        y = X[:, place[0]] ^ X[:, place[1]]
        _pair_on(f, X, y, rng, f"exclusive or of columns {place}")


def _pair_number(f: F) -> None:
    rng = np.random.default_rng()
    X = rng.integers(0, 3, (70, 4))
    X[:, 1] = rng.permutation(70)
    y = (X[:, 0] + X[:, 3] + (rng.random(70) < 0.15)) % 3
    _pair_on(f, X, y, rng, "column 1 is a number unique to its row")


def _pair_codes(f: F) -> None:
    rng = np.random.default_rng()
    a, b = rng.integers(0, 3, (2, 90))
    y = np.array([12, -3, 400])[(a - b) % 3]
    for step in (10, 100, 1000):  # a * step + b would take (1, 0) for (0, step)
        X = np.stack([a, rng.integers(-1, 2, 90), step * (b - 1)], axis=1)
        _pair_on(f, X, y, rng, f"codes in steps of {step}, some negative")


EXERCISES = {
    "mutual_information-1": Exercise(
        function="conditional_information",
        checks=(
            Check(
                "values",
                _conditional_values,
                hint="Axes are x, y, z: the third is what is known already.",
            ),
            Check(
                "empty cells",
                _conditional_empty,
                hint="Sum only over cells that were seen; 0 log 0 is 0.",
            ),
            Check(
                "known cases",
                _conditional_cases,
                hint="Within each z the margins are those of that layer.",
            ),
        ),
    ),
    "mutual_information-2": Exercise(
        function="shared_loss",
        checks=(
            Check(
                "values",
                _shared_values,
                hint="Average -log p over a row's partners, then over rows.",
            ),
            Check(
                "more captions than images",
                _shared_oblong,
                hint="Leave out rows that have no partner, in each direction.",
            ),
            Check(
                "large scores",
                _shared_large,
                hint="Subtract the largest score of each row first.",
            ),
        ),
    ),
    "mutual_information-3": Exercise(
        function="best_pair",
        checks=(
            Check(
                "exclusive or",
                _pair_xor,
                hint="Treat the two columns as one variable with joint values.",
            ),
            Check(
                "a unique number",
                _pair_number,
                hint="Subtract what the pair tells about shuffled labels.",
            ),
            Check(
                "any codes",
                _pair_codes,
                hint="Joint values must be told apart: i * 10 + j is not enough.",
            ),
        ),
    ),
}

"""Checks of the exercises in ch-significance-tests, against independent references."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from math import comb
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy import stats

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- significance_tests-1: from labels to a p-value -----------------------------------


def _exact(wins: int, losses: int) -> float:
    m = wins + losses
    tail = sum(Fraction(comb(m, k), 2**m) for k in range(min(wins, losses) + 1))
    return float(min(Fraction(1), 2 * tail))


def _labels(wins: int, losses: int, both: int, neither: int) -> tuple[list, list, list]:
    rows = (
        [("x", "y", "x")] * wins
        + [("y", "x", "x")] * losses
        + [("z", "z", "z")] * both
        + [("x", "y", "z")] * neither
    )
    order = np.random.default_rng().permutation(len(rows))
    a, b, truth = zip(*(rows[i] for i in order), strict=True)
    return list(a), list(b), list(truth)


def _compare_on(f: F, tables: list[tuple[int, int, int, int]]) -> None:
    for table in tables:
        wins, losses, *_ = table
        delta, p = f(*_labels(*table))
        what = f"{wins} wins, {losses} losses, {table[2]} both, {table[3]} neither"
        close(delta, (wins - losses) / sum(table), f"difference, {what}")
        close(p, _exact(wins, losses), f"p-value, {what}")


def _compare_values(f: F) -> None:
    _compare_on(f, [(7, 1, 5, 0), (2, 9, 4, 0), (12, 5, 20, 0), (1, 0, 3, 0)])


def _compare_ties(f: F) -> None:
    _compare_on(f, [(4, 4, 3, 0), (0, 0, 6, 0), (3, 3, 0, 2)])


def _compare_neither(f: F) -> None:
    _compare_on(f, [(6, 1, 2, 5), (0, 5, 1, 9), (0, 0, 0, 4)])


# --- significance_tests-2: flip whole clusters ----------------------------------------


def _flip_reference(d: list[float], cluster: list) -> float:
    names = list(dict.fromkeys(cluster))
    hits = total = 0
    for signs in itertools.product((1, -1), repeat=len(names)):
        sign = dict(zip(names, signs, strict=True))
        value = sum(x * sign[c] for x, c in zip(d, cluster, strict=True))
        hits += abs(value) >= abs(sum(d)) - 1e-9
        total += 1
    return hits / total


def _flip_on(f: F, d: list[float], cluster: list, what: str) -> None:
    close(f(np.array(d), np.array(cluster)), _flip_reference(d, cluster), what)


def _flip_values(f: F) -> None:
    rng = np.random.default_rng()
    for k, size in ((3, 4), (5, 2), (6, 3)):
        cluster = rng.permutation(np.repeat(np.arange(k) * 7, size))
        d = rng.normal(size=k * size) + 0.4
        _flip_on(f, d.tolist(), cluster.tolist(), f"{k} clusters of {size}")


def _flip_uneven(f: F) -> None:
    rng = np.random.default_rng()
    cluster = [0, 0, 0, 0, 1, 2, 2, 3]
    _flip_on(f, (rng.normal(size=8) + 0.5).tolist(), cluster, "clusters of 4, 1, 2, 1")
    uneven = [1.0, 1.0, 1.0, 1.0, -2.0, 1.0]
    _flip_on(f, uneven, [0, 0, 0, 0, 1, 2], "clusters of 4, 1, 1")
    names = ["pay", "card", "pay", "loan", "card"]
    _flip_on(f, [1.0, -0.5, 0.7, 2.0, 0.3], names, "clusters with names")


def _flip_negative(f: F) -> None:
    _flip_on(f, [-3.0, -1.0, -2.0, 0.5], [0, 1, 2, 2], "a mean below zero")
    _flip_on(f, [1.0, 1.0, 1.0], [0, 1, 2], "three equal differences")
    _flip_on(f, [1.0, -1.0, 2.0], [4, 4, 9], "a cluster that sums to zero")
    # 0.1 + 0.2 and 0.3 tie in mathematics and differ in the last bit.
    _flip_on(f, [0.1, 0.2, -0.3, 0.6], [0, 1, 2, 3], "ties up to rounding")
    _flip_on(f, [0.1, 0.2, 0.3], [0, 1, 2], "ties up to rounding, three items")


# --- significance_tests-3: Benjamini and Hochberg ------------------------------------


def _bh_reference(p: np.ndarray) -> np.ndarray:
    m = len(p)
    ordered = sorted(p)
    adjusted = [min(ordered[j] * m / (j + 1) for j in range(i, m)) for i in range(m)]
    return np.array([min(1.0, adjusted[ordered.index(x)]) for x in p])


def _bh_values(f: F) -> None:
    rng = np.random.default_rng()
    for m in (2, 5, 13):
        for _ in range(5):
            p = rng.random(m) ** 3
            close(f(p.copy()), _bh_reference(p), f"{m} p-values", 1e-12)


def _bh_edges(f: F) -> None:
    close(f([0.04]), [0.04], "a single p-value")
    close(f([1.0, 0.9]), [1.0, 1.0], "nothing found")
    close(f([0.03, 0.01, 0.03]), [0.03, 0.03, 0.03], "a tie")


# --- significance_tests-4: plan an evaluation -----------------------------------------


def _plan_reference(delta: float, differ: float, k: int) -> float:
    z = NormalDist().inv_cdf(1 - 0.025 / k)
    y = NormalDist().inv_cdf(0.8)
    return ((z * differ**0.5 + y * (differ - delta**2) ** 0.5) / delta) ** 2


def _plan_values(f: F) -> None:
    for delta, differ, k in (
        (0.05, 0.2, 1),
        (0.02, 0.1, 1),
        (0.01, 0.3, 7),
        (0.13, 0.21, 20),
        (0.3, 0.31, 3),
    ):
        wanted = int(np.ceil(_plan_reference(delta, differ, k)))
        got = f(delta, differ, k)
        if got != wanted:
            what = f"delta {delta}, differ {differ}, {k} variants"
            raise AssertionError(f"{what}: {got} items, wanted {wanted}")


def _plan_limits(f: F) -> None:
    try:
        f(0.2, 0.1, 1)
    except ValueError:
        pass
    else:
        raise AssertionError("delta 0.2 with 0.1 disagreement is impossible: no error")
    wanted = int(np.ceil(_plan_reference(0.25, 0.25, 2)))
    if f(0.25, 0.25, 2) != wanted:
        raise AssertionError("delta equal to differ is possible: every change a gain")


# --- significance_tests-5: the level that a count can reach ---------------------------


def _reach_reference(m: int, level: float) -> tuple[int | None, float]:
    chance = [Fraction(comb(m, k), 2**m) for k in range(m + 1)]
    for wins in range(m + 1):
        extreme = [c for k, c in enumerate(chance) if abs(2 * k - m) >= 2 * wins - m]
        if 2 * wins > m and sum(extreme) <= Fraction(str(level)):
            return wins, float(sum(extreme))
    return None, 0.0


def _reach_on(f: F, m: int, level: float) -> None:
    wins, rate = f(m, level)
    wanted, alarms = _reach_reference(m, level)
    if wins != wanted:
        raise AssertionError(f"m = {m}, level {level}: {wins} wins, wanted {wanted}")
    close(rate, alarms, f"false-alarm rate, m = {m}, level {level}")


def _reach_values(f: F) -> None:
    for m in (6, 8, 9, 17, 40):
        for level in (0.01, 0.05, 0.2):
            _reach_on(f, m, level)


def _reach_edges(f: F) -> None:
    for m, level in ((0, 0.05), (1, 0.05), (5, 0.05), (3, 0.25), (6, 0.03125)):
        _reach_on(f, m, level)
    _reach_on(f, 7, 0.99)
    _reach_on(f, 6, 0.7)
    _reach_on(f, 1, 0.999)


# --- significance_tests-6: over seeds, over items -------------------------------------


def _halves_reference(gain: np.ndarray) -> list[float]:
    found = []
    for axis in (1, 0):
        values = gain.mean(axis=axis)
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        found.append((high - low) / 2)
    return found


def _halves_values(f: F) -> None:
    rng = np.random.default_rng()
    for n_seeds, n_items in ((3, 40), (12, 7), (2, 2)):
        gain = 2 * rng.normal(size=(n_seeds, 1)) + rng.normal(size=(n_seeds, n_items))
        what = f"{n_seeds} seeds, {n_items} items"
        close(f(gain.copy()), _halves_reference(gain), what)


def _halves_extremes(f: F) -> None:
    rng = np.random.default_rng()
    by_seed = np.repeat(rng.normal(size=(4, 1)), 9, axis=1)
    close(f(by_seed)[1], 0.0, "all items alike: the half-width over items")
    by_item = np.repeat(rng.normal(size=(1, 9)), 4, axis=0)
    close(f(by_item)[0], 0.0, "all seeds alike: the half-width over seeds")


EXERCISES = {
    "significance_tests-1": Exercise(
        function="compare",
        checks=(
            Check("wins and losses", _compare_values, hint="Count only-A and only-B."),
            Check("ties", _compare_ties, hint="Equal wins and losses: p is 1."),
            Check("both wrong", _compare_neither, hint="Compare with truth first."),
        ),
    ),
    "significance_tests-2": Exercise(
        function="cluster_flip_p",
        checks=(
            Check("values", _flip_values, hint="One sign per cluster, not per item."),
            Check("uneven clusters", _flip_uneven, hint="Use sums, not means."),
            Check("signs and ties", _flip_negative, hint="Two-sided; ≥ with slack."),
        ),
        equivalent={
            "1 → 2": "every total appears twice, and their shares stay",
            "1e-12 → 2e-12": "any slack between rounding and the data's steps will do",
            "np.abs(totals) >= abs(sums.sum()) - 1e-12 → "
            "np.abs(totals) > abs(sums.sum()) - 1e-12": "the slack decides ties",
        },
    ),
    "significance_tests-3": Exercise(
        function="benjamini_hochberg",
        checks=(
            Check("values", _bh_values, hint="Minimum over j ≥ i: run from the end."),
            Check("edges", _bh_edges, hint="In the order of the input, at most 1."),
        ),
    ),
    "significance_tests-4": Exercise(
        function="plan",
        checks=(
            Check("items", _plan_values, hint="Two-sided: α / (2 k) in each tail."),
            Check("limits", _plan_limits, hint="delta = differ is still possible."),
        ),
    ),
    "significance_tests-5": Exercise(
        function="reach",
        checks=(
            Check("values", _reach_values, hint="Both tails, at most the level."),
            Check("edges", _reach_edges, hint="With few tosses no count suffices."),
        ),
    ),
    "significance_tests-6": Exercise(
        function="halves",
        checks=(
            Check("values", _halves_values, hint="Average over the other axis first."),
            Check("one lottery only", _halves_extremes, hint="Seeds, then items."),
        ),
    ),
}

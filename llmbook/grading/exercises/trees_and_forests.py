"""Checks of the exercises in ch-trees-and-forests, against independent references."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close, same

F = Callable[..., Any]


# --- trees_and_forests-1: a cut through categories ------------------------------------


def _all_subsets(codes: np.ndarray, y: np.ndarray) -> tuple[list[int], float]:
    """Every way to cut the categories in two, by brute force over subsets."""
    names, best, answer = sorted({int(c) for c in codes}), -1.0, [0]
    for size in range(1, len(names)):
        for subset in itertools.combinations(names, size):
            low = np.array([int(c) in subset for c in codes])
            if y[low].mean() > y[~low].mean():
                continue
            inside = low.sum() * y[low].var() + (~low).sum() * y[~low].var()
            gain = y.var() - inside / len(y)
            if gain > best:
                best, answer = gain, list(subset)
    return answer, best


def _subset_on(f: F, codes: np.ndarray, y: np.ndarray, what: str) -> None:
    wanted, gain = _all_subsets(codes, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            names, ours = f(codes.copy(), y.copy())
        except RuntimeWarning as warning:
            raise AssertionError(f"{what}: a side without rows ({warning})") from None
    same(names, np.array(wanted), f"{what}: codes on the low side")
    close(ours, gain, f"{what}: reduction of the variance", 1e-9 * max(1, y.var()))


def _subset_values(f: F) -> None:
    rng = np.random.default_rng()
    for k, n in ((3, 20), (5, 40), (7, 60)):
        names = rng.permutation(50)[:k]
        codes = np.concatenate([names, rng.choice(names, n - k)])
        effect = dict(zip(names.tolist(), rng.normal(size=k), strict=True))
        y = np.array([effect[c] for c in codes.tolist()]) + 0.3 * rng.normal(size=n)
        _subset_on(f, codes, y, f"{k} categories, {n} rows")


def _subset_edges(f: F) -> None:
    _subset_on(f, np.array([4, 9, 9, 4, 4]), np.array([3.0, 1, 2, 5, 4]), "two codes")
    codes = np.array([1, 2, 3, 4, 4, 4, 4, 4, 4])
    far = np.array([9.0, 0.1, 0, 0.2, 0, 0, 0.1, 0, 0.3])
    _subset_on(f, codes, far, "one rare category far away")
    _subset_on(f, codes, -far, "one rare category far below")
    _subset_on(f, codes, 1e-3 * far + 7, "a small spread around 7")
    codes = np.repeat([8, 3, 5, 1, 9, 4], 3)
    halves = np.repeat([0.0, 5.0, 0.2, 5.1, 0.1, 5.3], 3)
    _subset_on(f, codes, halves, "three categories low, three high")
    codes = np.repeat([6, 2, 7, 4], 3)
    skewed = np.array([0.0, 0, 9, 1, 1, 1.3, 0.6, 0.6, 0.6, 4, 4, 4.4])
    _subset_on(f, codes, skewed, "a category whose mean one row pulls up")


# --- trees_and_forests-2: out of bag by group -----------------------------------------


def _oob_reference(
    drawn: np.ndarray, guesses: np.ndarray, y: np.ndarray, group: np.ndarray
) -> tuple[float, int]:
    errors = []
    for i in range(len(y)):
        said = [
            guesses[b, i]
            for b in range(len(drawn))
            if all(group[j] != group[i] for j in drawn[b])
        ]
        if said:
            errors.append((sum(said) / len(said) - y[i]) ** 2)
    return sum(errors) / len(errors), len(errors)


def _oob_on(
    f: F, drawn: np.ndarray, group: np.ndarray, what: str, n_trees: int
) -> None:
    rng = np.random.default_rng()
    guesses, y = rng.normal(size=(n_trees, len(group))), rng.normal(size=len(group))
    error, count = _oob_reference(drawn, guesses, y, group)
    got, judged = f(drawn.copy(), guesses.copy(), y.copy(), group.copy())
    close(judged, count, f"{what}: rows that are judged")
    close(got, error, f"{what}: error")


def _oob_rows(f: F) -> None:
    rng = np.random.default_rng()
    for n, n_trees in ((12, 6), (9, 20)):
        drawn = rng.integers(0, n, (n_trees, n))
        drawn[0] = np.arange(n) // 2  # leaves the upper half out
        what = f"{n_trees} trees, every row its own group"
        _oob_on(f, drawn, rng.permutation(n) + 100, what, n_trees)
    one = np.array([[0, 0, 0], [1, 1, 1]])  # rows 0 and 1 have one judge each
    _oob_on(f, one, np.array([7, 3, 5]), "2 trees, rows with a single judge", 2)


def _oob_groups(f: F) -> None:
    rng = np.random.default_rng()
    for n, m, n_trees in ((12, 5, 9), (15, 7, 30)):
        group = rng.permutation(np.arange(n) // 3)
        drawn = rng.integers(0, n, (n_trees, m))
        drawn[0] = np.flatnonzero(group == 0)[[0] * m]
        _oob_on(f, drawn, group, f"groups of three, {n_trees} trees", n_trees)


def _oob_nobody(f: F) -> None:
    drawn = np.array([[0, 0, 1], [1, 0, 4], [0, 3, 1]])
    with np.errstate(divide="raise", invalid="raise"):
        try:
            _oob_on(f, drawn, np.array([0, 1, 2, 3, 0]), "rows nobody judges", 3)
        except FloatingPointError as error:
            raise AssertionError(f"a row that nobody judges: {error}") from None


# --- trees_and_forests-3: one stage for a quantile ------------------------------------


def _pinball(F_: np.ndarray, y: np.ndarray, q: float) -> float:
    above, below = np.maximum(y - F_, 0.0), np.maximum(F_ - y, 0.0)
    return float((q * above + (1 - q) * below).sum())


def _stage_pull(f: F) -> None:
    rng = np.random.default_rng()
    for q in (0.95, 0.3):
        F_, y = rng.normal(size=8), rng.normal(size=8)
        y[2], y[3], y[4] = F_[2], F_[3] + 0.5, F_[4] - 0.5
        wanted = [q if a > b else q - 1 for a, b in zip(y, F_, strict=True)]
        pull, _ = f(F_.copy(), y, np.zeros(8, dtype=int), q, 0.1)
        close(pull, wanted, f"pulls, q = {q}")
        for i in (0, 5):  # and they are the slope of the loss, downwards
            up, down = F_.copy(), F_.copy()
            up[i], down[i] = F_[i] + 1e-7, F_[i] - 1e-7
            slope = (_pinball(up, y, q) - _pinball(down, y, q)) / 2e-7
            close(pull[i], -slope, f"pull of row {i} against the slope", 1e-4)


def _stage_step(f: F) -> None:
    rng = np.random.default_rng()
    for q, lr in ((0.95, 1.0), (0.5, 0.1), (0.2, 0.37)):
        F_, y = 3 * rng.normal(size=30), rng.normal(size=30) + 2
        leaf = rng.permutation(np.array([3] * 14 + [7] * 9 + [8] * 6 + [20]))
        wanted = F_.copy()
        for i in range(30):
            beside = [y[j] - F_[j] for j in range(30) if leaf[j] == leaf[i]]
            wanted[i] = F_[i] + lr * float(np.quantile(beside, q))
        _, after = f(F_.copy(), y, leaf, q, lr)
        close(after, wanted, f"scores after the step, q = {q}, lr = {lr}")


def _stage_keeps(f: F) -> None:
    rng = np.random.default_rng()
    F_, y = rng.normal(size=6), rng.normal(size=6)
    before = F_.copy()
    f(F_, y, np.array([0, 0, 1, 1, 1, 0]), 0.9, 0.5)
    if not np.array_equal(F_, before):
        raise AssertionError("your function changed F in place")


# --- trees_and_forests-4: permute among equals ----------------------------------------


def _rise_reference(c: np.ndarray, values: np.ndarray, stratum: np.ndarray) -> float:
    """Expected rise for a linear model that fits exactly, over all permutations."""
    total = 0.0
    for name in set(stratum.tolist()):
        v = values[stratum == name]
        if len(v) > 1:  # E (v_i - v_j)^2 with j uniform over the stratum
            total += ((v[:, None] - v[None, :]) ** 2).mean() * len(v)
    return float(c**2 * total / len(values))


def _rise_values(f: F) -> None:
    rng = np.random.default_rng()
    n = 4000
    x = rng.normal(size=(n, 3)) + 1.0
    stratum = rng.integers(0, 4, n) * 10
    x[:, 1] += 2.0 * stratum / 10
    c = np.array([0.5, 1.5, -2.0])
    for column in (1, 2):
        ours = f(lambda z: z @ c, x.copy(), x @ c, column, stratum, rng)
        wanted = _rise_reference(c[column], x[:, column], stratum)
        close(ours, wanted, f"column {column} of a linear model", 0.0, 0.12)


def _rise_base(f: F) -> None:
    rng = np.random.default_rng()
    n = 4000
    x = rng.normal(size=(n, 2))
    y = x[:, 0] + 2.0 * rng.normal(size=n)  # a model that errs without permuting
    stratum = np.arange(n) % 2
    ours = f(lambda z: z[:, 0], x.copy(), y, 0, stratum, rng)
    close(ours, 2.0, "a model whose error is 4 before", 0.8)
    ours = f(lambda z: z[:, 0], x.copy(), y, 1, stratum, rng)
    close(ours, 0.0, "a column that the model ignores")


def _rise_strata(f: F) -> None:
    rng = np.random.default_rng()
    stratum = rng.permutation(np.repeat([5, 2, 9], [6, 7, 8]))
    x = rng.normal(size=(21, 3))
    x[:, 2] = stratum
    seen: list[np.ndarray] = []

    def spy(z: np.ndarray) -> np.ndarray:
        seen.append(z.copy())
        return np.zeros(len(z))

    before = x.copy()
    f(spy, x, np.zeros(21), 1, stratum, rng)
    if not np.array_equal(x, before):
        raise AssertionError("your function changed x in place")
    moved = [z for z in seen if not np.array_equal(z, x)]
    if not moved:
        raise AssertionError("predict never saw a table with permuted values")
    for z in moved:
        close(z[:, [0, 2]], x[:, [0, 2]], "the other columns")
        for name in (2, 5, 9):
            here = stratum == name
            values = np.sort(z[here, 1])
            close(values, np.sort(x[here, 1]), f"values of stratum {name}")
    ours = f(lambda z: z[:, 2], x, x[:, 2], 2, stratum, rng)
    close(ours, 0.0, "a column that its strata determine")


def _rise_random(f: F) -> None:
    rng = np.random.default_rng()
    x, y, stratum = rng.normal(size=(60, 2)), rng.normal(size=60), np.arange(60) % 3

    def once(seed: int) -> float:
        deal = np.random.default_rng(seed)
        return float(f(lambda z: z[:, 0], x.copy(), y, 0, stratum, deal))

    close(once(7), once(7), "the same generator twice")
    if len({round(once(seed), 9) for seed in range(4)}) == 1:
        raise AssertionError("four generators, one and the same answer")


EXERCISES = {
    "trees_and_forests-1": Exercise(
        function="best_subset",
        checks=(
            Check(
                "all subsets",
                _subset_values,
                hint="Sort the codes by the mean of y, then try each prefix.",
            ),
            Check(
                "edges",
                _subset_edges,
                hint="Sides count by their rows, and no side may be empty.",
            ),
        ),
    ),
    "trees_and_forests-2": Exercise(
        function="group_oob",
        checks=(
            Check(
                "rows without copies",
                _oob_rows,
                hint="Average over the trees whose draw does not hold the row.",
            ),
            Check(
                "groups",
                _oob_groups,
                hint="A tree that saw any row of the group may not judge.",
            ),
            Check(
                "rows that nobody may judge",
                _oob_nobody,
                hint="Leave them out before you divide.",
            ),
        ),
    ),
    "trees_and_forests-3": Exercise(
        function="quantile_stage",
        checks=(
            Check(
                "pulls",
                _stage_pull,
                hint="Minus the slope of the loss in F: q above, q - 1 below.",
            ),
            Check(
                "scores",
                _stage_step,
                hint="The best constant of a leaf is a quantile of y - F there.",
            ),
            Check("F is left alone", _stage_keeps, hint="Work on a copy."),
        ),
    ),
    "trees_and_forests-4": Exercise(
        function="conditional_rise",
        checks=(
            Check(
                "linear models",
                _rise_values,
                hint="Exchange values among rows of the same stratum only.",
            ),
            Check(
                "error before and after",
                _rise_base,
                hint="The rise is after minus before, both mean squared errors.",
            ),
            Check(
                "strata stay together",
                _rise_strata,
                hint="One column moves, on a copy, and each stratum keeps its values.",
            ),
            Check(
                "the generator deals",
                _rise_random,
                hint="Let rng, and nothing else, draw the new order.",
            ),
        ),
    ),
}

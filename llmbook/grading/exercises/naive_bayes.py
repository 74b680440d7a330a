"""Checks of the exercises in ch-naive-bayes. References are written independently."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- naive_bayes-1: Bernoulli naive Bayes as a linear classifier ---


def _log_odds(x: np.ndarray, p0: np.ndarray, p1: np.ndarray, prior1: float) -> float:
    """One message, one word at a time, present or absent."""
    joint = [np.log(1 - prior1), np.log(prior1)]
    for c, p in enumerate((p0, p1)):
        for word, share in zip(x, p):
            joint[c] += np.log(share if word else 1 - share)
    return joint[1] - joint[0]


def _bernoulli(seed_words: int) -> tuple[np.ndarray, np.ndarray, float]:
    rng = np.random.default_rng()
    p0, p1 = rng.uniform(0.05, 0.95, size=(2, seed_words))
    return p0, p1, float(rng.uniform(0.1, 0.4))


def _linear_values(f: F) -> None:
    rng = np.random.default_rng()
    for n_words in (1, 4, 7):
        p0, p1, prior1 = _bernoulli(n_words)
        w, b = f(p0, p1, prior1)
        for x in rng.integers(0, 2, size=(4, n_words)):
            wanted = _log_odds(x, p0, p1, prior1)
            close(x @ np.asarray(w) + b, wanted, f"log odds of the message {x}")


def _linear_empty(f: F) -> None:
    p0, p1, prior1 = _bernoulli(5)
    _, b = f(p0, p1, prior1)
    wanted = _log_odds(np.zeros(5, dtype=int), p0, p1, prior1)
    close(b, wanted, "the intercept, which is the log odds of an empty message")


# --- naive_bayes-2: the exact predictive probability ---


def _word_by_word(x: np.ndarray, a: np.ndarray) -> float:
    """Draw the words of a message one after another, each updating the counts."""
    a, total = a.astype(float).copy(), 0.0
    for word, times in enumerate(x):
        for _ in range(int(times)):
            total += np.log(a[word] / a.sum())
            a[word] += 1
    return total


def _predictive(f: F, shape: tuple[int, int, int], most: int) -> None:
    rng = np.random.default_rng()
    n, classes, n_words = shape
    a = rng.uniform(0.1, 5, size=(classes, n_words))
    x = rng.integers(0, most + 1, size=(n, n_words))
    wanted = np.array([[_word_by_word(row, row_a) for row_a in a] for row in x])
    what = f"{n} messages, {classes} classes, {n_words} words"
    close(f(x, a), wanted, what, 1e-8)


def _predictive_values(f: F) -> None:
    for shape in ((4, 2, 3), (2, 3, 5), (3, 3, 3)):
        _predictive(f, shape, 1)


def _predictive_repeats(f: F) -> None:
    for shape in ((5, 2, 4), (1, 4, 2)):
        _predictive(f, shape, 6)


def _predictive_empty(f: F) -> None:
    a = np.random.default_rng().uniform(0.2, 3, size=(3, 4))
    close(f(np.zeros((2, 4), dtype=int), a), np.zeros((2, 3)), "empty messages")


def _predictive_large(f: F) -> None:
    a = np.array([[900.5, 0.5, 2000.0]])
    x = np.array([[300, 4, 0]])
    wanted = np.array([[_word_by_word(x[0], a[0])]])
    with np.errstate(all="ignore"):
        ours = f(x, a)
    close(ours, wanted, "300 words and counts in the thousands", 1e-6)


# --- naive_bayes-3: the squared calibration error without its bias ---


def _gap_by_loops(p: np.ndarray, y: np.ndarray, n_bins: int) -> float:
    """Pairs instead of a variance: the mean of (p - y_i)(p - y_j) over i != j."""
    total = 0.0
    bins: list[list[tuple[float, float]]] = [[] for _ in range(n_bins)]
    for stated, came in zip(p, y):
        bins[min(int(stated * n_bins), n_bins - 1)].append((stated, came))
    for members in bins:
        m = len(members)
        if m < 2:
            continue
        stated = sum(s for s, _ in members) / m
        pairs = [
            (stated - members[i][1]) * (stated - members[j][1])
            for i in range(m)
            for j in range(m)
            if i != j
        ]
        total += m / len(p) * sum(pairs) / len(pairs)
    return total


def _forecasts(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    p = rng.uniform(0.01, 0.99, size=n)
    return p, (rng.random(n) < p**2).astype(int)


def _gap_values(f: F) -> None:
    for n, n_bins in ((40, 1), (60, 4), (90, 7)):
        p, y = _forecasts(n)
        what = f"{n} statements in {n_bins} bins"
        close(f(p, y, n_bins), _gap_by_loops(p, y, n_bins), what)


def _gap_small(f: F) -> None:
    p = np.array([0.05, 0.3, 0.35, 0.9, 0.92, 0.97])
    y = np.array([1, 0, 1, 1, 1, 0])
    close(f(p, y, 4), _gap_by_loops(p, y, 4), "a bin with a single statement")
    p = np.array([0.0, 0.1, 0.5, 0.6, 1.0, 1.0, 0.9])
    y = np.array([0, 1, 1, 0, 1, 0, 1])
    close(f(p, y, 2), _gap_by_loops(p, y, 2), "statements of 0, 0.5 and 1")


def _gap_sign(f: F) -> None:
    p, y = np.full(8, 0.5), np.array([0, 1, 0, 1, 1, 0, 0, 1])
    close(f(p, y, 3), -1 / 28, "half of the statements of 0.5 come true")


# --- naive_bayes-4: the prior of unlabelled data ---


def _em(posterior: np.ndarray, prior: np.ndarray, n_steps: int) -> np.ndarray:
    now = [float(v) for v in prior]
    for _ in range(n_steps):
        sums = [0.0] * len(now)
        for row in posterior:
            joint = [q * new / old for q, new, old in zip(row, now, prior)]
            for c, value in enumerate(joint):
                sums[c] += value / sum(joint)
        now = [s / len(posterior) for s in sums]
    return np.array(now)


def _prior_case(n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    prior = rng.dirichlet(np.full(classes, 4.0))
    return rng.dirichlet(np.ones(classes), size=n), prior


def _prior_steps(f: F) -> None:
    for n, classes, n_steps in ((7, 3, 1), (5, 2, 2), (4, 4, 5)):
        posterior, prior = _prior_case(n, classes)
        what = f"{n} messages, {classes} classes, {n_steps} steps"
        close(f(posterior, prior, n_steps), _em(posterior, prior, n_steps), what)


def _prior_start(f: F) -> None:
    posterior, prior = _prior_case(6, 3)
    close(f(posterior, prior, 0), prior, "no step")


def _prior_found(f: F) -> None:
    """Two classes that a coin tells apart: the answer can be written down."""
    prior, good = np.array([0.5, 0.5]), 0.9
    true = 0.2  # share of class 1 where it is used
    ones = round(1000 * (true * good + (1 - true) * (1 - good)))
    rows = np.where(np.arange(1000)[:, None] < ones, [1 - good, good], [good, 1 - good])
    close(f(rows, prior, 400), [1 - true, true], "1,000 messages, 400 steps", 1e-6)


def _prior_kept(f: F) -> None:
    posterior, prior = _prior_case(5, 3)
    before, prior_before = posterior.copy(), prior.copy()
    f(posterior, prior, 3)
    if not (np.array_equal(posterior, before) and np.array_equal(prior, prior_before)):
        raise AssertionError("your function changed its arguments in place")


# --- naive_bayes-5: a Gaussian with entries missing ---


def _gaussian(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    root = rng.normal(size=(d, d))
    mean = rng.normal(size=d)
    return mean + rng.normal(size=d), mean, root @ root.T + 0.5 * np.eye(d)


def _missing_none(f: F) -> None:
    for d in (1, 3, 4):
        x, mean, cov = _gaussian(d)
        wanted = stats.multivariate_normal(mean, cov).logpdf(x)
        close(f(x, mean, cov), wanted, f"nothing missing, {d} entries", 1e-8)


def _missing_some(f: F) -> None:
    """Integrate the joint density over the missing entry on a fine grid."""
    for d, gone in ((3, 1), (2, 0), (4, 3)):
        x, mean, cov = _gaussian(d)
        spread = np.sqrt(cov[gone, gone])
        grid = mean[gone] + spread * np.linspace(-9, 9, 4001)
        rows = np.tile(x, (len(grid), 1))
        rows[:, gone] = grid
        density = stats.multivariate_normal(mean, cov).pdf(rows)
        wanted = np.log(density.sum() * (grid[1] - grid[0]))
        x[gone] = np.nan
        what = f"entry {gone} of {d} missing"
        close(f(x, mean, cov), wanted, what, 1e-5)
    x, mean, cov = _gaussian(5)
    x[[0, 3, 4]] = np.nan
    part = stats.multivariate_normal(mean[1:3], cov[1:3, 1:3])
    close(f(x, mean, cov), part.logpdf(x[1:3]), "entries 0, 3 and 4 of 5", 1e-8)


def _missing_all(f: F) -> None:
    _, mean, cov = _gaussian(3)
    close(f(np.full(3, np.nan), mean, cov), 0.0, "everything missing")


EXERCISES = {
    "naive_bayes-1": Exercise(
        function="as_linear",
        checks=(
            Check(
                "the log odds of any message",
                _linear_values,
                hint="Present: log p. Absent: log(1 - p). Write both with x in {0, 1}.",
            ),
            Check(
                "the empty message",
                _linear_empty,
                hint="Every absent word speaks too; the prior enters as log odds.",
            ),
        ),
    ),
    "naive_bayes-2": Exercise(
        function="log_predictive",
        checks=(
            Check(
                "messages without repetitions",
                _predictive_values,
                hint="Gamma(a + n) / Gamma(a) is a (a + 1) ... (a + n - 1).",
            ),
            Check(
                "a repeated word costs less the second time",
                _predictive_repeats,
                hint="After the first sighting the word's count is larger by one.",
            ),
            Check(
                "a message without words",
                _predictive_empty,
                hint="Nothing was said, so nothing was surprising: log 1.",
            ),
            Check(
                "long messages",
                _predictive_large,
                hint="Gamma overflows; its logarithm, special.gammaln, does not.",
            ),
        ),
    ),
    "naive_bayes-3": Exercise(
        function="debiased_gap",
        checks=(
            Check(
                "equal to the mean over pairs",
                _gap_values,
                hint="The mean outcome of m statements has the estimated variance "
                "y (1 - y) / (m - 1); bins weigh by their share of statements.",
            ),
            Check(
                "edges, and bins with one statement",
                _gap_small,
                hint="Bins hold their left edge; the last one also holds 1. With one "
                "statement the variance cannot be estimated: leave the bin out.",
            ),
            Check(
                "it may be negative",
                _gap_sign,
                hint="Cutting at zero would bring the bias back.",
            ),
        ),
    ),
    "naive_bayes-4": Exercise(
        function="new_prior",
        checks=(
            Check(
                "a few steps",
                _prior_steps,
                hint="Re-weigh the original posteriors by new / old prior, "
                "normalise each row, and take the mean over rows.",
            ),
            Check("no step", _prior_start, hint="Start from the prior of training."),
            Check(
                "it finds the prior",
                _prior_found,
                hint="Each step starts from the posteriors given, not from those of "
                "the step before.",
            ),
            Check(
                "the arguments are left alone",
                _prior_kept,
                hint="Make new arrays; do not use *= on the arguments.",
            ),
        ),
    ),
    "naive_bayes-5": Exercise(
        function="log_density_missing",
        checks=(
            Check(
                "nothing missing",
                _missing_none,
                hint="slogdet of 2 pi times the covariance holds both constants.",
            ),
            Check(
                "integrate what is missing",
                _missing_some,
                hint="The marginal of a Gaussian keeps the rows and columns that "
                "were seen, of the covariance and not of its inverse.",
            ),
            Check(
                "everything missing",
                _missing_all,
                hint="The density of nothing integrates to one.",
            ),
        ),
        equivalent={
            "gap @ np.linalg.solve(part, gap) → np.linalg.solve(part, gap) @ gap": (
                "the dot product of two vectors does not depend on their order"
            ),
        },
    ),
}

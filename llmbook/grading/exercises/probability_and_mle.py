"""Checks of the exercises in ch-probability-and-mle, against other references."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- probability_and_mle-2: Bayes in log space ----------------------------------------


def _bayes_values(f: F) -> None:
    rng = np.random.default_rng()
    for n, classes, features in ((4, 3, 5), (2, 5, 1), (1, 2, 3)):
        prior = rng.dirichlet(np.ones(classes))
        likelihood = rng.uniform(0.05, 1, size=(n, classes, features))
        joint = prior * likelihood.prod(-1)
        wanted = np.log(joint / joint.sum(1, keepdims=True))
        ours = f(np.log(prior), np.log(likelihood))
        close(ours, wanted, f"{n} examples, {classes} classes, {features} features")


def _bayes_many(f: F) -> None:
    rng = np.random.default_rng()
    with np.errstate(all="ignore"):
        for level in (-3.0, 3.0):
            x = level + 0.01 * rng.normal(size=(3, 4, 10_000))
            prior = np.log(rng.dirichlet(np.ones(4)))
            joint = prior + x.sum(-1)
            wanted = joint - special.logsumexp(joint, axis=1, keepdims=True)
            close(f(prior, x), wanted, "10,000 features", 1e-6)
        x[0] += 6.0  # one example far above the others
        joint = prior + x.sum(-1)
        wanted = joint - special.logsumexp(joint, axis=1, keepdims=True)
        close(f(prior, x), wanted, "examples of very different size", 1e-6)


def _bayes_impossible(f: F) -> None:
    x = np.log(np.array([[[0.5, 0.2], [1.0, 1e-300], [0.1, 0.1]]]))
    x[0, 1, 1] = -np.inf
    prior = np.log(np.array([0.2, 0.5, 0.3]))
    joint = np.array([0.2 * 0.1, 0.0, 0.3 * 0.01])
    with np.errstate(divide="ignore"):
        wanted = np.log(joint / joint.sum())[None]
    close(f(prior, x), wanted, "an impossible class")


# --- probability_and_mle-3: censored waiting times ------------------------------------


def _rate_values(f: F) -> None:
    rng = np.random.default_rng()
    for n in (5, 12):
        times, done = rng.exponential(2.0, n) + 0.1, rng.random(n) < 0.6
        done[0], done[1] = True, False

        def negative(
            log_rate: float, t: np.ndarray = times, d: np.ndarray = done
        ) -> float:
            rate = np.exp(log_rate)
            return -float(np.sum(np.where(d, log_rate - rate * t, -rate * t)))

        best = optimize.minimize_scalar(negative, bounds=(-8, 8), method="bounded")
        close(f(times, done), np.exp(best.x), f"{n} requests, {done.sum()} ended", 1e-4)


def _rate_exact(f: F) -> None:
    got = f(np.array([1.0, 2.0, 5.0]), np.array([True, True, False]))
    close(got, 0.25, "two ended in 8 seconds of waiting", 1e-12)
    close(f([4.0], [True]), 0.25, "one request, as lists", 1e-12)


def _rate_none(f: F) -> None:
    try:
        f(np.array([1.0, 2.0]), np.array([False, False]))
    except ValueError:
        return
    raise AssertionError("no request finished: no ValueError was raised")


# --- probability_and_mle-4: smoothing -------------------------------------------------


def _smoothed_reference(counts: np.ndarray, alpha: float) -> np.ndarray:
    out = np.empty(counts.shape)
    for i, row in enumerate(counts):
        total = float(row.sum()) + alpha * len(row)
        for j, count in enumerate(row):
            out[i, j] = (count + alpha) / total if total else 1 / len(row)
    return out


def _smoothed_values(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((3, 5), (4, 2), (1, 7)):
        counts = rng.integers(0, 9, size=shape)
        counts[0, 0] = 4
        for alpha in (1, 0.3):
            wanted = _smoothed_reference(counts, alpha)
            close(f(counts.copy(), alpha), wanted, f"{shape}, α = {alpha}", 1e-12)


def _smoothed_unseen(f: F) -> None:
    counts = np.array([[0, 0, 0, 0], [3, 1, 0, 0]])
    with np.errstate(all="raise"):
        for alpha in (0, 0.5, 2):
            wanted = _smoothed_reference(counts, alpha)
            close(f(counts, alpha), wanted, f"an unseen context, α = {alpha}", 1e-12)
    once = np.array([[0, 1, 0], [0, 0, 0]])
    close(f(once, 0), _smoothed_reference(once, 0), "one count, α = 0", 1e-12)
    close(f(counts, 0)[1], [0.75, 0.25, 0, 0], "α = 0 is maximum likelihood", 1e-12)


# --- probability_and_mle-6: Poisson loss and Gaussian prior ---------------------------


def _count_cases() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
    rng = np.random.default_rng()
    return [
        (rng.normal(size=d), 0.6 * rng.normal(size=(n, d)), rng.poisson(2, n), tau)
        for n, d, tau in ((8, 3, 0.4), (3, 5, 1.7), (6, 1, 3.0))
    ]


def _count_reference(w: np.ndarray, x: np.ndarray, y: np.ndarray, tau: float) -> float:
    data = stats.poisson.logpmf(y, np.exp(x @ w)) + special.gammaln(y + 1)
    prior = stats.norm.logpdf(w, 0, tau) - stats.norm.logpdf(0, 0, tau)
    return -float(data.sum() + prior.sum())


def _count_loss(f: F) -> None:
    for w, x, y, tau in _count_cases():
        wanted = _count_reference(w, x, y, tau)
        close(f(w, x, y, tau)[0], wanted, f"loss, X {x.shape}, τ = {tau}", 1e-8, 1e-8)


def _count_gradient(f: F) -> None:
    step = 1e-5
    for w, x, y, tau in _count_cases():
        wanted = [
            (
                _count_reference(w + step * e, x, y, tau)
                - _count_reference(w - step * e, x, y, tau)
            )
            / (2 * step)
            for e in np.eye(len(w))
        ]
        got = f(w, x, y, tau)[1]
        close(got, wanted, f"gradient, X {x.shape}, τ = {tau}", 1e-5, 1e-5)


EXERCISES = {
    "probability_and_mle-2": Exercise(
        function="log_posterior",
        checks=(
            Check("values", _bayes_values, hint="Sum logs over features, then add."),
            Check("many features", _bayes_many, hint="Subtract the largest first."),
            Check("impossible", _bayes_impossible, hint="exp(−inf) is 0."),
        ),
    ),
    "probability_and_mle-3": Exercise(
        function="rate_mle",
        checks=(
            Check("the maximum", _rate_values, hint="Unfinished: only e^(−λt)."),
            Check("by hand", _rate_exact, hint="Endings over all the time."),
            Check("nothing finished", _rate_none, hint="Raise ValueError."),
        ),
    ),
    "probability_and_mle-4": Exercise(
        function="smoothed",
        checks=(
            Check("values", _smoothed_values, hint="Add α to V counts, so αV below."),
            Check("unseen contexts", _smoothed_unseen, hint="Avoid 0 / 0."),
        ),
    ),
    "probability_and_mle-6": Exercise(
        function="count_loss",
        checks=(
            Check("loss", _count_loss, hint="−log p is λ − y log λ + log y!"),
            Check("gradient", _count_gradient, hint="Differentiate both sums."),
        ),
    ),
}

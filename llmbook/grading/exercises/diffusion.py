"""Checks of the exercises in ch-diffusion, against other references."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


def _schedule(n_steps: int) -> np.ndarray:
    """A random schedule: 1, then falling, not to zero."""
    beta = np.random.default_rng().uniform(0.02, 0.3, n_steps)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


# --- diffusion-1: zero terminal signal-to-noise ratio ---------------------------------


def _ended(alpha_bar: np.ndarray) -> np.ndarray:
    """The same line through two points, solved as a linear system."""
    root = alpha_bar**0.5
    slope, shift = np.linalg.solve([[root[1], 1.0], [root[-1], 1.0]], [root[1], 0.0])
    out = (slope * root + shift) ** 2
    out[0] = 1.0
    return out


def _end_values(f: F) -> None:
    for n_steps in (2, 5, 40):
        bars = _schedule(n_steps)
        close(f(bars), _ended(bars), f"a schedule of {n_steps} steps")


def _end_edges(f: F) -> None:
    bars = _schedule(7)
    ours = np.asarray(f(bars))
    if ours.shape != bars.shape:
        raise AssertionError(f"shape {ours.shape}, wanted {bars.shape}")
    close(ours[0], 1.0, "entry 0")
    close(ours[1], bars[1], "step 1, which keeps what it had")
    close(ours[-1], 0.0, "step T, which ends in noise")
    if not np.all(np.diff(ours) < 0):
        raise AssertionError("the schedule does not fall at every step")


def _end_keeps(f: F) -> None:
    bars = _schedule(6)
    before = bars.copy()
    f(bars)
    if not np.array_equal(bars, before):
        raise AssertionError("your function changed its argument in place")


# --- diffusion-2: from one noise level to a noisier one -------------------------------


def _further_by_steps(
    x: np.ndarray, s: int, t: int, noise: np.ndarray, bars: np.ndarray
) -> np.ndarray:
    """Coefficients by walking the chain: shrink, add variances, one step at a time."""
    kept, variance = 1.0, 0.0
    for i in range(s + 1, t + 1):
        alpha = bars[i] / bars[i - 1]
        kept, variance = kept * alpha**0.5, variance * alpha + (1 - alpha)
    return kept * x + variance**0.5 * noise


def _further(f: F, shape: tuple[int, ...], s: list[int], t: list[int]) -> None:
    rng, bars = np.random.default_rng(), _schedule(12)
    x, noise = rng.normal(size=(2, *shape))
    wanted = [
        _further_by_steps(x[i], s[i], t[i], noise[i], bars) for i in range(len(x))
    ]
    ours = f(x, np.array(s), np.array(t), noise, bars)
    close(ours, np.array(wanted), f"levels {s} to {t}, x of shape {shape}")


def _further_values(f: F) -> None:
    _further(f, (3, 5), [2, 1, 7], [9, 4, 12])
    _further(f, (1, 4), [3], [8])


def _further_axes(f: F) -> None:
    _further(f, (3, 3, 4, 4), [1, 0, 5], [6, 2, 11])
    _further(f, (4,), [0, 1, 2, 3], [12, 5, 3, 4])


def _further_same(f: F) -> None:
    _further(f, (3, 2), [0, 4, 12], [0, 4, 12])


def _further_back(f: F) -> None:
    bars, x = _schedule(9), np.ones((2, 3))
    for s, t in (([3, 5], [4, 4]), ([2, 1], [1, 7])):
        try:
            f(x, np.array(s), np.array(t), x, bars)
        except ValueError:
            continue
        raise AssertionError(f"levels {s} to {t}: no ValueError was raised")


# --- diffusion-3: a jump with clipping ------------------------------------------------


def _clipped(
    x: np.ndarray, x0: np.ndarray, a: float, b: float, eta: float
) -> tuple[np.ndarray, float]:
    """Written with standard deviations and angles instead of variances."""
    x0 = np.minimum(np.maximum(x0, -1), 1)
    noise = x / (1 - a) ** 0.5 - x0 * (a / (1 - a)) ** 0.5
    sd = eta * ((1 - b) / (1 - a)) ** 0.5 * ((b - a) / b) ** 0.5
    return b**0.5 * x0 + ((1 - b) - sd**2) ** 0.5 * noise, sd


def _jump(f: F, shape: tuple[int, ...], size: float, a: float, b: float) -> None:
    rng = np.random.default_rng()
    for eta in (0.0, 0.6, 1.0):
        x, x0 = rng.normal(size=shape), rng.uniform(-size, size, shape)
        ours, wanted = f(x, x0.copy(), a, b, eta), _clipped(x, x0, a, b, eta)
        what = f"a = {a}, b = {b}, eta = {eta}"
        if not isinstance(ours, tuple) or len(ours) != 2:
            raise AssertionError("return two things: the mean and sigma")
        close(ours[0], wanted[0], f"mean, {what}")
        close(ours[1], wanted[1], f"sigma, {what}")


def _jump_inside(f: F) -> None:
    _jump(f, (4, 3), 0.9, 0.2, 0.7)
    _jump(f, (6,), 0.9, 0.05, 0.1)


def _jump_clips(f: F) -> None:
    _jump(f, (5, 2), 3.0, 0.3, 0.8)
    _jump(f, (2, 2, 3), 2.0, 0.6, 0.95)


def _jump_last(f: F) -> None:
    _jump(f, (4,), 2.0, 0.9, 1.0)


EXERCISES = {
    "diffusion-1": Exercise(
        function="end_in_noise",
        checks=(
            Check(
                "what is fixed",
                _end_edges,
                hint="Shift the square roots so that the last is 0, then scale them "
                "so that step 1 keeps its value; entry 0 stays apart.",
            ),
            Check(
                "random schedules",
                _end_values,
                hint="The line acts on sqrt(alpha_bar); square at the end.",
            ),
            Check(
                "the argument is left alone",
                _end_keeps,
                hint="np.sqrt makes a new array; alpha_bar -= ... does not.",
            ),
        ),
    ),
    "diffusion-2": Exercise(
        function="noise_further",
        checks=(
            Check(
                "each picture from its level to its own",
                _further_values,
                hint="The steps s + 1 to t multiply to alpha_bar[t] / alpha_bar[s].",
            ),
            Check(
                "any number of axes",
                _further_axes,
                hint="Give the factor of each picture as many axes as x has.",
            ),
            Check(
                "no step changes nothing",
                _further_same,
                hint="For t = s the factor of the noise is 0.",
            ),
            Check(
                "noise is not taken away",
                _further_back,
                hint="Raise ValueError if any t is below its s.",
            ),
        ),
    ),
    "diffusion-3": Exercise(
        function="clipped_jump",
        checks=(
            Check(
                "pictures inside the range",
                _jump_inside,
                hint="eps follows from x = sqrt(a) x0 + sqrt(1 - a) eps.",
            ),
            Check(
                "pictures outside the range",
                _jump_clips,
                hint="Clip first, then compute the noise from the clipped picture.",
            ),
            Check(
                "the last jump, to b = 1",
                _jump_last,
                hint="There is no noise left, so mean and picture are the same.",
            ),
        ),
    ),
}

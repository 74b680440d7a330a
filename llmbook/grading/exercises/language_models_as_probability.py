"""Checks of the exercises in ch-language-models-as-probability."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- language_models_as_probability-1: Witten-Bell ------------------------------------


def _rest_in_kinds(f: F) -> None:
    counts = np.array([3, 0, 1, 0, 0])
    lower = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
    wanted = [(n + 2 * p) / 6 for n, p in zip([3, 0, 1, 0, 0], lower.tolist())]
    close(f(counts, lower), wanted, "counts 3, 0, 1, 0, 0")


def _draws(f: F) -> None:
    rng = np.random.default_rng()
    for V in (2, 7, 30):
        counts = rng.integers(0, 4, V) * rng.integers(0, 2, V)
        counts[0] = 2
        lower = rng.dirichlet(np.ones(V))
        n, kinds = sum(counts.tolist()), len(np.flatnonzero(counts))
        rest = kinds / (n + kinds)
        wanted = [
            (1 - rest) * c / n + rest * p
            for c, p in zip(counts.tolist(), lower.tolist())
        ]
        close(f(counts, lower), wanted, f"{V} tokens")
        close(np.sum(f(counts, lower)), 1.0, f"the sum over {V} tokens")


def _one_each(f: F) -> None:
    counts, lower = np.array([1, 0]), np.array([0.2, 0.8])
    close(f(counts, lower), [0.6, 0.4], "a context seen once")


def _never_met(f: F) -> None:
    lower = np.random.default_rng().dirichlet(np.ones(6))
    with np.errstate(all="ignore"):
        ours = f(np.zeros(6, dtype=int), lower)
    close(ours, lower, "a context never met")


# --- language_models_as_probability-2: min-p ------------------------------------------


def _by_probability(z: np.ndarray, share: float) -> np.ndarray:
    """One row at a time, through probabilities in extended precision."""
    out = np.full(z.shape, -np.inf)
    for i in np.ndindex(z.shape[:-1]):
        power = np.exp(np.asarray(z[i] - z[i].max(), dtype=np.longdouble))
        p = power / power.sum()
        keep = p >= share * p.max()
        out[i][keep] = z[i][keep]
    return out


def _min_p_rows(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((9,), (3, 8), (4, 2, 5), (5, 4)):
        z = 2 * rng.normal(size=shape)
        for share in (0.05, 0.3, 0.8):
            close(f(z, share), _by_probability(z, share), f"{shape}, share {share}")


def _min_p_edges(f: F) -> None:
    z = np.array([[1.0, 3.0, 3.0], [0.0, -1.0, -2.0]])
    close(f(z, 1.0), [[-np.inf, 3, 3], [0, -np.inf, -np.inf]], "share 1")
    z = np.log(np.array([8.0, 4.0, 2.0]))
    kept = np.isfinite(np.asarray(f(z, 0.4999))).tolist()
    if kept != [True, True, False]:
        raise AssertionError(f"of 8 : 4 : 2 at a share of 0.4999 kept {kept}")


def _min_p_large(f: F) -> None:
    z = np.array([[5000.0, 4999.5, 4000.0], [-5000.0, -4999.0, -6000.0]])
    with np.errstate(all="ignore"):
        ours = f(z, 0.3)
    close(ours, _by_probability(z, 0.3), "logits of 5,000 and -5,000")


def _min_p_keeps(f: F) -> None:
    z = np.random.default_rng().normal(size=(3, 6))
    before = z.copy()
    f(z, 0.5)
    if not np.array_equal(z, before):
        raise AssertionError("your function changed the logits it was given")


# --- language_models_as_probability-3: overlapping windows ----------------------------


def _by_target(n: int, T: int, stride: int) -> list[tuple[int, int, int]]:
    """For every target the first window that holds it, then grouped."""
    firsts: dict[int, list[int]] = {}
    for target in range(n):
        k = 0
        while target >= min(k * stride + T, n):
            k += 1
        firsts.setdefault(k, []).append(target)
    return [(k * stride, min(k * stride + T, n), v[0]) for k, v in firsts.items()]


def _same_windows(f: F, n: int, T: int, stride: int) -> None:
    ours = [tuple(int(i) for i in row) for row in f(n, T, stride)]
    wanted = _by_target(n, T, stride)
    if ours != wanted:
        raise AssertionError(
            f"{n} targets, windows of {T}, stride {stride}: got {ours[:6]}, "
            f"wanted {wanted[:6]}"
        )


def _side_by_side(f: F) -> None:
    for n, T in ((12, 4), (8, 8)):
        _same_windows(f, n, T, T)


def _overlap(f: F) -> None:
    for n, T, stride in ((16, 8, 4), (10, 4, 3), (13, 4, 1), (14, 6, 4)):
        _same_windows(f, n, T, stride)


def _short(f: F) -> None:
    for n, T, stride in ((3, 8, 4), (9, 8, 8), (1, 1, 1), (17, 8, 5), (5, 8, 3)):
        _same_windows(f, n, T, stride)


def _once(f: F) -> None:
    rng = np.random.default_rng()
    for _ in range(20):
        T = int(rng.integers(1, 12))
        _same_windows(f, int(rng.integers(1, 50)), T, int(rng.integers(1, T + 1)))


# --- language_models_as_probability-4: calibration error ------------------------------


def _missed(stated: np.ndarray, came: np.ndarray, edges: np.ndarray) -> float:
    """Bin by bin with lists, as the text says."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for p, y in zip(stated.tolist(), came.tolist()):
        for i in range(len(edges) - 1):
            if edges[i] <= p < edges[i + 1]:
                bins.setdefault(i, []).append((p, y))
    total = sum(len(b) for b in bins.values())
    gaps = [
        len(b) / total * abs(sum(p for p, _ in b) - sum(y for _, y in b)) / len(b)
        for b in bins.values()
    ]
    return sum(gaps)


def _statements(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng()
    stated = rng.random(n)
    return stated, (rng.random(n) < stated**2).astype(int)


def _error_values(f: F) -> None:
    edges = np.array([0.0, 0.1, 0.25, 0.6, 1.01])
    for n in (40, 300):
        stated, came = _statements(n)
        close(f(stated, came, edges), _missed(stated, came, edges), f"{n} statements")


def _error_by_hand(f: F) -> None:
    stated = np.array([0.2, 0.2, 0.8, 0.6])
    came = np.array([0, 1, 1, 0])
    ours = f(stated, came, np.array([0.0, 0.5, 1.0]))
    close(ours, (2 * 0.3 + 2 * 0.2) / 4, "0.2, 0.2, 0.8, 0.6 of which two came")


def _error_edges(f: F) -> None:
    edges = np.array([0.25, 0.5, 0.75])
    stated = np.array([0.25, 0.5, 0.5, 0.75, 0.1, 0.9, 0.3])
    came = np.array([1, 0, 0, 1, 1, 0, 0])
    close(f(stated, came, edges), _missed(stated, came, edges), "statements on edges")


def _error_empty(f: F) -> None:
    stated, came = _statements(60)
    stated = 0.4 + stated / 5
    edges = np.linspace(0, 1, 11)
    with np.errstate(all="ignore"):
        ours = f(stated, came, edges)
    close(ours, _missed(stated, came, edges), "empty bins on both sides")


EXERCISES = {
    "language_models_as_probability-1": Exercise(
        function="witten_bell",
        checks=(
            Check(
                "counts and kinds",
                _rest_in_kinds,
                hint="n = 4 tokens of k = 2 kinds: the shorter context gets 2 / 6.",
            ),
            Check(
                "random contexts",
                _draws,
                hint="(c + k p') / (n + k); kinds are tokens with a count above 0.",
            ),
            Check(
                "a context seen once",
                _one_each,
                hint="One token of one kind: half of the mass goes down.",
            ),
            Check(
                "a context never met",
                _never_met,
                hint="0 / 0 is no distribution: hand the shorter context on.",
            ),
        ),
    ),
    "language_models_as_probability-2": Exercise(
        function="min_p",
        checks=(
            Check(
                "rows of any shape",
                _min_p_rows,
                hint="p(w) >= share * p(best) is z(w) >= z(best) + log(share).",
            ),
            Check(
                "ties and borders",
                _min_p_edges,
                hint="At least, not more than: at a share of 1 the best one stays.",
            ),
            Check(
                "logits in the thousands",
                _min_p_large,
                hint="Compare logits; no exponential is needed.",
            ),
            Check(
                "the argument is left alone",
                _min_p_keeps,
                hint="np.where makes a new array.",
            ),
        ),
    ),
    "language_models_as_probability-3": Exercise(
        function="windows",
        checks=(
            Check(
                "side by side",
                _side_by_side,
                hint="With stride = T every window is all new.",
            ),
            Check(
                "overlapping",
                _overlap,
                hint="What is new starts where the window before ended.",
            ),
            Check(
                "short texts and short ends",
                _short,
                hint="Stop as soon as a window has reached n.",
            ),
            Check(
                "every target once",
                _once,
                hint="The new parts of all windows are 0..n-1 without gap.",
            ),
        ),
    ),
    "language_models_as_probability-4": Exercise(
        function="calibration_error",
        checks=(
            Check(
                "four statements by hand",
                _error_by_hand,
                hint="Means first, then the distance: |0.2 - 0.5| and |0.7 - 0.5|.",
            ),
            Check(
                "random statements",
                _error_values,
                hint="Weigh a bin by its number of statements.",
            ),
            Check(
                "statements on an edge",
                _error_edges,
                hint="From the lower edge up to but not including the upper one.",
            ),
            Check(
                "empty bins",
                _error_empty,
                hint="An empty bin has no mean, and no weight either.",
            ),
        ),
    ),
}

"""Checks of the exercises in ch-attention. References are written independently."""

from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- attention-1: masked softmax ----------------------------------------------------


def _by_loops(scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Weights row by row in extended precision, only over what may be seen."""
    out = np.zeros(scores.shape)
    for i in np.ndindex(scores.shape[:-1]):
        seen = mask[i]
        if seen.any():
            row = np.asarray(scores[i][seen], dtype=np.longdouble)
            powers = np.exp(row - row.max())
            out[i][seen] = powers / powers.sum()
    return out


def _softmax_values(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((3, 5), (2, 3, 4), (2, 4, 1)):
        scores = rng.normal(size=shape)
        full = np.ones(shape, dtype=bool)
        close(f(scores, full), _by_loops(scores, full), f"nothing masked, {shape}")


def _softmax_mask(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((4, 6), (2, 5, 3)):
        scores, mask = rng.normal(size=shape), rng.random(shape) < 0.6
        mask[..., 0] = True
        close(f(scores, mask), _by_loops(scores, mask), f"random mask, {shape}")
        hidden = np.asarray(f(np.where(mask, scores, 1e4), mask))
        close(hidden, _by_loops(scores, mask), "a huge score behind the mask")


def _softmax_large(f: F) -> None:
    rng = np.random.default_rng()
    scores = rng.normal(size=(3, 4)) + np.array([[900.0], [-900.0], [0.0]])
    scores[2] *= 400
    mask = np.ones((3, 4), dtype=bool)
    mask[0, 1] = False
    with np.errstate(all="ignore"):
        ours = f(scores, mask)
    close(ours, _by_loops(scores, mask), "scores near 900 and -900")


def _softmax_empty(f: F) -> None:
    rng = np.random.default_rng()
    scores, mask = rng.normal(size=(2, 3, 4)), rng.random((2, 3, 4)) < 0.7
    mask[..., 1] = True
    mask[0, 1] = False
    with np.errstate(all="ignore"):
        ours = f(scores, mask)
    close(ours, _by_loops(scores, mask), "one row with nothing to see")


def _softmax_keeps(f: F) -> None:
    rng = np.random.default_rng()
    scores, mask = rng.normal(size=(3, 4)), np.tri(3, 4, dtype=bool)
    before, mask_before = scores.copy(), mask.copy()
    f(scores, mask)
    if not (np.array_equal(scores, before) and np.array_equal(mask, mask_before)):
        raise AssertionError("your function changed its arguments in place")


# --- attention-2: causal multi-head attention ---------------------------------------


def _heads_by_loops(q: np.ndarray, k: np.ndarray, v: np.ndarray, H: int) -> np.ndarray:
    """One sequence, head and query at a time; no reshape to get wrong."""
    B, T, D = q.shape
    width, out = D // H, np.zeros((B, T, D))
    for b, h, t in np.ndindex(B, H, T):
        part = slice(h * width, (h + 1) * width)
        scores = np.array([q[b, t, part] @ k[b, s, part] for s in range(t + 1)])
        scores = scores / width**0.5
        powers = np.exp(scores - scores.max())
        out[b, t, part] = (powers / powers.sum()) @ v[b, : t + 1, part]
    return out


def _qkv(*shape: int) -> np.ndarray:
    return np.random.default_rng().normal(size=(3, *shape))


def _one_head(f: F) -> None:
    q, k, v = _qkv(2, 5, 3)
    close(f(q, k, v, 1), _heads_by_loops(q, k, v, 1), "one head of width 3")


def _many_heads(f: F) -> None:
    for shape, H in (((2, 5, 6), 3), ((3, 4, 8), 2), ((1, 3, 4), 4)):
        q, k, v = _qkv(*shape)
        ours = f(q, k, v, H)
        close(ours, _heads_by_loops(q, k, v, H), f"{H} heads, q of shape {shape}")


def _causal(f: F) -> None:
    q, k, v = _qkv(2, 6, 4)
    before = np.asarray(f(q, k, v, 2))[:, :3].copy()
    k2, v2 = k.copy(), v.copy()
    k2[:, 3:], v2[:, 3:] = 9.0, -9.0
    after = np.asarray(f(q, k2, v2, 2))[:, :3]
    close(after, before, "outputs before position 3, after changing what follows")


def _large(f: F) -> None:
    q, k, v = _qkv(2, 4, 6)
    q, k = 1e5 * q, 1e5 * k
    k[:, 0] = -q[:, 0]  # what query 0 sees is far below any mask of -1e9
    with np.errstate(all="ignore"):
        ours = f(q, k, v, 2)
    close(ours, _heads_by_loops(q, k, v, 2), "scores in the billions")


# --- attention-3: merging two parts of the keys ---------------------------------------


def _part(scores: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    top = scores.max(axis=1)
    powers = np.exp(scores - top[:, None])
    total = powers.sum(axis=1)
    return top, total, powers @ v / total[:, None]


def _merged(f: F, sizes: tuple[int, int], spread: float, shift: float) -> None:
    rng = np.random.default_rng()
    n1, n2 = sizes
    scores = spread * rng.normal(size=(4, n1 + n2))
    scores[:, n1:] += shift
    scores += 2 * shift * np.arange(4)[:, None]  # rows have maxima far apart
    v = rng.normal(size=(n1 + n2, 3))
    with np.errstate(over="ignore"):
        ours = f(*_part(scores[:, :n1], v[:n1]), *_part(scores[:, n1:], v[n1:]))
    for name, a, b in zip(("max", "total", "output"), ours, _part(scores, v)):
        close(a, b, f"{name} of {n1} + {n2} keys, second part shifted by {shift:g}")


def _merge_values(f: F) -> None:
    for sizes in ((3, 5), (1, 1), (6, 2)):
        _merged(f, sizes, 1.0, 0.0)


def _merge_large(f: F) -> None:
    for shift in (1000.0, -1000.0):
        _merged(f, (4, 3), 30.0, shift)


def _merge_empty(f: F) -> None:
    rng = np.random.default_rng()
    scores, v = rng.normal(size=(4, 5)), rng.normal(size=(5, 3))
    full = _part(scores, v)
    empty = (np.full(4, -np.inf), np.zeros(4), np.zeros((4, 3)))
    for first, second in ((full, empty), (empty, full)):
        for name, a, b in zip(("max", "total", "output"), f(*first, *second), full):
            close(a, b, f"{name} after merging with a part that holds no key")


EXERCISES = {
    "attention-1": Exercise(
        function="masked_softmax",
        checks=(
            Check(
                "rows share one unit of weight",
                _softmax_values,
                hint="The weights of one query share the last axis, at any ndim.",
            ),
            Check(
                "hidden keys get exactly nothing",
                _softmax_mask,
                hint="What is exp(-inf)? Mask before the maximum is taken.",
            ),
            Check(
                "large scores do not overflow",
                _softmax_large,
                hint="A constant added to a row changes nothing: choose it well.",
            ),
            Check(
                "a row with nothing to see is zero",
                _softmax_empty,
                hint="Its maximum is -inf and its sum 0: neither may be used as is.",
            ),
            Check(
                "the arguments are left alone",
                _softmax_keeps,
                hint="np.where makes a new array; scores[~mask] = ... does not.",
            ),
        ),
    ),
    "attention-2": Exercise(
        function="causal_attention",
        checks=(
            Check(
                "one head",
                _one_head,
                hint="Query t sees keys 0 to t; the factor is 1 / sqrt(d_head).",
            ),
            Check(
                "several heads",
                _many_heads,
                hint="(B, T, H, d_head) is not (B, H, T, d_head): a reshape never "
                "moves an axis.",
            ),
            Check(
                "the future changes nothing",
                _causal,
                hint="Set the scores above the diagonal to -inf before the softmax.",
            ),
            Check(
                "large scores do not overflow",
                _large,
                hint="Subtract the largest score of each row.",
            ),
        ),
    ),
    "attention-3": Exercise(
        function="merge_parts",
        checks=(
            Check(
                "two parts equal the whole",
                _merge_values,
                hint="Bring both sums to the common maximum: they weigh the outputs.",
            ),
            Check(
                "parts with very different scores",
                _merge_large,
                hint="Only exp of something <= 0 is safe.",
            ),
            Check(
                "a part without keys changes nothing",
                _merge_empty,
                hint="exp(-inf) is 0: no special case is needed.",
            ),
        ),
    ),
}

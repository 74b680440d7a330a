"""Checks of the exercises in ch-bert-and-gpt. References are written independently."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise

F = Callable[..., Any]

# --- bert_and_gpt-1: who may look at whom, text by text -----------------------------


def _by_pairs(prefix: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Decide pair by pair, from the sentence of the task."""
    B, T = real.shape
    out = np.zeros((B, T, T), dtype=bool)
    for b in range(B):
        first = [j for j in range(T) if real[b, j]][: prefix[b]]
        for i, j in product(range(T), repeat=2):
            if real[b, i] and real[b, j]:
                out[b, i, j] = j <= i or j in first
    return out


def _same_mask(ours: object, prefix: np.ndarray, real: np.ndarray, what: str) -> None:
    ours, wanted = np.asarray(ours), _by_pairs(prefix, real)
    assert ours.dtype == bool, f"{what}: dtype {ours.dtype}, wanted bool"
    assert ours.shape == wanted.shape, (
        f"{what}: shape {ours.shape}, wanted {wanted.shape}"
    )
    wrong = np.argwhere(ours != wanted)
    if len(wrong):
        b, i, j = wrong[0].tolist()
        raise AssertionError(
            f"{what}: {len(wrong)} entries differ; first, text {b}: query {i} looking "
            f"at key {j} must be {wanted[b, i, j]} (prefix {prefix[b]}, real "
            f"{real[b].astype(int).tolist()})"
        )


def _try_mask(f: F, prefix: list[int], real: np.ndarray, what: str) -> None:
    lengths = np.array(prefix)
    _same_mask(f(lengths.copy(), real.copy()), lengths, real, what)


def _mask_plain(f: F) -> None:
    for B, T in ((1, 4), (3, 5), (4, 2)):
        full = np.ones((B, T), dtype=bool)
        _try_mask(f, [0] * B, full, "prefix 0 everywhere (causal)")
        _try_mask(f, [T] * B, full, "prefix T everywhere (bidirectional)")


def _mask_prefix(f: F) -> None:
    full = np.ones((4, 6), dtype=bool)
    _try_mask(f, [1, 4, 0, 2], full, "a prefix of its own for every text")


def _mask_right(f: F) -> None:
    real = np.arange(6) < np.array([[6], [3], [4]])
    _try_mask(f, [2, 3, 6], real, "padding on the right")


def _mask_left(f: F) -> None:
    real = np.arange(6) >= np.array([[0], [2], [4], [1]])
    _try_mask(f, [2, 3, 1, 0], real, "padding on the left")
    some = np.random.default_rng().random((5, 7)) < 0.6
    _try_mask(f, [0, 1, 2, 3, 7], some, "padding anywhere")


# --- bert_and_gpt-2: back to GPT-2's names ------------------------------------------

_NAMES = (
    ("ln_1", "attention_norm"),
    ("ln_2", "feed_forward_norm"),
    ("attn.c_proj", "attention.wo"),
    ("mlp.c_fc", "up"),
    ("mlp.c_proj", "down"),
)


def _block(D: int, d_ff: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng()
    shapes = {f"attention.w{x}": (D, D) for x in "qkvo"}
    shapes |= {"up": (d_ff, D), "down": (D, d_ff)}
    state = {f"{name}.weight": rng.normal(size=s) for name, s in shapes.items()}
    state |= {f"{name}.bias": rng.normal(size=s[0]) for name, s in shapes.items()}
    for norm in ("attention_norm", "feed_forward_norm"):
        state[f"{norm}.weight"], state[f"{norm}.bias"] = rng.normal(size=(2, D))
    return state


def _forward(state: dict[str, np.ndarray], f: F, D: int) -> None:
    """Compare what GPT-2's Conv1D, ``x @ weight + bias``, makes of its input."""
    theirs = f({name: w.copy() for name, w in state.items()})
    wanted = {f"{n}.{p}" for n, _ in (*_NAMES, ("attn.c_attn", "")) for p in _PARTS}
    assert set(theirs) == wanted, (
        f"names differ: missing {sorted(wanted - set(theirs)) or 'none'}, "
        f"too many {sorted(set(theirs) - wanted) or 'none'}"
    )
    x = np.random.default_rng().normal(size=(3, D))

    def conv1d(name: str, y: np.ndarray) -> np.ndarray:
        w, b = np.asarray(theirs[f"{name}.weight"]), np.asarray(theirs[f"{name}.bias"])
        assert w.ndim == 2 and w.shape[0] == y.shape[1], (
            f"{name}.weight has shape {w.shape}; Conv1D stores (in, out), "
            f"and {y.shape[1]} features come in"
        )
        assert b.shape == w.shape[1:], f"{name}.bias has shape {b.shape}"
        return y @ w + b

    def linear(name: str, y: np.ndarray) -> np.ndarray:
        return (state[f"{name}.weight"] @ y.T).T + state[f"{name}.bias"]

    joint = conv1d("attn.c_attn", x)
    parts = np.hstack([linear(f"attention.w{letter}", x) for letter in "qkv"])
    _near(joint, parts, "queries, keys, values")
    _near(conv1d("attn.c_proj", x), linear("attention.wo", x), "attn.c_proj")
    inner = linear("up", x)
    _near(conv1d("mlp.c_fc", x), inner, "mlp.c_fc")
    _near(conv1d("mlp.c_proj", inner), linear("down", inner), "mlp.c_proj")
    for name, mine in _NAMES[:2]:
        for part in _PARTS:
            _near(theirs[f"{name}.{part}"], state[f"{mine}.{part}"], f"{name}.{part}")


_PARTS = ("weight", "bias")


def _near(ours: object, wanted: np.ndarray, what: str) -> None:
    ours = np.asarray(ours)
    assert ours.shape == wanted.shape, (
        f"{what}: shape {ours.shape}, wanted {wanted.shape}"
    )
    gap = float(np.abs(ours - wanted).max())
    assert gap < 1e-9, f"{what}: off by up to {gap:.3g}"


def _block_values(f: F) -> None:
    for D, d_ff in ((4, 10), (6, 6), (3, 12)):
        _forward(_block(D, d_ff), f, D)


def _block_keeps(f: F) -> None:
    state = _block(3, 5)
    before = {name: w.copy() for name, w in state.items()}
    f(state)
    assert set(state) == set(before), "your function added or removed our names"
    for name, w in before.items():
        assert np.array_equal(state[name], w), f"your function changed {name}"


# --- bert_and_gpt-3: the sum of all pseudo-likelihoods ------------------------------


def _mass_by_loops(joint: np.ndarray) -> float:
    total = 0.0
    for x in np.ndindex(joint.shape):
        score = 1.0
        for i in range(joint.ndim):
            rest = sum(
                joint[(*x[:i], other, *x[i + 1 :])] for other in range(joint.shape[i])
            )
            score *= joint[x] / rest if rest > 0 else 0.0
        total += score
    return total


def _mass(f: F, joint: np.ndarray, what: str) -> None:
    with np.errstate(all="ignore"):
        ours = float(f(joint.copy()))
    wanted = _mass_by_loops(joint)
    assert abs(ours - wanted) < 1e-9, f"{what}: {ours:.6g}, wanted {wanted:.6g}"


def _mass_two(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((2, 3), (4, 2), (5, 5)):
        joint = rng.random(shape) + 0.05
        _mass(f, joint / joint.sum(), f"two tokens, {shape[0]} and {shape[1]} symbols")


def _mass_more(f: F) -> None:
    rng = np.random.default_rng()
    for shape in ((3,), (2, 3, 4), (3, 3, 3), (2, 2, 2, 2)):
        joint = rng.random(shape) + 0.05
        _mass(f, joint / joint.sum(), f"{len(shape)} tokens")


def _mass_zeros(f: F) -> None:
    glued = np.zeros((3, 3, 3))
    glued[0, 0, 0], glued[1, 1, 1], glued[2, 2, 2] = 0.5, 0.3, 0.2
    _mass(f, glued, "three copies of one symbol")
    joint = np.random.default_rng().random((3, 4))
    joint[1] = 0.0
    _mass(f, joint / joint.sum(), "a symbol that never occurs")


def _mass_keeps(f: F) -> None:
    joint = np.full((2, 3), 1 / 6)
    with np.errstate(all="ignore"):
        f(joint)
    assert np.array_equal(joint, np.full((2, 3), 1 / 6)), "the argument was changed"


EXERCISES = {
    "bert_and_gpt-1": Exercise(
        function="look_mask",
        checks=(
            Check(
                "prefix 0 and prefix T",
                _mask_plain,
                hint="Query i is a row, key j a column; i sees itself.",
            ),
            Check(
                "a prefix for every text",
                _mask_prefix,
                hint="Compare counts (B, T) with prefix[:, None], then add an axis.",
            ),
            Check(
                "padding on the right",
                _mask_right,
                hint="A padded key is seen by nobody, a padded query sees nobody.",
            ),
            Check(
                "padding on the left",
                _mask_left,
                hint="The prefix counts real tokens: a cumulative sum numbers them.",
            ),
        ),
    ),
    "bert_and_gpt-2": Exercise(
        function="to_gpt2",
        checks=(
            Check(
                "GPT-2 computes the same",
                _block_values,
                hint="Conv1D computes x @ weight + bias; nn.Linear, x @ weight.T.",
            ),
            Check(
                "the arguments are left alone",
                _block_keeps,
                hint="Build a new dictionary.",
            ),
        ),
    ),
    "bert_and_gpt-3": Exercise(
        function="pseudo_mass",
        checks=(
            Check(
                "two tokens",
                _mass_two,
                hint="p(x_i | the rest) is the joint divided by its sum over axis i.",
            ),
            Check(
                "any number of tokens",
                _mass_more,
                hint="One factor for every axis of the table.",
            ),
            Check(
                "impossible strings",
                _mass_zeros,
                hint="Where the rest cannot occur, the score is 0, not 0/0.",
            ),
            Check(
                "the argument is left alone",
                _mass_keeps,
                hint="joint *= ... changes the caller's table.",
            ),
        ),
    ),
}

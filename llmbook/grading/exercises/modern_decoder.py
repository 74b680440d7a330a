"""Checks of the exercises in ch-modern-decoder, with references of their own."""

import cmath
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- modern_decoder-1: rotation at given positions ------------------------------------


def _by_hand(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """One pair at a time, neighbours 2 j and 2 j + 1 as one complex number."""
    out, d = np.zeros(x.shape), x.shape[-1]
    for index in np.ndindex(x.shape[:-1]):
        p = positions[index[-1]]
        for j in range(d // 2):
            z = complex(x[index][2 * j], x[index][2 * j + 1])
            z *= cmath.exp(1j * p / theta ** (2 * j / d))
            out[index][2 * j : 2 * j + 2] = z.real, z.imag
    return out


def _rotation_values(f: F) -> None:
    rng = np.random.default_rng()
    for shape, theta in (((5, 2), 100.0), ((2, 4, 6), 1e4), ((3, 2, 7, 8), 5e5)):
        x, positions = rng.normal(size=shape), np.arange(shape[-2])
        wanted = _by_hand(x, positions, theta)
        close(f(x, positions, theta), wanted, f"positions 0, 1, 2, … for {shape}")


def _rotation_anywhere(f: F) -> None:
    rng = np.random.default_rng()
    x = rng.normal(size=(2, 4, 6))
    for positions in (np.array([7, 0, 300, 3]), np.array([0.5, 2.25, 1.0, 9.75])):
        wanted = _by_hand(x, positions, 1e4)
        close(f(x, positions, 1e4), wanted, f"positions {positions.tolist()}")


def _rotation_relative(f: F) -> None:
    rng = np.random.default_rng()
    q, k = rng.normal(size=(2, 5, 8))
    positions = np.arange(5)
    near = np.asarray(f(q, positions, 50.0)) @ np.asarray(f(k, positions, 50.0)).T
    far = (
        np.asarray(f(q, positions + 9, 50.0)) @ np.asarray(f(k, positions + 9, 50.0)).T
    )
    close(far, near, "scores after moving all tokens by 9 places")
    apart = np.asarray(f(q, positions + 2, 50.0)) @ np.asarray(f(k, positions, 50.0)).T
    if np.abs(apart - near).max() < 1e-3:
        raise AssertionError("scores do not change when the distance does")


def _rotation_keeps(f: F) -> None:
    rng = np.random.default_rng()
    x, positions = rng.normal(size=(3, 4)), np.array([4, 1, 2])
    x_before, p_before = x.copy(), positions.copy()
    f(x, positions, 1e4)
    if not (np.array_equal(x, x_before) and np.array_equal(positions, p_before)):
        raise AssertionError("your function changed its arguments in place")


# --- modern_decoder-2: bytes of a cache -----------------------------------------------


def _one_by_one(
    lengths: list[int], layers: int, heads: int, width: int, window: int, size: int
) -> int:
    total = 0
    for n in lengths:
        tokens = n if window == 0 or n < window else window
        for _ in ("keys", "values"):
            total += tokens * layers * heads * width * size
    return total


def _bytes(f: F, *shape: Any) -> None:  # noqa: ANN401
    ours, wanted = f(*shape), _one_by_one(*shape)
    if ours != wanted:
        raise AssertionError(f"{shape}: {ours!r} bytes, wanted {wanted}")


def _bytes_full(f: F) -> None:
    _bytes(f, [1], 1, 1, 1, 0, 1)
    _bytes(f, [4096], 32, 32, 128, 0, 2)
    _bytes(f, [4096], 80, 8, 128, 0, 2)
    _bytes(f, [10], 3, 5, 7, 0, 4)


def _bytes_ragged(f: F) -> None:
    _bytes(f, [3, 17, 1], 2, 3, 5, 0, 2)
    _bytes(f, [], 2, 3, 5, 0, 2)


def _bytes_window(f: F) -> None:
    _bytes(f, [100], 2, 3, 5, 7, 2)
    _bytes(f, [3, 8, 7, 6, 100], 2, 3, 5, 7, 2)


# --- modern_decoder-3: mask of a left-padded batch ------------------------------------


def _entry(length: int, T: int, window: int, query: int, key: int) -> bool:
    first = T - length  # position of the first real token
    if query == key:
        return True
    if query < first or key < first or key > query:
        return False
    return window == 0 or query - key < window


def _mask(f: F, lengths: list[int], T: int, window: int) -> None:
    ours = np.asarray(f(lengths, T, window))
    wanted = np.array(
        [
            [[_entry(n, T, window, i, j) for j in range(T)] for i in range(T)]
            for n in lengths
        ]
    )
    where = f"lengths {lengths}, T = {T}, window = {window}"
    if ours.dtype != bool:
        raise AssertionError(f"{where}: dtype {ours.dtype}, wanted bool")
    if ours.shape != wanted.shape:
        raise AssertionError(f"{where}: shape {ours.shape}, wanted {wanted.shape}")
    if not np.array_equal(ours, wanted):
        b, i, j = np.argwhere(ours != wanted)[0]
        raise AssertionError(
            f"{where}: row {b}, query {i}, key {j} is {bool(ours[b, i, j])}, "
            f"wanted {bool(wanted[b, i, j])}"
        )


def _mask_full(f: F) -> None:
    _mask(f, [4], 4, 0)
    _mask(f, [5, 5], 5, 0)


def _mask_padded(f: F) -> None:
    _mask(f, [5, 2, 1], 5, 0)
    _mask(f, [3, 6], 7, 0)


def _mask_window(f: F) -> None:
    for window in (1, 2, 3, 6, 9):
        _mask(f, [6, 3], 6, window)


# --- modern_decoder-6: angles beyond those of training --------------------------------


def _unseen(f: F, old: list[float], new: list[float], trained: int, long: int) -> None:
    wanted = 0
    for before, after in zip(old, new, strict=True):
        most = before * trained
        wanted += most < 2 * cmath.pi and after * long > 1.01 * most
    ours = f(np.array(old), np.array(new), trained, long)
    if not isinstance(ours, int | np.integer) or ours != wanted:
        raise AssertionError(
            f"old {old}, new {new}, {trained} -> {long} tokens: {ours!r}, "
            f"wanted {wanted}"
        )


def _unseen_same_speeds(f: F) -> None:
    speeds = [1.0, 0.5, 0.11, 0.09, 0.05, 0.012, 0.001]
    for trained, long in ((64, 256), (8, 9), (100, 101), (100, 102), (64, 64), (64, 8)):
        _unseen(f, speeds, speeds, trained, long)


def _unseen_changed(f: F) -> None:
    old = [1.0, 0.2, 0.09, 0.05, 0.01]
    for factor in (1.0, 2.0, 3.9, 4.0, 5.0):
        _unseen(f, old, [w / factor for w in old], 64, 256)
    _unseen(f, old, [1.0, 0.2, 0.03, 0.01, 0.0025], 64, 256)
    _unseen(f, old, [9.0, 0.01, 0.09, 0.9, 0.0], 64, 64)


def _unseen_edges(f: F) -> None:
    turn = 2 * cmath.pi
    _unseen(f, [turn], [turn], 1, 5)  # exactly one turn: every angle is known
    _unseen(f, [0.99 * turn, turn / 2, 1.01 * turn], [turn] * 3, 1, 5)
    _unseen(f, [0.0, 0.0], [0.0, 0.1], 4, 8)  # 0 is not beyond 0
    _unseen(f, [0.1, 0.1, 0.1], [0.1005, 0.1015, 0.103], 10, 10)


EXERCISES = {
    "modern_decoder-1": Exercise(
        function="rotate_pairs",
        checks=(
            Check(
                "positions 0, 1, 2, …",
                _rotation_values,
                hint="Features 2 j and 2 j + 1 turn by p / theta ** (2 j / d).",
            ),
            Check(
                "positions anywhere",
                _rotation_anywhere,
                hint="Position p belongs to row p of the next-to-last axis; it need "
                "not be whole or sorted.",
            ),
            Check(
                "only the distance counts",
                _rotation_relative,
                hint="Each pair is turned as a whole: its length never changes.",
            ),
            Check(
                "the arguments are left alone",
                _rotation_keeps,
                hint="x[..., ::2] is a view: writing into it writes into x.",
            ),
        ),
    ),
    "modern_decoder-2": Exercise(
        function="cache_bytes",
        checks=(
            Check(
                "one sequence",
                _bytes_full,
                hint="Keys and values, each n_layers × n_kv_heads × d_head a token.",
            ),
            Check(
                "sequences of different lengths",
                _bytes_ragged,
                hint="Every sequence pays for its own tokens, not for the longest.",
            ),
            Check(
                "a window",
                _bytes_window,
                hint="No query will look further back than the window; 0 is no window.",
            ),
        ),
    ),
    "modern_decoder-6": Exercise(
        function="unseen_pairs",
        checks=(
            Check(
                "the old speeds, a longer text",
                _unseen_same_speeds,
                hint="A pair is in trouble if it made less than one turn in training.",
            ),
            Check(
                "changed speeds",
                _unseen_changed,
                hint="Compare new * longest with old * trained, pair by pair.",
            ),
            Check(
                "at the edges",
                _unseen_edges,
                hint="A turn is 2 π; exactly one turn has seen all; 1 % is forgiven.",
            ),
        ),
    ),
    "modern_decoder-3": Exercise(
        function="left_padded_mask",
        checks=(
            Check(
                "no filler",
                _mask_full,
                hint="Query i sees keys 0 to i; the result is (B, T, T) and boolean.",
            ),
            Check(
                "filler on the left",
                _mask_padded,
                hint="Row b begins at T - lengths[b]; filler sees itself only.",
            ),
            Check(
                "a window",
                _mask_window,
                hint="A window of 1 is the token itself; 0 is no window.",
            ),
        ),
        equivalent={
            "back >= 0 → back > 0": "the diagonal is added at the end in any case",
            "0 → 1": "back >= 1 leaves out the diagonal, which is added at the end",
        },
    ),
}

"""Checks of the exercises in ch-transformer. References are written independently."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- transformer-1: the shift matrix --------------------------------------------------


def _places(t: np.ndarray, D: int, base: float) -> np.ndarray:
    """Positions as the real and imaginary part of a turning number."""
    turn = np.exp(1j * np.outer(t, base ** (-2 * np.arange(D // 2) / D)))
    return np.stack([turn.imag, turn.real], axis=-1).reshape(len(t), D)


def _moves(f: F, k: int, D: int, base: float) -> None:
    t = np.arange(0, 90, 7)
    ours = np.asarray(f(k, D, base))
    if ours.shape != (D, D):
        raise AssertionError(f"k = {k}, D = {D}: shape {ours.shape}, not ({D}, {D})")
    moved = _places(t, D, base) @ ours
    close(moved, _places(t + k, D, base), f"k = {k}, D = {D}, base {base:g}", 1e-8)


def _one_pair(f: F) -> None:
    for k in (0, 1, 5):
        _moves(f, k, 2, 10_000.0)


def _many_pairs(f: F) -> None:
    for k, D, base in ((1, 6, 10_000.0), (9, 16, 10_000.0), (3, 10, 50.0)):
        _moves(f, k, D, base)


def _backwards(f: F) -> None:
    _moves(f, -4, 8, 10_000.0)
    both = np.asarray(f(-4, 8)) @ np.asarray(f(4, 8))
    close(both, np.eye(8), "four places on and four back")


def _default_base(f: F) -> None:
    close(f(3, 12), np.asarray(f(3, 12, 10_000.0)), "base left out")
    t = np.arange(5)
    moved = _places(t, 12, 10_000.0) @ np.asarray(f(3, 12))
    close(moved, _places(t + 3, 12, 10_000.0), "base left out, D = 12")


# --- transformer-2: a batch for the decoder -------------------------------------------


def _batch_by_hand(
    targets: list[list[int]], bos: int, eos: int, pad: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell by cell."""
    B, T = len(targets), 1 + max(len(t) for t in targets)
    inputs, labels = np.zeros((B, T), int), np.zeros((B, T), int)
    mask = np.zeros((B, T, T), bool)
    for b, target in enumerate(targets):
        framed = [bos, *target, eos]
        for t in range(T):
            inputs[b, t] = framed[t] if t <= len(target) else pad
            labels[b, t] = framed[t + 1] if t <= len(target) else pad
            for s in range(T):
                mask[b, t, s] = s <= t and s <= len(target)
    return inputs, labels, mask


def _batch_part(f: F, part: int, targets: list[list[int]], pad: int) -> None:
    before = [list(t) for t in targets]
    ours = f(targets, 11, 12, pad)
    if not isinstance(ours, tuple) or len(ours) != 3:
        raise AssertionError("return inputs, labels, mask: a tuple of three")
    name = ("inputs", "labels", "mask")[part]
    got = np.asarray(ours[part])
    wanted = _batch_by_hand(before, 11, 12, pad)[part]
    if got.dtype.kind != wanted.dtype.kind:
        raise AssertionError(f"{name}: dtype {got.dtype}, wanted {wanted.dtype}")
    lengths = [len(t) for t in before]
    close(got.astype(int), wanted.astype(int), f"{name}, lengths {lengths}, pad {pad}")
    if targets != before:
        raise AssertionError("your function changed the targets in place")


_TARGETS = (
    [[5, 6, 7]],
    [[5, 6, 7], [8]],
    [[4], [5, 6], [3, 3, 3, 9], []],
    [[0, 5, 0], [9, 0], [7, 8, 9, 0, 6]],  # zeros that are real tokens
)


def _parts(part: int) -> F:
    def check(f: F) -> None:
        for targets in _TARGETS:
            for pad in (0, 99):
                _batch_part(f, part, [list(t) for t in targets], pad)

    return check


# --- transformer-3: exact search ------------------------------------------------------


class _Model:
    """Random next-token log probabilities, fixed for each prefix, with a count."""

    def __init__(self, seed: int, n_tokens: int, sharp: float = 1.5) -> None:
        self.seed, self.n_tokens, self.sharp = seed, n_tokens, sharp
        self.calls: list[tuple[int, ...]] = []

    def log_probs(self, prefix: tuple[int, ...]) -> np.ndarray:
        key = [self.seed, len(prefix), *(int(t) for t in prefix)]
        scores = self.sharp * np.random.default_rng(key).normal(size=self.n_tokens)
        return scores - np.log(np.exp(scores).sum())

    def __call__(self, prefix: tuple[int, ...]) -> np.ndarray:
        self.calls.append(tuple(prefix))
        if len(self.calls) > 3000:
            raise AssertionError("more than 3,000 calls: unlikely prefixes are kept")
        return self.log_probs(tuple(prefix))


def _every(
    model: _Model, end: int, max_len: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Score every finished sequence, one by one."""
    others = [t for t in range(model.n_tokens) if t != end]
    found = []
    for n in range(max_len):
        for body in product(others, repeat=n):
            tokens = (*body, end)
            steps = [model.log_probs(tokens[:i])[t] for i, t in enumerate(tokens)]
            found.append((float(np.sum(steps)), tokens))
    return found


def _agrees(f: F, model: _Model, end: int, max_len: int) -> None:
    score, tokens = max(_every(model, end, max_len))
    ours = f(model, end, max_len)
    if not isinstance(ours, tuple) or len(ours) != 2:
        raise AssertionError("return (log_prob, tokens)")
    got = tuple(int(t) for t in ours[1])
    if got != tokens:
        raise AssertionError(f"found {got}, the likeliest is {tokens}")
    close(np.asarray(ours[0], float), np.asarray(score), f"log probability of {got}")


def _search_small(f: F) -> None:
    for seed in range(6):
        _agrees(f, _Model(seed, 3), end=0, max_len=4)
        _agrees(f, _Model(seed, 4), end=2, max_len=3)


def _search_limit(f: F) -> None:
    for seed in range(5):
        for max_len in (1, 2):
            _agrees(f, _Model(seed, 3), end=1, max_len=max_len)

    class Late(_Model):
        """Ends only with small probability before its fourth token."""

        def log_probs(self, prefix: tuple[int, ...]) -> np.ndarray:
            ending = 0.9 if len(prefix) == 3 else 1e-4
            other = (1 - ending) * np.array([0.9, 0.1])
            return np.log([*other, ending])

    _agrees(f, Late(0, 3), end=2, max_len=4)
    _agrees(f, Late(0, 3), end=2, max_len=3)


def _search_deep(f: F) -> None:
    """The start that looks worst leads to a sure end: beams up to 78 lose it."""
    n, end = 80, 3

    def trap(prefix: tuple[int, ...]) -> np.ndarray:
        p = np.full(n, 0.5 / (n - 1))
        p[end] = 0.5
        if not prefix:
            p = np.full(n, 0.0127)
            p[end], p[worst] = 1e-9, 0.0
            p[worst] = 1 - p.sum()  # less than any other start
        elif prefix[0] == worst:
            p = np.full(n, 0.02 / (n - 1))
            p[end] = 0.98
        return np.log(p)

    for worst in (0, n - 1):
        start = trap(())
        if not start[worst] < np.delete(start, [end, worst]).min():
            raise RuntimeError("the trap is not one")
        ours = f(trap, end, 3)
        if tuple(int(t) for t in ours[1]) != (worst, end):
            raise AssertionError(
                f"found {ours[1]}, the likeliest is {(worst, end)}: its first "
                "token is the least likely of all"
            )
        close(np.asarray(ours[0]), start[worst] + np.log(0.98), "log probability")


def _search_none(f: F) -> None:
    score, tokens = f(_Model(0, 3), 0, 0)
    if tuple(tokens) != () or score != -np.inf:
        raise AssertionError(f"max_len = 0: returned {(score, tokens)}")


def _search_cheap(f: F) -> None:
    for seed in range(4):
        model = _Model(seed, 4, sharp=3.0)
        best = max(_every(model, 0, 5))[0]
        needed = 0
        for n in range(5):
            for prefix in product((1, 2, 3), repeat=n):
                steps = [model.log_probs(prefix[:i])[t] for i, t in enumerate(prefix)]
                needed += float(np.sum(steps)) > best
        model.calls = []
        f(model, 0, 5)
        for prefix in model.calls:
            if 0 in prefix:
                raise AssertionError(f"extended {prefix}, which has already ended")
            if len(prefix) >= 5:
                raise AssertionError(f"extended {prefix}, already at max_len")
        if len(model.calls) > 3 * needed + 5:
            n_calls = len(model.calls)
            raise AssertionError(f"{n_calls} calls where {needed} are enough")


# --- transformer-6: leaks between the rows of a batch ---------------------------------


def _ragged(seed: int, pad: int, equal: bool = False) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    lengths = [4] * 5 if equal else [3, 6, 1, 5]
    return [[int(t) + pad + 1 for t in rng.integers(0, 9, n)] for n in lengths]


def _model(kind: str, pad: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a model that gives three numbers a row, sound or not."""

    def f(x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.dtype.kind != "i":
            raise AssertionError(f"the model got {x.dtype} of shape {x.shape}")
        real = x != pad
        place = 0.3 * np.arange(x.shape[1])[:, None]
        feature = np.sin(np.multiply.outer(x, [0.5, 1.0, 2.0]) + place)  # (B, S, 3)
        weights = np.ones(x.shape) if kind == "counts filler" else real
        out = (feature * weights[..., None]).sum(1)
        out = out / weights.sum(1, keepdims=True)
        return out - out.mean(0) if kind == "mixes rows" else out

    return f


def _leak_by_hand(kind: str, rows: list[list[int]], pad: int) -> float:
    f, longest = _model(kind, pad), max(map(len, rows))
    padded = [row + [pad] * (longest - len(row)) for row in rows]
    together, worst = f(np.array(padded)), 0.0
    for i, row in enumerate(rows):
        alone = f(np.array([row]))
        worst = max(worst, *(abs(together[i, j] - alone[0, j]) for j in range(3)))
    return float(worst)


def _leaks(kind: str, equal: bool = False) -> F:
    def check(f: F) -> None:
        for seed, pad in ((0, 0), (1, 7), (2, -1)):
            rows = _ragged(seed, pad, equal)
            for some in (rows, rows[::-1], rows[:2]):
                wanted = _leak_by_hand(kind, some, pad)
                lengths = [len(row) for row in some]
                ours = f(_model(kind, pad), [list(row) for row in some], pad)
                what = f"a model that {kind}, lengths {lengths}, pad {pad}"
                close(np.asarray(ours, float), np.asarray(wanted), what)

    return check


EXERCISES = {
    "transformer-1": Exercise(
        function="shift_matrix",
        checks=(
            Check(
                "one pair",
                _one_pair,
                hint="A row times M is the transpose of M.T times a column.",
            ),
            Check(
                "many pairs, any base",
                _many_pairs,
                hint="Pair i turns by k * base ** (-2 i / D), on the diagonal.",
            ),
            Check(
                "backwards too",
                _backwards,
                hint="cos is even and sin is odd: no special case is needed.",
            ),
            Check(
                "the usual base",
                _default_base,
                hint="The default of base is 10,000.",
            ),
        ),
    ),
    "transformer-2": Exercise(
        function="decoder_batch",
        checks=(
            Check(
                "inputs begin with bos",
                _parts(0),
                hint="bos, then the target; the end is not an input. T is one more "
                "than the longest target.",
            ),
            Check(
                "labels end with eos",
                _parts(1),
                hint="The target, then eos: the same text, one place earlier.",
            ),
            Check(
                "the mask sees the real past",
                _parts(2),
                hint="Key s is visible to query t if s <= t and s is real. Lengths "
                "say what is real, not values.",
            ),
        ),
    ),
    "transformer-3": Exercise(
        function="best_sequence",
        checks=(
            Check(
                "the likeliest of all",
                _search_small,
                hint="Compare log probabilities of whole sequences, each ending in "
                "`end`.",
            ),
            Check(
                "the limit counts the end",
                _search_limit,
                hint="max_len = 1 leaves room for `end` alone.",
            ),
            Check(
                "no beam to fall off",
                _search_deep,
                hint="A start that looks worst may lead to the best end: keep it.",
            ),
            Check(
                "nothing to find",
                _search_none,
                hint="With no room for `end` there is no answer: (-np.inf, ()).",
            ),
            Check(
                "no needless call",
                _search_cheap,
                hint="Once a finished answer beats a prefix, the prefix is done.",
            ),
        ),
    ),
    "transformer-6": Exercise(
        function="batch_leak",
        checks=(
            Check(
                "a sound model passes",
                _leaks("masks filler"),
                hint="Right padding, with the number `pad`; alone means (1, length).",
            ),
            Check(
                "counted filler is found",
                _leaks("counts filler"),
                hint="The longest row of the batch sets the width of all.",
            ),
            Check(
                "mixed rows are found",
                _leaks("mixes rows", equal=True),
                hint="Run every row as a batch of one; lengths may be equal.",
            ),
        ),
        equivalent={"0 → -1": "a batch of one has its only row first and last"},
    ),
}

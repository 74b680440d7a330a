"""Checks of ch-distributed-optimization's exercises, against independent references."""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


# --- distributed_optimization-1: the mean over ranks and micro-batches ----------------


def _tokens(counts: np.ndarray, shape: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """Gradients token by token, averaged within each cell of ``counts``."""
    rng = np.random.default_rng()
    means = np.full((*counts.shape, *shape), np.nan)
    every: list[np.ndarray] = []
    for cell in np.ndindex(counts.shape):
        tokens = rng.normal(loc=3 * rng.normal(), size=(counts[cell], *shape))
        if len(tokens):
            means[cell] = tokens.sum(axis=0) / len(tokens)
        every.extend(tokens)
    return means, np.array(every)


def _mean_values(f: F) -> None:
    rng = np.random.default_rng()
    for ranks, shape in (((1, 2), (3,)), ((2, 3), (4, 2)), ((3, 2), (2,))):
        counts = rng.integers(2, 9, ranks)
        counts[0, 0] = 20
        means, every = _tokens(counts, shape)
        close(f(means, counts), every.mean(axis=0), f"counts {counts.tolist()}")


def _mean_single(f: F) -> None:
    for shape in ((), (3,)):
        counts = np.array([[1, 6], [4, 1]])
        means, every = _tokens(counts, shape)
        close(f(means, counts), every.mean(axis=0), "micro-batches of one token")


def _mean_empty(f: F) -> None:
    for counts in (np.array([[0, 5], [1, 2]]), np.array([[0, 0, 0], [3, 0, 1]])):
        means, every = _tokens(counts, (2, 3))
        close(f(means, counts), every.mean(axis=0), f"counts {counts.tolist()}")


def _mean_nothing(f: F) -> None:
    try:
        ours = f(np.full((2, 3, 4), np.nan), np.zeros((2, 3), dtype=int))
    except ValueError:
        return
    raise AssertionError(f"no token anywhere, and no ValueError: got {ours}")


# --- distributed_optimization-2: a ring to the left -----------------------------------


def _pair(f: F, rank: int, step: int, n: int) -> tuple[int, int]:
    send, receive = f(rank, step, n)
    for name, part in (("send", send), ("receive", receive)):
        if part not in range(n):
            raise AssertionError(
                f"turn({rank}, {step}, {n}): {name} is {part!r}, not in 0..{n - 1}"
            )
    return int(send), int(receive)


def _left(f: F, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Contributions after the reduce-scatter and at the end: (rank, part, from)."""
    held = np.zeros((n, n, n), dtype=int)
    for rank in range(n):
        held[rank, :, rank] = 1
    middle = held
    for step in range(2 * n - 2):
        moves = [_pair(f, rank, step, n) for rank in range(n)]
        old = held.copy()
        for rank in range(n):
            right = (rank + 1) % n
            send, receive = moves[right][0], moves[rank][1]
            if send != receive:
                raise AssertionError(
                    f"n = {n}, step {step}: rank {right} sends part {send}, its left "
                    f"neighbour {rank} waits for part {receive}"
                )
            if step < n - 1:
                held[rank, receive] += old[right, send]
            else:
                held[rank, receive] = old[right, send]
        if step == n - 2:
            middle = held.copy()
    return middle, held


def _owned(f: F) -> None:
    for n in (2, 3, 4, 7):
        middle, _ = _left(f, n)
        for rank in range(n):
            if not (middle[rank, rank] == 1).all():
                raise AssertionError(
                    f"n = {n}: after {n - 1} steps rank {rank}'s part {rank} holds "
                    f"the ranks {np.repeat(np.arange(n), middle[rank, rank]).tolist()}"
                )


def _everywhere(f: F) -> None:
    for n in (2, 3, 5, 8):
        _, held = _left(f, n)
        if not (held == 1).all():
            rank, part = np.argwhere((held != 1).any(axis=2))[0]
            raise AssertionError(
                f"n = {n}: at the end rank {rank} has part {part} with counts "
                f"{held[rank, part].tolist()}, wanted every rank once"
            )


# --- distributed_optimization-3: compression both ways --------------------------------


def _largest(v: np.ndarray) -> np.ndarray:
    if np.ndim(v) != 1:
        raise AssertionError(f"compress got shape {np.shape(v)}, wanted one vector")
    out = np.zeros(len(v))
    place = int(np.argmax(np.abs(v)))
    out[place] = v[place]
    return out


def _bits(v: np.ndarray) -> np.ndarray:
    if np.ndim(v) != 1:
        raise AssertionError(f"compress got shape {np.shape(v)}, wanted one vector")
    return np.where(v < 0, -1.0, 1.0) * np.abs(v).sum() / len(v)


def _reference(
    steps: np.ndarray, memories: np.ndarray, server: np.ndarray, compress: F
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, kept, arrived = len(steps), [], np.zeros(steps.shape[1])
    for step, memory in zip(steps, memories):
        message = compress(step + memory)
        kept.append(step + memory - message)
        arrived = arrived + message / n
    update = compress(arrived + server)
    return update, np.array(kept), arrived + server - update


def _two_way(f: F, compress: F, memory: float, server: float) -> None:
    rng = np.random.default_rng()
    for n, d in ((3, 5), (4, 2), (1, 6)):
        steps = rng.normal(size=(n, d))
        memories, own = memory * rng.normal(size=(n, d)), server * rng.normal(size=d)
        wanted = _reference(steps, memories, own, compress)
        names = ("update", "workers' memories", "server's memory")
        ours = f(steps.copy(), memories.copy(), own.copy(), compress)
        if len(ours) != 3:
            raise AssertionError(f"returned {len(ours)} things, wanted three")
        for name, a, b in zip(names, ours, wanted):
            close(a, b, f"{name}, {n} workers, {d} entries")


def _first(f: F) -> None:
    _two_way(f, _largest, 0.0, 0.0)


def _workers(f: F) -> None:
    _two_way(f, _bits, 2.0, 0.0)


def _server(f: F) -> None:
    for compress in (_largest, _bits):
        _two_way(f, compress, 1.0, 3.0)


def _nothing_lost(f: F) -> None:
    rng = np.random.default_rng()
    n, d = 3, 6
    memories, server, applied = np.zeros((n, d)), np.zeros(d), np.zeros(d)
    wanted = np.zeros(d)
    for _ in range(20):
        steps = rng.normal(size=(n, d)) + np.arange(d)
        wanted = wanted + steps.sum(axis=0) / n
        update, memories, server = f(steps, memories, server, _largest)
        applied = applied + update
    owed = np.sum(memories, axis=0) / n + server
    close(applied + owed, wanted, "applied plus remembered, after 20 steps", 1e-8)


# --- distributed_optimization-4: tokens that hide the ring ----------------------------


def _fewest(flops: int, link: int, n: int, n_bytes: int) -> int:
    """Search for the fewest tokens, in exact arithmetic and seconds per parameter."""
    send = Fraction(2 * (n - 1) * n_bytes, n * link)
    backward = Fraction(4, flops)
    return math.floor(send / backward) + (send % backward > 0)


def _hide(f: F, cases: tuple[tuple[int, int, int, int], ...]) -> None:
    for flops, link, n, n_bytes in cases:
        ours = f(float(flops), float(link), n, n_bytes)
        wanted = _fewest(flops, link, n, n_bytes)
        close(ours, wanted, f"flops {flops:.3g}, link {link:.3g}, n {n}, b {n_bytes}")


def _hide_values(f: F) -> None:
    _hide(f, ((10**15, 10**11, 64, 2), (4 * 10**14, 12 * 10**9, 16, 4)))


def _hide_few(f: F) -> None:
    _hide(f, ((3 * 10**13, 7 * 10**9, 2, 1), (10**14, 9 * 10**8, 3, 2)))


def _hide_alone(f: F) -> None:
    _hide(f, ((10**14, 10**10, 1, 2), (8 * 10**12, 10**12, 4, 1)))


EXERCISES = {
    "distributed_optimization-1": Exercise(
        function="global_mean",
        checks=(
            Check(
                "the mean over all tokens",
                _mean_values,
                hint="Every token counts once: weight each mean by its count.",
            ),
            Check(
                "micro-batches of one token count too",
                _mean_single,
                hint="Which counts are left out?",
            ),
            Check(
                "empty micro-batches are left out",
                _mean_empty,
                hint="0 * nan is nan: select before you multiply.",
            ),
            Check(
                "no token at all is an error",
                _mean_nothing,
                hint="There is no mean of nothing: raise ValueError.",
            ),
        ),
    ),
    "distributed_optimization-2": Exercise(
        function="turn",
        checks=(
            Check(
                "rank r owns part r after n − 1 steps",
                _owned,
                hint="Part p moves left and ends at rank p: where does it start?",
            ),
            Check(
                "at the end everyone has everything once",
                _everywhere,
                hint="Go on sending what arrived in the step before.",
            ),
        ),
    ),
    "distributed_optimization-3": Exercise(
        function="two_way_step",
        checks=(
            Check(
                "the first step, memories empty",
                _first,
                hint="Compress each worker's row, average, compress again.",
            ),
            Check(
                "workers pay back what they kept",
                _workers,
                hint="The memory is added before compressing, the rest kept after.",
            ),
            Check(
                "the server pays back too",
                _server,
                hint="Its memory joins the average before the second compression.",
            ),
            Check(
                "nothing is lost over twenty steps",
                _nothing_lost,
                hint="Updates plus what is remembered must be the sum of all steps.",
            ),
        ),
    ),
    "distributed_optimization-4": Exercise(
        function="tokens_to_hide",
        checks=(
            Check(
                "many ranks",
                _hide_values,
                hint="Set 4 N T / flops equal to the seconds of the ring.",
            ),
            Check(
                "few ranks",
                _hide_few,
                hint="The ring sends 2 (n − 1) / n arrays, not 2.",
            ),
            Check(
                "whole tokens, and one rank sends nothing",
                _hide_alone,
                hint="Round up; with n = 1 there is nothing to hide.",
            ),
        ),
    ),
}

"""Checks of the exercises in ch-tokenization. References are written independently."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from llmbook.grading import Check, Exercise

F = Callable[..., Any]


# --- tokenization-1: what a merge saves ----------------------------------------------


def _merged_length(word: tuple[Any, ...], pair: tuple[Any, Any]) -> int:
    """Length after merging from the left, by a scan that jumps over what it joins."""
    n = i = 0
    while i < len(word):
        i += 2 if word[i : i + 2] == pair else 1
        n += 1
    return n


def _saved(words: dict[tuple[Any, ...], int]) -> dict[tuple[Any, Any], int]:
    pairs = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
    return {
        pair: sum(n * (len(w) - _merged_length(w, pair)) for w, n in words.items())
        for pair in pairs
    }


def _same(f: F, words: dict[tuple[Any, ...], int], what: str) -> None:
    before = dict(words)
    ours = f(words)
    if not isinstance(ours, dict):
        raise AssertionError(f"{what}: return a dictionary, not {type(ours).__name__}")
    wanted = _saved(before)
    for pair in sorted(wanted.keys() | ours.keys(), key=str):
        if ours.get(pair, 0) != wanted.get(pair, 0):
            raise AssertionError(
                f"{what}: {pair} saves {wanted.get(pair, 0)}, you say "
                f"{ours.get(pair, 0)}"
            )
    if extra := ours.keys() - wanted.keys():
        raise AssertionError(f"{what}: {min(extra, key=str)} does not occur")
    if words != before:
        raise AssertionError("your function changed its argument")


def _plain_words(f: F) -> None:
    _same(f, {tuple("ban"): 3, tuple("bandana"): 1}, "ban ×3, bandana ×1")
    _same(f, {tuple("abab"): 2, ("x",): 5, (): 1}, "abab ×2, x ×5, the empty word")


def _runs(f: F) -> None:
    for n in range(2, 9):
        _same(f, {("a",) * n: 2}, f"a run of {n}, twice")
    _same(f, {tuple("aaabaaaab"): 3}, "aaabaaaab ×3")
    _same(f, {tuple("aabaa"): 1, tuple("baaab"): 4}, "aabaa, baaab ×4")


def _random_words(f: F) -> None:
    rng = np.random.default_rng()
    for _ in range(20):
        words = {
            tuple(int(x) for x in rng.integers(0, 3, rng.integers(1, 12))): int(n)
            for n in rng.integers(1, 9, 6)
        }
        _same(f, words, f"random words {words}")


# --- tokenization-2: a cut between characters ----------------------------------------

_TEXTS = (
    "plain words only",
    "大模型的词表，每个字三个字节。",
    "naïve café 12 € 🙂🙃 Ünïcode ½",
    "a sign \ufffd that is no error \ufffd\ufffd大",
    "ключ 👩‍👩‍👧 עברית नमस्ते",
)


def _cut_tokens(text: str, rng: np.random.Generator, longest: int) -> list[bytes]:
    raw, tokens = text.encode(), []
    while raw:
        n = int(rng.integers(1, longest + 1))
        tokens.append(raw[:n])
        raw = raw[n:]
    return tokens


def _is_whole(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cuts(f: F, texts: tuple[str, ...], longest: int) -> None:
    rng = np.random.default_rng()
    for text in texts:
        tokens = _cut_tokens(text, rng, longest)
        for limit in range(len(tokens) + 3):
            top = min(limit, len(tokens))
            whole = [n for n in range(top + 1) if _is_whole(b"".join(tokens[:n]))]
            wanted = max(whole)
            ours = f(list(tokens), limit)
            if ours != wanted:
                raise AssertionError(
                    f"{tokens[:limit][-3:]} at limit {limit} of {len(tokens)} tokens: "
                    f"wanted {wanted}, got {ours}"
                )


def _ascii_cut(f: F) -> None:
    _cuts(f, _TEXTS[:1], 4)


def _byte_cut(f: F) -> None:
    _cuts(f, (_TEXTS[1], _TEXTS[2], _TEXTS[4]), 1)


def _long_cut(f: F) -> None:
    for _ in range(3):
        _cuts(f, (_TEXTS[1], _TEXTS[2], _TEXTS[4]), 5)


def _sign_cut(f: F) -> None:
    _cuts(f, (_TEXTS[3],), 1)
    _cuts(f, (_TEXTS[3],), 4)


# --- tokenization-3: the sum over all cuts --------------------------------------------


def _by_enumeration(text: str, log_p: dict[str, float]) -> float:
    total = 0.0
    for flags in itertools.product((False, True), repeat=len(text) - 1):
        edges = [0, *(i + 1 for i, cut in enumerate(flags) if cut), len(text)]
        parts = [text[a:b] for a, b in itertools.pairwise(edges)]
        if all(part in log_p for part in parts):
            total += math.exp(math.fsum(log_p[part] for part in parts))
    return math.log(total) if total else -math.inf


def _near(ours: object, wanted: float, what: str) -> None:
    value = float(ours)  # type: ignore[arg-type]
    if math.isinf(wanted) and value == wanted:
        return
    if not abs(value - wanted) <= 1e-9 * max(1.0, abs(wanted)):
        raise AssertionError(f"{what}: wanted {wanted:.6f}, got {value:.6f}")


def _few_cuts(f: F) -> None:
    log_p = {"a": math.log(0.5), "b": math.log(0.2), "ab": math.log(0.3)}
    for text in ("a", "ab", "ba", "abab"):
        _near(f(text, log_p), _by_enumeration(text, log_p), f"{text!r}")


def _many_cuts(f: F) -> None:
    rng = np.random.default_rng()
    for _ in range(5):
        text = "".join(rng.choice(list("abc"), 9))
        parts = {text[a:b] for a in range(9) for b in range(a + 1, 10)}
        log_p = {p: float(np.log(rng.uniform(0.01, 0.3))) for p in sorted(parts)}
        _near(f(text, log_p), _by_enumeration(text, log_p), f"{text!r}, all pieces")
        few = {p: x for p, x in log_p.items() if len(p) in (1, 3, 9)}
        _near(f(text, few), _by_enumeration(text, few), f"{text!r}, lengths 1, 3, 9")


def _long_pieces(f: F) -> None:
    word, half = "abcde" * 8, "abcde" * 4
    log_p = {word: -3.0, half: -1.0, word[1:]: -2.5, "a": -4.0, word[:39]: -5.0}
    wanted = math.log(math.exp(-3.0) + math.exp(-2.0) + math.exp(-6.5))
    with np.errstate(all="ignore"):
        _near(f(word, log_p), wanted, "a text of 40 letters, one of its pieces too")


def _empty(f: F) -> None:
    _near(f("", {"a": -1.0}), 0.0, "the empty text, cut in one way, into no piece")


def _very_long(f: F) -> None:
    _near(f("a" * 3000, {"a": -1.5}), -4500.0, "3,000 letters, one cut")


def _long_text(f: F) -> None:
    n, one, two = 400, math.log(1e-4), math.log(2e-9)
    ours = f("a" * n, {"a": one, "aa": two})
    # t(n) = p1 t(n-1) + p2 t(n-2), scaled by p1 at each step.
    before, now, ratio = 1.0, 1.0, math.exp(two - 2 * one)
    for _ in range(n - 1):
        before, now = now, now + ratio * before
    _near(ours, math.log(now) + n * one, f"{n} letters, each of probability 1e-4")


def _no_cut(f: F) -> None:
    log_p = {"a": -1.0, "ab": -2.0}
    with np.errstate(all="ignore"):
        for text in ("b", "abb", "ba", "aba?"):
            _near(f(text, log_p), -math.inf, f"{text!r} cannot be cut")
        _near(f("aba", log_p), -3.0, "'aba' has one cut, beside a dead end")


# --- tokenization-4: bits per byte ----------------------------------------------------

_TOKENS = [b"a", b" the", "大".encode(), b"\xe6", b"\x9c\xac", b"<|end|>", b"<|user|>"]


def _bits(f: F, ids: list[int], special: set[int], tokens: list[bytes]) -> None:
    rng = np.random.default_rng()
    nats = rng.uniform(0.1, 6.0, len(ids))
    loss = math.fsum(x for x, i in zip(nats, ids, strict=True) if i not in special)
    n_bytes = sum(len(tokens[i]) for i in ids if i not in special)
    ours = f(nats, ids, tokens, special)
    _near(ours, loss / n_bytes / math.log(2), f"ids {ids}, special {special}")


def _bits_bytes(f: F) -> None:
    _near(f([math.log(2)], [0], _TOKENS, set()), 1.0, "one byte, a loss of ln 2")
    _bits(f, [0, 1, 0, 1, 1], set(), _TOKENS)


def _bits_parts(f: F) -> None:
    for ids in ([2, 3, 4, 1, 3, 4], [3], [4, 3], [2, 3], [0, 3], [4, 1]):
        _bits(f, ids, set(), _TOKENS)


def _bits_nothing(f: F) -> None:
    for ids in ([], [5], [6, 5, 6]):
        with np.errstate(all="ignore"):
            ours = float(f([0.5] * len(ids), ids, _TOKENS, {5, 6}))
        if not math.isnan(ours):
            raise AssertionError(f"ids {ids} hold no text: wanted nan, got {ours}")


def _bits_special(f: F) -> None:
    _bits(f, [5, 0, 1, 2, 6, 1, 5], {5, 6}, _TOKENS)
    _bits(f, [0, 1, 5, 2], {0}, _TOKENS)
    _bits(f, [5, 0, 2, 6], {6}, _TOKENS)


# --- tokenization-5: encode with ranks of tokens --------------------------------------


def _ranks(merged: list[str]) -> dict[bytes, int]:
    """Rank of each token's bytes: single bytes in a mixed-up order, then ``merged``."""
    singles = [bytes([i * 37 % 256]) for i in range(256)]
    return {t: i for i, t in enumerate([*singles, *(m.encode() for m in merged)])}


def _by_borders(piece: bytes, rank: dict[bytes, int]) -> list[int]:
    """Remove, one at a time, the border whose removal makes the lowest rank."""
    borders = list(range(len(piece) + 1))
    while True:
        choices = [
            (rank[piece[a:c]], b)
            for a, b, c in zip(borders, borders[1:], borders[2:], strict=False)
            if piece[a:c] in rank
        ]
        if not choices:
            return [rank[piece[a:b]] for a, b in itertools.pairwise(borders)]
        borders.remove(min(choices)[1])


def _encodes(f: F, piece: bytes, rank: dict[bytes, int]) -> None:
    wanted, before = _by_borders(piece, rank), dict(rank)
    ours = f(piece, rank)
    if not isinstance(ours, list) or ours != wanted:
        raise AssertionError(f"{piece!r}: wanted {wanted}, got {ours!r}")
    if rank != before:
        raise AssertionError("your function changed the ranks")


def _no_merge(f: F) -> None:
    for text in ("", "b", "xyz", "字"):
        _encodes(f, text.encode(), _ranks(["ab"]))


def _rank_order(f: F) -> None:
    for merged in (["ab", "bc"], ["bc", "ab"], ["bc", "ab", "abc"], ["cd", "bc", "ab"]):
        for text in ("abc", "abcd", "abcabc", "zabcdz", "字abc字"):
            _encodes(f, text.encode(), _ranks(merged))


def _overlaps(f: F) -> None:
    for n in range(1, 10):
        _encodes(f, b"a" * n, _ranks(["aa"]))
        _encodes(f, b"a" * n, _ranks(["aa", "aaa"]))
        _encodes(f, b"a" * n + b"b", _ranks(["aa", "ab", "aaaa"]))


def _unreachable(f: F) -> None:
    """A token that no pair of tokens makes is in the list, but never used."""
    _encodes(f, b"abc", _ranks(["abc"]))
    _encodes(f, b"abcabc", _ranks(["ca", "abc", "ab"]))


def _random_ranks(f: F) -> None:
    rng = np.random.default_rng()
    for _ in range(20):
        parts = ["".join(rng.choice(list("ab"), n)) for n in (2, 2, 2, 3, 3, 4)]
        rank = _ranks(list(dict.fromkeys(parts)))
        _encodes(f, "".join(rng.choice(list("abc"), 15)).encode(), rank)


# --- tokenization-6: the vocabulary that takes a share --------------------------------


def _share(f: F, layers: float, width: int, share: float) -> None:
    ours = float(f(layers, width, share))
    got = 2 * ours * width / (2 * ours * width + layers)
    if not ours > 0 or not abs(got - share) <= 1e-6 * share:
        raise AssertionError(
            f"layers {layers:.3g}, width {width}: {ours:,.0f} tokens take {got:.2%} "
            f"of all parameters, not {share:.2%}"
        )


def _half(f: F) -> None:
    _share(f, 12e6, 200, 0.5)


def _small_shares(f: F) -> None:
    for layers, width, share in ((7e9, 4096, 0.13), (6.9e10, 8192, 0.01)):
        _share(f, layers, width, share)


def _large_shares(f: F) -> None:
    for layers, width, share in ((3.5e6, 192, 0.9), (8e4, 7, 0.75)):
        _share(f, layers, width, share)


EXERCISES = {
    "tokenization-1": Exercise(
        function="savings",
        checks=(
            Check(
                "pairs that do not overlap",
                _plain_words,
                hint="Each pair counts as often as its word occurs.",
            ),
            Check(
                "runs of one symbol",
                _runs,
                hint="In aaaa the pairs at 0 and 2 are joined, the one at 1 is not.",
            ),
            Check(
                "random words",
                _random_words,
                hint="Compare with the length after merging from the left.",
            ),
        ),
    ),
    "tokenization-2": Exercise(
        function="safe_cut",
        checks=(
            Check(
                "text of one-byte characters",
                _ascii_cut,
                hint="Every cut is clean; a limit beyond the end means all tokens.",
            ),
            Check(
                "tokens of one byte",
                _byte_cut,
                hint="The first byte after the cut must not be a continuation.",
            ),
            Check(
                "tokens that end inside a character",
                _long_cut,
                hint="Step back whole tokens, not bytes.",
            ),
            Check(
                "a text that contains U+FFFD",
                _sign_cut,
                hint="The sign is a character like others: look at the bytes.",
            ),
        ),
    ),
    "tokenization-3": Exercise(
        function="log_marginal",
        checks=(
            Check(
                "two or three cuts",
                _few_cuts,
                hint="The sum for a prefix needs the sums of shorter prefixes only.",
            ),
            Check(
                "all cuts of nine letters",
                _many_cuts,
                hint="Replace the maximum of Viterbi by a sum, pieces of any length.",
            ),
            Check(
                "a long text",
                _long_text,
                hint="Probabilities underflow: add them as logarithms.",
            ),
            Check(
                "pieces of any length",
                _long_pieces,
                hint="No piece is too long: let every earlier position start one.",
            ),
            Check(
                "the empty text",
                _empty,
                hint="A product of no factors is 1, and its logarithm 0.",
            ),
            Check(
                "3,000 letters",
                _very_long,
                hint="A function that calls itself once a letter goes too deep: loop.",
            ),
            Check(
                "a text without any cut",
                _no_cut,
                hint="The logarithm of an empty sum is minus infinity.",
            ),
        ),
    ),
    "tokenization-4": Exercise(
        function="bits_per_byte",
        checks=(
            Check(
                "plain tokens",
                _bits_bytes,
                hint="Nats become bits by a division by ln 2.",
            ),
            Check(
                "tokens that are parts of a character",
                _bits_parts,
                hint="Count the bytes of tokens, decode nothing.",
            ),
            Check(
                "special tokens",
                _bits_special,
                hint="Leave them out of the loss and out of the bytes.",
            ),
            Check(
                "nothing but special tokens",
                _bits_nothing,
                hint="Zero bits over zero bytes is not a number: return nan.",
            ),
        ),
    ),
    "tokenization-5": Exercise(
        function="encode_piece",
        checks=(
            Check(
                "bytes that nothing joins",
                _no_merge,
                hint="Start from single bytes; return their ranks as a list.",
            ),
            Check(
                "the lowest rank goes first",
                _rank_order,
                hint="Look at all joined neighbours before you join two.",
            ),
            Check(
                "runs of one byte",
                _overlaps,
                hint="Of two equal ranks the left one is joined first.",
            ),
            Check(
                "tokens that no merge makes",
                _unreachable,
                hint="Only two neighbouring tokens are joined, never three bytes.",
            ),
            Check(
                "random ranks",
                _random_ranks,
                hint="One join at a time: the next may have a lower rank.",
            ),
        ),
    ),
    "tokenization-6": Exercise(
        function="vocabulary_for_share",
        checks=(
            Check(
                "half of the parameters",
                _half,
                hint="Then two matrices of V rows hold as much as the layers.",
            ),
            Check(
                "a few percent",
                _small_shares,
                hint="The share is of all parameters, the vocabulary's included.",
            ),
            Check(
                "most of the parameters",
                _large_shares,
                hint="Solve 2VD / (2VD + layers) = share for V.",
            ),
        ),
    ),
}

"""Byte-level byte-pair encoding: text to integers and back, losing nothing.

Text is cut into pieces (words with their leading space, numbers, punctuation),
each piece becomes its UTF-8 bytes, and learned merges join neighbours. The 256
bytes are tokens themselves, so no text is unknown.
"""

import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

# `re` has no \p{L}, so this is the `regex` package; transformers brings it.
import regex

from llmbook.files import replacing

__all__ = ["PATTERN", "Tokenizer", "train_bpe"]

Pair = tuple[int, int]

# How GPT-2 cuts text: merges never cross a piece, so "dog." and "dog!" share
# the token "dog". The leading space belongs to the word that follows it.
PATTERN = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)"  # English contractions
    r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"  # letters, digits, everything else
    r"|\s+(?!\S)|\s+"  # spaces, leaving the last one to the next word
)

# GPT-2 numbers the bytes by its printable alphabet: the visible Latin-1
# characters first, then the rest. We do the same, so that "the pair with the
# smallest ids" breaks ties as the `tokenizers` library breaks them.
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_BYTES = [*_VISIBLE, *(b for b in range(256) if b not in set(_VISIBLE))]
_ID_OF_BYTE = [_BYTES.index(b) for b in range(256)]
_FORMAT = "llmbook byte-level BPE 1"
_CACHE_SIZE = 1 << 16


def train_bpe(
    texts: str | Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()
) -> "Tokenizer":
    """Learn byte-pair merges: join the most frequent pair, again and again.

    Pairs are counted inside pieces; a merge updates the counts of the pieces it
    touches, no others. Of equally frequent pairs the smallest ids go first.

    Args:
        texts: one text or many; pieces never span two texts.
        vocab_size: tokens in all: 256 bytes + merges + special tokens. The result
            is smaller when the text runs out of pairs.
        special_tokens: strings kept whole, numbered last, cut out of the text.

    Raises:
        ValueError: when ``vocab_size`` has no room for bytes and special tokens.

    Source: Sennrich, Haddow and Birch (2016); byte-level form Radford et al. (2019).
    To be built in ch-tokenization.
    """
    smallest = 256 + len(special_tokens)
    if vocab_size < smallest:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: ask for at least {smallest}, 256 "
            f"bytes and {len(special_tokens)} special tokens; the rest becomes merges"
        )
    frequency: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        for part, is_special in _split(text, special_tokens):
            if not is_special:
                frequency.update(PATTERN.findall(part))
    words = [_byte_ids(piece.encode("utf-8", "surrogatepass")) for piece in frequency]
    weights = list(frequency.values())

    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> indices of words
    for i, (word, weight) in enumerate(zip(words, weights, strict=True)):
        for pair in pairwise(word):
            counts[pair] += weight
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < vocab_size - smallest:
        count, pair = heapq.heappop(heap)
        # After the step that creates it a pair only gets rarer. A stale entry is
        # therefore too high, never too low: put it back with its true count.
        if -count != counts[pair]:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        new = 256 + len(merges)
        merges.append(pair)
        created: set[Pair] = set()
        for i in where.pop(pair):
            old_word, word = words[i], _merge(words[i], pair, new)
            for p in pairwise(old_word):
                counts[p] -= weights[i]
            for p in pairwise(word):
                counts[p] += weights[i]
                if new in p:
                    where[p].add(i)
                    created.add(p)
            words[i] = word
        for p in created:
            heapq.heappush(heap, (-counts[p], p))
    return Tokenizer(merges, special_tokens)


class Tokenizer:
    """Byte-level BPE with a fixed list of merges.

    Merge number m makes id 256 + m out of two earlier ids; special tokens such as
    ``"<|endoftext|>"`` are numbered after the merges. ``special`` maps them to ids,
    ``tokens`` lists the bytes of each id. Raises ValueError when a merge uses an id
    that does not exist yet, or a merge or special token is repeated or empty.
    To be built in ch-tokenization.
    """

    def __init__(
        self, merges: Sequence[Pair] = (), special_tokens: Sequence[str] = ()
    ) -> None:
        self.merges: list[Pair] = [(int(a), int(b)) for a, b in merges]
        self.tokens: list[bytes] = [bytes([b]) for b in _BYTES]
        for a, b in self.merges:
            if not 0 <= min(a, b) <= max(a, b) < len(self.tokens):
                raise ValueError(
                    f"merge {(a, b)} uses an id that does not exist yet: keep merges "
                    "in the order they were learned"
                )
            self.tokens.append(self.tokens[a] + self.tokens[b])
        self._rank = {pair: m for m, pair in enumerate(self.merges)}
        self.special = {s: len(self.tokens) + i for i, s in enumerate(special_tokens)}
        distinct = len(self._rank) + len(self.special)
        if distinct < len(self.merges) + len(special_tokens) or "" in self.special:
            raise ValueError("a merge or special token is repeated or empty: drop it")
        self.tokens += [s.encode() for s in special_tokens]
        self._cache: dict[bytes, list[int]] = {}

    @property
    def vocab_size(self) -> int:
        """Number of ids: 256 + merges + special tokens."""
        return len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """Hash of merges and special tokens, stored in checkpoints to tell misuse."""
        content = json.dumps([self.merges, list(self.special)])
        return hashlib.sha256(content.encode()).hexdigest()

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Turn any string or bytes, valid UTF-8 or not, into ids; empty into none.

        With ``special`` on, special tokens written out in ``text`` become their id.
        Leave it off for text from users, or they can forge them.
        """
        if isinstance(text, bytes):  # an invalid byte becomes a lone surrogate and back
            text, errors = text.decode("utf-8", "surrogateescape"), "surrogateescape"
        else:
            errors = "surrogatepass"
        ids: list[int] = []
        for part, is_special in _split(text, list(self.special) if special else []):
            if is_special:
                ids.append(self.special[part])
                continue
            for piece in PATTERN.findall(part):
                ids += self._encode_piece(piece.encode("utf-8", errors))
        return ids

    def _encode_piece(self, piece: bytes) -> list[int]:
        if piece in self._cache:
            return self._cache[piece]
        ids = _byte_ids(piece)
        while len(ids) > 1:  # the merge learned first is applied first
            rank, pair = min(
                (self._rank.get(pair, len(self.merges)), pair) for pair in pairwise(ids)
            )
            if rank == len(self.merges):
                break
            ids = _merge(ids, pair, 256 + rank)
        if len(self._cache) < _CACHE_SIZE:
            self._cache[piece] = ids
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Undo ``encode`` exactly; ValueError on an id outside 0..vocab_size - 1."""
        ids = list(ids)
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(
                    f"id {i} is outside this tokenizer's 0..{self.vocab_size - 1}: "
                    "the ids come from another tokenizer or a larger vocabulary"
                )
        return b"".join(self.tokens[i] for i in ids)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Turn ids into text, the one that was encoded if it was valid Unicode.

        ``errors`` says what becomes of bytes that are no UTF-8: ``"replace"`` can
        always be printed, ``"surrogatepass"`` gives back lone surrogates.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def save(self, path: str | Path) -> None:
        """Write merges and special tokens as JSON; an old file is replaced whole."""
        content = {"format": _FORMAT, "merges": self.merges, "special": [*self.special]}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote; ValueError when it is truncated or not ours."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path} is truncated or not JSON ({error}): copy it again, or train "
                "the tokenizer again with train_bpe"
            ) from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(
                f"{path} is not a file of Tokenizer.save (format {_FORMAT!r}): read it "
                "with the library that wrote it"
            )
        return cls(content["merges"], content["special"])


def _byte_ids(piece: bytes) -> list[int]:
    return [_ID_OF_BYTE[b] for b in piece]


def _merge(ids: list[int], pair: Pair, new: int) -> list[int]:
    """Replace each occurrence of ``pair``, from the left, by ``new``."""
    first, second = pair
    out: list[int] = []
    i = 0
    while i < len(ids):
        if ids[i] == first and i + 1 < len(ids) and ids[i + 1] == second:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def _split(text: str, special_tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """Cut ``text`` at special tokens: (part, whether it is one)."""
    if not special_tokens:
        return [(text, False)]
    longest_first = sorted(special_tokens, key=len, reverse=True)
    parts = regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)
    return [(part, i % 2 == 1) for i, part in enumerate(parts) if part]

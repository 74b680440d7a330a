"""Byte-level byte-pair encoding: text to integers and back, losing nothing.

Text is cut into pieces, these into UTF-8 bytes, and learned merges join neighbours.
"""

import hashlib
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from operator import index
from pathlib import Path

import regex  # knows \p{L}, unlike re; transformers brings it

from llmbook.files import replacing

__all__ = ["PATTERN", "Tokenizer", "apply_merges", "learn_merges", "merge", "train_bpe"]

Pair = tuple[int, int]

# GPT-2's: merges never cross a piece; a leading space belongs to the word after it.
PATTERN = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)"  # English contractions
    r"| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"  # letters, digits, everything else
    r"|\s+(?!\S)|\s+"  # spaces, leaving the last one to the next word
)
# Numbered as in GPT-2, visible Latin-1 first, for ties to break as in `tokenizers`.
_VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = bytes(_VISIBLE + [b for b in range(256) if b not in _VISIBLE])  # id -> byte
ID_OF_BYTE = bytes(map(BYTES.index, range(256)))  # byte -> id
_FORMAT = "llmbook byte-level BPE 1"


def merge(ids: list[int], pair: Pair, new: int) -> list[int]:
    """Replace ``pair``, from the left, by ``new``. Built in ch-tokenization."""
    first, second = pair
    out: list[int] = []
    for i in ids:
        if i == second and out and out[-1] == first:
            out[-1] = new  # never equal to first: a run "aaa" becomes "new a"
        else:
            out.append(i)
    return out


def learn_merges(pieces: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Learn merges of counted pieces; ties: smallest ids. Built in ch-tokenization."""
    words = [list(piece.translate(ID_OF_BYTE)) for piece in pieces]
    weights = list(pieces.values())
    counts: defaultdict[Pair, int] = defaultdict(int)
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> its words
    for i, word in enumerate(words):
        for p in pairwise(word):
            counts[p] += weights[i]
            where[p].add(i)
    heap = sorted((-count, p) for p, count in counts.items())
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        count, pair = heapq.heappop(heap)
        # Once created, a pair only gets rarer: put an outdated entry back lower.
        if -count != counts[pair]:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        new = 256 + len(merges)
        merges.append(pair)
        created: set[Pair] = set()
        for i in where.pop(pair):
            for p in pairwise(words[i]):
                counts[p] -= weights[i]
            words[i] = merge(words[i], pair, new)
            for p in pairwise(words[i]):
                counts[p] += weights[i]
                if new in p:
                    where[p].add(i)
                    created.add(p)
        for p in created:
            heapq.heappush(heap, (-counts[p], p))
    return merges


def apply_merges(ids: list[int], ranks: Mapping[Pair, int]) -> list[int]:
    """Merge in the order learned; ranks number the pairs. Built in ch-tokenization."""
    while len(ids) > 1:
        pair = min(pairwise(ids), key=lambda p: ranks.get(p, len(ranks)))
        if pair not in ranks:
            break
        ids = merge(ids, pair, 256 + ranks[pair])
    return ids


def split_special(text: str, special: Iterable[str]) -> list[str]:
    """Cut text around special tokens, longest first. Built in ch-tokenization."""
    if not special:
        return [text]
    longest_first = sorted(special, key=len, reverse=True)
    return regex.split(f"({'|'.join(map(regex.escape, longest_first))})", text)


def train_bpe(
    texts: str | Iterable[str], vocab_size: int, special_tokens: Sequence[str] = ()
) -> "Tokenizer":
    """Learn byte-pair merges: join the most frequent pair, again and again.

    ``vocab_size`` counts 256 bytes, merges (fewer if pairs run out) and special tokens,
    which are cut out of the text and numbered last; ValueError when it is too small.
    Source: Sennrich et al. (2016), Radford et al. (2019). Built in ch-tokenization.
    """
    n = len(Tokenizer((), special_tokens).special)  # complains before the work
    if vocab_size < 256 + n:
        least = f"ask for at least {256 + n}, 256 bytes and {n} special tokens"
        raise ValueError(f"vocab_size {vocab_size} is too small: {least}")
    count: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise TypeError(f"texts must be str, not {type(text).__name__}: decode it")
        for part in split_special(text, special_tokens):
            if part not in special_tokens:
                count.update(PATTERN.findall(part))
    pieces = {p.encode("utf-8", "surrogatepass"): count[p] for p in count}
    return Tokenizer(learn_merges(pieces, vocab_size - 256 - n), special_tokens)


class Tokenizer:
    """The merges of ch-tokenization with ids, bytes, special tokens and a file.

    Merge m makes id 256 + m out of two earlier ids; special tokens come after them.
    ``special`` maps these to ids, ``tokens`` lists the bytes of each id. TypeError or
    ValueError when an id does not exist yet or a special token is empty or repeated.
    """

    def __init__(
        self, merges: Sequence[Pair] = (), special_tokens: Sequence[str] = ()
    ) -> None:
        if isinstance(special_tokens, str) or {*map(type, special_tokens)} - {str}:
            raise TypeError(f"special_tokens is no list of str: {special_tokens!r}")
        self.merges: list[Pair] = [(index(a), index(b)) for a, b in merges]
        self.tokens: list[bytes] = [bytes([b]) for b in BYTES]
        for a, b in self.merges:
            if not 0 <= min(a, b) <= max(a, b) < len(self.tokens):
                raise ValueError(f"merge {a, b}: an id does not exist yet; keep order")
            self.tokens.append(self.tokens[a] + self.tokens[b])
        self._ranks = {pair: m for m, pair in enumerate(self.merges)}
        self._cache: dict[str, list[int]] = {}  # ids of pieces met before
        self.special = {s: len(self.tokens) + i for i, s in enumerate(special_tokens)}
        distinct = len(self._ranks) + len(self.special)
        if distinct < len(self.merges) + len(special_tokens) or "" in self.special:
            raise ValueError("a merge or special token is repeated or empty: drop it")
        self.tokens += [s.encode() for s in special_tokens]
        self.vocab_size = len(self.tokens)

    @property
    def fingerprint(self) -> str:
        """Hash of merges and special tokens, stored in checkpoints to tell misuse."""
        content = json.dumps([self.merges, [*self.special]]).encode()
        return hashlib.sha256(content).hexdigest()

    def encode(self, text: str | bytes, special: bool = False) -> list[int]:
        """Turn any string or bytes, valid UTF-8 or not, into ids; empty into none.

        With ``special``, special tokens in it become their id: not for users' text.
        """
        if isinstance(text, str):
            text = text.encode("utf-8", "surrogatepass")
        elif not isinstance(text, bytes):
            raise TypeError(f"encode takes str or bytes, not {type(text).__name__}")
        text = text.decode("utf-8", "surrogateescape")  # invalid bytes survive this
        ids: list[int] = []
        known = self.special if special else {}
        for part in split_special(text, known):
            if part in known:
                ids.append(known[part])
            else:
                for piece in PATTERN.findall(part):
                    ids += self._cache.get(piece) or self._encode_piece(piece)
        return ids

    def _encode_piece(self, piece: str) -> list[int]:
        raw = piece.encode("utf-8", "surrogateescape").translate(ID_OF_BYTE)
        ids = apply_merges(list(raw), self._ranks)
        if len(self._cache) < 1 << 16:
            self._cache[piece] = ids
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Undo ``encode`` exactly; ValueError on an id outside 0..vocab_size - 1."""
        ids = list(ids)
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            here = f"outside this tokenizer's 0..{self.vocab_size - 1}"
            raise ValueError(f"id {wrong[0]} is {here}: was it made by another one?")
        return b"".join([self.tokens[i] for i in ids])

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Turn ids into the text that was encoded; ``errors`` is for invalid UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def save(self, path: str | Path) -> None:
        """Write merges and special tokens as JSON; an old file is replaced whole."""
        content = {"format": _FORMAT, "merges": self.merges, "special": [*self.special]}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what ``save`` wrote; ValueError when it is damaged or not ours."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["format"] != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}")
            return cls(content["merges"], content["special"])
        except (KeyError, TypeError, ValueError) as error:
            what = f"{path} is damaged or not a file of Tokenizer.save ({error!r})"
            raise ValueError(f"{what}: copy it again, or train it again") from error

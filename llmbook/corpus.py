"""Make raw text fit to train on: what is copied, broken or private goes out.

Pure functions, the same in one process or in many. N documents, k values a signature.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

__all__ = [
    "MinHash",
    "band_keys",
    "bucket_pairs",
    "components",
    "decontaminate",
    "find_pii",
    "fingerprint",
    "luhn",
    "near_duplicates",
    "normalise",
    "quality_flags",
    "redact",
    "sketch",
    "word_runs",
    "words",
]

PRIME = 2**31 - 1  # products of two numbers below it fit into 64 bits
UNSPACED = (  # Thai, Lao, Burmese, Khmer, kana, Chinese characters
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    r"\uf900-\ufaff\U00020000-\U0003ffff"
)
WORDS = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
STOP_WORDS = frozenset("the be to of and that have with".split())
MOJIBAKE = re.compile("â€|Ã[\u0080-\u00bf]|Â[\u00a0-\u00bf]|\ufffd")
BOILERPLATE = re.compile(
    r"(?i)javascript|cookies?\b|terms of (use|service)|privacy policy|"
    r"all rights reserved|subscribe|sign (in|up)|lorem ipsum"
)
PII = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)*\.[a-zA-Z]{2,}"),
    "cn_id": re.compile(r"(?<!\d)\d{6}(19|20)\d{2}[01]\d[0-3]\d\d{3}[\dXx](?!\d)"),
    "card": re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.]*\d)"),
    "cn_mobile": re.compile(r"(?<!\d)1[3-9]\d([ -]?)\d{4}\1\d{4}(?!\d)"),
    "phone": re.compile(r"(?<![\w.])(\+\d{1,3}[ -])?(\(\d{3}\) ?|\d{3}-)\d{3}-\d{4}\b"),
    "ip": re.compile(r"(?<![\d.])(\d{1,3}\.){3}\d{1,3}(?!\.?\d)"),
}


def words(text: str) -> list[str]:
    """Split at white space, and around each character of a script without spaces.

    Text without such a script is split as ``str.split`` does.
    Built in ch-pretraining-data.
    """
    return WORDS.findall(text)


def normalise(text: str) -> str:
    """Spell alike (NFKC, lower case, single spaces). Built in ch-pretraining-data."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def fingerprint(text: str) -> str:
    """Hash normalised text to 32 hexadecimal digits. Built in ch-pretraining-data."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).hexdigest()


def quality_flags(text: str, min_words: int = 30) -> list[str]:
    """Name the rules that a document breaks; an empty list means keep.

    Word length, symbols, letters and stop words are those of Rae et al. (2021), who
    ask for 50 words. Last sign and phrases follow Raffel et al. (2020), who judge
    lines. Mojibake and the count of repeated runs are this book's own.
    Built in ch-pretraining-data.
    """
    found = text.split()
    if len(words(text)) < min_words:
        return ["short"]
    lower = [word.lower() for word in found]
    runs = [tuple(lower[i : i + 5]) for i in range(len(lower) - 4)]
    marks = text.count("#") + text.count("...") + text.count("…")
    lines = [line for line in text.split("\n") if line.strip()]
    broken = {
        "word length": not 3 <= sum(map(len, found)) / len(found) <= 10,
        "symbols": marks > 0.1 * len(found),
        "no letters": sum(any(c.isalpha() for c in w) for w in found)
        < 0.8 * len(found),
        "stop words": len(STOP_WORDS.intersection(lower)) < 2,
        "repetition": len(set(runs)) < 0.85 * len(runs),
        "mojibake": len(MOJIBAKE.findall(text)) > 1,
        "cut off": not text.rstrip().endswith((".", "!", "?", ":", '"', ")", "。")),
        "boilerplate": sum(bool(BOILERPLATE.search(x)) for x in lines)
        > 0.3 * len(lines),
    }
    return [name for name, is_broken in broken.items() if is_broken]


class MinHash:
    """Turn a text into k numbers that agree with another's with probability J.

    J is the Jaccard similarity of the two sets of ``n_words``-word shingles. The
    same ``seed`` gives the same numbers in every process and on every machine.

    A line modulo a prime is pairwise independent, not min-wise: the probability is J
    only nearly (Broder, Charikar, Frieze and Mitzenmacher 1998).

    Source: Broder (1997); universal hashing Carter and Wegman (1979).
    Built in ch-pretraining-data.
    """

    def __init__(self, n_hashes: int = 112, n_words: int = 5, seed: int = 0) -> None:
        if n_hashes < 1 or n_words < 1:
            raise ValueError("n_hashes and n_words must be at least 1")
        rng = np.random.default_rng(seed)
        self.n_words = n_words
        self.mix = rng.integers(1, PRIME, n_words, dtype=np.uint64)
        self.a = rng.integers(1, PRIME, (n_hashes, 1), dtype=np.uint64)
        self.b = rng.integers(0, PRIME, (n_hashes, 1), dtype=np.uint64)
        self.known: dict[str, int] = {}

    def word_hash(self, word: str) -> int:
        """Return 31 bits of a cryptographic hash, remembered per word."""
        if word not in self.known:
            digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
            self.known[word] = int.from_bytes(digest, "little") % PRIME
        return self.known[word]

    def shingles(self, text: str) -> np.ndarray:
        """Return the distinct hashed shingles, uint64 below 2³¹ − 1, sorted.

        A text shorter than a shingle is one shingle. ValueError when it is empty.
        """
        found = words(normalise(text))
        if not found:
            raise ValueError("a text without words has no shingles: filter it first")
        ids = np.array([self.word_hash(w) for w in found], dtype=np.uint64)
        n = min(self.n_words, len(ids))
        runs = np.lib.stride_tricks.sliding_window_view(ids, n)  # (shingles, n)
        return np.unique((runs * self.mix[:n] % PRIME).sum(axis=1) % PRIME)

    def signature(self, text: str) -> np.ndarray:
        """Return the smallest value of each hash over the shingles, (k,) uint64."""
        return ((self.a * self.shingles(text) + self.b) % PRIME).min(axis=1)


def band_keys(signatures: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """Hash each band of ``rows`` values: signatures (N, k) -> keys (N, bands) uint64.

    Different bands never share a key space; two different bands collide with
    probability below 2⁻³². ValueError when bands · rows exceeds k.
    Built in ch-pretraining-data.
    """
    n, k = signatures.shape
    if not 0 < bands * rows <= k:
        raise ValueError(f"{bands} bands of {rows} do not fit {k} values")
    draw = np.random.default_rng((bands, rows))
    mix = draw.integers(1, 2**63, (bands, rows), dtype=np.uint64) * 2 + 1
    parts = signatures[:, : bands * rows].reshape(n, bands, rows)
    return (parts * mix).sum(axis=2, dtype=np.uint64)


def bucket_pairs(keys: np.ndarray) -> set[tuple[int, int]]:
    """Link rows that agree in (N,) keys or in any column of (N, bands).

    A bucket of m rows gives m − 1 pairs, (its first row, another one): enough for
    `components`, where all m (m − 1) / 2 would be too many.
    Built in ch-pretraining-data.
    """
    pairs: set[tuple[int, int]] = set()
    for column in keys.reshape(len(keys), -1).T:
        order = np.argsort(column, kind="stable")
        edges = np.flatnonzero(np.diff(column[order])) + 1
        for bucket in np.split(order, edges):
            first, *others = bucket.tolist()
            pairs.update((first, other) for other in others)
    return pairs


def components(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Label each of n items with the smallest index of its connected component.

    Union-find with path halving. Returns (n,) int64. Built in ch-pretraining-data.
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return np.array([root(i) for i in range(n)])


def near_duplicates(
    signatures: np.ndarray, bands: int = 14, rows: int = 8
) -> np.ndarray:
    """Label near-duplicates (N,) with the first of their group; keep label == index.

    Signatures (N, k); defaults are datatrove's, which made FineWeb (2024). Bands of
    hashes: Indyk and Motwani (1998).
    Built in ch-pretraining-data.
    """
    pairs = bucket_pairs(band_keys(signatures, bands, rows))
    return components(len(signatures), pairs)


def word_runs(text: str, n_words: int = 8) -> set[str]:
    """Return every run of ``n_words`` consecutive words, lower-cased, as one string.

    Words are those of `words`: in Chinese, Japanese or Thai every character is one,
    so that a run of 8 is short there. A text shorter than a run has none. Raises
    ValueError when ``n_words`` is not positive. Built in ch-pretraining-data.
    """
    if n_words < 1:
        raise ValueError(f"n_words must be at least 1, got {n_words}")
    found = words(text.lower())
    return {" ".join(found[i : i + n_words]) for i in range(len(found) - n_words + 1)}


def decontaminate(
    train: Sequence[str], held_out: Sequence[str], n_words: int = 8
) -> list[str]:
    r"""Take out of training what the held-out text also says, a paragraph at a time.

    A paragraph, that is text between empty lines, leaves when it shares a run of
    ``n_words`` words with any held-out document; shorter runs also catch common
    phrases. A document that loses all its paragraphs leaves altogether, the others
    are returned in order. The held-out documents stay as they are.

    Source: the 13-gram filter of Brown et al. (2020), here by paragraphs.
    Built in ch-pretraining-data.
    """
    seen: set[str] = set()
    for document in held_out:
        for paragraph in document.split("\n\n"):
            seen |= word_runs(paragraph, n_words)
    kept = []
    for document in train:
        paragraphs = document.split("\n\n")
        clean = [p for p in paragraphs if seen.isdisjoint(word_runs(p, n_words))]
        if clean:
            kept.append("\n\n".join(clean))
    return kept


def luhn(number: str) -> bool:
    """Test the check sum of a card number (ISO 7812); without digits it is False.

    Built in ch-pretraining-data.
    """
    digits = [int(c) for c in number if c.isdigit()][::-1]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[1::2]]
    return bool(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def find_pii(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, kind) of what looks like personal data, without overlaps.

    Kinds: email, cn_id, card, cn_mobile, phone, ip. Cards must pass `luhn`, IP
    numbers be at most 255. Built in ch-pretraining-data.
    """
    taken: list[tuple[int, int]] = []
    for kind, pattern in PII.items():
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(start < b and a < end for a, b in taken):
                continue
            if kind == "card" and not luhn(match[0]):
                continue
            if kind == "ip" and max(map(int, match[0].split("."))) > 255:
                continue
            taken.append((start, end))
            yield start, end, kind


def redact(text: str) -> str:
    """Replace what `find_pii` finds by its ``<kind>``. Built in ch-pretraining-data."""
    for start, end, kind in sorted(find_pii(text), reverse=True):
        text = f"{text[:start]}<{kind}>{text[end:]}"
    return text


def sketch(rows: Sequence[tuple[int, str]], seed: int = 0) -> list[tuple]:
    """Do a worker's share: (id, text) -> (id, flags, fingerprint, signature) each.

    Only a function of its arguments: run twice, after a crash, it returns the same.
    Built in ch-pretraining-data.
    """
    hasher = MinHash(seed=seed)
    return [
        (i, quality_flags(text), fingerprint(text), hasher.signature(text))
        for i, text in rows
    ]

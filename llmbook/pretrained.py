r"""The decoder that the book pretrained, and the text it was trained on.

Weights and tokenizer lie in ``assets/models`` and are checked by their sha256;
``benchmarks/pretrain.py`` makes them, chapter 3.09 tells how.
"""

import hashlib
from pathlib import Path

from llmbook import corpus, data
from llmbook.model import Decoder
from llmbook.tokenizer import Tokenizer

__all__ = ["END_OF_TEXT", "FOLDER", "SPECIAL_TOKENS", "load", "texts"]

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "models"
END_OF_TEXT = "<|endoftext|>"  # before the first document and after each
# The others never occur in the text: instruction tuning gives them a meaning.
SPECIAL_TOKENS = (END_OF_TEXT, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SHA256: dict[str, str] = {
    "decoder.safetensors": "bb89420e889618a0a2b0dbff1f328e9593433a72d78c9d0ae9dc8ed43077b913",  # noqa: E501
    "tokenizer.json": "60e994b028bd1c10c0c3385b456f5081f0a0d7e68ac5d08f1c4db706911f272f",  # noqa: E501
}


def texts(keep_every: int = 1) -> tuple[str, str]:
    r"""Return the text the decoder learned from and the text it is measured on.

    The documentation corpus "all", split by documents. Training paragraphs that share
    eight words in a row with held-out text are gone (`corpus.decontaminate`), and so
    are those of more than 40 characters that an earlier document has. Documents are
    joined by END_OF_TEXT, which also stands at both ends. ``keep_every`` = n takes
    every n-th held-out document: a smaller sample of all five libraries.
    """
    train, held_out = (
        part.split(data.BETWEEN_DOCUMENTS) for part in data.documentation_split("all")
    )
    seen: set[str] = set()
    documents = []
    for document in corpus.decontaminate(train, held_out):
        new = [p for p in document.split("\n\n") if len(p) <= 40 or p not in seen]
        seen.update(new)
        if new:
            documents.append("\n\n".join(new))
    return _join(documents), _join(held_out[::keep_every])


def _join(documents: list[str]) -> str:
    return END_OF_TEXT + "".join(d + END_OF_TEXT for d in documents)


def load(folder: str | Path = FOLDER) -> tuple[Decoder, Tokenizer]:
    """Return the pretrained decoder, float32 on the CPU, and its tokenizer.

    Raises FileNotFoundError when a file is missing and ValueError when one is not the
    file this version of the book was written with.
    """
    for name, wanted in SHA256.items():
        path = Path(folder) / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing: restore it with `git checkout -- {path}`, or make "
                "it again with `python benchmarks/pretrain.py`"
            )
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != wanted:
            raise ValueError(
                f"{path} has sha256 {found[:12]}…, the book's has {wanted[:12]}…: "
                "restore it from the repository; to use a model of your own, call "
                "Decoder.load and Tokenizer.load"
            )
    tokenizer = Tokenizer.load(Path(folder) / "tokenizer.json")
    path = Path(folder) / "decoder.safetensors"
    return Decoder.load(path, tokenizer.fingerprint), tokenizer

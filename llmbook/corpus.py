"""Make raw text fit to train on: what is copied, broken or private goes out."""

from collections.abc import Sequence

__all__ = ["decontaminate", "word_runs"]


def word_runs(text: str, n_words: int = 8) -> set[str]:
    """Return every run of ``n_words`` consecutive words, lower-cased, as one string.

    Words are what white space separates. A text shorter than a run has none. Raises
    ValueError when ``n_words`` is not positive. To be built in ch-pretraining-data.
    """
    if n_words < 1:
        raise ValueError(f"n_words must be at least 1, got {n_words}")
    words = text.lower().split()
    return {
        " ".join(words[i : i + n_words]) for i in range(len(words) - n_words + 1)
    }


def decontaminate(
    train: Sequence[str], held_out: Sequence[str], n_words: int = 8
) -> list[str]:
    r"""Take out of training what the held-out text also says, a paragraph at a time.

    A paragraph, that is text between empty lines, leaves when it shares a run of
    ``n_words`` words with any held-out document. The held-out documents stay as they
    are. A document that loses all its paragraphs leaves altogether.

    Args:
        train: training documents.
        held_out: documents to be measured on.
        n_words: length of a run; shorter runs also catch common phrases.

    Returns:
        The training documents that are left, in order.

    Source: the 13-gram filter of Brown et al. (2020), here by paragraphs.
    To be built in ch-pretraining-data.
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

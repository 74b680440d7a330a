"""Turn running text into questions: what is hidden, what is asked, what is shown."""

from collections.abc import Sequence

import torch

__all__ = ["corrupt_spans", "mask_tokens", "noise_spans"]


def mask_tokens(
    ids: torch.Tensor,
    mask_id: int,
    n_words: int,
    generator: torch.Generator | None = None,
    rate: float = 0.15,
    never: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ask for some tokens, as BERT does: 80 % masked, 10 % replaced, 10 % shown.

    Args:
        ids: token ids, int64, any shape.
        mask_id: id of the mask token.
        n_words: replacements are drawn from ids 0 to ``n_words - 1``; one of them
            can happen to be the token itself.
        generator: source of the random numbers; torch's global one without it.
        rate: probability that a token is asked for.
        never: bool, broadcasts to ``ids``; True where nothing may be asked (padding,
            special tokens).

    Returns:
        (inputs, labels) of the shape of ``ids``. Labels are -100, which PyTorch's
        cross entropy skips, where nothing is asked.

    Raises:
        ValueError: when ``rate`` is not between 0 and 1.

    Source: Devlin et al., BERT, NAACL 2019. Built in ch-pretraining-objectives.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie between 0 and 1, got {rate}")
    chosen = torch.rand(ids.shape, generator=generator) < rate
    if never is not None:
        chosen &= ~never
    labels = ids.masked_fill(~chosen, -100)
    draw = torch.rand(ids.shape, generator=generator)
    other = torch.randint(n_words, ids.shape, generator=generator)
    inputs = torch.where(chosen & (draw >= 0.9), other, ids)
    return inputs.masked_fill(chosen & (draw < 0.8), mask_id), labels


def noise_spans(
    length: int,
    n_noise: int,
    n_spans: int,
    generator: torch.Generator | None = None,
) -> list[bool]:
    """Choose separate spans to hide, with given totals.

    Every way to cut ``n_noise`` tokens into ``n_spans`` lengths is equally likely, and
    so is every choice of gaps between the kept tokens, those at both ends included.

    Args:
        length: tokens in the text.
        n_noise: tokens to hide.
        n_spans: spans to hide them in; no two of them touch.
        generator: source of the random numbers; torch's global one without it.

    Returns:
        ``length`` booleans, True where a token is hidden.

    Raises:
        ValueError: when the spans do not fit.

    Source: after Raffel et al., T5, JMLR 2020, whose own masks end with a hidden span.
    Built in ch-pretraining-objectives.
    """
    kept = length - n_noise
    if not 1 <= n_spans <= min(n_noise, kept + 1):
        raise ValueError(f"{n_spans} spans cannot hide {n_noise} of {length} tokens")
    cuts = 1 + torch.randperm(n_noise - 1, generator=generator)[: n_spans - 1]
    edges = [0, *sorted(cuts.tolist()), n_noise]
    sizes = torch.tensor(edges).diff().tolist()
    gaps = torch.randperm(kept + 1, generator=generator)[:n_spans]
    noise, used = [False] * length, 0
    for gap, size in zip(sorted(gaps.tolist()), sizes):
        start = gap + used
        noise[start : start + size] = [True] * size
        used += size
    return noise


def corrupt_spans(
    ids: Sequence[int], noise: Sequence[bool], sentinels: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Replace each hidden span by a sentinel, and list the spans after theirs.

    Args:
        ids: n token ids.
        noise: n booleans, True where a token is hidden; neighbours form one span.
        sentinels: ids that mark the spans in order, one more than there are spans.

    Returns:
        (inputs, targets). With s spans that hide h tokens, inputs hold n - h + s ids
        and targets h + s + 1, since one more sentinel closes them.

    Raises:
        ValueError: when there are too few sentinels.

    Source: Raffel et al., T5, JMLR 2020. Built in ch-pretraining-objectives.
    """
    inputs, targets, k = [], [], 0
    for i, (token, hidden) in enumerate(zip(ids, noise)):
        if not hidden:
            inputs.append(token)
            continue
        if i == 0 or not noise[i - 1]:
            if k + 1 == len(sentinels):
                raise ValueError(f"{k + 1} spans need {k + 2} sentinels")
            inputs.append(sentinels[k])
            targets.append(sentinels[k])
            k += 1
        targets.append(token)
    return inputs, [*targets, sentinels[k]]

"""From logits to text: choose a token, feed it back, stop in time."""

import codecs
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmbook.model import Decoder, KVCache
from llmbook.tokenizer import Tokenizer

__all__ = [
    "Sampling",
    "choose",
    "complete",
    "filter_logits",
    "generate",
    "generate_batch",
    "stream",
    "stream_text",
]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when to stop. The default is greedy.

    Raises ValueError when a field is out of range.
    To be built in ch-language-models-as-probability.
    """

    max_new_tokens: int = 0  # stop after so many; 0 goes on until the context is full
    temperature: float = 0.0  # divides the logits; 0 takes the most likely token
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    top_p: float = 1.0  # keep the fewest tokens that together reach p; 1 keeps all
    stop: tuple[str, ...] = ()  # end before any of these strings (text only)
    stop_ids: tuple[int, ...] = ()  # end before any of these ids
    seed: int = 0  # of the generator that draws; unused when greedy

    def __post_init__(self) -> None:
        strings = isinstance(self.stop, tuple) and all(self.stop)
        for name, fine, wanted in (
            ("max_new_tokens", self.max_new_tokens >= 0, "0 (no limit) or above"),
            ("temperature", self.temperature >= 0, "0 (greedy) or above"),
            ("top_k", self.top_k >= 0, "0 (all tokens) or above"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("stop", strings, "a tuple of non-empty strings"),
        ):
            if not fine:
                value = getattr(self, name)
                raise ValueError(f"Sampling.{name} = {value!r}: must be {wanted}")


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set the logits (B, V) of unlikely tokens to −inf: first top-k, then top-p.

    Top-k keeps the k most likely tokens and the equals of the k-th; 0 keeps all.
    Top-p keeps the most likely tokens until their probability reaches ``top_p``; the
    one that crosses the line stays, so at least one always does.

    Source: Fan, Lewis and Dauphin (2018) for top-k; Holtzman et al. (2020) for top-p.
    To be built in ch-language-models-as-probability.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V)
        p = ordered.softmax(dim=-1)
        late = p.cumsum(dim=-1) - p >= top_p  # the line was crossed before this token
        logits = logits.masked_fill(late.gather(-1, order.argsort(-1)), -torch.inf)
    return logits


def choose(
    logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> Tensor:
    """Choose one token per row of logits (B, V); ids (B,) on the same device.

    Applies temperature, top-k and top-p, in this order, and draws from ``generator``,
    a CPU generator that greedy choice does not need.
    To be built in ch-language-models-as-probability.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # Drawn on the CPU in float32, so that one seed gives one text on any device.
    scaled = logits.float().cpu() / sampling.temperature
    p = filter_logits(scaled, sampling.top_k, sampling.top_p).softmax(dim=-1)
    drawn = torch.multinomial(p, 1, generator=generator)  # (B, 1)
    return drawn.squeeze(1).to(logits.device)


def _steps(
    model: Decoder, prompts: Sequence[Sequence[int]], sampling: Sampling
) -> Iterator[list[int]]:
    """Yield one id per row, again and again, for prompts of equal length."""
    vocab_size, max_len = model.config.vocab_size, model.config.max_len
    for prompt in prompts:
        if len(prompt) == 0:
            raise ValueError(
                "empty prompt: give at least one token, such as an end-of-text token"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise ValueError(
                f"prompt ids {min(prompt)}..{max(prompt)} leave the model's vocabulary "
                f"0..{vocab_size - 1}: encode it with the tokenizer the model was "
                "trained with"
            )
    room = max_len - len(prompts[0])
    if room < max(sampling.max_new_tokens, 1):
        raise ValueError(
            f"prompt of {len(prompts[0])} tokens leaves room for {max(room, 0)} in the "
            f"context of {max_len}: shorten the prompt or lower max_new_tokens"
        )
    weight = model.embed.weight
    generator = torch.Generator().manual_seed(sampling.seed)
    cache = KVCache(model.config, len(prompts), like=weight)
    tokens = torch.tensor(prompts, device=weight.device)  # (B, T)
    for _ in range(sampling.max_new_tokens or room):
        with torch.inference_mode():  # not around the yield: it would leak out
            logits = model(tokens, cache)[:, -1]  # (B, V)
            new = choose(logits, sampling, generator)  # (B,)
        yield new.tolist()
        tokens = new[:, None]  # (B, 1): the cache holds the rest


def stream(
    model: Decoder, prompt: Sequence[int], sampling: Sampling | None = None
) -> Iterator[int]:
    """Yield new ids one at a time, without the prompt and without a stop id.

    ``sampling`` is greedy if None; its ``stop`` strings need text and are ignored.
    Raises ValueError on an empty prompt, an id outside the vocabulary, or a prompt
    that leaves no room for ``max_new_tokens``.
    To be built in ch-language-models-as-probability.
    """
    sampling = sampling or Sampling()
    for [token] in _steps(model, [prompt], sampling):
        if token in sampling.stop_ids:
            return
        yield token


def generate(
    model: Decoder, prompt: Sequence[int], sampling: Sampling | None = None
) -> list[int]:
    """Return all ids that ``stream`` yields; same arguments and errors.

    To be built in ch-language-models-as-probability.
    """
    return list(stream(model, prompt, sampling))


def generate_batch(
    model: Decoder, prompts: Sequence[Sequence[int]], sampling: Sampling | None = None
) -> list[list[int]]:
    """Continue several prompts; returns the new ids of each, in the order given.

    Prompts of equal length share one pass and one cache. Greedy rows equal those of
    ``generate``; drawn rows depend on the company they are in. Errors as ``stream``.
    To be built in ch-language-models-as-probability.
    """
    sampling = sampling or Sampling()
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        by_length[len(prompt)].append(row)
    results: list[list[int]] = [[] for _ in prompts]
    for rows in by_length.values():
        going = set(rows)
        for tokens in _steps(model, [prompts[row] for row in rows], sampling):
            for row, token in zip(rows, tokens, strict=True):
                if token in sampling.stop_ids:
                    going.discard(row)
                elif row in going:
                    results[row].append(token)
            if not going:
                break
    return results


def stream_text(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling | None = None
) -> Iterator[str]:
    """Yield the continuation as text, piece by piece.

    A piece waits until its UTF-8 characters are complete and it can no longer be
    the beginning of a stop string; the stop string itself is left out. Bytes that
    are no UTF-8 show as U+FFFD. Raises ValueError as ``stream`` does, and when
    tokenizer and model differ in vocabulary size.
    To be built in ch-language-models-as-probability.
    """
    sampling = sampling or Sampling()
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model "
            f"{model.config.vocab_size}: load the tokenizer saved beside the model"
        )
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""  # decoded, not yet known to be free of a stop string
    for token in stream(model, tokenizer.encode(prompt), sampling):
        held += decoder.decode(tokenizer.tokens[token])
        found = [held.find(s) for s in sampling.stop if s in held]
        if found:
            if min(found) > 0:
                yield held[: min(found)]
            return
        safe = len(held) - max((_overlap(held, s) for s in sampling.stop), default=0)
        if safe > 0:
            yield held[:safe]
            held = held[safe:]
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return max((n for n in range(len(stop)) if text.endswith(stop[:n])), default=0)


def complete(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling | None = None
) -> str:
    """Return all text that ``stream_text`` yields; same arguments and errors.

    To be built in ch-language-models-as-probability.
    """
    return "".join(stream_text(model, tokenizer, prompt, sampling))

"""From logits to text: choose a token, feed it back, stop in time."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TypeAlias

import torch
from torch import Tensor

from llmbook.model import Decoder, KVCache
from llmbook.tokenizer import Tokenizer

__all__ = ["Sampling", "choose", "complete", "filter_logits"]
__all__ += ["generate", "generate_batch", "stream", "stream_text"]


@dataclass(frozen=True)
class Sampling:
    """How to choose (see ch-language-models-as-probability), and when to stop."""

    max_new_tokens: int = 0  # stop after so many; 0 goes on until the context is full
    temperature: float = 0.0  # divides the logits; 0 takes the most likely token
    top_k: int = 0  # keep the k most likely tokens; 0 keeps all
    top_p: float = 1.0  # keep the fewest tokens that together reach p; 1 keeps all
    stop: tuple[str, ...] = ()  # end before any of these strings (text only)
    stop_ids: tuple[int, ...] = ()  # end before any of these ids
    seed: int = 0  # of the generator that draws; unused when greedy

    def __post_init__(self) -> None:
        def each(items: object, kind: type) -> bool:
            return isinstance(items, tuple) and all(isinstance(x, kind) for x in items)

        n, k, t, p = self.max_new_tokens, self.top_k, self.temperature, self.top_p
        strings = each(self.stop, str) and all(self.stop)
        for name, fine, wanted in (
            ("max_new_tokens", each((n,), Integral) and n >= 0, "0 or above"),
            ("temperature", each((t,), Real) and t >= 0, "0 (greedy) or above"),
            ("top_k", each((k,), Integral) and k >= 0, "0 (all tokens) or above"),
            ("top_p", each((p,), Real) and 0 < p <= 1, "above 0 and at most 1"),
            ("stop", strings, "a tuple of non-empty strings"),
            ("stop_ids", each(self.stop_ids, Integral), "a tuple of ids"),
        ):
            if not fine:
                value = getattr(self, name)
                raise ValueError(f"Sampling.{name} = {value!r}: must be {wanted}")


Ids: TypeAlias = Sequence[int]
Maybe: TypeAlias = Sampling | None  # None is greedy, to the end of the context


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set the logits (B, V) of unlikely tokens to −inf: first top-k, then top-p.

    Top-k (Fan et al., 2018) keeps the k most likely and the equals of the k-th; top-p
    (Holtzman et al., 2020) the most likely until they reach ``top_p``, at least one.
    Built in ch-language-models-as-probability.
    """
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V)
        p = ordered.softmax(dim=-1)
        late = p.cumsum(dim=-1) - p >= top_p  # the line was crossed before this token
        late = late.scatter(-1, order, late)  # back in the order of ids
        logits = logits.masked_fill(late, -torch.inf)
    return logits


def choose(
    logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None
) -> Tensor:
    """Choose one id per row of logits (B, V): temperature, then top-k, then top-p.

    ``generator`` is on the CPU. Built in ch-language-models-as-probability.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    # Drawn on the CPU in float32, so that one seed gives one text on any device.
    scaled = logits.float().cpu() / sampling.temperature
    p = filter_logits(scaled, sampling.top_k, sampling.top_p).softmax(dim=-1)
    return torch.multinomial(p, 1, generator=generator)[:, 0].to(logits.device)


def _room(model: Decoder, prompt: Ids, sampling: Sampling) -> int:
    """How many tokens may follow the prompt; ValueError when it cannot go on."""
    V, max_len, n = model.config.vocab_size, model.config.max_len, len(prompt)
    if n == 0:
        least = "give at least one token, such as an end-of-text token"
        raise ValueError(f"empty prompt: {least}")
    if isinstance(prompt, str):
        raise ValueError("the prompt is text, not ids: encode it, or call complete")
    if not 0 <= min(prompt) <= max(prompt) < V:
        raise ValueError(
            f"prompt ids {min(prompt)}..{max(prompt)} leave the model's vocabulary "
            f"0..{V - 1}: encode it with the tokenizer the model was trained with"
        )
    if max_len - n < max(sampling.max_new_tokens, 1):
        raise ValueError(
            f"prompt of {n} tokens leaves room for {max(max_len - n, 0)} in the "
            f"context of {max_len}: shorten the prompt or lower max_new_tokens"
        )
    return sampling.max_new_tokens or max_len - n


def _run(model: Decoder, prompts: Sequence[Ids], sampling: Sampling) -> Iterator[dict]:
    """Yield {row: new id} of the rows that go on, step by step, until none does."""
    rooms = [_room(model, prompt, sampling) for prompt in prompts]
    rows, lengths = list(range(len(prompts))), [len(prompt) for prompt in prompts]
    # Filler on the right: causality hides it, and new tokens are written over it.
    filled = [[*p, *[0] * (max(lengths) - len(p))] for p in prompts]
    tokens = torch.tensor(filled, device=model.embed.weight.device)  # (B, T)
    cache = KVCache(model.config, len(prompts), like=model.embed.weight)
    generator = torch.Generator().manual_seed(sampling.seed)
    step = 0
    while rows:
        step += 1
        with torch.inference_mode():  # not around the yield: it would leak out
            logits = model(tokens, cache, lengths if step == 1 else None)[:, -1]
            new = choose(logits, sampling, generator)  # (B,)
        drawn = zip(rows, new.tolist(), strict=True)
        yield (said := {row: i for row, i in drawn if i not in sampling.stop_ids})
        going = [i for i, row in enumerate(rows) if row in said and step < rooms[row]]
        if 0 < len(going) < len(rows):
            cache.keep(going)
        rows, tokens = [rows[i] for i in going], new[going, None]  # (B, 1)


def stream(model: Decoder, prompt: Ids, sampling: Maybe = None) -> Iterator[int]:
    """Yield new ids one at a time, without the prompt and without a stop id.

    Each is what ``choose`` draws. ValueError on a bad prompt.
    """
    for said in _run(model, [prompt], sampling or Sampling()):
        yield from said.values()


def generate(model: Decoder, prompt: Ids, sampling: Maybe = None) -> list[int]:
    """Return all that ``stream`` yields, as a list."""
    return list(stream(model, prompt, sampling))


def generate_batch(
    model: Decoder, prompts: Sequence[Ids], sampling: Maybe = None
) -> list[list[int]]:
    """Continue several prompts in one pass; the new ids of each, in the order given.

    A row leaves when its text ends. Greedy rows equal those of ``generate``, drawn rows
    depend on their company.
    """
    results: list[list[int]] = [[] for _ in prompts]
    for said in _run(model, prompts, sampling or Sampling()):
        for row, token in said.items():
            results[row].append(token)
    return results


def stream_text(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Maybe = None
) -> Iterator[str]:
    """Yield the continuation as text, piece by piece.

    A piece waits until its UTF-8 characters are complete and it can no longer begin a
    stop string, which is left out; broken bytes show as U+FFFD. ValueError also on a
    tokenizer of another size.
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
        if found := [held.find(s) for s in sampling.stop if s in held]:
            yield from filter(None, [held[: min(found)]])
            return
        begun = (s[:n] for s in sampling.stop for n in range(len(s)))
        safe = len(held) - max((len(b) for b in begun if held.endswith(b)), default=0)
        yield from filter(None, [held[:safe]])
        held = held[safe:]
    yield from filter(None, [held + decoder.decode(b"", final=True)])


def complete(
    model: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Maybe = None
) -> str:
    """Return what ``stream_text`` yields, as one string."""
    return "".join(stream_text(model, tokenizer, prompt, sampling))

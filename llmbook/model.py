"""The book's decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

With copied weights the logits equal Hugging Face's Llama, with a window Mistral.
B batch, T new tokens, S cached + new, H heads, H_kv key-value heads, D d_model, V ids.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmbook.saved import SavedModule

__all__ = ["Config", "Decoder", "KVCache", "attention_mask", "rope_table", "rotate"]

Lengths: TypeAlias = Sequence[int] | None


@dataclass(frozen=True)
class Config:
    """Shape of a decoder. ``Config.dial(depth)`` sets all of it by one number.

    Raises ValueError when a field is no number or the sizes do not fit together.
    """

    vocab_size: int = 4096  # V, tokens the model can read and predict
    n_layers: int = 4  # blocks of attention + feed-forward
    n_heads: int = 4  # H, query heads
    n_kv_heads: int = 2  # H_kv, key-value heads; each serves H / H_kv query heads
    d_model: int = 256  # D, width of the residual stream
    d_ff: int = 704  # hidden width of the SwiGLU feed-forward, about 8/3 of D
    max_len: int = 256  # longest sequence, prompt and answer together
    rope_theta: float = 10_000.0  # slowest rotation: about 2π·theta tokens per turn
    norm_eps: float = 1e-5  # added to the mean square in RMSNorm
    tie_embeddings: bool = True  # one matrix reads tokens in and predicts them
    window: int = 0  # a token sees itself and window - 1 before it; 0: all of them

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind = Real if name in ("rope_theta", "norm_eps") else Integral
            fits = isinstance(value, kind)
            if not fits:
                number = "number" if kind is Real else "whole number"
                raise ValueError(f"Config.{name} must be a {number}, not {value!r}")
            low = 0 if name in ("tie_embeddings", "window") else 1e-30
            if not low <= value < float("inf"):
                raise ValueError(f"Config.{name} must be positive, not {value!r}")
        if self.d_model % self.n_heads or self.d_head % 2:
            raise ValueError(
                f"d_model {self.d_model} / n_heads {self.n_heads}, the width of a "
                "head, must be even and whole (RoPE turns pairs): change either"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads {self.n_kv_heads} must divide n_heads {self.n_heads}: "
                "every key-value head serves the same number of query heads"
            )

    @property
    def d_head(self) -> int:
        """Width of one head, D / H."""
        return self.d_model // self.n_heads

    @classmethod
    def dial(cls, depth: int, vocab_size: int = 4096, max_len: int = 256) -> "Config":
        """One dial for scale: D = 64 · depth in heads of 64, the rest follows.

        Even depth: two heads share keys and values. d_ff is 8/3 · D, rounded up to 64s.
        """
        d_model, n_kv_heads = 64 * depth, depth if depth % 2 else depth // 2
        d_ff = -(-8 * d_model // (3 * 64)) * 64
        return cls(vocab_size, depth, depth, n_kv_heads, d_model, d_ff, max_len)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Build a configuration; ValueError on an unknown field, naming the nearest."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {known}"
                raise ValueError(f"unknown Config field {name!r}: {hint}")
        return cls(**values)


def rope_table(d_head: int, n_positions: int, theta: float) -> Tensor:
    """Cosines and sines of position × frequency, (2, n_positions, d_head).

    Source: Su et al., RoFormer, 2021. Built in ch-modern-decoder.
    """
    even = torch.arange(0, d_head, 2, dtype=torch.float32)
    frequency = 1 / theta ** (even / d_head)  # (d_head / 2,), radians per token
    angle = torch.outer(torch.arange(n_positions).float(), frequency)
    angle = torch.cat([angle, angle], dim=-1)  # feature i turns with i + d_head / 2
    return torch.stack([angle.cos(), angle.sin()])


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Turn the pairs (i, i + d_head / 2) of x (..., T, d_head) by their angles.

    ``rope`` holds rows of ``rope_table``, (2, T, d_head). Built in ch-modern-decoder.
    """
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def attention_mask(place: Tensor, n_keys: int, window: int = 0) -> Tensor:
    """True, in (..., T, S), where a token at ``place`` (..., T) may see key 0..S - 1.

    That is itself and what came before; with a window, ``window`` tokens in all.
    Built in ch-modern-decoder.
    """
    back = place[..., None] - torch.arange(n_keys, device=place.device)
    return (back >= 0) & (back < (window or n_keys))


class KVCache:
    """Keys and values of the tokens seen so far, so that each is computed once.

    Both are (n_layers, B, H_kv, max_len, d_head), allocated at once with the dtype and
    device of ``like`` (CPU float32 if None). ``length``, the tokens stored, is the next
    position: a number, or (B, 1, 1) when rows differ; ``end`` is the longest. Written
    over in place, which backpropagation cannot follow. Built in ch-modern-decoder.
    """

    def __init__(
        self, config: Config, batch_size: int, like: Tensor | None = None
    ) -> None:
        c = config
        shape = (c.n_layers, batch_size, c.n_kv_heads, c.max_len, c.d_head)
        like = torch.empty(0) if like is None else like
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.length: int | Tensor = 0
        self.end = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new (B, H_kv, T, d_head); return all (B, H_kv, S, d_head).

        S is end + T. The model advances ``length`` once all layers have stored.
        """
        T = k.shape[2]
        end = self.end + T
        for store, new in ((self.keys[layer], k), (self.values[layer], v)):
            if isinstance(self.length, int):
                store[:, :, self.length : end] = new
            else:
                place = self.length + torch.arange(T, device=new.device)  # (B, 1, T)
                store.scatter_(2, place[..., None].expand_as(new), new)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows: their texts have ended."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        if isinstance(self.length, Tensor):
            self.length = self.length[rows]
            self.end = int(self.length.max())


class Attention(nn.Module):
    """Causal self-attention with H query heads on H_kv key-value heads.

    Source: Ainslie et al., GQA, 2023. Built in ch-modern-decoder.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.d_head, self.layer = config.d_head, layer
        width, kv_width = config.d_model, config.n_kv_heads * config.d_head
        self.wq = nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, kv_width, bias=False)
        self.wv = nn.Linear(width, kv_width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); without a mask, causal."""
        B, T, D = x.shape
        q, k, v = (
            project(x).view(B, T, -1, self.d_head).transpose(1, 2)
            for project in (self.wq, self.wk, self.wv)
        )  # (B, H | H_kv, T, d_head)
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, H_kv, S, d_head)
        causal = mask is None and T > 1  # one token may see all that is stored
        y = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=causal, enable_gqa=True
        )  # (B, H, T, d_head)
        return self.wo(y.transpose(1, 2).reshape(B, T, D))


class FeedForward(nn.Module):
    """SwiGLU: one projection gates the other.

    Source: Shazeer, GLU Variants Improve Transformer, 2020. Built in ch-modern-decoder.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D) through (B, T, d_ff)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then feed-forward, each normalised before and added after.

    Built in ch-modern-decoder.
    """

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = nn.RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, rope: Tensor, mask: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), rope, mask, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(SavedModule):
    """A decoder-only language model: tokens (B, T) in, logits (B, T, V) out.

    Row t scores the token after ``tokens[:, t]``. A cache holds the tokens before these
    and is extended in place. With ``lengths``, row b has ``lengths[b]`` tokens, then
    filler: only the logits after its last token are computed, (B, 1, V), and the next
    call writes over the filler. Raises ValueError on input that ``check_fit`` rejects,
    such as more cached and new tokens than ``max_len``. Weights start at a standard
    deviation of 0.02, those that write to the residual stream divided by
    √(2 · n_layers) (Radford et al., 2019). Built in ch-modern-decoder.
    """

    config_type = Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = c = config
        self.embed = nn.Embedding(c.vocab_size, c.d_model)
        self.blocks = nn.ModuleList(Block(c, i) for i in range(c.n_layers))
        self.norm = nn.RMSNorm(c.d_model, c.norm_eps)
        if not c.tie_embeddings:
            self.head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        table = rope_table(c.d_head, c.max_len, c.rope_theta)
        self.rope = nn.Buffer(table, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("wo.weight", "down.weight"))
                shrink = (2 * c.n_layers) ** 0.5 if writes else 1.0
                nn.init.normal_(weight, std=0.02 / shrink)

    def forward(
        self, tokens: Tensor, cache: KVCache | None = None, lengths: Lengths = None
    ) -> Tensor:
        """Predict the next token at every position; the class says how."""
        check_fit(self.config, tokens, cache, lengths)
        c, (B, T) = self.config, tokens.shape
        start, end = (cache.length, cache.end + T) if cache else (0, T)
        place = start + torch.arange(T, device=tokens.device)  # (T,) | (B, 1, T)
        rope = self.rope[:, place]  # (2, T, d_head) | (2, B, 1, T, d_head)
        mask = None
        if place.ndim > 1 or 1 < T < end or 0 < c.window < end:
            mask = attention_mask(place, end, c.window)  # (T, S) | (B, 1, T, S)
        x = self.embed(tokens)  # (B, T, D)
        for block in self.blocks:
            x = block(x, rope, mask, cache)
        n_new: int | Tensor = T
        if lengths is not None:
            last = torch.as_tensor(lengths, device=x.device)  # (B,)
            x = x[torch.arange(B), last - 1][:, None]  # (B, 1, D)
            n_new = last[:, None, None] if min(lengths) < T else T
        if cache is not None:
            cache.length, cache.end = start + n_new, end
        head = getattr(self, "head", self.embed)  # tied: one matrix for both
        return F.linear(self.norm(x), head.weight)  # (B, T, V)


def check_fit(
    c: Config, tokens: Tensor, cache: KVCache | None, lengths: Lengths
) -> None:
    """Raise ValueError, saying what to change, unless a decoder can read these."""
    if tokens.ndim != 2 or tokens.is_floating_point():
        shape = f"{tokens.dtype} of shape {tuple(tokens.shape)}"
        raise ValueError(f"tokens must be whole numbers (B, T), not {shape}")
    if tokens.numel() == 0:
        raise ValueError("no tokens: the model needs at least one to predict from")
    (B, T), old = tokens.shape, cache.end if cache else 0
    if old + T > c.max_len:
        raise ValueError(
            f"{old + T} tokens ({old} cached + {T} new) exceed the context, "
            f"Config.max_len = {c.max_len}: shorten the input, for example "
            "tokens[:, -max_len:], or build a model with a longer one"
        )
    if lengths is not None and len(lengths) != B:
        raise ValueError(f"{len(lengths)} lengths for {B} rows: give one per row")
    if lengths is not None and not 1 <= min(lengths) <= max(lengths) <= T:
        raise ValueError(f"lengths {list(lengths)} must lie in 1..{T}, filler behind")
    wanted = (c.n_layers, B, c.n_kv_heads, c.max_len, c.d_head)
    if cache and cache.keys.shape != wanted:
        raise ValueError(f"cache of shape {tuple(cache.keys.shape)}, wanted {wanted}")
    V, on_cpu = c.vocab_size, tokens.device.type == "cpu"  # elsewhere it would wait
    if on_cpu and not 0 <= tokens.min() <= tokens.max() < V:
        raise ValueError(f"token ids leave the vocabulary 0..{V - 1}: encode anew")

"""The book's decoder: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

The computation is that of Llama, number for number: with copied weights the
logits equal those of Hugging Face's LlamaForCausalLM. Letters in the shapes:
B batch, T new tokens, S tokens seen so far (cached + new), H heads,
H_kv key-value heads, D d_model, V vocabulary.
"""

import dataclasses
import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from llmbook.files import replacing

__all__ = ["Config", "Decoder", "KVCache"]

_FORMAT = "llmbook decoder 1"


@dataclass(frozen=True)
class Config:
    """Shape of a decoder. ``Config.dial(depth)`` sets all of it by one number.

    Raises ValueError when the sizes do not fit together.
    To be built in ch-modern-decoder.
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

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "tie_embeddings" and not value > 0:
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
        """One dial for scale: width, heads and feed-forward follow from the depth.

        D = 64 · depth with heads of 64; two query heads share one key-value head
        where the depth is even; the feed-forward is 8/3 · D rounded up to 64s.
        Depth 2 trains in a minute on a CPU; depth 12 is as wide as GPT-2 small.
        """
        d_model = 64 * depth
        return cls(
            vocab_size=vocab_size,
            n_layers=depth,
            n_heads=depth,
            n_kv_heads=depth // 2 if depth % 2 == 0 else depth,
            d_model=d_model,
            d_ff=-(-8 * d_model // (3 * 64)) * 64,
            max_len=max_len,
        )

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


class KVCache:
    """Keys and values of the tokens seen so far, so that each is computed once.

    ``keys`` and ``values`` are (n_layers, B, H_kv, max_len, d_head), allocated at
    once with the dtype and device of ``like`` (CPU float32 if None); ``length`` is
    the number of tokens stored, the position of the next. For inference only: the
    tensors are overwritten in place, which backpropagation cannot follow.
    To be built in ch-modern-decoder.
    """

    def __init__(
        self, config: Config, batch_size: int, like: Tensor | None = None
    ) -> None:
        c = config
        shape = (c.n_layers, batch_size, c.n_kv_heads, c.max_len, c.d_head)
        like = torch.empty(0) if like is None else like
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new (B, H_kv, T, d_head); return all (B, H_kv, S, d_head).

        S is length + T. The model advances ``length`` once all layers have stored.
        """
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last axis, then scale each feature."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); the mean is taken in float32."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


def _rope_table(config: Config) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position × frequency, each (max_len, d_head)."""
    even = torch.arange(0, config.d_head, 2, dtype=torch.float32)
    frequency = 1 / config.rope_theta ** (even / config.d_head)  # (d_head / 2,)
    angle = torch.outer(torch.arange(config.max_len).float(), frequency)
    angle = torch.cat([angle, angle], dim=-1)  # feature i turns with i + d_head / 2
    return angle.cos(), angle.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of features by its position's angle: (B, H, T, d_head)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Attention(nn.Module):
    """Causal self-attention with H query heads on H_kv key-value heads."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width, kv_width = config.d_model, config.n_kv_heads * config.d_head
        self.wq = nn.Linear(width, width, bias=False)
        self.wk = nn.Linear(width, kv_width, bias=False)
        self.wv = nn.Linear(width, kv_width, bias=False)
        self.wo = nn.Linear(width, width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        B, T, D = x.shape
        c = self.config
        q = self.wq(x).view(B, T, c.n_heads, c.d_head).transpose(1, 2)
        k = self.wk(x).view(B, T, c.n_kv_heads, c.d_head).transpose(1, 2)
        v = self.wv(x).view(B, T, c.n_kv_heads, c.d_head).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)  # (B, H | H_kv, T, d_head)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)  # (B, H_kv, S, d_head)
        group = c.n_heads // c.n_kv_heads
        k = k.repeat_interleave(group, dim=1)  # (B, H, S, d_head)
        v = v.repeat_interleave(group, dim=1)  # (B, H, S, d_head)
        S = k.shape[2]
        mask = None
        if 1 < T < S:  # new token i stands at position S - T + i and sees up to it
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=T == S)
        return self.wo(y.transpose(1, 2).reshape(B, T, D))  # (B, H, T, d_head) joined


class FeedForward(nn.Module):
    """SwiGLU: one projection gates the other."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D) through (B, T, d_ff)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then feed-forward, each normalised before and added after."""

    def __init__(self, config: Config, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = RMSNorm(config.d_model, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: KVCache | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cos, sin, cache)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(nn.Module):
    """A decoder-only language model: tokens in, logits of the next token out.

    Weights start normal with standard deviation 0.02, those that write to the
    residual stream smaller by √(2 · n_layers) (Radford et al., 2019).
    To be built in ch-modern-decoder.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        cos, sin = _rope_table(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                writes = name.endswith(("wo.weight", "down.weight"))
                shrink = (2 * config.n_layers) ** 0.5 if writes else 1.0
                nn.init.normal_(weight, std=0.02 / shrink)

    @property
    def n_params(self) -> int:
        """Number of weights; a tied embedding counts once."""
        return sum(p.numel() for p in self.parameters())

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Predict the next token at every position.

        Args:
            tokens: (B, T) integer ids in 0..V - 1.
            cache: keys and values of the tokens before these, extended in place;
                the positions of ``tokens`` then start at ``cache.length``.

        Returns:
            Logits (B, T, V): row t scores the token after ``tokens[:, t]``.

        Raises:
            ValueError: when there is no token, or cached and new tokens together
                exceed ``config.max_len``.
        """
        start = 0 if cache is None else cache.length
        end = start + tokens.shape[1]
        if tokens.shape[1] == 0:
            raise ValueError("no tokens: the model needs at least one to predict from")
        if end > self.config.max_len:
            raise ValueError(
                f"{end} tokens ({start} cached + {tokens.shape[1]} new) exceed the "
                f"context, Config.max_len = {self.config.max_len}: shorten the input, "
                "for example tokens[:, -max_len:], or build a model with a longer one"
            )
        cos, sin = self.cos[start:end], self.sin[start:end]  # (T, d_head)
        x = self.embed(tokens)  # (B, T, D)
        for block in self.blocks:
            x = block(x, cos, sin, cache)
        if cache is not None:
            cache.length = end
        head = self.embed if self.config.tie_embeddings else self.head
        return F.linear(self.norm(x), head.weight)  # (B, T, V)

    def save(self, path: str | Path, tokenizer: str = "") -> None:
        """Write weights and configuration to a safetensors file, whole or not at all.

        ``tokenizer`` is the ``Tokenizer.fingerprint`` of the tokenizer the model was
        trained with, "" if there is none.
        """
        about = {
            "format": _FORMAT,
            "config": json.dumps(dataclasses.asdict(self.config)),
            "tokenizer": tokenizer,
        }
        state = {name: x.contiguous() for name, x in self.state_dict().items()}
        with replacing(path) as temporary:
            save_file(state, temporary, metadata=about)

    @classmethod
    def load(cls, path: str | Path, tokenizer: str = "") -> "Decoder":
        """Read a model that ``save`` wrote, as float32 on the CPU.

        ``tokenizer`` is the fingerprint of the tokenizer you will use, compared with
        the one on file; "" skips the comparison. Raises ValueError when they differ,
        or the file is truncated, not ours, or has an unknown configuration field.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no model file {path}: check the path")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                # Not an iterable: the file object only has keys().
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(
                f"{path} is truncated or no safetensors file ({error}): copy it again"
            ) from error
        if about.get("format") != _FORMAT:
            raise ValueError(
                f"{path} is not a file of Decoder.save (format {_FORMAT!r}): copy the "
                "weights of another library by name"
            )
        if tokenizer and tokenizer != about["tokenizer"]:
            raise ValueError(
                f"{path} belongs to tokenizer {about['tokenizer'][:8] or 'unknown'}, "
                f"not {tokenizer[:8]}: load the tokenizer saved beside the model"
            )
        model = cls(Config.from_dict(json.loads(about["config"])))
        model.load_state_dict(state)
        return model

"""Attention: softmax, masks, scaled dot product, heads, and the test for a leak.

Letters in the shapes: B batch, T queries, S keys, H heads, D d_model; ``...`` is
any number of leading axes. A mask is boolean and True where a query may look, as
in `torch.nn.functional.scaled_dot_product_attention`. (`torch.nn.MultiheadAttention`
means the opposite by its masks: pass it ``~mask``.)
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "MultiHeadAttention",
    "attention_weights",
    "causal_mask",
    "future_leak",
    "merge_heads",
    "padding_mask",
    "scaled_dot_product_attention",
    "softmax",
    "split_heads",
]


def softmax(scores: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into weights that sum to one; all-masked rows become zero.

    The largest score is subtracted first, so nothing overflows. A row of nothing
    but ``-inf`` gives zeros, as in PyTorch's attention, where `torch.softmax` gives
    NaN.

    Args:
        scores: real numbers or ``-inf``, any shape.
        dim: axis along which the weights share.

    Returns:
        Weights, the shape of ``scores``.

    Built in ch-attention.
    """
    top = scores.detach().amax(dim, keepdim=True)
    top = top.masked_fill(top == float("-inf"), 0.0)
    powers = torch.exp(scores - top)
    # The largest power is 1, so a sum below 1 is an empty sum.
    return powers / powers.sum(dim, keepdim=True).clamp(min=1.0)


def causal_mask(T: int, S: int | None = None) -> Tensor:
    """Let each of the last ``T`` of ``S`` positions see itself and what came before.

    Args:
        T: number of queries.
        S: number of keys, at least ``T``; None means ``T``. With ``S > T`` the
            queries are the last ``T`` positions, as when a cache holds the others.

    Returns:
        Boolean mask, ``(T, S)``, True where a query may look.

    Raises:
        ValueError: when there are more queries than keys.

    Built in ch-attention.
    """
    S = T if S is None else S
    if S < T:
        raise ValueError(f"{T} queries need at least {T} keys, not {S}")
    return torch.ones(T, S, dtype=torch.bool).tril(S - T)


def padding_mask(lengths: Sequence[int] | Tensor, S: int) -> Tensor:
    """Hide the filler behind the end of each text.

    Args:
        lengths: real tokens of each text in the batch, ``(B,)``.
        S: padded length.

    Returns:
        Boolean mask, ``(B, 1, 1, S)``: the same for every head and every query.

    Built in ch-attention.
    """
    lengths = torch.as_tensor(lengths)
    return (torch.arange(S) < lengths[:, None])[:, None, None, :]


def attention_weights(
    q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return how much each query takes from each key.

    Args:
        q: queries, ``(..., T, d_head)``.
        k: keys, ``(..., S, d_head)``.
        mask: boolean, broadcasts to ``(..., T, S)``; True where a query may look.
        scale: factor on the scores; None means ``1 / sqrt(d_head)``.

    Returns:
        Weights, ``(..., T, S)``; rows sum to one, or to zero where all is masked.

    Raises:
        TypeError: when the mask is not boolean.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017.

    Built in ch-attention.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be boolean, True = may look; got {mask.dtype}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.transpose(-2, -1) * scale  # (..., T, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return softmax(scores)


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Average the values, each weighted by how well its key matches the query.

    Args:
        q: queries, ``(..., T, d_head)``.
        k: keys, ``(..., S, d_head)``.
        v: values, ``(..., S, d_value)``.
        mask: as in `attention_weights`.
        scale: as in `attention_weights`.

    Returns:
        ``(..., T, d_value)``.

    Raises:
        TypeError: when the mask is not boolean.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017.

    Built in ch-attention.
    """
    return attention_weights(q, k, mask, scale) @ v


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Cut the features into heads and bring the heads before the positions.

    Args:
        x: ``(..., T, D)``.
        n_heads: H, divides D.

    Returns:
        ``(..., H, T, D / H)``, a view of ``x``.

    Raises:
        ValueError: when the heads do not divide the features.

    Built in ch-attention.
    """
    if x.shape[-1] % n_heads:
        raise ValueError(f"{n_heads} heads do not divide {x.shape[-1]} features")
    x = x.unflatten(-1, (n_heads, -1))  # (..., T, H, d_head)
    return x.transpose(-3, -2)  # (..., H, T, d_head)


def merge_heads(x: Tensor) -> Tensor:
    """Undo `split_heads`: transpose back first, only then join.

    Args:
        x: ``(..., H, T, d_head)``.

    Returns:
        ``(..., T, H * d_head)``.

    Built in ch-attention.
    """
    x = x.transpose(-3, -2)  # (..., T, H, d_head)
    return x.flatten(-2)  # (..., T, D)


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, mixed by a matrix.

    With ``context`` it is cross-attention: queries from ``x``, keys and values from
    ``context``. With copied weights it equals `torch.nn.MultiheadAttention`.

    Args:
        d_model: D, features of a token.
        n_heads: H, divides D.
        bias: whether the four projections have one.

    Source: Vaswani et al., Attention Is All You Need, NeurIPS 2017.

    Built in ch-attention.
    """

    def __init__(self, d_model: int, n_heads: int, bias: bool = True) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.wq = nn.Linear(d_model, d_model, bias)
        self.wk = nn.Linear(d_model, d_model, bias)
        self.wv = nn.Linear(d_model, d_model, bias)
        self.wo = nn.Linear(d_model, d_model, bias)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """(B, T, D), and (B, S, D) as context, -> (B, T, D)."""
        context = x if context is None else context  # (B, S, D)
        q = split_heads(self.wq(x), self.n_heads)  # (B, H, T, d_head)
        k = split_heads(self.wk(context), self.n_heads)  # (B, H, S, d_head)
        v = split_heads(self.wv(context), self.n_heads)  # (B, H, S, d_head)
        y = scaled_dot_product_attention(q, k, v, mask)  # (B, H, T, d_head)
        return self.wo(merge_heads(y))  # (B, T, D)


def future_leak(f: Callable[[Tensor], Tensor], x: Tensor, cut: int) -> float:
    """Measure how far the inputs from ``cut`` on reach into the outputs before it.

    Each sequence gets its neighbour's future; a causal model must not notice.

    Args:
        f: the model, ``(B, T, ...) -> (B, T, ...)``, in evaluation mode.
        x: tokens ``(B, T)`` or vectors ``(B, T, D)``, with different futures; B >= 2.
        cut: first position that is exchanged, ``1 <= cut < T``.

    Returns:
        Largest absolute change of an output before ``cut``; 0 for a causal model,
        up to rounding.

    Raises:
        ValueError: when the two halves could not show a leak.

    Built in ch-attention.
    """
    if not 1 <= cut < x.shape[1] or torch.equal(x[:, cut:], x[:, cut:].roll(1, 0)):
        raise ValueError("the test needs a past, and futures that differ")
    other = x.clone()
    other[:, cut:] = x[:, cut:].roll(1, 0)
    with torch.no_grad():
        change = f(x)[:, :cut] - f(other)[:, :cut]
    return change.abs().max().item()

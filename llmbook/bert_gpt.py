"""BERT and GPT-2 from one code base: what differs between them is a flag.

With copied weights the outputs equal those of Hugging Face's BertModel,
BertForMaskedLM and GPT2LMHeadModel. Letters in the shapes: B batch, T tokens,
D d_model, V vocabulary. A mask is boolean and True where a query may look.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.attention import MultiHeadAttention, causal_mask

__all__ = [
    "Block",
    "Config",
    "Head",
    "Output",
    "Transformer",
    "config_from_hf",
    "initialise",
    "visible",
    "weights_from_hf",
]


@dataclass(frozen=True)
class Config:
    """Sizes, then the flags in which BERT and GPT-2 can differ; defaults: BERT base.

    Built in ch-bert-and-gpt.
    """

    vocab_size: int = 30522
    max_len: int = 512  # learned positions
    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768
    d_ff: int = 3072  # hidden width of the feed-forward layer
    causal: bool = False  # a position sees itself and the past only
    norm_first: bool = False  # norm before each sublayer, not after its sum
    n_token_types: int = 2  # segments told apart by a vector; 0: no such
    gelu: str = "none"  # exact, by erf; "tanh": its approximation
    norm_eps: float = 1e-12  # added to the variance in LayerNorm
    bias: bool = True  # in the linear layers
    pooler: bool = True  # a tanh layer on the first position
    head: str = "none"  # logits: "none", "tied" to the embedding, "mlm"
    dropout: float = 0.0  # on embeddings and sublayers; not on weights


def visible(
    T: int, causal: bool = False, prefix: int = 0, real: Tensor | None = None
) -> Tensor:
    """Say who may look at whom.

    Args:
        T: number of positions.
        causal: later positions are hidden ...
        prefix: ... except the first ``prefix``, which everyone sees.
        real: (B, T), nonzero where a token is no padding; None: everywhere.

    Returns:
        Boolean mask, (T, T), or (B, 1, T, T) with ``real``.

    Built in ch-bert-and-gpt.
    """
    mask = causal_mask(T) if causal else torch.ones(T, T, dtype=torch.bool)
    mask = mask | (torch.arange(T) < prefix)  # columns: keys
    if real is not None:
        mask = mask.to(real.device) & real.bool()[:, None, None, :]
    return mask


class Block(nn.Module):
    """Attention and feed-forward, each with a residual connection and a LayerNorm.

    Built in ch-bert-and-gpt.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = config
        self.norm_first, self.gelu = c.norm_first, c.gelu
        self.attention = MultiHeadAttention(c.d_model, c.n_heads, c.bias)
        self.attention_norm = nn.LayerNorm(c.d_model, c.norm_eps)
        self.up = nn.Linear(c.d_model, c.d_ff, c.bias)
        self.down = nn.Linear(c.d_ff, c.d_model, c.bias)
        self.feed_forward_norm = nn.LayerNorm(c.d_model, c.norm_eps)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""

        def attend(y: Tensor) -> Tensor:
            return self.attention(y, mask=mask)

        def feed_forward(y: Tensor) -> Tensor:
            return self.down(F.gelu(self.up(y), approximate=self.gelu))

        norms = self.attention_norm, self.feed_forward_norm
        for sublayer, norm in zip((attend, feed_forward), norms):
            if self.norm_first:
                x = x + self.dropout(sublayer(norm(x)))
            else:
                x = norm(x + self.dropout(sublayer(x)))
        return x


class Head(nn.Module):
    """Turn hidden vectors into logits by the token embedding itself: a tied head.

    BERT's puts a layer before it and a bias behind it. Built in ch-bert-and-gpt.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        if c.head == "mlm":
            self.dense = nn.Linear(c.d_model, c.d_model)
            self.norm = nn.LayerNorm(c.d_model, c.norm_eps)
            self.bias = nn.Parameter(torch.zeros(c.vocab_size))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, T, D) and (V, D) -> (B, T, V)."""
        if self.config.head == "tied":
            return F.linear(x, embedding)
        x = F.gelu(self.dense(x), approximate=self.config.gelu)
        return F.linear(self.norm(x), embedding, self.bias)


class Output(NamedTuple):
    """What `Transformer` returns; None for a part that the configuration lacks.

    Built in ch-bert-and-gpt.
    """

    hidden: Tensor  # (B, T, D)
    pooled: Tensor | None  # (B, D), between -1 and 1
    logits: Tensor | None  # (B, T, V)


def initialise(module: nn.Module) -> None:
    """Draw matrices from N(0, 0.02²); biases are 0.

    BERT truncates this normal; GPT-2 also shrinks what writes to the residual stream.

    Built in ch-bert-and-gpt.
    """
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


class Transformer(nn.Module):
    """A stack of blocks that is BERT or GPT-2, or between, as its flags say.

    Call it with ``tokens`` (B, T), integers; optionally ``real`` (B, T), nonzero
    where a token is no padding; ``types`` (B, T), segments, 0 if left out
    (ignored by a model without token types);
    ``positions`` (T,) or (B, T), 0 to T - 1 if left out; and ``prefix``, as in
    `visible`. Returns `Output`. Raises ValueError if a text exceeds ``max_len``.
    Source: Devlin et al., BERT, 2019; Radford et al., GPT-2, 2019.

    Built in ch-bert-and-gpt.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        c = self.config = config
        self.token = nn.Embedding(c.vocab_size, c.d_model)
        self.place = nn.Embedding(c.max_len, c.d_model)
        if c.n_token_types:
            self.segment = nn.Embedding(c.n_token_types, c.d_model)
        self.norm = nn.LayerNorm(c.d_model, c.norm_eps)  # below or on top
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layers))
        self.dropout = nn.Dropout(c.dropout)
        self.pooler = nn.Linear(c.d_model, c.d_model) if c.pooler else None
        self.head = Head(c) if c.head != "none" else None
        self.apply(initialise)

    def forward(
        self,
        tokens: Tensor,
        real: Tensor | None = None,
        types: Tensor | None = None,
        positions: Tensor | None = None,
        prefix: int = 0,
    ) -> Output:
        """(B, T) -> hidden (B, T, D), pooled (B, D) and logits (B, T, V)."""
        c, T = self.config, tokens.shape[1]
        if tokens.shape[1] > c.max_len:
            raise ValueError(f"{T} tokens exceed max_len = {c.max_len}: cut")
        if positions is None:
            positions = torch.arange(T, device=tokens.device)
        x = self.token(tokens) + self.place(positions)  # (B, T, D)
        if c.n_token_types:
            types = torch.zeros_like(tokens) if types is None else types
            x = x + self.segment(types)
        x = self.dropout(x if c.norm_first else self.norm(x))
        mask = visible(T, c.causal, prefix, real).to(x.device)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) if c.norm_first else x
        pooled = torch.tanh(self.pooler(x[:, 0])) if c.pooler else None  # type: ignore
        return Output(x, pooled, self.head and self.head(x, self.token.weight))  # type: ignore


BERT_NAMES = """
embeddings.word_embeddings=token      embeddings.position_embeddings=place
embeddings.LayerNorm=norm             embeddings.token_type_embeddings=segment
encoder.layer.=blocks.                attention.self.query=attention.wq
attention.self.key=attention.wk       attention.self.value=attention.wv
attention.output.dense=attention.wo   attention.output.LayerNorm=attention_norm
intermediate.dense=up                 output.LayerNorm=feed_forward_norm
output.dense=down                     pooler.dense=pooler
cls.predictions.transform.dense=head.dense
cls.predictions.transform.LayerNorm=head.norm
cls.predictions.bias=head.bias
"""
GPT2_NAMES = """
wte=token   wpe=place   ln_1=attention_norm   ln_2=feed_forward_norm   ln_f=norm
attn.c_proj=attention.wo   mlp.c_fc=up   mlp.c_proj=down
"""


# The embedding under a second name, or a buffer.
NO_WEIGHT = r"decoder|lm_head|position_ids|\.attn\.(masked_)?bias"


def weights_from_hf(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename a checkpoint of Hugging Face's BERT or GPT-2 for `Transformer`.

    Args:
        state: its names with tensors or arrays; with or without a head.

    Returns:
        Weights for ``load_state_dict``; GPT-2's matrices are transposed, and its
        joint query-key-value matrix is cut in three.

    Built in ch-bert-and-gpt.
    """
    gpt2, ours = any("wte" in name for name in state), {}
    pairs = (GPT2_NAMES if gpt2 else BERT_NAMES).split()
    for name, array in state.items():
        if re.search(NO_WEIGHT, name):
            continue
        w = torch.as_tensor(array)
        if gpt2 and ".c_" in name and w.ndim == 2:
            w = w.T  # Conv1D stores (in, out), nn.Linear (out, in)
        name = re.sub(r"^(bert|transformer)\.", "", name)
        name = re.sub(r"^h\.", "blocks.", name)
        for pair in pairs:
            name = name.replace(*pair.split("="))  # type: ignore
        if "attn.c_attn" in name:
            for letter, part in zip("qkv", w.chunk(3)):
                mine = name.replace("attn.c_attn", f"attention.w{letter}")
                ours[mine] = part
        else:
            ours[name] = w
    return ours


FIELDS = {
    "bert": "vocab_size=vocab_size max_len=max_position_embeddings d_model=hidden_size "
    "n_layers=num_hidden_layers n_heads=num_attention_heads d_ff=intermediate_size "
    "n_token_types=type_vocab_size norm_eps=layer_norm_eps gelu=hidden_act",
    "gpt2": "vocab_size=vocab_size max_len=n_positions d_model=n_embd n_layers=n_layer "
    "n_heads=n_head d_ff=n_inner norm_eps=layer_norm_epsilon gelu=activation_function",
}
GELUS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
# Switches that Config lacks, as BERT and GPT-2 set them.
PLAIN = {
    "add_cross_attention": False,
    "is_decoder": False,
    "position_embedding_type": "absolute",
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
}


def config_from_hf(values: Mapping[str, Any], head: str = "none") -> Config:
    """Translate a ``config.json`` of BERT or GPT-2.

    Raises ValueError for any other model, and for a switch that has no flag here.
    Built in ch-bert-and-gpt.
    """
    kind = values.get("model_type")
    if kind not in FIELDS:
        raise ValueError(f"model_type must be bert or gpt2, not {kind!r}")
    odd = {k: values[k] for k in PLAIN if values.get(k, PLAIN[k]) != PLAIN[k]}
    if odd:
        raise ValueError(f"no flag of Config stands for {odd}")
    pairs = [pair.split("=") for pair in FIELDS[kind].split()]
    found = {mine: values[theirs] for mine, theirs in pairs}
    if found["gelu"] not in GELUS:
        raise ValueError(f"unknown activation {found['gelu']!r}")
    found["gelu"] = GELUS[found["gelu"]]
    if kind == "gpt2":
        found["d_ff"] = found["d_ff"] or 4 * found["d_model"]
        found |= {"causal": True, "norm_first": True, "n_token_types": 0}
    return Config(**found, pooler=kind == "bert", head=head)

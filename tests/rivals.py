"""Hugging Face's models and tokenizer beside ours, for tests and benchmarks."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from llmbook.model import Decoder

LLAMA_NAMES = {
    "embed.": "model.embed_tokens.",
    "blocks.": "model.layers.",
    "attention_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.": "mlp.",
    "gate.": "gate_proj.",
    "up.": "up_proj.",
    "down.": "down_proj.",
    "head.": "lm_head.",
}


def llama(model: Decoder, **options: object) -> LlamaForCausalLM | MistralForCausalLM:
    """Hugging Face's model with the same weights; Mistral, if there is a window.

    ``options`` go to its configuration, such as the attention it is to use.
    """
    c = model.config
    kind, library = LlamaConfig, LlamaForCausalLM
    more = dict(options)
    if c.window:
        kind, library = MistralConfig, MistralForCausalLM
        more["sliding_window"] = c.window
    config = kind(
        **more,
        vocab_size=c.vocab_size,
        hidden_size=c.d_model,
        intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layers,
        num_attention_heads=c.n_heads,
        num_key_value_heads=c.n_kv_heads,
        max_position_embeddings=c.max_len,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tie_embeddings,
    )
    theirs = library(config).eval()
    state = {}
    for name, weight in model.state_dict().items():
        for ours, hugging_face in LLAMA_NAMES.items():
            name = name.replace(ours, hugging_face)
        state["model.norm.weight" if name == "norm.weight" else name] = weight
    if c.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    theirs.load_state_dict(state)
    return theirs


def byte_level_bpe(text: str, vocab_size: int) -> Tokenizer:
    """The byte-level BPE of `tokenizers`, trained to the same vocabulary."""
    rival = Tokenizer(models.BPE())
    rival.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rival.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rival.train_from_iterator([text], trainer)
    return rival

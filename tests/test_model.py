"""The decoder against Hugging Face's Llama, its cache, and its files."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llmbook.model import Config, Decoder, KVCache

TINY = Config(
    vocab_size=97, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_len=24
)
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


def decoder(config: Config = TINY, std: float = 0.1) -> Decoder:
    """A decoder with weights large enough for every part to matter."""
    torch.manual_seed(0)
    model = Decoder(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=std).add_(weight.ndim == 1)
    return model


def llama(model: Decoder) -> LlamaForCausalLM:
    """Hugging Face's model with the same weights."""
    c = model.config
    config = LlamaConfig(
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
    theirs = LlamaForCausalLM(config).eval()
    state = {}
    for name, weight in model.state_dict().items():
        for ours, hugging_face in LLAMA_NAMES.items():
            name = name.replace(ours, hugging_face)
        state["model.norm.weight" if name == "norm.weight" else name] = weight
    if c.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    theirs.load_state_dict(state)
    return theirs


def tokens(batch: int, length: int, config: Config = TINY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(config.vocab_size, (batch, length), generator=generator)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False, "n_kv_heads": 4},
        {"n_kv_heads": 1, "n_layers": 3},
        {"rope_theta": 500.0, "norm_eps": 1e-2, "n_heads": 2, "d_ff": 40},
    ],
)
def test_logits_equal_llama(changes):
    config = dataclasses.replace(TINY, **changes)
    model, x = decoder(config), tokens(3, config.max_len, config)
    with torch.no_grad():
        ours, theirs = model(x), llama(model)(x).logits
    assert ours.std() > 0.2  # not equal because everything is zero
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_gradients_equal_llama():
    model, x = decoder(), tokens(2, 12)
    theirs = llama(model)
    for m, logits in ((model, model(x)), (theirs, theirs(x).logits)):
        torch.logsumexp(logits, -1).square().mean().backward()
        assert m
    ours = model.blocks[0].attention.wk.weight.grad
    reference = theirs.model.layers[0].self_attn.k_proj.weight.grad
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, reference, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [7, 1, 1, 12, 3], [23, 1]])
def test_cache_equals_no_cache(pieces):
    model, x = decoder(), tokens(2, 24)
    cache = KVCache(TINY, batch_size=2)
    with torch.no_grad():
        parts = [model(piece, cache) for piece in x.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(x), atol=1e-5, rtol=0)
    assert cache.length == 24


def test_no_position_sees_the_future():
    model, x = decoder(), tokens(1, 20)
    changed = x.clone()
    changed[0, 12] = (x[0, 12] + 1) % TINY.vocab_size
    with torch.no_grad():
        before, after = model(x), model(changed)
    assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] - after[:, 12:]).abs().amax(-1).min() > 1e-4


def test_rows_of_a_batch_do_not_mix():
    model, x = decoder(), tokens(3, 10)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=0)


def test_position_counts_only_as_distance():
    model = decoder()
    attention = model.blocks[0].attention
    h = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        near = attention(h, model.cos[:8], model.sin[:8], None)
        far = attention(h, model.cos[10:18], model.sin[10:18], None)
        nowhere = attention(h, model.cos[:1], model.sin[:1], None)
    torch.testing.assert_close(near, far, atol=1e-5, rtol=0)
    assert (near - nowhere).abs().max() > 1e-3


def test_one_dial():
    for depth in range(1, 13):
        config = Config.dial(depth, vocab_size=512, max_len=64)
        assert (config.n_layers, config.d_head) == (depth, 64)
        assert config.d_ff % 64 == 0 and config.d_ff >= 8 * config.d_model / 3
        assert config.d_ff - 8 * config.d_model / 3 < 64
        assert config.n_kv_heads == (depth if depth % 2 else depth // 2)
    assert Config.dial(4) == Config()
    sizes = [Decoder(Config.dial(depth, 512, 8)).n_params for depth in (1, 2, 3)]
    assert sizes == sorted(sizes)
    assert (config.d_model, config.n_heads, config.vocab_size) == (768, 12, 512)


def test_number_of_parameters():
    D, F, V = TINY.d_model, TINY.d_ff, TINY.vocab_size
    block = 3 * D * D + 3 * D * F + 2 * D  # wq, wo, and wk + wv at half the width
    assert Decoder(TINY).n_params == V * D + 2 * block + D
    untied = dataclasses.replace(TINY, tie_embeddings=False)
    assert Decoder(untied).n_params == 2 * V * D + 2 * block + D


def test_fresh_model_guesses_uniformly():
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, n_layers=8, d_model=64)
    for name, weight in Decoder(config).named_parameters():
        writes = name.endswith(("wo.weight", "down.weight"))
        wanted = 0.02 / 4 if writes else 0.02 if weight.ndim == 2 else 0.0
        assert weight.std().item() == pytest.approx(wanted, rel=0.1)
    model, x = Decoder(TINY), tokens(4, 24)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten()
        )
    assert abs(loss.item() - torch.tensor(97.0).log().item()) < 0.1


@pytest.mark.parametrize("tie", [True, False])
def test_saved_model_is_the_same(tie, tmp_path):
    model = decoder(dataclasses.replace(TINY, tie_embeddings=tie))
    path = tmp_path / "model.safetensors"
    model.save(path, tokenizer="abc")
    loaded, x = Decoder.load(path, tokenizer="abc"), tokens(1, 9)
    assert loaded.config == model.config
    assert torch.equal(loaded(x), model(x))
    assert list(tmp_path.iterdir()) == [path]


def test_half_precision_file_loads_as_float32(tmp_path):
    path = tmp_path / "model.safetensors"
    decoder().half().save(path)
    loaded, x = Decoder.load(path), tokens(1, 9)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(loaded(x), decoder()(x), atol=0.05, rtol=0)


def test_configuration_errors_say_what_to_do():
    with pytest.raises(ValueError, match="'n_layer': did you mean 'n_layers'"):
        Config.from_dict({"n_layer": 2})
    with pytest.raises(ValueError, match=r"'zzz': known: \['vocab_size'"):
        Config.from_dict({"zzz": 2})
    with pytest.raises(ValueError, match="d_ff must be positive"):
        Config(d_ff=0)
    with pytest.raises(ValueError, match="width of a head"):
        Config(d_model=100, n_heads=3)
    with pytest.raises(ValueError, match="even"):
        Config(d_model=36, n_heads=4)
    with pytest.raises(ValueError, match="n_kv_heads 3 must divide n_heads 4"):
        Config(n_kv_heads=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.d_model = 64
    assert Config.from_dict(dataclasses.asdict(TINY)) == TINY


def test_context_errors_say_what_to_do():
    model, cache = decoder(), KVCache(TINY, 1)
    with pytest.raises(ValueError, match=r"25 tokens .*max_len = 24"):
        model(tokens(1, 25))
    model(tokens(1, 20), cache)
    with pytest.raises(ValueError, match=r"\(20 cached \+ 5 new\)"):
        model(tokens(1, 5), cache)
    assert cache.length == 20
    with pytest.raises(ValueError, match="no tokens"):
        model(tokens(1, 0))


def test_file_errors_say_what_to_do(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no model file"):
        Decoder.load(path)
    decoder().save(path, tokenizer="0123456789")
    with pytest.raises(ValueError, match="belongs to tokenizer 01234567, not abc"):
        Decoder.load(path, tokenizer="abc")
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="truncated"):
            Decoder.load(path)
    path.write_bytes(whole.replace(b"norm_eps", b"norm_epz"))
    with pytest.raises(ValueError, match="'norm_epz': did you mean 'norm_eps'"):
        Decoder.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"not a file of Decoder\.save"):
        Decoder.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    decoder().save(path)
    before = path.read_bytes()

    def half_written(_, temporary, **__):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("llmbook.model.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        decoder(std=0.2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

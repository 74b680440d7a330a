"""The decoder against Hugging Face's Llama, its cache, and its files."""

import dataclasses

import pytest
import torch
from rivals import llama
from safetensors import safe_open
from safetensors.torch import save_file

from llmbook.model import Config, Decoder, KVCache, attention_mask

TINY = Config(
    vocab_size=97, n_layers=2, n_heads=4, n_kv_heads=2, d_model=32, d_ff=48, max_len=24
)


def decoder(config: Config = TINY, std: float = 0.1) -> Decoder:
    """A decoder with weights large enough for every part to matter."""
    torch.manual_seed(0)
    model = Decoder(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=std).add_(weight.ndim == 1)
    return model


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


@pytest.mark.parametrize("window", [1, 2, 7, 23, 24, 100])
@pytest.mark.parametrize("pieces", [[24], [1] * 24, [9, 1, 1, 10, 3]])
def test_window_equals_mistral(window, pieces):
    config = dataclasses.replace(TINY, window=window)
    model, x = decoder(config), tokens(2, 24)
    cache = KVCache(config, batch_size=2)
    with torch.no_grad():
        theirs = llama(model)(x, use_cache=False).logits
        ours = torch.cat([model(piece, cache) for piece in x.split(pieces, dim=1)], 1)
        full = decoder()(x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(full[:, :window], ours[:, :window], atol=1e-5, rtol=0)
    if window < 24:  # one token more than the window can see makes the difference
        assert (full[:, window:] - ours[:, window:]).abs().amax(-1).min() > 1e-4


def test_mask_by_hand():
    seen = [[1, 1, 0, 0], [0, 1, 1, 0]]
    mask = attention_mask(torch.tensor([1, 2]), 4, window=2)
    assert mask.tolist() == [[bool(x) for x in row] for row in seen]
    rows = attention_mask(torch.tensor([[[0]], [[3]]]), 4)
    assert rows.shape == (2, 1, 1, 4)
    assert rows.sum(-1).flatten().tolist() == [1, 4]


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


@pytest.mark.parametrize("window", [0, 4])
def test_ragged_rows_equal_each_row_alone(window):
    config = dataclasses.replace(TINY, window=window)
    model, lengths = decoder(config), [9, 1, 5, 9]
    x, more = tokens(4, 9), tokens(4, 6, config).flip(0)
    cache = KVCache(config, batch_size=4)
    with torch.no_grad():
        together = [model(x, cache, lengths)]  # filler: whatever stands behind
        together += [model(piece, cache) for piece in more.split([1, 1, 3, 1], 1)]
        together = torch.cat(together, 1)  # (4, 7, V)
        for row, n in enumerate(lengths):
            alone = model(torch.cat([x[row, :n], more[row]])[None])[:, n - 1 :]
            torch.testing.assert_close(
                together[row : row + 1], alone, atol=1e-5, rtol=0
            )
    assert cache.length.flatten().tolist() == [n + 6 for n in lengths]
    assert cache.end == 15


def test_rows_that_leave_do_not_disturb_the_rest():
    model, x, new = decoder(), tokens(3, 8), tokens(3, 2)
    whole, fewer = KVCache(TINY, 3), KVCache(TINY, 3)
    with torch.no_grad():
        for cache in (whole, fewer):
            model(x, cache, [3, 8, 5])
        fewer.keep([0, 2])
        expected = model(new, whole)[[0, 2]]
        torch.testing.assert_close(model(new[[0, 2]], fewer), expected)
    assert (fewer.end, fewer.keys.shape[1]) == (7, 2)


def test_lengths_give_the_last_logits_only():
    model, x = decoder(), tokens(3, 10)
    cache = KVCache(TINY, 3)
    with torch.no_grad():
        full = model(x)
        last = model(x, lengths=[4, 10, 1])
        model(x, cache, [10, 10, 10])
    ends = full[torch.arange(3), torch.tensor([3, 9, 0])]
    torch.testing.assert_close(last[:, 0], ends, atol=1e-5, rtol=0)
    assert (cache.length, cache.end) == (10, 10)  # equal lengths: one number
    for lengths in ([0, 4, 4], [4, 4, 11]):
        with pytest.raises(ValueError, match=r"lengths .* must lie in 1\.\.10"):
            model(x, lengths=lengths)


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
        near = attention(h, model.rope[:, :8], None, None)
        far = attention(h, model.rope[:, 10:18], None, None)
        nowhere = attention(h, model.rope[:, :1], None, None)
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_file_loads_as_float32(dtype, tmp_path):
    path = tmp_path / "model.safetensors"
    decoder().to(dtype).save(path)
    loaded, x = Decoder.load(path), tokens(1, 9)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert loaded.rope.dtype == torch.float32
    off = {torch.float16: 0.05, torch.bfloat16: 0.3}[dtype]
    torch.testing.assert_close(loaded(x), decoder()(x), atol=off, rtol=0)


def test_configuration_errors_say_what_to_do():
    with pytest.raises(ValueError, match="'n_layer': did you mean 'n_layers'"):
        Config.from_dict({"n_layer": 2})
    with pytest.raises(ValueError, match=r"'zzz': known: \['vocab_size'"):
        Config.from_dict({"zzz": 2})
    with pytest.raises(ValueError, match="d_ff must be positive"):
        Config(d_ff=0)
    with pytest.raises(ValueError, match="window must be positive, not -1"):
        Config(window=-1)
    for field, value in (("n_layers", 2.5), ("d_model", "256"), ("window", None)):
        with pytest.raises(ValueError, match=f"{field} must be a whole number, not"):
            Config(**{field: value})
    with pytest.raises(ValueError, match="rope_theta must be positive, not inf"):
        Config(rope_theta=float("inf"))
    with pytest.raises(ValueError, match="norm_eps must be a number, not 'small'"):
        Config(norm_eps="small")
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
    for shape in ((1, 0), (0, 3)):
        with pytest.raises(ValueError, match="no tokens"):
            model(torch.zeros(shape, dtype=torch.long))


def test_input_errors_say_what_to_do():
    model, x = decoder(), tokens(3, 5)
    for wrong in (x[0], x.float()):
        with pytest.raises(ValueError, match=r"whole numbers \(B, T\), not torch\."):
            model(wrong)
    for shift in (97, -97):
        with pytest.raises(ValueError, match=r"ids leave .* 0\.\.96: encode"):
            model(x + shift)
    for lengths, message in (
        ([2, 5], "2 lengths for 3 rows"),
        ([], "0 lengths for 3 rows"),
        ([2, 5, 6], r"must lie in 1\.\.5"),
        ([2, 0, 1], r"must lie in 1\.\.5"),
    ):
        with pytest.raises(ValueError, match=message):
            model(x, None, lengths)
    shallow = dataclasses.replace(TINY, n_layers=1)
    for cache in (KVCache(TINY, 2), KVCache(shallow, 3)):
        with pytest.raises(ValueError, match=r"cache of shape .*wanted"):
            model(x, cache)


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
    path.write_bytes(whole)
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    state = decoder().state_dict()
    save_file({**state, "norm.weight": torch.ones(5)}, path, metadata=about)
    with pytest.raises(ValueError, match="does not hold the weights its config"):
        Decoder.load(path)
    no_tokenizer = {key: about[key] for key in ("format", "config")}
    save_file(state, path, metadata=no_tokenizer)
    with pytest.raises(ValueError, match="belongs to tokenizer unknown, not abc"):
        Decoder.load(path, tokenizer="abc")
    for metadata in (None, {"format": about["format"]}):
        save_file({"x": torch.zeros(1)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"not a file of Decoder\.save"):
            Decoder.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    decoder().save(path)
    before = path.read_bytes()

    def half_written(_, temporary, **__):
        temporary.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("llmbook.saved.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        decoder(std=0.2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

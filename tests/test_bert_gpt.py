"""BERT and GPT-2 from one code base: against Hugging Face, and by invariance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from llmbook import data
from llmbook.attention import future_leak
from llmbook.bert_gpt import Config, Transformer, config_from_hf, visible
from llmbook.bert_gpt import weights_from_hf as renamed

BERT = BertConfig(
    vocab_size=97,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=24,
)
GPT2 = GPT2Config(
    vocab_size=97,
    n_embd=32,
    n_layer=2,
    n_head=4,
    n_positions=24,
    bos_token_id=0,
    eos_token_id=0,
)
REAL = torch.arange(9) < torch.tensor([[9], [6], [2]])
TINY = Config(
    vocab_size=11,
    max_len=12,
    n_layers=2,
    n_heads=2,
    d_model=8,
    d_ff=12,
    n_token_types=0,
    pooler=False,
)


def randomised(model):
    """Every parameter drawn anew, biases too, in double precision."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.double().eval()


def copied(theirs, head="none"):
    state = renamed(theirs.state_dict())
    config = config_from_hf(theirs.config.to_dict(), head)
    ours = Transformer(replace(config, pooler="pooler.weight" in state))
    ours.load_state_dict(state)
    return ours.double().eval()


@pytest.fixture
def ids():
    return torch.randint(97, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("act", ["gelu", "gelu_new"])
def test_bert_equals_hugging_face(ids, act):
    config = BertConfig.from_dict(BERT.to_dict() | {"hidden_act": act})
    types = (ids > 40).long()
    theirs = randomised(BertModel(config))
    ours = copied(theirs)(ids, REAL, types)
    wanted = theirs(ids, attention_mask=REAL.long(), token_type_ids=types)
    assert torch.allclose(ours.hidden, wanted.last_hidden_state, atol=1e-12)
    assert torch.allclose(ours.pooled, wanted.pooler_output, atol=1e-12)
    assert ours.logits is None


def test_masked_head_equals_hugging_face(ids):
    theirs = randomised(BertForMaskedLM(BERT))
    ours = copied(theirs, "mlm")(ids, REAL)
    wanted = theirs(ids, attention_mask=REAL.long()).logits
    assert torch.allclose(ours.logits, wanted, atol=1e-12) and ours.pooled is None


@pytest.mark.parametrize("inner", [None, 40])
def test_gpt2_equals_hugging_face(ids, inner):
    theirs = randomised(
        GPT2LMHeadModel(GPT2Config.from_dict(GPT2.to_dict() | {"n_inner": inner}))
    )
    ours = copied(theirs, "tied")
    wanted = theirs(ids, attention_mask=REAL.long()).logits
    assert torch.allclose(ours(ids, REAL).logits, wanted, atol=1e-12)
    assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-12)


@pytest.mark.parametrize(
    "flag", [{"gelu": "none"}, {"norm_eps": 1e-12}, {"causal": False}]
)
def test_a_wrong_flag_is_seen_in_double_precision(ids, flag):
    theirs = randomised(GPT2LMHeadModel(GPT2))
    right = copied(theirs, "tied")
    wrong = Transformer(replace(right.config, **flag)).double().eval()
    wrong.load_state_dict(right.state_dict())
    assert (wrong(ids).logits - theirs(ids).logits).abs().max() > 1e-9


def test_minilm_equals_automodel_on_a_padded_batch():
    minilm = data.minilm()
    rows = [minilm.tokenizer.encode(t).ids for t in ("a bank", "it rained all day")]
    ids = torch.zeros(2, max(map(len, rows)), dtype=torch.long)
    for row, tokens in zip(ids, rows):
        row[: len(tokens)] = torch.tensor(tokens)
    ours = Transformer(config_from_hf(minilm.config)).eval()
    ours.load_state_dict(renamed(minilm.weights))
    theirs = AutoModel.from_pretrained(minilm.path).eval()
    with torch.no_grad():
        wanted = theirs(ids, attention_mask=(ids > 0).long())
        found = ours(ids, ids > 0)
    assert torch.allclose(found.hidden, wanted.last_hidden_state, atol=1e-4)
    assert torch.allclose(found.pooled, wanted.pooler_output, atol=1e-5)


@pytest.mark.parametrize("padding", [1, 3])
def test_left_padding_changes_nothing_with_positions_of_the_text(ids, padding):
    model = copied(randomised(GPT2LMHeadModel(GPT2)), "tied")
    pads = torch.zeros(3, padding, dtype=torch.long)
    padded = torch.cat([pads, ids], dim=1)
    real = torch.arange(9 + padding).expand(3, -1) >= padding
    positions = (real.cumsum(1) - 1).clamp(min=0)
    found = model(padded, real, positions=positions).logits[:, padding:]
    assert torch.allclose(found, model(ids).logits, atol=1e-12)
    naive = model(padded, real).logits[:, padding:]
    assert not torch.allclose(naive, model(ids).logits, atol=1e-3)


def test_causal_has_no_leak_and_bidirectional_has(ids):
    for causal in (True, False):
        model = randomised(Transformer(replace(TINY, causal=causal)))
        leak = future_leak(lambda x, m=model: m(x).hidden, ids % 11, 4)
        assert (leak < 1e-12) == causal


def test_prefix_covers_the_range_from_causal_to_bidirectional():
    assert torch.equal(visible(5, True, prefix=5), visible(5))
    assert torch.equal(visible(5, True, prefix=0), torch.ones(5, 5).tril().bool())
    mask = visible(4, True, prefix=2)
    assert mask.int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    real = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert visible(3, real=real)[:, 0, 0].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_gradients_reach_every_parameter():
    for head, first in (("mlm", False), ("tied", True)):
        config = replace(TINY, head=head, norm_first=first, pooler=True)
        model = Transformer(config)
        out = model(torch.arange(11)[None])
        (out.logits.square().sum() + out.pooled.sum()).backward()
        for name, weight in model.named_parameters():
            assert weight.grad is not None, name


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="exceed max_len = 12"):
        Transformer(TINY)(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="bert or gpt2, not 'llama'"):
        config_from_hf({"model_type": "llama"})
    with pytest.raises(ValueError, match="unknown activation 'tanh'"):
        config_from_hf(BERT.to_dict() | {"hidden_act": "tanh"})


@pytest.mark.parametrize(
    "switch",
    [{"scale_attn_by_inverse_layer_idx": True}, {"tie_word_embeddings": False}],
)
def test_a_switch_without_a_flag_is_refused(switch):
    with pytest.raises(ValueError, match=next(iter(switch))):
        config_from_hf(GPT2.to_dict() | switch)


def test_conv1d_matrices_are_transposed_not_reshaped():
    theirs = GPT2LMHeadModel(GPT2)
    state = renamed(theirs.state_dict())
    joint = theirs.transformer.h[0].attn.c_attn.weight.detach().numpy()
    for k, letter in enumerate("qkv"):
        ours = state[f"blocks.0.attention.w{letter}.weight"].numpy()
        assert np.array_equal(ours, joint[:, 32 * k : 32 * (k + 1)].T)

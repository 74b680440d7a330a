"""llmbook.attention against PyTorch, and the chapter's graders against its bugs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmbook import attention as A
from llmbook.grading import grade


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def qkv(*shape, dtype=torch.float64):
    return torch.randn(3, *shape, dtype=dtype)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_equals_torch_values_and_gradients(dim):
    x = (30 * torch.randn(4, 5, 6, dtype=torch.float64)).requires_grad_()
    y = x.detach().clone().requires_grad_()
    w = torch.randn(4, 5, 6, dtype=torch.float64)
    (A.softmax(x, dim) * w).sum().backward()
    (torch.softmax(y, dim) * w).sum().backward()
    assert torch.allclose(A.softmax(x, dim), torch.softmax(y, dim), atol=1e-14)
    assert torch.allclose(x.grad, y.grad, atol=1e-12)


def test_softmax_is_stable_and_gives_zeros_where_all_is_masked():
    x = torch.tensor([[1e4, 1e4 + 1], [-torch.inf, -torch.inf], [-torch.inf, 3.0]])
    x.requires_grad_()
    weights = A.softmax(x)
    assert torch.isfinite(weights).all()
    assert torch.allclose(weights[0], torch.softmax(torch.tensor([0.0, 1.0]), 0))
    assert weights[1].tolist() == [0.0, 0.0] and weights[2].tolist() == [0.0, 1.0]
    weights.square().sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("T, S", [(1, 1), (5, 5), (1, 4), (3, 7)])
def test_causal_mask_by_definition(T, S):
    wanted = [[j <= S - T + i for j in range(S)] for i in range(T)]
    assert A.causal_mask(T, S).tolist() == wanted


def test_preconditions_say_what_to_do():
    with pytest.raises(ValueError, match="need at least 5 keys"):
        A.causal_mask(5, 3)
    with pytest.raises(ValueError, match="do not divide"):
        A.split_heads(torch.zeros(2, 3, 10), 4)
    q, k, v = qkv(2, 3, 4)
    with pytest.raises(TypeError, match="True = may look"):
        A.scaled_dot_product_attention(q, k, v, torch.ones(3, 3))
    for x, cut in ((q, 0), (q, 3), (q[:1], 1), (torch.zeros(2, 4, 1), 2)):
        with pytest.raises(ValueError, match="futures that differ"):
            A.future_leak(lambda x: x, x, cut)


def test_padding_mask():
    mask = A.padding_mask([3, 0, 5], 5)
    assert mask.shape == (3, 1, 1, 5) and mask.sum((1, 2, 3)).tolist() == [3, 0, 5]
    assert mask[0, 0, 0].tolist() == [True] * 3 + [False] * 2


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("masked", ["none", "causal", "padding", "both", "blind"])
def test_attention_equals_torch_with_gradients(masked, scale):
    q, k, v = (x.requires_grad_() for x in qkv(2, 3, 5, 8).clone())
    causal, padding = A.causal_mask(5), A.padding_mask([5, 2], 5)
    blind = causal.clone()
    blind[2] = False
    mask = {
        "none": None,
        "causal": causal,
        "padding": padding,
        "both": causal & padding,
        "blind": blind,
    }[masked]
    results = []
    for f in (A.scaled_dot_product_attention, F.scaled_dot_product_attention):
        out = f(q, k, v, mask, scale=scale)
        grads = torch.autograd.grad(out.square().sum(), (q, k, v))
        results.append((out, *grads))
    for ours, theirs in zip(*results):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_weights_sum_to_one_or_zero():
    q, k, _ = qkv(2, 4, 6)
    mask = A.causal_mask(4)
    mask[1] = False
    sums = A.attention_weights(q, k, mask).sum(-1)
    assert torch.allclose(sums, torch.tensor([1.0, 0, 1, 1], dtype=sums.dtype))


def test_queries_at_the_end_equal_the_last_rows():
    q, k, v = qkv(2, 7, 4)
    whole = A.scaled_dot_product_attention(q, k, v, A.causal_mask(7))
    tail = A.scaled_dot_product_attention(q[:, -2:], k, v, A.causal_mask(2, 7))
    assert torch.allclose(tail, whole[:, -2:])


def test_heads_round_trip_and_separate_features():
    x = torch.arange(2 * 3 * 8).reshape(2, 3, 8)
    heads = A.split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2) and torch.equal(A.merge_heads(heads), x)
    assert torch.equal(heads[1, 2], x[1, :, 4:6])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_heads", [1, 4])
def test_module_equals_torch(n_heads, bias):
    theirs = nn.MultiheadAttention(16, n_heads, bias=bias, batch_first=True).double()
    ours = A.MultiHeadAttention(16, n_heads, bias).double()
    linears = (ours.wq, ours.wk, ours.wv)
    with torch.no_grad():
        for to, w in zip(linears, theirs.in_proj_weight.chunk(3)):
            to.weight.copy_(w)
        if bias:
            nn.init.normal_(theirs.in_proj_bias)
            for to, b in zip(linears, theirs.in_proj_bias.chunk(3)):
                to.bias.copy_(b)
        ours.wo.load_state_dict(theirs.out_proj.state_dict())
    x, context, _ = qkv(2, 5, 16)
    context = context[:, :3]
    mask = A.causal_mask(5)
    pairs = [
        (ours(x, mask=mask), theirs(x, x, x, attn_mask=~mask)[0]),
        (ours(x, context), theirs(x, context, context)[0]),
    ]
    for a, b in pairs:
        assert torch.allclose(a, b, atol=1e-10)


def test_future_leak_sees_a_leak_and_nothing_else():
    layer = A.MultiHeadAttention(8, 2).double()
    x = qkv(3, 6, 8)[0]
    assert A.future_leak(lambda x: layer(x, mask=A.causal_mask(6)), x, 3) == 0
    assert A.future_leak(layer, x, 3) > 1e-3
    blocks = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).bool()
    leaks = [A.future_leak(lambda x: layer(x, mask=blocks), x, c) for c in (3, 4)]
    assert leaks[0] == 0 and leaks[1] > 1e-4  # one cut is not enough
    tokens = torch.arange(12).reshape(2, 6)
    embed = nn.Embedding(12, 8).double()
    assert A.future_leak(lambda t: layer(embed(t)), tokens, 5) > 1e-4
    assert A.future_leak(lambda t: embed(t), tokens, 5) == 0


def test_permutation_equivariance_and_key_shift():
    q, k, v = qkv(2, 6, 4)
    order = torch.randperm(6)
    f = A.scaled_dot_product_attention
    shuffled = f(q[:, order], k[:, order], v[:, order])
    assert torch.allclose(shuffled, f(q, k, v)[:, order])
    mask = A.causal_mask(6)
    assert torch.allclose(f(q, k + 3.0, v, mask), f(q, k, v, mask))


# --- the graders know the museum's bugs ---------------------------------------------


def causal_attention(q, k, v, n_heads, bug=None, hidden=-np.inf):
    B, T, D = q.shape
    q, k, v = (x.reshape(B, T, n_heads, -1).swapaxes(1, 2) for x in (q, k, v))
    width = D if bug == "scale" else D // n_heads
    scores = q @ k.mT / np.sqrt(width)
    mask = np.tri(T, dtype=bool)
    if bug == "inverted":
        mask = ~mask
    if bug != "no mask":
        scores = np.where(mask, scores, hidden)
    axis = -2 if bug == "axis" else -1
    with np.errstate(invalid="ignore"):  # a row with nothing to see
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    out = powers / powers.sum(axis=axis, keepdims=True) @ v
    if bug == "view":
        return out.reshape(B, T, D)
    return out.swapaxes(1, 2).reshape(B, T, D)


def test_grader_accepts_the_correct_layer():
    assert grade("attention-2", causal_attention).passed


@pytest.mark.parametrize("bug", ["scale", "inverted", "no mask", "axis", "view"])
def test_grader_catches_every_bug_of_the_museum(bug):
    report = grade("attention-2", lambda *a: causal_attention(*a, bug=bug))
    assert not report.passed and report.hint


def test_grader_catches_a_softmax_that_writes_into_its_arguments():
    def in_place(scores, mask):
        scores[~mask] = -np.inf
        top = scores.max(axis=-1, keepdims=True)
        powers = np.exp(scores - np.where(np.isfinite(top), top, 0))
        return powers / np.maximum(powers.sum(axis=-1, keepdims=True), 1)

    report = grade("attention-1", in_place)
    assert report.failed == "the arguments are left alone"


def test_grader_catches_a_maximum_taken_before_the_mask():
    def early(scores, mask):
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True)) * mask
        total = powers.sum(axis=-1, keepdims=True)
        return powers / np.where(total > 0, total, 1)

    report = grade("attention-1", early)
    assert report.failed == "hidden keys get exactly nothing"


@pytest.mark.parametrize("hidden", [-1e4, -1e9])
def test_grader_catches_a_finite_mask(hidden):
    report = grade("attention-2", lambda *a: causal_attention(*a, hidden=hidden))
    assert report.failed == "large scores do not overflow"


def test_grader_catches_one_maximum_for_all_rows():
    def common(m1, t1, o1, m2, t2, o2):
        m = np.maximum(m1, m2)
        p1, p2 = t1 * np.exp(m1 - m.max()), t2 * np.exp(m2 - m.max())
        with np.errstate(all="ignore"):
            o = (p1[:, None] * o1 + p2[:, None] * o2) / (p1 + p2)[:, None]
            return m, (p1 + p2) * np.exp(m.max() - m), o

    assert not grade("attention-3", common).passed


def test_grader_catches_a_mean_of_the_parts():
    def averaged(m1, t1, o1, m2, t2, o2):
        return np.maximum(m1, m2), t1 + t2, (o1 + o2) / 2

    assert not grade("attention-3", averaged).passed

"""The small engine: against torch on random graphs, and where orders go wrong."""

import gc

import numpy as np
import pytest
import torch

from llmbook import autograd as ag
from llmbook.autograd import Tensor

SHAPES = [(3, 4), (1, 4), (4,), (3, 1), (2, 3, 4), (2, 1, 1)]


def both(data):
    return Tensor(data), torch.tensor(data, requires_grad=True)


def gap(leaves):
    gaps = []
    for ours, theirs in leaves:
        want = 0.0 if theirs.grad is None else theirs.grad.numpy()
        got = 0.0 if ours.grad is None else ours.grad
        assert np.shape(got) == np.shape(want)
        gaps.append(np.max(np.abs(got - want) / (1 + np.abs(want))))
    return max(gaps)


def random_graph(rng, n_steps=15):
    """Leaves and a loss in both libraries; kinks meet no nearly equal numbers."""
    leaves = [both(rng.standard_normal(SHAPES[i])) for i in rng.integers(0, 6, 3)]
    ties = [both(rng.integers(-1, 2, s) / 2.0) for s in ((3, 4), (4,))]
    pool = list(leaves)

    def pick():
        return pool[rng.integers(len(pool))]

    def unary(a, t):
        ours, theirs = [
            (ag.tanh, torch.tanh),
            (ag.relu, torch.relu),
            (lambda x: ag.exp(-x * x), lambda x: torch.exp(-x * x)),
            (lambda x: ag.log(x * x + 1), lambda x: torch.log(x * x + 1)),
            (lambda x: (x * x + 1) ** -0.5, lambda x: (x * x + 1) ** -0.5),
            (lambda x: x.detach() * x, lambda x: x.detach() * x),
        ][rng.integers(6)]
        return ours(a), theirs(t)

    for _ in range(n_steps):
        (a, t), (b, u) = pick(), pick()
        kind = rng.integers(9)
        if kind == 0:
            new = unary(a, t)
        elif kind == 1:
            new = a + b - 0.5, t + u - 0.5
        elif kind == 2:
            new = a * b, t * u
        elif kind == 3:
            new = 2 - a / (1 + b * b), 2 - t / (1 + u * u)
        elif kind == 4:  # a batched product with broadcast leading axes
            a3, t3 = a * np.ones((3, 4)), t * torch.ones(3, 4).double()
            new = a3 @ (b * np.ones((2, 3, 4))).mT, t3 @ (u * torch.ones(2, 3, 4)).mT
            new = new[0][..., :1] / 4, new[1][..., :1] / 4
        elif kind == 5 and a.data.ndim > 1:
            new = a.mean(-1, True), t.mean(-1, keepdim=True)
        elif kind == 6:  # the same row twice
            key = ([0, -1, 0],) if a.shape and a.shape[0] > 1 else ([0, 0, 0],)
            new = a[key].sum(0, True), t[key].sum(0, keepdim=True)
        elif kind == 7:
            x, y = ties[rng.integers(2)]
            new = ag.maximum(x, 0.5 * x), torch.maximum(y, 0.5 * y)
        elif kind == 8:
            x, y = ties[rng.integers(2)]
            new = x.max(-1, True), y.amax(-1, keepdim=True)
        else:
            new = a.reshape(-1).sum() * b, t.reshape(-1).sum() * u
        pool.append((ag.tanh(new[0]), torch.tanh(new[1])))
    loss = sum((x * x).mean() for x, _ in pool)
    return leaves + ties, loss, sum((y * y).mean() for _, y in pool)


@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_equal_torch(seed):
    rng = np.random.default_rng(seed)
    for _ in range(50):
        leaves, ours, theirs = random_graph(rng)
        assert abs(ours.data - theirs.item()) < 1e-12
        ours.backward()
        theirs.backward()
        assert gap(leaves) < 1e-12


def test_a_deep_chain_and_an_exponential_number_of_paths():
    x = Tensor(1.0)
    y = x
    for _ in range(50_000):
        y = y + 1e-5 * y
    y.backward()
    assert np.isclose(x.grad, y.data)  # y = x (1 + 1e-5)**50000
    del y
    gc.collect()


def test_order_lists_every_tensor_once_and_inputs_first():
    x = Tensor(2.0)
    y = x * x
    z = y * x + y
    where = {id(t): i for i, t in enumerate(ag.order(z))}
    assert len(where) == len(ag.order(z)) == 4
    assert all(where[id(x)] < where[id(t)] for t in (y, z))


def test_gradients_add_up_and_detached_values_get_none():
    x = Tensor([1.0, 2.0])
    (x * x.detach()).sum().backward()
    assert np.array_equal(x.grad, [1.0, 2.0])
    (x * x).sum().backward()
    assert np.array_equal(x.grad, [3.0, 6.0])


def test_plain_arrays_stay_constants_on_either_side():
    x, a = Tensor([[1.0, 2.0]]), np.array([[3.0], [4.0]])
    for y in (a * x, x * a, a + x, a - x, a / x, a @ x):
        assert isinstance(y, Tensor) and y.shape == (2, 2)
        assert [e[0].shape for e in y.edges] == [(1, 2)]


def test_cross_entropy_of_huge_logits_has_its_gradient():
    z = Tensor([[800.0, 0.0, -800.0]])
    loss = ag.cross_entropy(z, np.array([[0.0, 1.0, 0.0]]))
    loss.sum().backward()
    assert loss.data == 800
    assert np.allclose(z.grad, [[1.0, -1.0, 0.0]])


def test_errors_name_the_mistake():
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="one number"):
        (x * x).backward()
    with pytest.raises(ValueError, match="two axes"):
        x @ x

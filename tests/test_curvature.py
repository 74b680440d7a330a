"""Curvature by products agrees with dense matrices and trusted solvers."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn

from llmbook.curvature import (
    hessian_operator,
    lanczos,
    power_iteration,
    preconditioned,
    rate_limit,
    sharpness,
)


def symmetric(values, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values),) * 2))
    return q @ np.diag(np.asarray(values, dtype=float)) @ q.T


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(20, 3, dtype=torch.float64)
    y = torch.randn(20, 2, dtype=torch.float64)
    return model, lambda: ((model(x) - y) ** 2).mean()


def dense(model, loss_of):
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    sizes = [p.numel() for p in model.parameters()]
    n = len(theta)
    H = np.zeros((n, n))
    for i in range(n):  # central differences of the gradient
        for sign in (1, -1):
            moved = theta.clone()
            moved[i] += sign * 1e-5
            nn.utils.vector_to_parameters(moved, model.parameters())
            grads = torch.autograd.grad(loss_of(), list(model.parameters()))
            H[i] += sign * torch.cat([g.reshape(-1) for g in grads]).numpy() / 2e-5
    nn.utils.vector_to_parameters(theta, model.parameters())
    assert sum(sizes) == n
    return H


def test_operator_is_the_hessian(net):
    model, loss_of = net
    H = hessian_operator(loss_of(), model.parameters())
    full = np.array([H @ e for e in np.eye(H.shape[0])])
    assert H.shape == (32, 32) and full.dtype == np.float64
    assert np.allclose(full, full.T, atol=1e-12)
    assert np.allclose(full, dense(model, loss_of), atol=1e-7)


def test_operator_in_float32_returns_float64():
    torch.manual_seed(1)
    model = nn.Linear(4, 1)
    x = torch.randn(50, 4)
    H = hessian_operator((model(x) ** 2).mean(), model.parameters())
    rows = np.hstack([x.numpy(), np.ones((50, 1))])
    full = np.array([H @ e for e in np.eye(5)])
    assert full.dtype == np.float64
    assert np.allclose(full, 2 * rows.T @ rows / 50, atol=1e-5)


def test_parameters_without_curvature_give_zero_rows():
    a = torch.tensor([2.0], requires_grad=True)
    b = torch.tensor([3.0], requires_grad=True)
    H = hessian_operator((a**3 + b).sum(), [a, b])
    assert np.allclose(H @ np.ones(2), [12.0, 0.0])


def test_an_operation_without_second_derivative_says_so():
    class OnlyOnce(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**2).sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return 2 * ctx.saved_tensors[0] * grad

    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError):
        hessian_operator(OnlyOnce.apply(x), [x]) @ np.ones(3)


def test_three_solvers_agree(net):
    model, loss_of = net
    H = hessian_operator(loss_of(), model.parameters())
    start = np.random.default_rng(0).normal(size=32)
    exact = eigsh(H, 1, which="LA")[0][0]
    assert np.isclose(lanczos(H, start, 32)[0][-1], exact, atol=1e-9)
    assert np.isclose(sharpness(H, 32), exact, atol=1e-9)
    value, v = power_iteration(H, start, 3000)
    assert np.isclose(value, exact, atol=1e-6) and np.isclose(np.linalg.norm(v), 1)


def test_power_iteration_takes_the_largest_magnitude_lanczos_both_ends():
    A = symmetric([-9, -1, 0.5, 2, 4])
    start = np.random.default_rng(0).normal(size=5)
    assert np.isclose(power_iteration(A, start, 200)[0], -9)
    values, vectors = lanczos(A, start, 5)
    assert np.allclose(values, [-9, -1, 0.5, 2, 4])
    assert np.allclose(A @ vectors, vectors * values)
    assert np.isclose(sharpness(A), 4)


def test_lanczos_stays_inside_the_spectrum_and_orthonormal():
    A = symmetric(np.linspace(-1, 1, 200) ** 3 * 7)
    start = np.random.default_rng(1).normal(size=200)
    for k in (1, 2, 10, 60):
        values, vectors = lanczos(A, start, k)
        assert len(values) == k and (np.diff(values) >= 0).all()
        assert values[0] >= -7 - 1e-9 and values[-1] <= 7 + 1e-9
        assert np.allclose(vectors.T @ vectors, np.eye(k), atol=1e-10)


def test_lanczos_stops_when_the_directions_are_exhausted():
    A = symmetric([3, 3, 3, 1, 1])
    values, _ = lanczos(A, np.random.default_rng(0).normal(size=5), 5)
    assert np.allclose(values, [1, 3])
    assert np.allclose(lanczos(2 * np.eye(4), np.ones(4), 4)[0], [2])


def test_preconditioned_has_the_eigenvalues_of_the_product():
    A, p = symmetric([-2, 0, 1, 5]), np.array([0.5, 2.0, 4.0, 0.1])
    D = preconditioned(A, p**-0.5)
    assert isinstance(D, LinearOperator)
    wanted = np.linalg.eigvals(A / p[:, None]).real
    found = np.linalg.eigvalsh(np.array([D @ e for e in np.eye(4)]))
    assert np.allclose(found, np.sort(wanted))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("averaged", [False, True])
def test_rate_limit_separates_shrinking_from_growing(beta, averaged):
    def size_after(lr, steps=20_000):
        w, m = 1.0, 0.0
        for _ in range(steps):
            gradient = 3.0 * w
            m = beta * m + ((1 - beta) if averaged else 1.0) * gradient
            w -= lr * m
            if abs(w) > 1e6:
                break
        return abs(w)

    limit = rate_limit(3.0, beta, averaged)
    assert size_after(0.99 * limit) < 1e-3
    assert size_after(1.01 * limit) > 1e6


def test_known_limits():
    assert rate_limit(4.0) == 0.5
    assert np.isclose(rate_limit(1.0, 0.9), 3.8)
    assert np.isclose(rate_limit(1.0, 0.9, averaged=True), 38.0)
    assert np.isclose(rate_limit(2.0, momentum=0.5, averaged=True), 3.0)

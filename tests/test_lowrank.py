"""Low rank: against trusted libraries, brute force and known limits."""

import numpy as np
import pytest
from scipy import integrate, optimize
from sklearn.decomposition import PCA

from llmbook import lowrank

SHAPES = [(6, 4), (4, 6), (5, 5)]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("m, n, k, ratio", [(8, 8, 1, 4), (8, 8, 4, 1), (6, 3, 2, 1)])
def test_storage_ratio_counts_the_factors(m, n, k, ratio):
    A, B = np.zeros((m, k)), np.zeros((k, n))
    assert lowrank.storage_ratio(m, n, k) == m * n / (A.size + B.size) == ratio


def test_four_to_one_is_rank_n_over_8_and_break_even_n_over_2():
    assert lowrank.rank_for_ratio(8192, 8192, 4) == 1024
    assert lowrank.rank_for_ratio(8192, 8192, 1) == 4096
    assert lowrank.rank_for_ratio(4, 4, 4) == 0


@pytest.mark.parametrize("m, n", [(384, 384), (384, 1536), (8192, 1024), (7, 5)])
@pytest.mark.parametrize("ratio", [1, 1.5, 4])
def test_rank_for_ratio_is_the_largest_that_fits(m, n, ratio):
    k = lowrank.rank_for_ratio(m, n, ratio)
    assert lowrank.storage_ratio(m, n, k + 1) < ratio
    assert k == 0 or lowrank.storage_ratio(m, n, k) >= ratio


@pytest.mark.parametrize("power, k", [(0, 4), (1, 3), (2, 2)])
def test_rank_for_share_by_count_sum_and_energy(power, k):
    s = np.array([4.0, 3.0, 2.0, 1.0])  # shares of 0.8: count 3.2, sum 8, energy 24
    assert lowrank.rank_for_share(s, 0.8, power) == k
    kept = np.cumsum(s**power)
    assert kept[k - 1] >= 0.8 * kept[-1] > (kept[k - 2] if k > 1 else 0)


@pytest.mark.parametrize("m, n", SHAPES)
def test_truncate_reaches_the_eckart_young_error(rng, m, n):
    W = rng.standard_normal((m, n))
    s = np.linalg.svd(W, compute_uv=False)
    for k in range(1, min(m, n) + 1):
        A, B = lowrank.truncate(W, k)
        assert A.shape == (m, k) and B.shape == (k, n)
        assert np.isclose(np.sum((W - A @ B) ** 2), np.sum(s[k:] ** 2))
        assert np.allclose(np.linalg.norm(A, axis=0), np.linalg.norm(B, axis=1))


@pytest.mark.parametrize("m, n", SHAPES)
def test_truncate_for_inputs_meets_a_brute_force_optimum(rng, m, n):
    X = rng.standard_normal((20, m)) * rng.uniform(0.1, 4, m)
    W, k = rng.standard_normal((m, n)), 2
    A, B = lowrank.truncate_for_inputs(W, X.T @ X, k)
    assert A.shape == (m, k) and np.allclose(B @ B.T, np.eye(k))

    def loss(flat):
        P, Q = flat[: m * k].reshape(m, k), flat[m * k :].reshape(k, n)
        R = X @ (P @ Q - W)
        G = 2 * X.T @ R
        return np.sum(R**2), np.r_[(G @ Q.T).ravel(), (P.T @ G).ravel()]

    starts = rng.standard_normal((6, k * (m + n)))
    brute = min(optimize.minimize(loss, x, jac=True).fun for x in starts)
    assert np.isclose(np.sum((X @ (A @ B - W)) ** 2), brute, rtol=1e-6)
    plain, right = lowrank.truncate(W, k)
    assert np.sum((X @ (plain @ right - W)) ** 2) > brute


def test_truncate_for_inputs_needs_no_invertible_gram(rng):
    X, W = rng.standard_normal((3, 6)), rng.standard_normal((6, 4))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(X.T @ X - 1e-9 * np.eye(6))
    A, B = lowrank.truncate_for_inputs(W, X.T @ X, 3)
    assert np.allclose(X @ A @ B, X @ W)


def test_identity_gram_is_plain_truncation(rng):
    W = rng.standard_normal((6, 4))
    ours = np.matmul(*lowrank.truncate_for_inputs(W, np.eye(6), 2))
    assert np.allclose(ours, np.matmul(*lowrank.truncate(W, 2)))


def test_output_directions_are_a_pca_of_the_outputs(rng):
    X, W = rng.standard_normal((30, 5)), rng.standard_normal((5, 4))
    X -= X.mean(axis=0)
    energies, V = lowrank.output_directions(W, X.T @ X)
    pca = PCA().fit(X @ W)
    assert np.allclose(energies, pca.singular_values_**2)
    assert np.allclose(np.abs(np.sum(V.T * pca.components_, axis=1)), 1)


@pytest.mark.parametrize("m, n", [(64, 64), (64, 256), (300, 100)])
def test_marchenko_pastur_has_the_known_moments_and_edges(m, n):
    s = lowrank.marchenko_pastur(m, n)
    b = min(m, n) / max(m, n)
    assert np.all(np.diff(s) <= 0)
    assert np.isclose(np.mean(s**2), 1, atol=1e-3)
    assert np.isclose(np.mean(s**4), 1 + b, atol=3e-3)
    assert 1 - b**0.5 < s[-1] < s[0] < 1 + b**0.5


def test_marchenko_pastur_is_the_integral_of_the_density():
    b = 0.25
    low, high = 1 - b**0.5, 1 + b**0.5

    def density(x):
        return np.sqrt((high**2 - x**2) * (x**2 - low**2)) / (np.pi * b * x)

    s = lowrank.marchenko_pastur(100, 400)
    for q in (0.1, 0.5, 0.9):
        x = s[int((1 - q) * len(s))]
        assert np.isclose(integrate.quad(density, low, x)[0], q, atol=1e-3)


def test_a_random_matrix_follows_the_curve(rng):
    drawn = rng.uniform(-1, 1, (200, 600)) * 3**0.5 / 600**0.5
    theory = lowrank.marchenko_pastur(200, 600, points=200)
    assert np.abs(np.linalg.svd(drawn, compute_uv=False) - theory).max() < 0.06

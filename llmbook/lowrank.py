"""Low rank: how many numbers it stores, which rank keeps a share, how to truncate.

A matrix ``W`` of shape ``(m, n)`` acts on row vectors, ``y = x @ W``; a linear layer
of PyTorch stores its transpose. ``(A, B)`` is a factorisation ``W ≈ A @ B`` of rank
``k``, with ``A`` of shape ``(m, k)`` and ``B`` of shape ``(k, n)``.
"""

import numpy as np

__all__ = [
    "marchenko_pastur",
    "output_directions",
    "rank_for_ratio",
    "rank_for_share",
    "storage_ratio",
    "truncate",
    "truncate_for_inputs",
]


def storage_ratio(m: int, n: int, k: int) -> float:
    """Return how many times fewer numbers the two factors hold than the matrix.

    Below 1 the factors are the larger of the two. The same ratio holds for the
    multiplications of ``x @ A @ B`` against ``x @ W``.

    Args:
        m: rows of the matrix.
        n: columns of the matrix.
        k: rank kept, at least 1.

    Returns:
        ``m n / (k (m + n))``.

    Built in ch-low-rank-compression.
    """
    return m * n / (k * (m + n))


def rank_for_ratio(m: int, n: int, ratio: float) -> int:
    """Return the largest rank whose factors are ``ratio`` times smaller than ``W``.

    Args:
        m: rows of the matrix.
        n: columns of the matrix.
        ratio: wanted compression, such as 4 for 4:1; 1 gives the break-even rank.

    Returns:
        The rank; 0 when not even rank 1 is small enough.

    Built in ch-low-rank-compression.
    """
    return int(m * n / (ratio * (m + n)))


def rank_for_share(s: np.ndarray, share: float = 0.95, power: int = 2) -> int:
    """Return the smallest rank that keeps a share of the singular values.

    Args:
        s: singular values, descending, shape ``(r,)``; not all zero.
        share: what to keep of the total, between 0 and 1.
        power: 1 counts the sum of the values, 2 the energy (sum of squares), 0 their
            number.

    Returns:
        Smallest ``k`` with ``sum(s[:k]**power) >= share * sum(s**power)``.

    Built in ch-low-rank-compression.
    """
    kept = np.cumsum(np.asarray(s, dtype=float) ** power)
    return int(np.searchsorted(kept, share * kept[-1])) + 1


def truncate(W: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Factor the best rank-``k`` approximation of a matrix in the Frobenius norm.

    Args:
        W: real matrix, shape ``(m, n)``.
        k: rank, ``1 <= k <= min(m, n)``.

    Returns:
        ``(A, B)`` of shapes ``(m, k)`` and ``(k, n)``. Both carry the square roots of
        the singular values, so that neither is much larger than the other.

    Source: Eckart and Young, Psychometrika 1 (1936), 211-218.

    Built in ch-low-rank-compression.
    """
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    root = np.sqrt(s[:k])
    return U[:, :k] * root, root[:, None] * Vt[:k]


def output_directions(W: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal directions of a layer's outputs and their energies.

    Args:
        W: real matrix, shape ``(m, n)``, acting on rows: ``y = x @ W``.
        gram: ``X.T @ X`` of the inputs seen in calibration, shape ``(m, m)``; any
            positive scale. The identity gives the SVD of ``W`` itself.

    Returns:
        ``(energies, V)``: energies descending, shape ``(n,)``, that sum to the energy
        of ``X @ W``; their unit directions in the columns of ``V``, shape ``(n, n)``.

    Built in ch-low-rank-compression.
    """
    energies, V = np.linalg.eigh(W.T @ gram @ W)  # ascending
    return np.maximum(energies[::-1], 0), V[:, ::-1]


def truncate_for_inputs(
    W: np.ndarray, gram: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factor the rank-``k`` matrix whose outputs are nearest to those of ``W``.

    Minimises ``||X @ W - X @ A @ B||`` over all factors of rank ``k``, where ``X`` are
    the inputs seen in calibration. It projects the outputs on their ``k`` principal
    directions; no inverse is taken, so a singular ``gram`` does no harm.

    Args:
        W: real matrix, shape ``(m, n)``, acting on rows: ``y = x @ W``.
        gram: ``X.T @ X``, shape ``(m, m)``; any positive scale.
        k: rank, ``1 <= k <= min(m, n)``.

    Returns:
        ``(A, B)`` of shapes ``(m, k)`` and ``(k, n)``; the rows of ``B`` are
        orthonormal.

    Source: Chen et al., DRONE, NeurIPS 2021; Wang et al., SVD-LLM, ICLR 2025.

    Built in ch-low-rank-compression.
    """
    V = output_directions(W, gram)[1][:, :k]
    return W @ V, V.T


def marchenko_pastur(m: int, n: int, points: int = 20000) -> np.ndarray:
    """Return the singular values that a large random matrix has, in the limit.

    Entries are independent with mean 0 and variance ``1 / max(m, n)``; their
    distribution does not matter. Multiply by ``sigma * sqrt(max(m, n))`` for entries
    of standard deviation ``sigma``.

    Args:
        m: rows; only the aspect ratio ``min(m, n) / max(m, n)`` matters.
        n: columns.
        points: how many quantiles to return.

    Returns:
        ``points`` equally likely singular values, descending, shape ``(points,)``;
        all lie between ``1 - sqrt(aspect)`` and ``1 + sqrt(aspect)``.

    Source: Marchenko and Pastur, Math. USSR-Sbornik 1 (1967), 457-483.

    Built in ch-low-rank-compression.
    """
    b = min(m, n) / max(m, n)
    low, high = 1 - b**0.5, 1 + b**0.5
    x = low + (high - low) * (np.arange(4 * points) + 0.5) / (4 * points)
    density = np.sqrt((high**2 - x**2) * (x**2 - low**2)) / (np.pi * b * x)
    mass = np.cumsum(density)
    where = (np.arange(points) + 0.5) / points
    return np.interp(where, mass / mass[-1], x)[::-1]

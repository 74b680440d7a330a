"""Curvature of a loss without its Hessian matrix, and the step sizes it allows.

A Hessian of n weights has n² entries; its product with one vector costs about two
gradients. Everything here needs products only, so it works on any torch model.
The eigenvalue routines take anything with ``@`` and ``.shape``: an operator from
`hessian_operator`, a SciPy ``LinearOperator`` or a plain symmetric array.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator

__all__ = [
    "hessian_operator",
    "lanczos",
    "power_iteration",
    "preconditioned",
    "rate_limit",
    "sharpness",
]


def hessian_operator(
    loss: torch.Tensor, params: Iterable[torch.Tensor]
) -> LinearOperator:
    """The Hessian of a scalar loss as an operator that multiplies vectors.

    The graph of the loss is kept while the operator lives: several products cost
    one forward pass. Attention must use a kernel with a second derivative, for
    example under ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        loss: scalar tensor that was computed from ``params``, graph not yet freed.
            Dropout draws its mask once, in that forward pass.
        params: iterable of tensors with ``requires_grad``; n entries altogether.

    Returns:
        scipy.sparse.linalg.LinearOperator, shape ``(n, n)``; ``H @ v`` takes and
        returns float64 vectors of shape ``(n,)``, computed in the type of the
        weights. Units: loss per weight squared.

    Raises:
        RuntimeError: from torch, when an operation has no second derivative.

    Source: Pearlmutter (1994). Built in ch-learning-rate-limit.
    """
    params = list(params)
    grads = torch.autograd.grad(loss, params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in grads])  # (n,)

    def product(v: np.ndarray) -> np.ndarray:
        u = torch.as_tensor(v.ravel(), dtype=flat.dtype)
        rows = torch.autograd.grad(
            flat, params, u, retain_graph=True, materialize_grads=True
        )
        return torch.cat([r.reshape(-1) for r in rows]).double().numpy()

    n = flat.numel()
    return LinearOperator((n, n), matvec=product, dtype=np.float64)


def power_iteration(
    A: Any,  # noqa: ANN401 - array or operator
    start: np.ndarray,
    n_steps: int = 100,
) -> tuple[float, np.ndarray]:
    """The eigenvalue of largest magnitude; its sign may be negative.

    Converges like ``(|second| / |first|) ** (2 * n_steps)`` for the value.

    Args:
        A: symmetric, ``@`` on vectors of shape ``(n,)``.
        start: vector ``(n,)`` with some part along the wanted eigenvector.
        n_steps: products with ``A``, at least 1.

    Returns:
        ``(value, vector)``: Rayleigh quotient, with its sign, and a unit vector.

    Built in ch-learning-rate-limit.
    """
    v = start / np.linalg.norm(start)
    for _ in range(n_steps):
        w = A @ v
        value = v @ w  # Rayleigh quotient: keeps the sign
        v = w / np.linalg.norm(w)
    return value, v


def lanczos(
    A: Any,  # noqa: ANN401 - array or operator
    start: np.ndarray,
    n_steps: int = 20,
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalue estimates from both ends of the spectrum at once.

    Every new direction is orthogonalised against all earlier ones, twice, so that no
    eigenvalue appears two times. That takes ``n_steps`` float64 vectors and a working
    copy of them: meant for small models. Where only the top value is wanted, the
    three-term recurrence needs three vectors. Stops early when the directions are
    exhausted.

    Args:
        A: symmetric, ``@`` on vectors of shape ``(n,)``.
        start: non-zero vector ``(n,)``.
        n_steps: products with ``A``, at most n.

    Returns:
        ``(values, vectors)``: at most ``n_steps`` values in ascending order and
        the matching unit vectors as columns, ``(n, len(values))``. The extreme
        ones converge first; none lies outside the true spectrum.

    Built in ch-learning-rate-limit.
    """
    basis, diagonal, off = [start / np.linalg.norm(start)], [], []
    for _ in range(n_steps):
        w = A @ basis[-1]
        diagonal.append(basis[-1] @ w)
        Q = np.array(basis)  # (steps so far, n)
        w = w - Q.T @ (Q @ w)
        w = w - Q.T @ (Q @ w)  # once more: rounding
        off.append(np.linalg.norm(w))
        if off[-1] < 1e-9 * np.abs(diagonal).max():
            break  # the basis spans all that A can reach
        basis.append(w / off[-1])
    k = len(diagonal)
    side = off[: k - 1]
    T = np.diag(diagonal) + np.diag(side, 1) + np.diag(side, -1)
    values, rotation = np.linalg.eigh(T)
    return values, np.array(basis[:k]).T @ rotation


def sharpness(
    A: Any,  # noqa: ANN401 - array or operator
    n_steps: int = 20,
    seed: int = 0,
) -> float:
    """The largest (most positive) eigenvalue by `lanczos` from a random start.

    Args:
        A: symmetric operator or array, shape ``(n, n)``.
        n_steps: products with ``A``; 20 gives two to three digits on a network.
        seed: of the start vector.

    Returns:
        float, a lower bound of the largest eigenvalue.

    Built in ch-learning-rate-limit.
    """
    start = np.random.default_rng(seed).standard_normal(A.shape[0])
    return lanczos(A, start, min(n_steps, A.shape[0]))[0][-1]


def preconditioned(
    A: Any,  # noqa: ANN401 - array or operator
    scale: np.ndarray,
) -> LinearOperator:
    """The operator ``D A D`` with ``D = diag(scale)``.

    With ``scale = P ** -0.5`` its eigenvalues are those of ``P⁻¹ A``, the curvature
    that an optimizer sees which divides its step by P.

    Args:
        A: symmetric operator or array, shape ``(n, n)``.
        scale: positive vector ``(n,)``.

    Returns:
        scipy.sparse.linalg.LinearOperator, shape ``(n, n)``.

    Built in ch-learning-rate-limit.
    """

    def product(v: np.ndarray) -> np.ndarray:
        return scale * (A @ (scale * v.ravel()))

    return LinearOperator(A.shape, matvec=product, dtype=np.float64)


def rate_limit(
    curvature: float, momentum: float = 0.0, averaged: bool = False
) -> float:
    """Largest stable learning rate on a quadratic of this largest curvature.

    Gradient descent 2/λ; heavy ball 2(1 + β)/λ; where momentum averages the
    gradients instead of adding them up (Adam), 2(1 + β)/((1 - β) λ) with λ the
    preconditioned curvature.

    Args:
        curvature: largest eigenvalue λ > 0, in loss per weight squared.
        momentum: β in [0, 1).
        averaged: True for ``m = β m + (1 - β) g``.

    Returns:
        float: learning rates below it are stable.

    Source: Cohen et al. (2021, 2022). Built in ch-learning-rate-limit.
    """
    limit = 2 * (1 + momentum) / curvature
    return limit / (1 - momentum) if averaged else limit

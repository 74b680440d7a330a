"""Assertions whose printed line is the same on every machine.

A check prints the tolerance it was given, never the difference it saw: the
difference depends on the processor, the fact that it is small does not.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["agree", "gradient"]


def _array(x: Any) -> np.ndarray:  # noqa: ANN401 - NumPy array or torch tensor
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":
            x = x.float()
        x = x.numpy()
    return np.asarray(x)


def agree(what: str, ours: Any, theirs: Any, atol: float = 1e-6) -> None:  # noqa: ANN401
    """Assert that two results are the same array, and say so in one line.

    Args:
        what: name of the quantity, for the printed line and the error.
        ours: our result, any shape; NumPy array, torch tensor or number.
        theirs: the trusted library's result, the same shape.
        atol: largest absolute difference allowed, in the units of the result;
            0 demands equality.

    Raises:
        AssertionError: on different shapes, a NaN on one side only, or a
            difference above ``atol``; the message carries the numbers.
        ValueError: when ``atol`` is negative or not finite.
    """
    if not (np.isfinite(atol) and atol >= 0):
        raise ValueError(f"agree: atol must be a finite number >= 0, not {atol!r}")
    a, b = _array(ours), _array(theirs)
    # Small integer types wrap around when subtracted.
    a, b = (x.astype(np.float64) if x.dtype.kind in "iub" else x for x in (a, b))
    if a.shape != b.shape:
        raise AssertionError(f"{what}: shapes differ, ours {a.shape}, theirs {b.shape}")
    if a.size == 0:
        raise AssertionError(f"{what}: nothing to compare, both are empty")
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        raise AssertionError(f"{what}: NaN in different places")
    same = (a == b) | np.isnan(a)  # equal infinities and NaNs have no difference
    gap = float(np.max(np.abs(np.where(same, 0, a) - np.where(same, 0, b))))
    if not gap <= atol:
        raise AssertionError(f"{what}: largest difference {gap:.3g} exceeds {atol:g}")
    shape = f"shape {a.shape}" if a.shape else "a number"
    bound = "exactly equal" if atol == 0 else f"equal to {atol:g}"
    print(f"{what}: {bound}, {shape}")


def gradient(
    f: Callable[[np.ndarray], float],
    grad: np.ndarray,
    x: np.ndarray,
    atol: float = 1e-6,
    step: float = 1e-5,
    what: str = "gradient",
) -> None:
    """Assert that ``grad`` is the gradient of ``f`` at ``x``, by central differences.

    Args:
        f: scalar function of an array shaped like ``x``.
        grad: the claimed gradient, same shape as ``x``.
        x: point of evaluation, float64, any shape; left unchanged.
        atol: largest absolute difference allowed per entry.
        step: half-width of the difference, in the units of ``x``.
        what: name for the printed line.

    Raises:
        AssertionError: when an entry differs by more than ``atol``.
        TypeError: when ``x`` is not float64; single precision cannot carry the
            difference.
    """
    x = np.asarray(x)
    if x.dtype != np.float64:
        raise TypeError(f"gradient: x must be float64 for differences, not {x.dtype}")
    numeric = np.empty_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        numeric[i] = (f(up) - f(down)) / (2 * step)
    agree(f"{what} against central differences", grad, numeric, atol)

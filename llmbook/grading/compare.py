"""What checkers compare answers with: one rule for shapes, infinities and gaps."""

import numpy as np

__all__ = ["close", "same"]


def close(
    ours: object, wanted: object, what: str, atol: float = 1e-9, rtol: float = 0.0
) -> None:
    """Raise AssertionError unless an answer equals what was wanted.

    Args:
        ours: the answer, a number or anything NumPy reads as an array.
        wanted: the reference, of the same shape.
        what: named in the message.
        atol: largest gap of an entry.
        rtol: added to it, times the size of the wanted entry.

    Raises:
        AssertionError: another shape, complex numbers, NaN, an infinity that was not
            wanted or of the other sign, or a gap above the tolerance.
    """
    ours, wanted = np.asarray(ours), np.asarray(wanted, dtype=float)
    if ours.shape != wanted.shape:
        raise AssertionError(f"{what}: shape {ours.shape}, wanted {wanted.shape}")
    if np.iscomplexobj(ours):
        raise AssertionError(f"{what}: holds complex numbers")
    ours = ours.astype(float)
    finite = np.isfinite(wanted)
    if not np.isfinite(ours[finite]).all():
        raise AssertionError(f"{what}: holds NaN or infinity")
    if not np.array_equal(ours[~finite], wanted[~finite]):
        raise AssertionError(f"{what}: an infinity is missing or of the wrong sign")
    gap = np.abs(ours[finite] - wanted[finite])
    if np.any(gap > atol + rtol * np.abs(wanted[finite])):
        values = f" (got {ours}, wanted {wanted})" if wanted.size <= 4 else ""
        raise AssertionError(f"{what}: off by up to {gap.max():.3g}{values}")


def same(ours: object, wanted: np.ndarray, what: str) -> None:
    """Raise AssertionError unless an answer holds the whole numbers that were wanted.

    ``ours`` is anything NumPy reads as an array; shape, an integer dtype and every
    entry must agree with ``wanted``. ``what`` is named in the message.
    """
    ours = np.asarray(ours)
    if ours.shape != wanted.shape:
        raise AssertionError(f"{what}: shape {ours.shape}, wanted {wanted.shape}")
    if not np.issubdtype(ours.dtype, np.integer):
        raise AssertionError(f"{what}: dtype {ours.dtype}, wanted whole numbers")
    if not np.array_equal(ours, wanted):
        where = tuple(int(i) for i in np.argwhere(ours != wanted)[0])
        place = where[0] if len(where) == 1 else where
        raise AssertionError(
            f"{what}: {ours[where]} at {place}, wanted {wanted[where]}"
        )

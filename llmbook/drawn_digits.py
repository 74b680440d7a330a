"""Digits drawn from typefaces: as many small pictures as a curve needs.

scikit-learn's digits end at some 180 pictures per class. These have the same size and
the same grey levels, so that every method for pictures of `llmbook.small_samples` and
`llmbook.small_networks` reads them as they are.
"""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from scipy.ndimage import map_coordinates

from llmbook.small_samples import Task

__all__ = ["FACES", "NEW_FACES", "drawn_digits", "drawn_digits_task", "outlined"]

FACES = (  # to learn from
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "cmr10",
    "cmb10",
    "cmss10",
)
NEW_FACES = (  # seen in a test only
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
    "cmtt10",
)
SIDE, FIELD = 64, 1.25  # of an undistorted digit: cells, and heights of the digit
PIXELS, SUB = 8, 4  # a picture's side, and the samples across one of its pixels


@functools.cache
def outlined(face: str, digit: int) -> np.ndarray:
    """Draw one digit without distortion.

    Args:
        face: file name of a typeface that comes with Matplotlib, without its ending.
        digit: 0 to 9.

    Returns:
        Ink in (64, 64) cells, 0 or 1. The digit's box stands in the middle, and the
        field is 1.25 times as high as the digit.

    Raises:
        FileNotFoundError: Matplotlib has no such typeface.
    """
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not file.exists():
        raise FileNotFoundError(f"no typeface {face} comes with Matplotlib: {file}")
    outline = TextPath((0, 0), str(digit), size=1, prop=FontProperties(fname=file))
    polygons = [np.asarray(p) for p in outline.to_polygons(closed_only=True)]
    low = np.min([p.min(0) for p in polygons], axis=0)
    high = np.max([p.max(0) for p in polygons], axis=0)
    at = FIELD * ((np.arange(SIDE) + 0.5) / SIDE - 0.5) * (high - low)[1]
    x, y = np.meshgrid(at, -at)
    points = np.stack([x.ravel(), y.ravel()], axis=1) + (low + high) / 2
    ink = np.zeros(len(points), dtype=bool)
    for polygon in polygons:  # a hole is a polygon within another
        ink ^= Outline(polygon).contains_points(points)
    return ink.reshape(SIDE, SIDE).astype(float)


def drawn_digits(
    labels: np.ndarray, faces: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Draw a distorted picture of each label.

    Each takes a face of `faces` at random, a height of 5 to 7.5 pixels, an angle of up
    to 20 degrees, a slant of up to 0.3, a place up to one pixel off the middle, and
    noise of standard deviation 0.1; grey is rounded to 16 levels.

    Args:
        labels: (N,) digits.
        faces: typefaces to choose from.
        rng: source of all chance.

    Returns:
        (N, 64) pictures of 8 × 8, row by row, from 0 (paper) to 1 (ink).
    """
    n = len(labels)
    face = rng.integers(len(faces), size=n)
    height = rng.uniform(5, 7.5, n)
    angle = np.radians(rng.uniform(-20, 20, n))
    slant = rng.uniform(-0.3, 0.3, n)
    down, right = rng.uniform(-1, 1, (2, n))
    at = (np.arange(PIXELS * SUB) + 0.5) / SUB - PIXELS / 2
    pictures = np.empty((n, PIXELS, PIXELS))
    for i, digit in enumerate(labels):
        v, h = np.meshgrid(at - down[i], at - right[i], indexing="ij")
        c, s = np.cos(angle[i]), np.sin(angle[i])
        v, h = c * v - s * h, s * v + c * h
        h = h + slant[i] * v
        scale = SIDE / FIELD / height[i]  # cells in a pixel
        where = np.stack([v, h]) * scale + SIDE / 2 - 0.5
        ink = map_coordinates(outlined(faces[face[i]], int(digit)), where, order=1)
        pictures[i] = ink.reshape(PIXELS, SUB, PIXELS, SUB).mean((1, 3))
    pictures += 0.1 * rng.standard_normal(pictures.shape)
    return np.round(16 * pictures.clip(0, 1)).reshape(n, -1) / 16


def drawn_digits_task(n_pool: int = 600, n_test: int = 30) -> Task:
    """Return pictures to learn from and two tests, the second in new typefaces.

    Args:
        n_pool: pictures per class to draw samples from.
        n_test: pictures per class in each test.

    Returns:
        A task as `llmbook.small_samples` describes it, with ``pixels`` (N, 64).
    """
    rng = np.random.default_rng(0)
    sizes = {"pool": n_pool, "known faces": n_test, "new faces": n_test}
    labels = [np.tile(np.arange(10), n) for n in sizes.values()]
    used = [FACES, FACES, NEW_FACES]
    pixels = [drawn_digits(y, f, rng) for y, f in zip(labels, used, strict=True)]
    ends = np.cumsum([len(y) for y in labels])
    rows = np.split(np.arange(ends[-1]), ends[:-1])
    return {
        "pixels": np.concatenate(pixels),
        "y": np.concatenate(labels),
        "pool": rows[0],
        "tests": dict(zip(list(sizes)[1:], rows[1:], strict=True)),
    }

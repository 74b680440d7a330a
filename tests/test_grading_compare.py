"""The comparison that exercise checks share: what it lets through, what it stops."""

import numpy as np
import pytest

from llmbook.grading.compare import close, same


@pytest.mark.parametrize(
    ("ours", "wanted"),
    [
        ([1, 2], [1.0, 2.0]),
        (1.0 + 5e-10, 1.0),
        ([-np.inf, 1.0], [-np.inf, 1.0]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
)
def test_equal_answers_pass(ours, wanted):
    close(ours, wanted, "x")


@pytest.mark.parametrize(
    ("ours", "wanted", "said"),
    [
        ([1.0], 1.0, "shape"),
        ([[1.0, 2.0]], [1.0, 2.0], "shape"),
        ([1 + 0j], [1.0], "complex"),
        ([np.nan], [1.0], "NaN"),
        ([np.inf], [1.0], "NaN or infinity"),
        ([np.inf], [-np.inf], "wrong sign"),
        ([3.0], [np.inf], "missing"),
        ([np.nan], [np.inf], "missing"),
        ([1.0, 2.1], [1.0, 2.0], "off by up to 0.1"),
        (1.0 + 2e-9, 1.0, "off by up to 2e-09"),
    ],
)
def test_other_answers_are_stopped_and_named(ours, wanted, said):
    with pytest.raises(AssertionError, match=f"x: .*{said}"):
        close(ours, wanted, "x")


def test_tolerances_add():
    close(1001.0, 1000.0, "x", atol=0.5, rtol=1e-3)
    with pytest.raises(AssertionError, match="off by"):
        close(1002.0, 1000.0, "x", atol=0.5, rtol=1e-3)


def test_whole_numbers_are_compared_entry_by_entry():
    same([[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), "x")
    wanted = np.array([1, 2])
    for ours, said in (([1, 3], "3 at 1"), ([1.0, 2.0], "dtype"), ([1], "shape")):
        with pytest.raises(AssertionError, match=f"x: .*{said}"):
            same(ours, wanted, "x")

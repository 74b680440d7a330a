"""Checks for the example exercise of ``templates/chapter.md``."""

from collections.abc import Callable

from llmbook.grading import Check, Exercise


def _values(f: Callable[[float, float], int]) -> None:
    for sigma, error, n in [(1.0, 0.5, 4), (2.0, 0.5, 16), (3.0, 0.7, 19)]:
        got = f(sigma, error)
        assert got == n, f"sigma = {sigma}, error = {error}: expected {n}, got {got}"


def _whole(f: Callable[[float, float], int]) -> None:
    got = f(2.0, 0.3)
    assert isinstance(got, int), f"expected an int, got {type(got).__name__}"
    assert got == 45, f"sigma = 2, error = 0.3: 44.4 runs round up to 45, got {got}"


EXERCISES = {
    "template-1": Exercise(
        function="runs_needed",
        checks=(
            Check("known cases", _values, hint="Solve the standard error for n."),
            Check("a whole number", _whole, hint="Runs come whole; too few is wrong."),
        ),
    )
}

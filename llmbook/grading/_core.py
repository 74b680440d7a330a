"""The grader. A check compares values; it never looks at names or printed words."""

import html
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Check", "Exercise", "Report", "grade", "load"]


@dataclass(frozen=True)
class Check:
    """One demand on a reader's function."""

    name: str  # what must be true, in a few words
    test: Callable[[Callable[..., Any]], None]  # raises AssertionError saying why not
    hint: str = ""  # a nudge, not the answer


@dataclass(frozen=True)
class Exercise:
    """The checks of one exercise, and the mutants that no check can tell apart."""

    function: str  # name that the starter and the solution define
    checks: Sequence[Check]
    equivalent: Mapping[str, str] = field(default_factory=dict)  # mutant -> reason


@dataclass(frozen=True)
class Report:
    """What ``grade`` found; displays itself as a short list."""

    exercise: str
    names: tuple[str, ...]
    failed: str = ""  # name of the first failing check
    why: str = ""
    hint: str = ""

    @property
    def passed(self) -> bool:
        """True when every check passed."""
        return not self.failed

    def __repr__(self) -> str:
        if self.passed:
            return f"{self.exercise}: all {len(self.names)} checks pass"
        done = self.names.index(self.failed)
        lines = [f"{self.exercise}: {done} of {len(self.names)} checks pass"]
        lines.append(f"  fails: {self.failed}")
        lines.append(f"  why:   {self.why}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        e = html.escape
        kind = "passed" if self.passed else "open"
        head = repr(self).splitlines()[0]
        body = ""
        if not self.passed:
            body = f"<dl><dt>Fails</dt><dd>{e(self.failed)}</dd>"
            body += f"<dt>Why</dt><dd>{e(self.why)}</dd>"
            body += f"<dt>Hint</dt><dd>{e(self.hint)}</dd>" if self.hint else ""
            body += "</dl>"
        return f"<div class='llmbook-grade grade-{kind}'><p>{e(head)}</p>{body}</div>"


def load(exercise: str) -> Exercise:
    """Find an exercise by its id.

    Args:
        exercise: ``"<chapter slug>-<n>"``, such as ``"attention-1"``.

    Returns:
        Exercise with its checks.

    Raises:
        ValueError: when the id is malformed or no such exercise exists.
    """
    match = re.fullmatch(r"([a-z0-9_]+)-(\d+)", exercise)
    if not match:
        raise ValueError(
            f"no exercise {exercise!r}: an id is a chapter's name and a number, "
            "such as 'attention-1'"
        )
    path = f"llmbook.grading.exercises.{match[1]}"
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise ValueError(
            f"no exercise {exercise!r}: no chapter named {match[1]!r} has graded ones"
        ) from None
    if exercise not in module.EXERCISES:
        known = ", ".join(sorted(module.EXERCISES))
        raise ValueError(f"no exercise {exercise!r}: this chapter has {known}")
    return module.EXERCISES[exercise]


def grade(exercise: str, f: Callable[..., Any]) -> Report:
    """Run an exercise's checks on a reader's function, stopping at the first failure.

    A wrong answer is a report, never an exception: whatever ``f`` raises becomes
    the reason why its check fails.

    Args:
        exercise: id, such as ``"attention-1"``.
        f: the function that the exercise asks for.

    Returns:
        Report; ``report.passed`` is True when all checks pass.

    Raises:
        ValueError: when there is no such exercise.
        TypeError: when ``f`` is not callable.
    """
    task = load(exercise)
    names = tuple(check.name for check in task.checks)
    if not callable(f):
        raise TypeError(
            f"grade({exercise!r}, f): f must be the function {task.function}, "
            f"not {type(f).__name__}; pass it without calling it"
        )
    for check in task.checks:
        try:
            check.test(f)
        except Exception as error:  # whatever the reader's code does is a finding
            return Report(exercise, names, check.name, _reason(error), check.hint)
    return Report(exercise, names)


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return "not written yet"
    if isinstance(error, AssertionError):
        text = str(error).strip()
        return text or "the value is not the expected one"
    return f"{type(error).__name__}: {error}"

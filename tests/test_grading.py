"""The grader, its mutants, and a fooled exercise that the gate must expose."""

import time

import mutants as gate
import pytest
from _book import number, sources

from llmbook.grading import Check, Exercise, grade, load
from llmbook.grading.exercises import template as example
from llmbook.grading.mutation import Mutant, mutants, trial

CHAPTERS = sources()


@pytest.mark.slow
@pytest.mark.parametrize("source", CHAPTERS, ids=[p.stem[3:] for p in CHAPTERS])
def test_every_mutant_of_every_chapter_dies(source):
    items = gate.examine(source)
    print(f"{number(source)}\n{gate.summary(items, verbose=False)}")
    assert len(items) >= 2, "fewer than two graded exercises"
    assert [p for item in items for p in item.problems] == []


def test_the_template_passes_the_gate(template):
    (item,) = gate.examine(template[0])
    assert item.problems == [] and len(item.outcomes) >= 5


def right(sigma, error):
    import math

    return math.ceil((sigma / error) ** 2)


def test_report_says_what_why_and_hint():
    open_report = grade("template-1", lambda s, e: 4)
    assert not open_report.passed
    assert "0 of 2" in repr(open_report) and "expected 16, got 4" in repr(open_report)
    assert "Solve" in open_report.hint and "expected 16" in open_report._repr_html_()
    done = grade("template-1", right)
    assert done.passed and "all 2 checks pass" in repr(done)


def unwritten(sigma, error):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (unwritten, "not written yet"),
        (lambda s: 1, "TypeError"),
        (lambda s, e: None, "None"),
    ],
)
def test_wrong_answers_are_reports_not_exceptions(answer, why):
    report = grade("template-1", answer)
    assert not report.passed and why in report.why


@pytest.mark.parametrize("name", ["template", "nosuch-1", "template-9", "Bad Name-1"])
def test_unknown_exercises_are_named(name):
    with pytest.raises(ValueError, match="no exercise"):
        load(name)


def test_grade_wants_a_function():
    with pytest.raises(TypeError, match="without calling it"):
        grade("template-1", 4)


SOURCE = """
def f(x, n):
    total = x.T @ x / n - 1
    for i in range(1, n):
        if total <= 2.0 and i:
            total = -total.sum(axis=-1, keepdims=True)
    return total
"""


@pytest.mark.parametrize(
    "change",
    [
        "x.T @ x → x @ x.T",
        "x.T → x",
        "x.T @ x / n → x.T @ x * n",
        "x.T @ x / n - 1 → x.T @ x / n + 1",
        "x.T @ x / n - 1 → x.T @ x / n",
        "total <= 2.0 → total < 2.0",
        "2.0 → 4.0",
        "True → False",
        "total <= 2.0 and i → total <= 2.0 or i",
        "range(1, n) → range(1, n - 1)",
        "-total.sum(axis=-1, keepdims=True) → total.sum(axis=-1, keepdims=True)",
        "total.sum → total.mean",
        "1 → 2",
        "1 → 0",
    ],
)
def test_the_operators_the_gate_knows(change):
    assert change in [m.change for m in mutants(SOURCE)]


def test_mutants_compile_and_differ():
    found = [m.source for m in mutants(SOURCE)]
    assert len(found) == len(set(found)) > 15
    for source in found:
        compile(source, "mutant", "exec")


def test_a_fooled_exercise_is_exposed(template, monkeypatch):
    """A checker that accepts anything positive lets mutants survive."""

    def positive(f):
        assert f(2.0, 0.5) > 0, "must be positive"

    weak = Exercise("runs_needed", (Check("positive", positive),))
    monkeypatch.setitem(example.EXERCISES, "template-1", weak)
    (item,) = gate.examine(template[0])
    assert any(o.fate == "survived" for o in item.outcomes)
    assert any("survived" in p for p in item.problems)


def test_a_false_excuse_is_exposed(template, monkeypatch):
    good = example.EXERCISES["template-1"]
    excuse = {"2 → 3": "no difference", "x → y": "no such mutant"}
    listed = Exercise(good.function, good.checks, excuse)
    monkeypatch.setitem(example.EXERCISES, "template-1", listed)
    (item,) = gate.examine(template[0])
    assert any("is killed: 2 → 3" in p for p in item.problems)
    assert any("is no mutant: x → y" in p for p in item.problems)


def test_checks_that_no_cell_calls_are_exposed(template, monkeypatch):
    """An id spelt otherwise in the notebook must not pass as nothing to do."""
    good = example.EXERCISES["template-1"]
    monkeypatch.setitem(example.EXERCISES, "template-2", good)
    items = {item.exercise: item for item in gate.examine(template[0])}
    assert items["template-1"].problems == []
    assert items["template-2"].problems == [
        "has checks but is not graded in the chapter"
    ]


def test_a_hanging_mutant_is_stopped_and_listed():
    hang = Mutant("x → x", 1, "def runs_needed(s, e):\n    while True:\n        pass")
    start = time.perf_counter()
    outcome = trial("template-1", hang, {}, seconds=0.5)
    assert outcome.fate == "timeout" and time.perf_counter() - start < 5


def test_a_crashing_mutant_counts_as_killed():
    crash = Mutant("x → x", 1, "import os\ndef runs_needed(s, e):\n    os._exit(3)")
    assert trial("template-1", crash, {}).fate == "killed"


def test_a_correct_solution_in_a_child_survives():
    same = Mutant(
        "x → x",
        1,
        "import math\ndef runs_needed(s, e):\n    return math.ceil((s / e) ** 2)",
    )
    assert trial("template-1", same, {}).fate == "survived"


@pytest.mark.parametrize(
    ("usually", "fates"),
    [("right", ("survived", "killed")), ("wrong", ("killed", "survived"))],
)
def test_a_verdict_by_luck_is_found_when_it_is_tried_again(usually, fates):
    """Checks draw fresh numbers; here the calls 40 to 59 draw the odd ones."""
    source = (
        "import math\n"
        "def runs_needed(s, e):\n"
        "    math.calls = getattr(math, 'calls', 0) + 1\n"
        "    lucky = math.calls // 20 == 2\n"
        f"    right = lucky == {usually == 'wrong'}\n"
        "    return math.ceil((s / e) ** 2) if right else 0"
    )
    mutant = Mutant("x → x", 1, source)
    found = [trial("template-1", mutant, {}, again=n).fate for n in (0, 100)]
    assert tuple(found) == fates

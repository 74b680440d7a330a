"""Flip the evidence and the verdict must flip; nothing else may name it."""

import inspect
import json
import math

import numpy as np
import pytest
from scipy import stats

from llmbook import claims
from llmbook.claims import Case, Rule, interval, verdict

A = Case("a", "quantity", "<=", 1.0, "a holds", margin=0.1)
B = Case("b", "quantity", ">=", 5.0, "b holds", margin=0.5)


def text(**evidence):
    return verdict("C00", Rule("C00", (A, B)), evidence).text


def test_all_four_verdicts_from_evidence_alone():
    assert text(a=0.5, b=6) == "holds"
    assert text(a=2.0, b=1) == "does not hold"
    assert text(a=0.5, b=1) == "holds when a holds"
    assert text(a=2.0, b=6) == "holds when b holds"
    assert text(a=1.0, b=6) == "not settled here"  # inside the margin
    assert text(a=0.5, b=(4, 7)) == "not settled here"  # the interval straddles


def test_two_settings_are_joined():
    third = Case("c", "q", "<", 0.0, "c holds")
    v = verdict("C00", Rule("C00", (A, B, third)), {"a": 0, "b": 9, "c": 1})
    assert v.text == "holds when a holds; or when b holds"


def test_dated_needs_then_and_now_to_differ():
    rule = Rule(
        "C00",
        (
            Case("old", "q", ">", 0.0, "in 2020", era="then"),
            Case("new", "q", ">", 0.0, "today"),
        ),
    )
    assert verdict("C00", rule, {"old": 1, "new": -1}).status == "dated"
    assert verdict("C00", rule, {"old": 1, "new": 1}).status == "holds"
    assert verdict("C00", rule, {"old": -1, "new": 1}).text == "holds when today"
    assert verdict("C00", rule, {"old": -1, "new": -1}).status == "does not hold"


@pytest.mark.parametrize(
    ("comparison", "yes", "no", "edge"),
    [
        ("<=", 0.9, 1.2, "yes"),
        ("<", 0.8, 1.1, "undecided"),
        (">=", 1.1, 0.8, "yes"),
        (">", 1.2, 0.9, "undecided"),
        ("==", 1.05, 1.2, "yes"),
    ],
)
def test_every_comparison_with_its_margin(comparison, yes, no, edge):
    case = Case("x", "q", comparison, 1.0, "s", margin=0.1)
    assert case.outcome(yes) == "yes" and case.outcome(no) == "no"
    boundary = {"<=": 0.9, "<": 0.9, ">=": 1.1, ">": 1.1, "==": 1.0}[comparison]
    assert case.outcome(boundary) == edge
    exact = Case(
        "x", "q", comparison, 1.0, "s", margin=0.1 if comparison == "==" else 0
    )
    assert exact.outcome(1.0) == ("no" if comparison in "<>" else "yes")


def test_no_argument_names_the_verdict():
    assert list(inspect.signature(verdict).parameters) == ["claim", "rule", "evidence"]
    assert not any("verdict" in n or "holds" in n for n in Rule.__dataclass_fields__)
    assert not any("verdict" in n or "holds" in n for n in Case.__dataclass_fields__)


def test_card_carries_text_html_and_data_that_agree():
    v = verdict("C00", Rule("C00", (A, B), untested="the <moon>"), {"a": 0.5, "b": 1})
    bundle = v._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", claims.MIME}
    data = json.loads(json.dumps(bundle[claims.MIME]))
    assert data["verdict"] == "holds when a holds" and data["outcomes"]["b"] == "no"
    for part in ("text/plain", "text/html"):
        assert "holds when a holds" in bundle[part]
    assert "&lt;moon&gt;" in bundle["text/html"]


def test_noise_below_the_floor_is_not_printed():
    case = Case("x", "gap", "<=", 1e-6, "s", floor=1e-6)
    show = [repr(verdict("C0", Rule("C0", [case]), {"x": g})) for g in (2e-9, 7e-8)]
    assert show[0] == show[1] and "< 1e-06" in show[0]


@pytest.mark.parametrize(
    "evidence",
    [
        {"a": 1},
        {"a": 1, "b": 2, "c": 3},
        {"a": math.nan, "b": 1},
        {"a": (2, 1), "b": 1},
        {"a": (1, 2, 3), "b": 1},
    ],
)
def test_bad_evidence_is_refused(evidence):
    with pytest.raises(ValueError, match="C00"):
        verdict("C00", Rule("C00", (A, B)), evidence)


def test_bad_rules_are_refused():
    for bad in (
        {"comparison": "~"},
        {"margin": -1},
        {"bound": math.inf},
        {"era": "soon"},
        {"comparison": "==", "margin": 0},
        {"digits": 0},
    ):
        with pytest.raises(ValueError, match="case 'x'"):
            Case(
                **{
                    "name": "x",
                    "quantity": "q",
                    "comparison": "<",
                    "bound": 1.0,
                    "setting": "s",
                    **bad,
                }
            )
    with pytest.raises(ValueError, match="at least one"):
        Rule("C00", ())
    with pytest.raises(ValueError, match="must differ"):
        Rule("C00", (A, A))
    with pytest.raises(ValueError, match="rule is for"):
        verdict("C01", Rule("C00", (A,)), {"a": 1})


def test_interval_is_students():
    x = np.random.default_rng(0).normal(3, 2, 12)
    low, high = stats.t.interval(0.9, 11, x.mean(), stats.sem(x))
    assert np.allclose(interval(x, 0.9), (low, high))


@pytest.mark.parametrize("bad", [[1.0], [1.0, math.nan], [[1.0, 2.0]]])
def test_interval_refuses(bad):
    with pytest.raises(ValueError, match="interval"):
        interval(bad)

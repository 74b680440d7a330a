"""A claim on trial: the rule first, then the evidence, then a derived verdict.

No argument names the verdict. ``verdict`` compares the evidence with the rule;
change the evidence and the verdict changes. The card is stored in the notebook
as text, as HTML and as structured data, from which the ledger page is built.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MIME", "Case", "Rule", "Verdict", "derive", "interval", "verdict"]

MIME = "application/vnd.llmbook.claim+json"
_COMPARISONS = {"<=": "≤", "<": "<", ">=": "≥", ">": ">", "==": "="}
Value = float | tuple[float, float]


@dataclass(frozen=True)
class Case:
    """One prediction of a claim, stated before it is measured."""

    name: str  # short, unique within the rule
    quantity: str  # what is measured, with its unit
    comparison: str  # one of <= < >= > ==
    bound: float  # what it is compared with, in the same unit
    setting: str  # where; reads well after "holds when"
    margin: float = 0.0  # how far beyond the bound counts; for ==, the tolerance
    digits: int = 2  # significant digits shown; fewer is more portable
    floor: float = 0.0  # smaller absolute values are rounding noise: shown as "< floor"
    era: str = "now"  # "then": what was true once, for verdict "dated"

    def __post_init__(self) -> None:
        if self.comparison not in _COMPARISONS:
            raise ValueError(
                f"case {self.name!r}: comparison {self.comparison!r} is unknown; "
                f"use one of {' '.join(_COMPARISONS)}"
            )
        if not (math.isfinite(self.bound) and math.isfinite(self.margin)):
            raise ValueError(f"case {self.name!r}: bound and margin must be finite")
        if self.margin < 0:
            raise ValueError(f"case {self.name!r}: margin must be >= 0")
        if self.comparison == "==" and self.margin == 0:
            raise ValueError(f"case {self.name!r}: '==' needs a margin > 0")
        if self.era not in ("now", "then"):
            raise ValueError(f"case {self.name!r}: era must be 'now' or 'then'")
        if self.digits < 1 or self.floor < 0:
            raise ValueError(f"case {self.name!r}: digits must be >= 1, floor >= 0")

    def outcome(self, value: Value) -> str:
        """Return ``yes``, ``no`` or ``undecided`` for a number or an interval."""
        low, high = value if isinstance(value, tuple) else (value, value)
        b, m = self.bound, self.margin
        if self.comparison == "==":
            yes, no = b - m <= low and high <= b + m, high < b - m or low > b + m
        elif self.comparison == "<=":
            yes, no = high <= b - m, low > b + m
        elif self.comparison == "<":
            yes, no = high < b - m, low >= b + m
        elif self.comparison == ">=":
            yes, no = low >= b + m, high < b - m
        else:
            yes, no = low > b + m, high <= b - m
        return "yes" if yes else "no" if no else "undecided"


@dataclass(frozen=True)
class Rule:
    """What would make a claim true, as cases; shown before the experiment.

    ``untested`` says what was left out and what testing it would take.
    """

    claim: str
    cases: Sequence[Case]
    untested: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cases", tuple(self.cases))
        names = [case.name for case in self.cases]
        if not names:
            raise ValueError(f"rule for {self.claim}: give at least one case")
        if all(case.era == "then" for case in self.cases):
            raise ValueError(f"rule for {self.claim}: add a case for today")
        if len(set(names)) != len(names):
            raise ValueError(f"rule for {self.claim}: case names must differ: {names}")

    def __repr__(self) -> str:
        lines = [f"Rule for {self.claim}"]
        for case in self.cases:
            lines.append(f"  {case.name}: {_demand(case)} [{case.setting}]")
        if self.untested:
            lines.append(f"  not tested: {self.untested}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th scope='row'>{_e(c.name)}</th><td>{_e(c.setting)}</td>"
            f"<td>{_e(c.quantity)}</td><td>{_e(_bound(c))}</td></tr>"
            for c in self.cases
        )
        return (
            f"<div class='llmbook-rule'><p><strong>Rule for {_e(self.claim)}</strong>, "
            "stated before the experiment</p><div class='llmbook-scroll'><table>"
            "<thead><tr><th>Case</th><th>Setting</th><th>Quantity</th>"
            f"<th>Must be</th></tr></thead><tbody>{rows}</tbody></table></div>"
            f"{_untested(self.untested)}</div>"
        )


@dataclass(frozen=True)
class Verdict:
    """A derived verdict with the rule and the evidence it came from."""

    rule: Rule
    evidence: Mapping[str, Value]
    outcomes: Mapping[str, str]
    status: str  # holds | holds when | does not hold | dated | not settled here
    text: str  # the status, with the settings after "holds when"

    def data(self) -> dict[str, Any]:
        """Return the structured form that the ledger reads (JSON types only)."""
        return {
            "claim": self.rule.claim,
            "verdict": self.text,
            "status": self.status,
            "rule": {
                "cases": [asdict(case) for case in self.rule.cases],
                "untested": self.rule.untested,
            },
            "evidence": {
                c.name: _rounded(self.evidence[c.name], c) for c in self.rule.cases
            },
            "outcomes": dict(self.outcomes),
        }

    def __repr__(self) -> str:
        lines = [f"{self.rule.claim}: {self.text}"]
        for case in self.rule.cases:
            value = _show(self.evidence[case.name], case)
            lines.append(
                f"  {self.outcomes[case.name]:9} {case.name}: {value} "
                f"(must be {_bound(case)})"
            )
        if self.rule.untested:
            lines.append(f"  not tested: {self.rule.untested}")
        return "\n".join(lines)

    def _repr_mimebundle_(
        self,
        include: object = None,
        exclude: object = None,
    ) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._html(), MIME: self.data()}

    def _html(self) -> str:
        rows = "".join(
            f"<tr class='outcome-{self.outcomes[c.name]}'>"
            f"<th scope='row'>{_e(c.name)}</th><td>{_e(c.quantity)}</td>"
            f"<td>{_e(_bound(c))}</td>"
            f"<td>{_e(_show(self.evidence[c.name], c))}</td>"
            f"<td>{self.outcomes[c.name]}</td></tr>"
            for c in self.rule.cases
        )
        kind = self.status.replace(" ", "-")
        return (
            f"<div class='llmbook-claim verdict-{kind}'>"
            f"<p><strong>{_e(self.rule.claim)}</strong> "
            f"<span class='llmbook-verdict'>{_e(self.text)}</span></p>"
            "<div class='llmbook-scroll'><table><thead><tr><th>Case</th>"
            "<th>Quantity</th><th>Must be</th><th>Measured</th><th>Met</th></tr>"
            f"</thead><tbody>{rows}</tbody></table></div>"
            f"{_untested(self.rule.untested)}</div>"
        )


def verdict(claim: str, rule: Rule, evidence: Mapping[str, Value]) -> Verdict:
    """Derive the verdict on a claim from its rule and the measured evidence.

    A case is *yes* when the number (or the whole interval) satisfies its
    comparison with the margin to spare, *no* when it misses by the margin, else
    *undecided*. All yes: holds. All no: does not hold. Some of each: holds when
    the settings of the yes cases. Some ``then`` case yes and all ``now`` cases no:
    dated. Anything undecided: not settled here.

    Args:
        claim: id in the ledger, such as ``"C19"``; must be the rule's.
        rule: the rule that was stated before the experiment.
        evidence: for every case name a number or a ``(low, high)`` interval.

    Returns:
        Verdict, which displays itself in a notebook.

    Raises:
        ValueError: when the ids differ, a case lacks evidence, or evidence names no
            case, is not finite or is an interval that runs backwards.
    """
    if claim != rule.claim:
        raise ValueError(f"verdict for {claim!r}, but the rule is for {rule.claim!r}")
    names = {case.name for case in rule.cases}
    if names != set(evidence):
        missing, extra = names - set(evidence), set(evidence) - names
        raise ValueError(
            f"{claim}: evidence must name every case once; missing "
            f"{sorted(missing) or 'none'}, unknown {sorted(extra) or 'none'}"
        )
    values = {name: _clean(claim, name, value) for name, value in evidence.items()}
    # Judged as shown: a reader must be able to derive the verdict from the card.
    outcomes = {c.name: c.outcome(_shown(values[c.name], c)) for c in rule.cases}
    status, text = derive(rule, outcomes)
    return Verdict(rule, values, outcomes, status, text)


def derive(rule: Rule, outcomes: Mapping[str, str]) -> tuple[str, str]:
    """Turn the outcomes of all cases into ``(status, verdict text)``."""
    met = {outcomes[case.name] for case in rule.cases}
    then = {outcomes[case.name] for case in rule.cases if case.era == "then"}
    now = {outcomes[case.name] for case in rule.cases if case.era == "now"}
    if "undecided" in met:
        return "not settled here", "not settled here"
    if "yes" in then and now == {"no"}:
        return "dated", "dated"
    if met == {"yes"}:
        return "holds", "holds"
    if met == {"no"}:
        return "does not hold", "does not hold"
    settings = [c.setting for c in rule.cases if outcomes[c.name] == "yes"]
    return "holds when", "holds when " + "; or when ".join(settings)


def interval(samples: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval for the mean of independent samples, such as seeds.

    Args:
        samples: at least two finite numbers, shape ``(n,)``.
        level: confidence, between 0 and 1.

    Returns:
        ``(low, high)`` in the units of the samples.

    Raises:
        ValueError: with fewer than two samples, a non-finite one or a bad level.
    """
    import numpy as np
    from scipy import stats

    x = np.asarray(samples, dtype=float)
    if x.ndim != 1 or x.size < 2:
        raise ValueError(f"interval: needs at least 2 numbers in a row, got {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("interval: a sample is not finite; report that run instead")
    if not 0 < level < 1:
        raise ValueError(f"interval: level must lie between 0 and 1, not {level}")
    half = stats.t.ppf((1 + level) / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size)
    return float(x.mean() - half), float(x.mean() + half)


def _clean(claim: str, name: str, value: object) -> Value:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    numbers = [float(part) for part in parts]
    if len(numbers) not in (1, 2) or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f"{claim}, case {name!r}: evidence must be a number or a (low, high) "
            f"pair of finite ones, not {value!r}"
        )
    if len(numbers) == 1:
        return numbers[0]
    if numbers[0] > numbers[1]:
        raise ValueError(f"{claim}, case {name!r}: interval {value!r} runs backwards")
    return numbers[0], numbers[1]


def _demand(case: Case) -> str:
    return f"{case.quantity} {_bound(case)}"


def _bound(case: Case) -> str:
    sign = _COMPARISONS[case.comparison]
    if case.comparison == "==":
        return f"= {case.bound:g} ± {case.margin:g}"
    margin = f", margin {case.margin:g}" if case.margin else ""
    return f"{sign} {case.bound:g}{margin}"


def _round(x: float, case: Case) -> float:
    return 0.0 if abs(x) < case.floor else float(f"{x:.{case.digits}g}")


def _shown(value: Value, case: Case) -> Value:
    if isinstance(value, tuple):
        return _round(value[0], case), _round(value[1], case)
    return _round(value, case)


def _rounded(value: Value, case: Case) -> float | list[float]:
    if isinstance(value, tuple):
        return [_round(x, case) for x in value]
    return _round(value, case)


def _show(value: Value, case: Case) -> str:
    def one(x: float) -> str:
        if abs(x) < case.floor:
            return f"< {case.floor:g}"
        if x != 0 and math.isfinite(x) and not 1e-4 <= abs(x) < 1e6:
            return f"{x:.{case.digits - 1}e}"
        return f"{_round(x, case):g}"

    if isinstance(value, tuple):
        return f"{one(value[0])} to {one(value[1])}"
    return one(value)


def _untested(text: str) -> str:
    return f"<p class='llmbook-untested'>Not tested: {_e(text)}</p>" if text else ""


def _e(text: str) -> str:
    return html.escape(text, quote=False)

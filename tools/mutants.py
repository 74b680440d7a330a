"""The exercise gate: starters fail, solutions pass, every mutant dies.

python tools/mutants.py            all chapters
python tools/mutants.py 3.02       one chapter, with every mutant listed
python tools/mutants.py --again 50 every verdict 51 times: which one is luck?
"""

import argparse
import ast
import importlib.util
import os
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _book import find, number, read_source, sources

CALL = re.compile(r"grade\(\s*[\"']([a-z0-9_]+-\d+)[\"']")


@dataclass
class Graded:
    """One graded exercise of a chapter and what the gate found."""

    exercise: str
    solution: str = ""
    starter: str = ""
    problems: list[str] = field(default_factory=list)
    outcomes: list[Any] = field(default_factory=list)  # mutation.Outcome


def imports(cells: list[Any]) -> dict[str, Any]:
    """Return the names that a chapter's import statements define."""
    names: dict[str, Any] = {}
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or {"starter", "solution"} & set(tags):
            continue
        tree = ast.parse(cell.source)
        tree.body = [
            n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))
        ]
        exec(compile(tree, "<imports>", "exec"), names)
    return names


def collect(source: Path) -> dict[str, Graded]:
    """Find every ``grade("slug-n", f)`` in a chapter's starters and solutions."""
    graded: dict[str, Graded] = {}
    for cell in read_source(source).cells:
        tags = cell.metadata.get("tags", [])
        for exercise in CALL.findall(cell.source) if cell.cell_type == "code" else []:
            item = graded.setdefault(exercise, Graded(exercise))
            if "solution" in tags:
                item.solution = cell.source
            elif "starter" in tags:
                item.starter = cell.source
    return graded


def checked(source: Path) -> set[str]:
    """Return the ids that the chapter's file of checks defines."""
    name = f"llmbook.grading.exercises.{source.stem[3:]}"
    if importlib.util.find_spec(name) is None:
        return set()
    return set(importlib.import_module(name).EXERCISES)


def examine(source: Path, again: int = 0) -> list[Graded]:
    """Put every graded exercise of a chapter through the gate."""
    from llmbook.grading import grade, load
    from llmbook.grading.mutation import Mutant, mutants, trial

    names = imports(read_source(source).cells)
    items = sorted(collect(source).values(), key=lambda item: item.exercise)
    items += [
        Graded(exercise, problems=["has checks but is not graded in the chapter"])
        for exercise in sorted(checked(source) - {item.exercise for item in items})
    ]
    for item in items:
        if item.problems:
            continue
        function = load(item.exercise).function
        for kind, code, wanted in (
            ("starter", item.starter, False),
            ("solution", item.solution, True),
        ):
            if not code:
                item.problems.append(f"no cell tagged {kind}")
                continue
            space = dict(names)
            tree = ast.parse(code)
            keep = (ast.FunctionDef, ast.Import, ast.ImportFrom)
            tree.body = [n for n in tree.body if isinstance(n, keep)]
            exec(compile(tree, f"<{kind} of {item.exercise}>", "exec"), space)
            if function not in space:
                item.problems.append(f"the {kind} does not define {function}")
            elif (report := grade(item.exercise, space[function])).passed != wanted:
                verb = "fails" if wanted else "passes"
                item.problems.append(f"the {kind} {verb}: {report!r}")
        if item.problems:
            continue
        # The control: unmutated, in the same kind of child, it must pass.
        tree = ast.parse(item.solution)
        kept = (ast.FunctionDef, ast.Import, ast.ImportFrom)
        tree.body = [node for node in tree.body if isinstance(node, kept)]
        whole = Mutant("none", 0, ast.unparse(tree))
        control = trial(item.exercise, whole, names, again=again)
        if control.fate != "survived":
            item.problems.append(f"unmutated, the solution is {control.fate}")
            continue
        used = set()
        for mutant in mutants(item.solution):
            outcome = trial(item.exercise, mutant, names, again=again)
            item.outcomes.append(outcome)
            used.add(mutant.change)
            if outcome.fate == "survived":
                item.problems.append(f"survived: line {mutant.line}: {mutant.change}")
        listed = load(item.exercise).equivalent
        excused = [o.mutant.change for o in item.outcomes if o.fate == "equivalent"]
        equal = set(excused)
        for change in sorted(c for c in equal if excused.count(c) > 1):
            item.problems.append(f"one excuse for several mutants: {change}")
        for change in sorted(set(listed) - equal):
            why = "is killed" if change in used else "is no mutant"
            item.problems.append(f"listed as equivalent, but {why}: {change}")
        if not item.outcomes:
            item.problems.append("the solution has no mutant: too little to grade")
    return items


def summary(items: list[Graded], verbose: bool) -> str:
    """Describe a chapter's exercises in a few lines."""
    lines = []
    for item in items:
        fates = Counter(o.fate for o in item.outcomes)
        counts = ", ".join(f"{n} {fate}" for fate, n in sorted(fates.items()))
        lines.append(f"  {item.exercise}: {counts or 'nothing tried'}")
        for outcome in item.outcomes:
            if verbose or outcome.fate in ("timeout", "equivalent"):
                reason = outcome.detail if outcome.fate != "survived" else ""
                lines.append(f"    {outcome.fate:10} {outcome.mutant.change}  {reason}")
        lines += [f"    PROBLEM: {problem}" for problem in item.problems]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the gate; returns 1 when anything survived or is inconsistent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*")
    parser.add_argument("--again", type=int, default=0, metavar="TIMES")
    args = parser.parse_args(argv)
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    warnings.simplefilter("ignore")
    bad = 0
    for source in find(args.chapters) if args.chapters else sources():
        items = examine(source, args.again)
        print(f"{number(source)} {source.stem[3:]}")
        print(summary(items, verbose=bool(args.chapters)))
        bad += sum(len(item.problems) for item in items)
    print(f"{bad} problems" if bad else "starters fail, solutions pass, no survivor")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

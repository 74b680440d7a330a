"""The static gates: each returns a list of problems, empty when the gate is passed.

    python tools/gates.py 3.02       what they hold against a chapter, and its lengths

They read files and run nothing. `tests/test_gates.py` applies them to every
chapter and shows, on spoiled copies, that each one can fail.
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from _book import ROOT, find, number, read_source, sources

MIME = "application/vnd.llmbook.claim+json"
STATUSES = ("holds", "holds when", "does not hold", "dated", "not settled here")


def load_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook's JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(nb: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the code cells of a notebook, in order."""
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code"]


def source_of(cell: dict[str, Any]) -> str:
    """Return a cell's text, whether stored as one string or as lines."""
    return "".join(cell["source"])


def tags_of(cell: dict[str, Any]) -> list[str]:
    """Return a cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def twin(md: Path, nb: dict[str, Any]) -> list[str]:
    """Gate 1: source and notebook hold the same cells with the same metadata."""
    ours, theirs = read_source(md).cells, nb["cells"]
    problems = []
    if len(ours) != len(theirs):
        problems.append(f"{len(ours)} cells in the source, {len(theirs)} built")
    for i, (a, b) in enumerate(zip(ours, theirs), 1):
        keep = {k: v for k, v in a.metadata.items() if k in ("tags", "mystnb")}
        if a.cell_type != b["cell_type"] or a.source != source_of(b):
            problems.append(f"cell {i} differs: source has {a.source[:60]!r}")
        elif keep != b.get("metadata", {}):
            problems.append(f"cell {i}: metadata differs: {keep} / {b['metadata']}")
    return problems


def order(nb: dict[str, Any]) -> list[str]:
    """Gate 2: executed once, in order, from a clean kernel, without complaint."""
    problems = []
    cells = code_cells(nb)
    counts = [cell.get("execution_count") for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        problems.append(f"execution counts are {counts}, not 1..{len(cells)}")
    for i, cell in enumerate(cells, 1):
        for out in cell["outputs"]:
            kind = out["output_type"]
            if kind == "error" and "raises-exception" not in tags_of(cell):
                problems.append(f"code cell {i}: stored error {out['ename']}")
            if kind == "stream" and out["name"] == "stderr":
                problems.append(f"code cell {i}: writes to stderr")
    for cell in nb["cells"]:
        extra = set(cell.get("metadata", {})) - {"tags", "mystnb"}
        if extra:
            problems.append(f"cell metadata beyond tags and mystnb: {sorted(extra)}")
    return problems


TAGS = {
    "claim",
    "export",
    "hide-input",
    "nbval-ignore-output",
    "no-live",
    "photo",
    "raises-exception",
    "rule",
    "solution",
    "starter",
}


def ignored(nb: dict[str, Any]) -> list[str]:
    """At most two cells may go uncompared, and never a claim or a whole chapter."""
    cells = [c for c in code_cells(nb) if "nbval-ignore-output" in tags_of(c)]
    problems = []
    if len(cells) > 2:
        problems.append(f"{len(cells)} cells with ignored output; at most two")
    for cell in cells:
        if {"claim", "rule", "solution"} & set(tags_of(cell)):
            problems.append("a claim, rule or solution cell is ignored by nbval")
    for cell in nb["cells"]:
        if unknown := set(tags_of(cell)) - TAGS:
            problems.append(f"unknown tags {sorted(unknown)}: nbval may obey them")
    for cell in code_cells(nb):
        text = source_of(cell)
        if "NBVAL_SKIP" in text:
            problems.append("a cell is skipped by nbval")
        if re.search(r"#\s*(NBVAL_IGNORE_OUTPUT|PYTEST_VALIDATE_IGNORE)", text):
            problems.append("a comment hides a cell from nbval; use the tag")
    return problems


def figures(nb: dict[str, Any]) -> list[str]:
    """Every stored picture has alt text; every figure a name and a caption."""
    problems = []
    for i, cell in enumerate(code_cells(nb), 1):
        if not any("image/png" in out.get("data", {}) for out in cell["outputs"]):
            continue
        meta = cell["metadata"].get("mystnb", {})
        if len(meta.get("image", {}).get("alt", "")) < 20:
            problems.append(f"code cell {i}: the picture has no useful alt text")
        figure = meta.get("figure", {})
        if not figure.get("name", "").startswith("fig-") or not figure.get("caption"):
            problems.append(f"code cell {i}: the figure has no fig- name or caption")
    return problems


def verdicts(nb: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the structured claim outputs of a notebook."""
    return [
        out["data"][MIME]
        for cell in code_cells(nb)
        for out in cell["outputs"]
        if MIME in out.get("data", {})
    ]


def ledger(nb: dict[str, Any]) -> list[str]:
    """Gate 6: each stored verdict is the one its stored evidence gives.

    The rule must have been shown in an earlier cell, the verdict must come out of
    ``claims.verdict`` in a cell tagged ``claim``, and text, HTML and data agree.
    """
    from llmbook import claims

    problems: list[str] = []
    shown: list[tuple[int, str]] = []
    assigned: dict[str, int] = {}
    for i, cell in enumerate(code_cells(nb), 1):
        for node in ast.walk(ast.parse(source_of(cell))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assigned[node.id] = i
        if "rule" in tags_of(cell):
            shown += [
                (i, "".join(out.get("data", {}).get("text/plain", "")))
                for out in cell["outputs"]
            ]
        for out in cell["outputs"]:
            data = out.get("data", {})
            html = "".join(data.get("text/html", ""))
            if MIME not in data:
                if "llmbook-claim" in html:
                    problems.append(f"code cell {i}: a verdict card without its data")
                continue
            stored = data[MIME]
            where = f"code cell {i}, {stored['claim']}"
            if "claim" not in tags_of(cell):
                problems.append(f"{where}: the cell is not tagged claim")
            if "verdict(" not in source_of(cell):
                problems.append(f"{where}: not made by claims.verdict")
            rule = claims.Rule(
                stored["claim"],
                tuple(claims.Case(**case) for case in stored["rule"]["cases"]),
                stored["rule"]["untested"],
            )
            evidence = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in stored["evidence"].items()
            }
            fresh = claims.verdict(stored["claim"], rule, evidence)
            if fresh.data() != stored:
                problems.append(
                    f"{where}: stored {stored['verdict']!r}, but its evidence gives "
                    f"{fresh.text!r}"
                )
            if repr(fresh) != "".join(data.get("text/plain", "")):
                problems.append(f"{where}: the text differs from the data")
            if fresh._html() != html:
                problems.append(f"{where}: the HTML differs from the data")
            before = [j for j, text in shown if j < i and text == repr(rule)]
            if not before:
                problems.append(f"{where}: its rule was not shown before")
            problems += [
                f"{where}: {what}"
                for what in _typed(source_of(cell), assigned, max(before, default=0))
            ]
            if stored["status"] not in STATUSES:
                problems.append(f"{where}: unknown verdict {stored['status']!r}")
    return problems


def _typed(code: str, assigned: dict[str, int], rule_cell: int) -> list[str]:
    """Evidence must be measured: no literal, and nothing older than the rule."""
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "verdict"
    ]
    problems = []
    for call in calls:
        evidence = call.args[2] if len(call.args) > 2 else None
        if isinstance(evidence, ast.Dict):
            if any(isinstance(value, ast.Constant) for value in evidence.values):
                problems.append("evidence is typed in, not measured")
        elif isinstance(evidence, ast.Name):
            if assigned.get(evidence.id, 0) <= rule_cell:
                problems.append("its evidence is older than its rule")
        else:
            problems.append("give the evidence as a dictionary or a name")
    return problems


def declared_claims(md: Path) -> list[str]:
    """Return the claim ids that a chapter's header says it tries."""
    header = md.read_text(encoding="utf-8").split("---")[1]
    match = re.search(r"claims:\s*\[([^\]]*)\]", header)
    return (
        [word.strip() for word in match[1].split(",") if word.strip()] if match else []
    )


def claims_tried(md: Path, nb: dict[str, Any]) -> list[str]:
    """A chapter gives a verdict on each claim that its header names, and no other."""
    stored = [v["claim"] for v in verdicts(nb)]
    declared = declared_claims(md)
    if sorted(stored) != sorted(declared):
        return [f"header names {declared}, the notebook holds verdicts on {stored}"]
    return []


# --- exported code -------------------------------------------------------------


def _bare(node: ast.AST) -> str:
    """Dump a definition without docstrings and annotations."""
    node = ast.parse(ast.unparse(node)).body[0]
    for part in ast.walk(node):
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if ast.get_docstring(part):
                part.body = part.body[1:] or [ast.Pass()]
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            part.returns = None
        if isinstance(part, ast.arg):
            part.annotation = None
    return ast.dump(node)


def _definitions(code: str) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name: n for n in ast.parse(code).body if isinstance(n, kinds)}


def package_definitions(label: str, root: Path = ROOT) -> dict[str, ast.AST]:
    """Return the package's definitions whose docstring ends 'Built in <label>.'."""
    found: dict[str, ast.AST] = {}
    for path in sorted((root / "llmbook").rglob("*.py")):
        for name, node in _definitions(path.read_text(encoding="utf-8")).items():
            if re.search(rf"Built in {label}\.\s*\Z", ast.get_docstring(node) or ""):
                found[name] = node
    return found


def label_of(md: Path) -> str:
    """Return a chapter's label, from its file name."""
    return "ch-" + md.stem[3:].replace("_", "-")


def exports(md: Path, nb: dict[str, Any], root: Path = ROOT) -> list[str]:
    """Definitions in cells tagged ``export`` equal the package's, both ways."""
    label = label_of(md)
    package = package_definitions(label, root)
    chapter: dict[str, ast.AST] = {}
    for cell in code_cells(nb):
        if "export" in tags_of(cell):
            chapter |= _definitions(source_of(cell))
    problems = []
    for name, node in chapter.items():
        if name not in package:
            problems.append(f"{name} is tagged export, but llmbook has no such name")
        elif _bare(node) != _bare(package[name]):
            problems.append(f"{name} differs from the package's version")
    for name in sorted(set(package) - set(chapter)):
        problems.append(f"llmbook's {name} says it is built here, but no cell does")
    return problems


# --- style ---------------------------------------------------------------------

FILLER = re.compile(
    r"in this chapter,? we will|let'?s dive|delve|it is important to note|"
    r"in the world of|in conclusion|as we all know|\bTODO\b|\bFIXME\b|lorem ipsum",
    re.I,
)


def style(md: Path, nb: dict[str, Any]) -> list[str]:
    """What a reader would trip over, as far as a program can see it."""
    text = md.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    problems = [f"filler: {m[0]!r}" for m in FILLER.finditer(prose)]
    for i, cell in enumerate(code_cells(nb), 1):
        code = source_of(cell)
        if (lines := len(code.splitlines())) > 40:
            problems.append(f"code cell {i} has {lines} lines; at most 40")
        if re.search(r"^from chapters|^import chapters", code, re.M):
            problems.append(f"code cell {i} imports another chapter")
    if f"({label_of(md)})=" not in text:
        problems.append(f"no label ({label_of(md)})=")
    if not re.search(r"^  kind: (derivation|experiment|system|guide)$", text, re.M):
        problems.append("the header declares no kind")
    if "class: chapter-box" not in text:
        problems.append("no box with times, level and prerequisites")
    if ":::{bibliography}" not in text:
        problems.append("no bibliography of the page")
    size = sum(len(source_of(c)) for c in nb["cells"]) + sum(
        len(json.dumps(out))
        for c in code_cells(nb)
        for out in c["outputs"]
        if "llmbook-slider" not in json.dumps(out)
    )
    if size > 400_000:
        problems.append(f"{size // 1000} kB without slider frames; at most 400")
    return problems


def hints(md: Path, nb: dict[str, Any]) -> dict[str, str]:
    """Lengths to look at in review; never a gate, never a reason to pad."""
    text = md.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|^---\n.*?^---$", "", text, flags=re.S | re.M)
    words = len(re.findall(r"[A-Za-z][A-Za-z'’-]+", prose))
    cells = code_cells(nb)
    lines = [len(source_of(c).splitlines()) for c in cells]
    visible = sum(
        n for n, c in zip(lines, cells) if not {"hide-input"} & set(tags_of(c))
    )
    pictures = sum(
        "image/png" in out.get("data", {}) for c in cells for out in c["outputs"]
    )
    return {
        "words": str(words),
        "cells": str(len(cells)),
        "median": str(sorted(lines)[len(lines) // 2] if lines else 0),
        "words/line": f"{words / max(visible, 1):.1f}",
        "figures": str(pictures),
        "graded": str(len(set(re.findall(r"grade\(\s*\"([a-z0-9_]+-\d+)", text)))),
    }


def problems(md: Path) -> list[str]:
    """Everything that the static gates hold against a chapter."""
    path = md.with_suffix(".ipynb")
    if not path.exists():
        return ["there is no notebook: make chapter"]
    nb = load_notebook(path)
    found = [*twin(md, nb), *order(nb), *ignored(nb), *figures(nb), *ledger(nb)]
    return [*found, *claims_tried(md, nb), *exports(md, nb), *style(md, nb)]


def main(argv: list[str] | None = None) -> int:
    """Print each chapter's problems and lengths; returns 1 when there is a problem."""
    parser = argparse.ArgumentParser(description="the static gates, chapter by chapter")
    parser.add_argument("chapters", nargs="*", help="3.02, 3 or attention; none: all")
    args = parser.parse_args(argv)
    bad = 0
    for md in find(args.chapters) if args.chapters else sources():
        held = problems(md)
        bad += len(held)
        print(f"{number(md)} {md.stem[3:]}: {len(held) or 'no'} problems")
        for problem in held:
            print(f"  {problem}")
        if md.with_suffix(".ipynb").exists():
            lengths = hints(md, load_notebook(md.with_suffix(".ipynb")))
            print("  " + ", ".join(f"{k} {v}" for k, v in lengths.items()))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

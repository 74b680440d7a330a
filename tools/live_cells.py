"""Which code cells of a chapter can run in the page, and why the others cannot.

A cell is live when every package it imports has a build for the browser and every
name it reads comes from a live cell above it. The answer is computed from the source,
so that authors do nothing; the tag ``no-live`` opts a cell out.
"""

from __future__ import annotations

import ast
import builtins
import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

from _book import ROOT

# Import name -> the package that Pyodide loads for it.
PACKAGES = {
    "numpy": "numpy",
    "matplotlib": "matplotlib",
    "mpl_toolkits": "matplotlib",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "seaborn": "seaborn",
    "regex": "regex",
}
EXERCISES = ROOT / "llmbook" / "grading" / "exercises"
# What these rooms cannot do in a browser: the text or the weights are not there.
ABSENT = {
    ("data", "documentation"): "the documentation corpus",
    ("data", "documentation_split"): "the documentation corpus",
    ("data", "minilm"): "MiniLM",
    ("small_samples", "library_task"): "the documentation corpus",
    ("small_samples", "minilm"): "MiniLM",
}
# Parts of the standard library that a browser's Python lacks.
NOT_IN_BROWSER = {
    "asyncio", "concurrent", "ctypes", "fcntl", "http", "lzma", "multiprocessing",
    "pty", "resource", "select", "selectors", "signal", "socket", "socketserver",
    "sqlite3", "ssl", "subprocess", "threading", "tkinter", "urllib", "venv",
}  # fmt: skip
ALTERING = {"append", "extend", "update", "setdefault", "add", "insert", "pop", "sort"}
GENERATORS = {"rng"}  # what chapters call their random generator
WORDS = {"torch": "PyTorch", "sklearn": "scikit-learn"}


def _imports(tree: ast.AST) -> set[tuple[str, ...]]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")) for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = tuple(node.module.split("."))
            if base[0] == "llmbook" and len(base) == 1:
                found |= {(*base, a.name) for a in node.names}
            else:
                found.add(base)
    return found


class _Names(ast.NodeVisitor):
    """Global names that a cell reads before it makes them, and those it makes."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.makes: set[str] = set()
        self.changes: set[str] = set()  # names whose objects the cell alters
        self._local: list[set[str]] = []

    def visit_Name(self, node: ast.Name) -> None:
        inside = any(node.id in scope for scope in self._local)
        if isinstance(node.ctx, ast.Load):
            if not inside and node.id not in self.makes:
                self.reads.add(node.id)
        elif not self._local:
            self.makes.add(node.id)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._change(node)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._change(node)
        self.generic_visit(node)

    def _change(self, node: Any) -> None:
        """Note a write to ``name[...]`` or ``name.field``, outside functions."""
        if isinstance(node.ctx, ast.Load) or self._local:
            return
        while isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
        if isinstance(node, ast.Name):
            self.changes.add(node.id)

    def visit_Call(self, node: ast.Call) -> None:
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(owner, ast.Name) and node.func.attr in ALTERING:
            self.changes.add(owner.id)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name) and not self._local:
            if node.target.id not in self.makes:
                self.reads.add(node.target.id)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        for part in (node.annotation, node.value, node.target):
            if part is not None:
                self.visit(part)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        for part in (*node.body, *node.orelse):
            self.visit(part)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._make((alias.asname or alias.name).split(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._make(alias.asname or alias.name)

    def _make(self, name: str) -> None:
        if not self._local:
            self.makes.add(name)

    def _function(self, node: Any, body: list[ast.AST]) -> None:
        arguments = node.args
        for default in (*arguments.defaults, *arguments.kw_defaults):
            if default is not None:
                self.visit(default)
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a]
        scope = {a.arg for a in every}
        declared: set[str] = set()
        for part in body:
            for inner in ast.walk(part):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    scope.add(inner.id)
                elif isinstance(inner, (ast.FunctionDef, ast.ClassDef)):
                    scope.add(inner.name)
                elif isinstance(inner, (ast.Import, ast.ImportFrom)):
                    scope |= {(a.asname or a.name).split(".")[0] for a in inner.names}
                elif isinstance(inner, ast.ExceptHandler) and inner.name:
                    scope.add(inner.name)
                elif isinstance(inner, ast.Global):
                    declared |= set(inner.names)
        self._local.append(scope - declared)
        for part in body:
            self.visit(part)
        self._local.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._make(node.name)
        self._function(node, list(node.body))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases):
            self.visit(part)
        self._local.append(set())
        for statement in node.body:
            for inner in ast.walk(statement):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    self._local[-1].add(inner.id)
        for statement in node.body:
            self.visit(statement)
        self._local.pop()
        self._make(node.name)

    def _comprehension(self, node: Any) -> None:
        scope = {
            inner.id
            for generator in node.generators
            for inner in ast.walk(generator.target)
            if isinstance(inner, ast.Name)
        }
        self._local.append(scope)
        self.generic_visit(node)
        self._local.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = _comprehension
    visit_GeneratorExp = _comprehension

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._make(node.name)
        self.generic_visit(node)


def _checker_reason(call: ast.Call, packages: set[str]) -> str:
    """Return what the checker of an exercise imports that no browser has, or ''."""
    name = call.args[0].value if isinstance(call.args[0], ast.Constant) else ""
    path = EXERCISES / f"{str(name).rpartition('-')[0].replace('-', '_')}.py"
    if not path.exists():
        return ""
    return _import_reason(ast.parse(path.read_text("utf8")), packages)


@functools.cache
def _room(name: str) -> tuple[str, frozenset[str], dict[str, frozenset[str]]]:
    """Judge a module of the book's package by its imports.

    Returns:
        What it imports that no browser has, or ''; the packages that it loads; and
        for each function those that it loads when called.
    """
    if name == "grading":  # the browser's part of it is proved by the tests
        return "", frozenset(), {}
    path = ROOT / "llmbook" / f"{name}.py"
    if not path.exists():
        return f"llmbook.{name}", frozenset(), {}
    tree = ast.parse(path.read_text("utf8"))
    later = {
        node.name: ast.Module([node], [])
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    tree.body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    packages: set[str] = set()
    why = _import_reason(tree, packages)
    lazy = {}
    for function, body in later.items():
        tops = {p[0] for p in _imports(body)}
        lazy[function] = frozenset(PACKAGES[top] for top in tops if top in PACKAGES)
    return why, frozenset(packages), lazy


def _import_reason(tree: ast.AST, packages: set[str]) -> str:
    """Return what code imports that no browser has, or ''; collect its packages."""
    for path in sorted(_imports(tree)):
        top = path[0]
        if top == "llmbook":
            packages |= {"numpy", "matplotlib"}
            if len(path) > 1:
                why, loads, _ = _room(path[1])
                if why:
                    return why
                packages |= loads
        elif top in PACKAGES:
            packages.add(PACKAGES[top])
        elif top not in sys.stdlib_module_names:
            return WORDS.get(top, top)
        elif top in NOT_IN_BROWSER:
            return f"the module {top}"
    return ""


def _package_reason(tree: ast.AST, packages: set[str], rooms: set[str]) -> str:
    """Return what a cell needs that no browser has, or ''; collect its packages."""
    if why := _import_reason(tree, packages):
        return why
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "grade":
            if why := _checker_reason(node, packages):
                return why
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            room, name = node.value.id, node.attr
            if absent := ABSENT.get((room, name)):
                return absent
            if room in rooms:
                packages |= _room(room)[2].get(name, set())
    return ""


def analyse(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge the code cells of a notebook.

    Args:
        cells: code cells in order, as nbformat dictionaries.

    Returns:
        ``cells``: for each ``{"live": bool}`` and, where not, ``"why"``, a word or a
        few; ``"drift": True`` where random numbers differ from the printed ones,
        because a cell that cannot run here draws from the same generator first;
        ``"raises": True`` where the error is the lesson;
        ``packages``: what Pyodide must load for all live cells, sorted.
    """
    known = set(dir(builtins)) | {"display", "__name__", "__file__"}
    origin: dict[str, str] = {}  # name -> why the cell that made it is not live
    answers: list[dict[str, Any]] = []
    packages: set[str] = set()
    rooms: set[str] = set()  # modules of the book's package imported so far
    drifting: set[str] = set()  # names whose values depend on a generator out of step
    for cell in cells:
        source = "".join(cell["source"])
        try:
            tree = ast.parse(source)
        except SyntaxError:
            answers.append({"live": False, "why": "a shell or notebook command"})
            continue
        names = _Names()
        names.visit(tree)
        own: set[str] = set()
        rooms |= {p[1] for p in _imports(tree) if p[0] == "llmbook" and len(p) > 1}
        why = _package_reason(tree, own, rooms)
        if "no-live" in cell.get("metadata", {}).get("tags", []):
            why = "more than a browser can give"
        if not why:
            lacking = sorted(names.reads - known)
            if lacking:
                why = origin.get(lacking[0], f"{lacking[0]}, which is not defined")
        if why:
            answers.append({"live": False, "why": why})
            lost = names.makes | names.changes
            known -= lost
            origin.update(dict.fromkeys(lost, why))
            drifting |= names.reads & GENERATORS
        else:
            answers.append({"live": True})
            if "raises-exception" in cell.get("metadata", {}).get("tags", []):
                answers[-1]["raises"] = True
            if names.reads & drifting:
                answers[-1]["drift"] = True
                drifting |= names.makes
            else:
                drifting -= names.makes
            packages |= own
            known |= names.makes
    return {"cells": answers, "packages": sorted(packages)}


MARK = "<!-- live cells -->"
_BLOCK = re.compile(re.escape(MARK) + ".*?" + re.escape(MARK), re.DOTALL)


def insert(page: Path, notebook: Path, depth: int, on: bool) -> None:
    """Write a chapter's judgement and its script into the built page, or take it out.

    Args:
        page: the built HTML, changed in place.
        notebook: the chapter.
        depth: folders between the page and the site's root.
        on: False removes what an earlier build wrote.
    """
    text = _BLOCK.sub("", page.read_text("utf8"))
    if on:
        nb = json.loads(notebook.read_text("utf8"))
        found = analyse([c for c in nb["cells"] if c["cell_type"] == "code"])
        if any(cell["live"] for cell in found["cells"]):
            root = "../" * depth + "_static/live/"
            data = json.dumps({**found, "root": root}).replace("<", "\\u003c")
            block = (
                f'{MARK}<link rel="stylesheet" href="{root}live.css"/>'
                '<script type="application/json" id="live-cells">'
                f"{data}</script>"
                f'<script defer src="{root}live.js"></script>{MARK}'
            )
            text = text.replace("</body>", block + "</body>")
    page.write_text(text, "utf8")

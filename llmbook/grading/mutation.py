"""Small wrong versions of a correct solution: every check must tell them apart.

A checker that accepts a flipped sign grades nothing. The gate takes each graded
solution, changes one operator, constant, axis or term at a time, and runs the
checks on the result in a forked child with a time limit. A mutant that passes
all checks has survived, and the gate fails, unless the exercise lists it as
equivalent, with the reason.
"""

import ast
import copy
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llmbook.grading._core import grade, load

__all__ = ["Mutant", "Outcome", "mutants", "trial"]

_SWAPS: dict[type, list[type]] = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Div],
    ast.Mod: [ast.FloorDiv],
    ast.Pow: [ast.Mult],
    ast.Lt: [ast.LtE],
    ast.LtE: [ast.Lt],
    ast.Gt: [ast.GtE],
    ast.GtE: [ast.Gt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
    ast.NotIn: [ast.In],
    ast.Is: [ast.IsNot],
    ast.IsNot: [ast.Is],
    ast.And: [ast.Or],
    ast.Or: [ast.And],
    ast.BitAnd: [ast.BitOr],
    ast.BitOr: [ast.BitAnd],
}
_NAMES = {
    "max": "min",
    "min": "max",
    "amax": "amin",
    "amin": "amax",
    "argmax": "argmin",
    "argmin": "argmax",
    "maximum": "minimum",
    "minimum": "maximum",
    "sum": "mean",
    "mean": "sum",
    "tril": "triu",
    "triu": "tril",
    "sin": "cos",
    "cos": "sin",
    "floor": "ceil",
    "ceil": "floor",
}
_TRANSPOSES = {"T", "mT"}


@dataclass(frozen=True)
class Mutant:
    """One wrong version: what changed, where, and its source."""

    change: str  # "before → after", as an exercise's `equivalent` names it
    line: int
    source: str


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    mutant: Mutant
    fate: str  # killed | timeout | survived | equivalent
    detail: str


def mutants(source: str) -> Iterator[Mutant]:
    """Yield every mutant of a solution's source, one change each.

    Args:
        source: Python source of the solution cell; only its functions and
            imports are used.

    Yields:
        Mutant with a readable description. Duplicates in effect are not removed.
    """
    tree = ast.parse(source)
    # Definitions only: an assertion in the solution cell must not do the
    # checks' work.
    kept = (ast.FunctionDef, ast.Import, ast.ImportFrom)
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    _strip_docstrings(tree)
    seen: set[str] = set()
    for path, node in _walk(tree, ()):
        for after in _variants(node):
            changed = copy.deepcopy(tree)
            _replace(changed, path, after)
            ast.fix_missing_locations(changed)
            text = ast.unparse(changed)
            if text in seen or text == ast.unparse(tree):
                continue
            seen.add(text)
            change = f"{ast.unparse(node)} → {ast.unparse(after)}"
            yield Mutant(change, getattr(node, "lineno", 0), text)


def trial(
    exercise: str,
    mutant: Mutant,
    namespace: dict[str, Any],
    seconds: float = 2.0,
    again: int = 0,
) -> Outcome:
    """Run one mutant against its exercise in a forked child.

    Args:
        exercise: id, such as ``"attention-1"``.
        mutant: the wrong version.
        namespace: names that the chapter's set-up cells define.
        seconds: time limit; a mutant that exceeds it counts as killed by timeout.
        again: how often a verdict is tried again. Checks draw fresh numbers, so a
            mutant may die by luck, and a right answer may fail by bad luck. The
            first verdict that differs is the one returned.

    Returns:
        Outcome. A crash of the child counts as killed: the checks did not pass.
    """
    task = load(exercise)

    def once() -> str:
        names = dict(namespace)
        try:
            exec(compile(mutant.source, f"<mutant of {exercise}>", "exec"), names)
            report = grade(exercise, names[task.function])
        except Exception as error:
            return type(error).__name__
        return "" if report.passed else report.failed or "?"

    def more(first: str) -> str:
        for _ in range(again):
            if bool(said := once()) != bool(first):
                return said
        return first

    finished, said = _in_child(once, seconds)
    if finished and again and said != "crash":
        first = said
        finished, said = _in_child(lambda: more(first), seconds * (again + 1))
    if not finished:
        return Outcome(mutant, "timeout", f"stopped after {seconds:g} s")
    if said:
        return Outcome(mutant, "killed", said)
    if mutant.change in task.equivalent:
        return Outcome(mutant, "equivalent", task.equivalent[mutant.change])
    return Outcome(mutant, "survived", mutant.source)


def _in_child(attempt: Callable[[], str], seconds: float) -> tuple[bool, str]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            answer = "ok:" + attempt()
        except BaseException as error:  # the child must report, not unwind
            answer = f"ok:{type(error).__name__}"
        os.write(write, answer.encode()[:4000])
        os._exit(0)
    os.close(write)
    end, text = time.monotonic() + seconds, b""
    while (left := end - time.monotonic()) > 0:
        if not select.select([read], [], [], left)[0]:
            break
        part = os.read(read, 4096)
        if not part:
            break
        text += part
    os.close(read)
    timed_out = not text and time.monotonic() >= end
    if timed_out:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if timed_out:
        return False, ""
    return True, text.decode(errors="replace").removeprefix("ok:") if text else "crash"


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]


def _walk(node: ast.AST, path: tuple) -> Iterator[tuple[tuple, ast.AST]]:
    yield path, node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        if isinstance(value, ast.AST):
            yield from _walk(value, (*path, name))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _walk(item, (*path, (name, i)))


def _replace(tree: ast.AST, path: tuple, new: ast.AST) -> None:
    *front, last = path
    node: Any = tree
    for step in front:
        node = _field(node, step)
    if isinstance(last, tuple):
        getattr(node, last[0])[last[1]] = copy.deepcopy(new)
    else:
        setattr(node, last, copy.deepcopy(new))


def _field(node: ast.AST, step: Any) -> Any:  # noqa: ANN401 - part of a syntax tree
    return (
        getattr(node, step[0])[step[1]]
        if isinstance(step, tuple)
        else getattr(node, step)
    )


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp):
        yield from _binary(node)
    elif isinstance(node, ast.AugAssign):
        for new in _SWAPS.get(type(node.op), []):
            yield ast.AugAssign(node.target, new(), node.value)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        for new in _SWAPS[type(node.op)]:
            yield ast.BoolOp(new(), node.values)
    elif isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for new in _SWAPS.get(type(op), []):
                ops = [*node.ops[:i], new(), *node.ops[i + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.Attribute):
        if node.attr in _TRANSPOSES:
            yield node.value
        elif node.attr in _NAMES:
            yield ast.Attribute(node.value, _NAMES[node.attr], node.ctx)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        if node.id in _NAMES:
            yield ast.Name(_NAMES[node.id], node.ctx)
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Call):
        yield from _call(node)


def _binary(node: ast.BinOp) -> Iterator[ast.AST]:
    for new in _SWAPS.get(type(node.op), []):
        yield ast.BinOp(node.left, new(), node.right)
    if isinstance(node.op, ast.MatMult):
        yield ast.BinOp(node.right, node.op, node.left)
    if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)):
        yield node.left
        if isinstance(node.op, (ast.Add, ast.Mult)):
            yield node.right


def _constant(node: ast.Constant) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
        yield ast.Constant(value - 1)
    elif isinstance(value, float):
        yield ast.Constant(-value if value in (float("inf"),) else value * 2)


def _call(node: ast.Call) -> Iterator[ast.AST]:
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if name in ("transpose", "swapaxes", "permute") and isinstance(
        node.func, ast.Attribute
    ):
        # The transpose dropped, of x.transpose() or of np.transpose(x).
        library = getattr(node.func.value, "id", "") in ("np", "torch")
        if not library or node.args:
            yield node.args[0] if library else node.func.value
    if name == "range" and node.args:
        last = ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(1))
        yield ast.Call(node.func, [*node.args[:-1], last], node.keywords)
    for i, word in enumerate(node.keywords):
        if word.arg in ("keepdims", "keepdim"):
            continue  # its value is mutated as a constant
        if word.arg is not None:
            rest = node.keywords[:i] + node.keywords[i + 1 :]
            yield ast.Call(node.func, node.args, rest)

"""Execute chapter sources (.md) and write their notebooks (.ipynb): one way only.

    python tools/build_notebooks.py            what changed since the last build
    python tools/build_notebooks.py 3.02 1     chapter 3.02 and all of part 1
    python tools/build_notebooks.py --all      every chapter, changed or not
    python tools/build_notebooks.py --prose 3.02   text only: keep stored outputs

The notebook is a function of source, package and pins: cell ids are hashes of the
cell's text, no times are stored, metadata is reduced to tags and mystnb, pictures
are quantised to 128 colours. A failed build leaves the old notebook as it was.
"""

import argparse
import ast
import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from _book import (
    CACHE,
    FENCE,
    OPTIONS,
    ROOT,
    find,
    number,
    read_source,
    sources,
    write_atomically,
)

STATE = CACHE / "built.json"
WORKERS = 2
TIMEOUT = 300  # seconds for one cell: a limit against hangs, not a budget
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
KEEP = ("tags", "mystnb")


class CellFailure(Exception):
    """A cell that cannot be stored: where it stands and what it said."""


# --- what a chapter depends on -------------------------------------------------


def package_modules(code: str) -> set[Path]:
    """Return the files of every ``llmbook`` module that ``code`` imports, closed."""
    todo, done = _imports(code), set()
    while todo:
        name = todo.pop()
        path = _module_file(name)
        if path is None or path in done:
            continue
        done.add(path)
        todo |= _imports(path.read_text(encoding="utf-8"))
    slug_grader = ROOT / "llmbook" / "grading" / "exercises"
    for word in re.findall(r"grade\(\s*[\"']([a-z0-9_]+)-\d+", code):
        grader = slug_grader / f"{word}.py"
        if grader.exists():
            done.add(grader)
    style = ROOT / "llmbook" / "book.mplstyle"
    return done | ({style} if style.exists() else set())


def _imports(code: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return {n for n in names if n.split(".")[0] == "llmbook"} | (
        {"llmbook"} if any(n.startswith("llmbook.") for n in names) else set()
    )


def _module_file(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path
    return None


def inputs_hash(source: Path) -> str:
    """Hash everything a chapter's outputs depend on: source, package, pins, data."""
    text = source.read_text(encoding="utf-8")
    code = "\n".join(
        c.source for c in read_source(source).cells if c.cell_type == "code"
    )
    files = sorted(package_modules(code))
    files += [ROOT / "requirements.txt", ROOT / "constraints.txt"]
    if "llmbook.data" in code or "import data" in code or "assets/" in code:
        files += sorted(p for p in (ROOT / "assets" / "data").rglob("*") if p.is_file())
    digest = hashlib.sha256(text.encode())
    for path in files:
        if path.exists():
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def current(source: Path, state: dict[str, Any]) -> bool:
    """Tell whether the notebook beside ``source`` need not be built again."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.exists():
        return False
    record = state.get(number(source))
    stored = hashlib.sha256(notebook.read_bytes()).hexdigest()
    if record is None:
        # A fresh clone has no record: the committed pair counts as built when
        # their cells are equal (the tests re-run every cell anyway).
        return same_cells(source, notebook)
    return record["inputs"] == inputs_hash(source) and record["output"] == stored


def same_cells(source: Path, notebook: Path) -> bool:
    """Tell whether source and notebook hold the same cells, all of them executed."""
    nb = json.loads(notebook.read_text(encoding="utf-8"))
    ours = [(c.cell_type, c.source) for c in read_source(source).cells]
    theirs = [(c["cell_type"], "".join(c["source"])) for c in nb["cells"]]
    run = [c.get("execution_count") for c in nb["cells"] if c["cell_type"] == "code"]
    return ours == theirs and run == list(range(1, len(run) + 1))


# --- formatting the source --------------------------------------------------------


def format_cells(source: Path) -> bool:
    """Apply ``ruff format`` to the code cells of a source; True if it changed."""
    text = source.read_text(encoding="utf-8")
    blocks = list(FENCE.finditer(text))
    parts = []
    for block in blocks:
        options = OPTIONS.match(block[1])
        parts.append((options[0] if options else "", block[1]))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, (options, body) in enumerate(parts):
            code = body[len(options) :]
            if code.lstrip().startswith(("%", "!")) or not code.strip():
                continue
            path = Path(folder) / f"cell_{i:03}.py"
            path.write_text(code, encoding="utf-8")
            files.append((i, path))
        config = ROOT / "chapters" / "ruff.toml"
        command = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "-q",
            "--config",
            str(config),
        ]
        run = subprocess.run(
            [*command, *[str(path) for _, path in files]],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode:
            raise CellFailure(f"{source.name}: cannot format\n{run.stderr.strip()}")
        new = {i: path.read_text(encoding="utf-8") for i, path in files}
    out, end = [], 0
    for i, block in enumerate(blocks):
        if i not in new:
            continue
        out += [text[end : block.start(1)], parts[i][0], new[i]]
        end = block.end(1)
    result = "".join([*out, text[end:]])
    if result == text:
        return False
    write_atomically(source, result)
    return True


# --- executing --------------------------------------------------------------------


def execute(source: Path) -> str:
    """Run a chapter from a clean kernel and return its notebook as JSON text."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    nb = read_source(source)
    lines = _cell_lines(source)
    client = NotebookClient(
        nb,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        timeout=TIMEOUT,
        # A loaded machine may be slow to hand over an output; losing it is an error.
        iopub_timeout=60,
        raise_on_iopub_timeout=True,
        kernel_name="python3",
        resources={"metadata": {"path": str(source.parent)}},
        record_timing=False,
        allow_errors=True,
    )
    # A backend named in the caller's environment would swallow every figure.
    env = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"}
    with client.setup_kernel(env=env):
        count = 0
        for index, cell in enumerate(nb.cells):
            if cell.cell_type != "code":
                continue
            count += 1
            place = f"{source.name} line {lines[index]}"
            where = f"{number(source)}, code cell {count} ({place})"
            try:
                client.execute_cell(cell, index, execution_count=count)
            except (CellTimeoutError, DeadKernelError) as error:
                raise CellFailure(f"{where}: {type(error).__name__}: {error}") from None
            cell.execution_count = count
            cell.outputs = [
                _output(o, cell, where, count) for o in _joined(cell.outputs)
            ]
    _finish(nb)
    return nbformat.writes(nb) + "\n"


def with_stored_outputs(source: Path) -> str:
    """Return the notebook with new prose and the outputs it has, as JSON text.

    Only where every code cell is what it was: a changed one must be executed.
    """
    import nbformat

    nb = read_source(source)
    notebook = source.with_suffix(".ipynb")
    if not notebook.exists():
        raise CellFailure(f"{source.name}: no notebook yet: build it without --prose")
    old = [c for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"]
    new = [c for c in nb.cells if c.cell_type == "code"]
    changed = [i for i, (a, b) in enumerate(zip(old, new), 1) if a.source != b.source]
    if changed or len(old) != len(new):
        which = f"code cell {changed[0]}" if changed else "the number of code cells"
        raise CellFailure(f"{source.name}: {which} changed: build it without --prose")
    for cell, stored in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = stored.outputs, stored.execution_count
    _finish(nb)
    return nbformat.writes(nb) + "\n"


def _cell_lines(source: Path) -> dict[int, int]:
    """Map the index of each code cell to the line its fence stands on."""
    text = source.read_text(encoding="utf-8")
    starts = [text.count("\n", 0, m.start()) + 1 for m in FENCE.finditer(text)]
    cells = read_source(source).cells
    code = [i for i, c in enumerate(cells) if c.cell_type == "code"]
    return dict(zip(code, starts + [0] * len(code)))


def _joined(outputs: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for out in outputs:
        last = joined[-1] if joined else None
        if last and out.output_type == last.output_type == "stream":
            if out.name == last.name:
                last.text += out.text
                continue
        joined.append(out)
    return joined


def _output(out: Any, cell: Any, where: str, count: int) -> Any:
    tags = cell.metadata.get("tags", [])
    if out.output_type == "error":
        if "raises-exception" not in tags:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(out.traceback))
            said = "".join(o.text for o in cell.outputs if o.output_type == "stream")
            raise CellFailure(
                f"{where}: {out.ename}: {out.evalue}\n{trace[-2500:]}\n"
                f"last output: {said[-800:].strip() or 'none'}"
            )
        out.traceback = [f"{out.ename}: {out.evalue}"]
        return out
    if out.output_type == "stream":
        if out.name == "stderr":
            raise CellFailure(f"{where}: writes to stderr:\n{out.text[-1500:]}")
        texts = [out.text]
    else:
        out.metadata = {}
        if out.output_type == "execute_result":
            out.execution_count = count
        if "image/png" in out.data and "photo" not in tags:
            out.data["image/png"] = quantised(out.data["image/png"])
        texts = [v for k, v in out.data.items() if k.startswith("text/")]
    for text in texts:
        if ADDRESS.search(text) and "nbval-ignore-output" not in tags:
            raise CellFailure(
                f"{where}: prints a memory address, which never reproduces: "
                f"{ADDRESS.search(text)[0]}"
            )
    return out


def quantised(picture: str, colours: int = 128) -> str:
    """Return a base64 PNG with at most ``colours`` colours and no metadata."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    packed = io.BytesIO()
    image.quantize(colours).save(packed, format="png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def _finish(nb: Any) -> None:
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    seen: dict[str, int] = {}
    for cell in nb.cells:
        cell.metadata = {k: cell.metadata[k] for k in KEEP if k in cell.metadata}
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest[:12] + (f"-{seen[digest]}" if seen[digest] > 1 else "")


def build(source: Path) -> tuple[Path, str, float]:
    """Build one chapter; returns (source, error text or '', seconds)."""
    source, error, record = build_and_record(source)
    return source, error, record.get("seconds", 0.0)


def build_and_record(
    source: Path, prose: bool = False
) -> tuple[Path, str, dict[str, Any]]:
    """Build one chapter; returns (source, error text or '', record of the build).

    With ``prose`` no cell is executed, and the record says so: the next build of what
    changed runs the chapter again.
    """
    start = time.perf_counter()
    notebook = source.with_suffix(".ipynb")
    try:
        format_cells(source)
        # Before the run: what changes meanwhile makes the result stale.
        inputs = "prose" if prose else inputs_hash(source)
        text = with_stored_outputs(source) if prose else execute(source)
        write_atomically(notebook, text)
    except CellFailure as error:
        return source, str(error), {}
    except Exception as error:  # a broken header, an unreadable cell: name the chapter
        return source, f"{number(source)}: {type(error).__name__}: {error}", {}
    return (
        source,
        "",
        {
            "inputs": inputs,
            "output": hashlib.sha256(notebook.read_bytes()).hexdigest(),
            "source": hashlib.sha256(source.read_bytes()).hexdigest(),
            "seconds": round(time.perf_counter() - start, 1),
        },
    )


# --- the command --------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Build what is asked for or what changed; returns an exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*", help="3.02, 3 or attention")
    parser.add_argument("--all", action="store_true", help="every chapter")
    parser.add_argument(
        "--prose", action="store_true", help="only text changed: execute nothing"
    )
    args = parser.parse_args(argv)
    if args.prose and not args.chapters:
        parser.error("--prose needs the chapters: --prose 3.02")
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    if args.chapters:
        todo = find(args.chapters)
    else:
        todo = [p for p in sources() if args.all or not current(p, state)]
    if not todo:
        print(f"all {len(sources())} chapters are current; next: make book")
        return 0
    todo.sort(key=lambda p: -state.get(number(p), {}).get("seconds", 1e9))
    failures, built = 0, {}
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    with ProcessPoolExecutor(max_workers=min(WORKERS, len(todo))) as pool:
        jobs = [pool.submit(build_and_record, path, args.prose) for path in todo]
        for i, job in enumerate(as_completed(jobs), 1):
            path, error, record = job.result()
            name = f"[{i}/{len(todo)}] {number(path)} {path.stem[3:]}"
            if error:
                failures += 1
                print(f"{name}: FAILED\n{error}\n", flush=True)
                continue
            size = path.with_suffix(".ipynb").stat().st_size // 1000
            print(f"{name}: {record['seconds']:.0f} s, {size} kB", flush=True)
            built[number(path)] = record
    CACHE.mkdir(exist_ok=True)
    # Another build may have written meanwhile: keep its records.
    latest = json.loads(STATE.read_text()) if STATE.exists() else {}
    write_atomically(STATE, json.dumps({**latest, **built}))
    if failures:
        print(f"{failures} of {len(todo)} failed; the old notebooks are untouched")
        return 1
    print("next: make check, then commit the .md and the .ipynb together")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the old notebooks are untouched")

"""Run the checks of the book; `make test` and `make check` call this.

python tools/run_tests.py             everything
python tools/run_tests.py --fast      the gates that execute no chapter
python tools/run_tests.py --changed   what the working tree changed since HEAD
"""

import argparse
import os
import platform
import subprocess
import sys
import time

import browser
import live_assets
from _book import ROOT, fail, number, read_source, sources
from build_notebooks import package_modules

PYTEST = [sys.executable, "-m", "pytest", "-q"]
WORKERS = ["-n", "2"]
EVERYTHING = (
    "requirements.txt",
    "constraints.txt",
    "conftest.py",
    "pyproject.toml",
    "tests/sanitize.cfg",
)


def step(name: str, command: list[str]) -> bool:
    """Run one command, say how it went and how long it took."""
    print(f"== {name}", flush=True)
    start = time.perf_counter()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    seconds = time.perf_counter() - start
    print(f"== {name}: {'ok' if code == 0 else f'FAILED ({code})'}, {seconds:.0f} s\n")
    return code == 0


def lint() -> bool:
    """Ruff over package, tools, tests and chapters; mypy over the package."""
    ruff = [sys.executable, "-m", "ruff"]
    places = ["llmbook", "tools", "tests", "benchmarks", "conftest.py", "chapters"]
    done = [
        step("ruff check", [*ruff, "check", "-q", *places]),
        step("ruff format", [*ruff, "format", "-q", "--check", *places]),
        step("mypy", [sys.executable, "-m", "mypy", "llmbook"]),
    ]
    return all(done)


def changed() -> tuple[list[str], list[str]]:
    """Return (chapters to re-run, chapters skipped) for the changes since HEAD."""
    run = subprocess.run(
        ["git", "status", "--porcelain", "-uall", "-z", "--no-renames"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        fail("CHANGED=1 needs a git checkout; run: make test")
    files = {line[3:] for line in run.stdout.split("\0")}
    everything = files & set(EVERYTHING)
    todo, skipped = [], []
    for source in sources():
        notebook = source.with_suffix(".ipynb")
        code = "\n".join(
            c.source for c in read_source(source).cells if c.cell_type == "code"
        )
        needs = {str(p.relative_to(ROOT)) for p in package_modules(code)}
        needs |= {str(p.relative_to(ROOT)) for p in (source, notebook)}
        data = any(f.startswith("assets/data/") for f in files) and "data" in code
        hit = everything or needs & files or data
        (todo if hit else skipped).append(str(notebook.relative_to(ROOT)))
    return todo, skipped


def review_hints() -> None:
    """Print lengths per chapter: to look at, never a gate."""
    from gates import hints, load_notebook

    rows = []
    for source in sources():
        notebook = source.with_suffix(".ipynb")
        if notebook.exists():
            rows.append(
                (
                    f"{number(source)} {source.stem[3:]}",
                    hints(source, load_notebook(notebook)),
                )
            )
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    print("chapter".ljust(width) + "".join(f"  {k:>10}" for k in rows[0][1]))
    for name, row in rows:
        print(name.ljust(width) + "".join(f"  {v:>10}" for v in row.values()))
    print("(lengths are hints for review, not gates)\n")


def main(argv: list[str] | None = None) -> int:
    """Run the chosen checks; returns 0 only when all passed and none was left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--fast", action="store_true")
    group.add_argument("--changed", action="store_true")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(ROOT))
    from conftest import reference_environment

    other = reference_environment()
    print(
        f"Python {platform.python_version()} on {sys.platform} {platform.machine()}: ",
        end="",
    )
    print(
        f"not the reference ({other}), stored outputs are not compared"
        if other
        else "the reference environment, stored outputs are compared"
    )
    ok = lint()
    if args.fast:
        tests = [
            "tests/test_gates.py",
            "tests/test_claims.py",
            "tests/test_structure.py",
        ]
        ok &= step("gates", [*PYTEST, "-m", "not slow", *tests])
        review_hints()
        print("all fast gates are green" if ok else "something failed, see above")
        return 0 if ok else 1
    missing = ""
    found = browser.get()
    if found:
        os.environ["LLMBOOK_BROWSER"] = found
    else:
        missing = f"the browser tests did not run: {browser.ADVICE}"
        if os.environ.get("CI") == "true":
            print(f"error: {missing}")
            return 1
    live: list[str] = []
    if not live_assets.for_tests():
        missing += "the live cells were not tested: no source has Pyodide's wheels "
        missing += "(name a folder or archive that has them with LLMBOOK_WHEELS)"
        live = ["--ignore=tests/test_live.py"]
        if os.environ.get("CI") == "true":
            print(f"error: {missing}")
            return 1
    if args.changed:
        todo, skipped = changed()
        ok &= step(
            "tests and changed chapters",
            [*PYTEST, "--nbval", *WORKERS, *live, "tests", *todo],
        )
        print(
            "skipped, because nothing they use changed: "
            + (", ".join(skipped) or "none")
        )
    else:
        ok &= step(
            "tests, every chapter, the site", [*PYTEST, "--nbval", *WORKERS, *live]
        )
    if missing:
        print(missing)
    green = "everything that ran is green" if missing else "everything is green"
    print(green if ok else "something failed, see above")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

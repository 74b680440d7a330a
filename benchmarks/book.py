"""Measure how long the book takes: site build, chapters, the whole nbval run.

    python benchmarks/book.py

Prints a table and writes it to benchmarks/results/ with the machine and the date.
Seconds are one run on one machine: compare ratios, never assert them.
"""

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from _book import number, sources, write_atomically  # noqa: E402


def seconds(command: list[str]) -> float:
    """Run a command to its end and return its seconds; fail when it fails."""
    start = time.perf_counter()
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(
            f"error: {' '.join(command)}\n{run.stdout[-3000:]}{run.stderr[-3000:]}"
        )
    return time.perf_counter() - start


def machine() -> str:
    """Describe the processor, cores and Python in a line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (m := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        name = m[1]
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"


def main() -> int:
    """Measure, print and store."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    pytest = [sys.executable, "-m", "pytest", "--nbval", "-q"]
    print("site build, from nothing, no notebook executed")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "tools/build_site.py", "build", "--out", folder]
        site = seconds(command)
        html = (Path(folder) / "_build" / "html").rglob("*.html")
        pages = sum("_static" not in path.parts for path in html)
    chapters = {}
    for source in sources():
        notebook = source.with_suffix(".ipynb")
        name = f"{number(source)} {source.stem[3:]}"
        chapters[name] = seconds([*pytest, str(notebook)])
        print(f"  {name}: {chapters[name]:.0f} s", flush=True)
    parts: dict[str, list[float]] = {}
    for name, time_taken in chapters.items():
        parts.setdefault(name[0], []).append(time_taken)
    whole = seconds(
        [*pytest, "-n", "2", *[str(s.with_suffix(".ipynb")) for s in sources()]]
    )
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "site_seconds": round(site, 1),
        "pages": pages,
        "seconds_per_page": round(site / pages, 2),
        "chapters": {k: round(v, 1) for k, v in chapters.items()},
        "whole_book_two_at_once": round(whole, 1),
    }
    lines = [
        f"# Seconds the book takes ({result['date']})",
        "",
        f"Machine: {result['machine']}. One run each; made by `make bench`.",
        "The start of Python and the imports are included.",
        "",
        "| what | seconds |",
        "|---|---:|",
        f"| site, {pages} pages, from nothing | {site:.1f} |",
        f"| site, per page | {site / pages:.2f} |",
        *[f"| re-run {name} | {s:.1f} |" for name, s in chapters.items()],
        *[
            f"| mean of part {part} | {statistics.mean(times):.1f} |"
            for part, times in parts.items()
        ],
        f"| re-run all {len(chapters)} chapters, two at once | {whole:.1f} |",
        "",
    ]
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "book.json", json.dumps(result, indent=1) + "\n")
    write_atomically(folder / "book.md", "\n".join(lines))
    print("\n".join(lines))
    print("next: commit benchmarks/results/ when the machine is the one you report")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the tools share: where chapters are, how they are named and read."""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
CACHE = ROOT / ".cache"


def fail(message: str) -> None:
    """Print one clear line and stop with status 2."""
    sys.exit(f"error: {message}")


def number(path: Path) -> str:
    """Return the chapter number of a source file, such as ``"3.02"``."""
    return f"{path.parent.name.split('_')[0]}.{path.name[:2]}"


def sources() -> list[Path]:
    """Return every chapter source, in reading order."""
    return sorted(CHAPTERS.glob("[0-9]_*/[0-9][0-9]_*.md"))


def find(wanted: Iterable[str]) -> list[Path]:
    """Turn numbers (3.02), part numbers (3) or slugs into chapter sources."""
    found: list[Path] = []
    for word in wanted:
        hits = [
            p
            for p in sources()
            if word in (number(p), p.stem[3:], number(p)[0])
            or Path(word).resolve().with_suffix(".md") == p
        ]
        if not hits:
            known = ", ".join(f"{number(p)} {p.stem[3:]}" for p in sources()) or "none"
            fail(f"no chapter {word!r}; chapters: {known}")
        found += [p for p in hits if p not in found]
    return found


def read_source(path: Path) -> "NotebookNode":  # noqa: F821 - nbformat is heavy
    """Read a MyST notebook source as unexecuted notebook cells."""
    import jupytext

    return jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst")


def write_atomically(path: Path, text: str) -> None:
    """Write to a temporary file beside ``path``, then rename it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


FENCE = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```[ \t]*$", re.M | re.S)
OPTIONS = re.compile(r"\A(?:---\n.*?^---\n|(?::[a-z-]+:[^\n]*\n)+)\n?", re.M | re.S)

"""Take an edit made in JupyterLab back into the chapter's source.

    python tools/import_notebook.py 3.02

Only cells are taken: text, code and tags. Outputs are not; rebuild afterwards. The
source's header stays, and nothing is written before it reads back as the same cells.
"""

import hashlib
import json
import sys
from itertools import zip_longest
from pathlib import Path

from _book import fail, find, number, read_source, write_atomically
from build_notebooks import STATE


def imported(source: Path, notebook: Path) -> str:
    """Return the source text that holds the notebook's cells."""
    import jupytext
    import nbformat

    old = source.read_text(encoding="utf-8")
    if not old.startswith("---\n"):
        fail(f"{source.name} has no header to keep")
    header = old[: old.index("\n---\n", 4) + 5]
    edited = nbformat.read(notebook, as_version=4)
    for cell in edited.cells:
        kept = {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb")}
        cell.metadata = nbformat.from_dict(kept)
    edited.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    text = jupytext.writes(edited, fmt="md:myst")
    body = text[text.index("\n---\n", 4) + 5 :]
    return header + body


def main(argv: list[str]) -> int:
    """Import the named chapters; nothing is overwritten before it reads back."""
    if not argv:
        fail("say which chapter: make import C=3.02")
    for source in find(argv):
        notebook = source.with_suffix(".ipynb")
        if not notebook.exists():
            fail(f"{number(source)} has no notebook to import from")
        import nbformat

        state = json.loads(STATE.read_text()) if STATE.exists() else {}
        built = state.get(number(source), {}).get("source")
        if built and built != hashlib.sha256(source.read_bytes()).hexdigest():
            fail(
                f"{source.name} was edited after it was built; importing would lose "
                f"that edit: run make chapter C={number(source)} or git stash it first"
            )
        text = imported(source, notebook)
        temporary = source.with_name(source.name + ".importing")
        temporary.write_text(text, encoding="utf-8")
        wanted = [(c.cell_type, c.source) for c in nbformat.read(notebook, 4).cells]
        got = [(c.cell_type, c.source) for c in read_source(temporary).cells]
        temporary.unlink()
        if wanted != got:
            first = next(
                i for i, (a, b) in enumerate(zip_longest(wanted, got)) if a != b
            )
            fail(f"{notebook.name}: cell {first + 1} cannot be written as Markdown")
        if text == source.read_text(encoding="utf-8"):
            print(f"{number(source)}: nothing to import")
            continue
        write_atomically(source, text)
        print(
            f"{number(source)}: imported; next: git diff, then "
            f"make chapter C={number(source)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

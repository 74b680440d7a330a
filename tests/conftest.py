"""Fixtures that several test files share."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The template chapter, executed: (source, notebook)."""
    import build_notebooks

    folder = tmp_path_factory.mktemp("book") / "1_mathematics"
    folder.mkdir()
    source = folder / "03_template.md"
    text = (ROOT / "templates" / "chapter.md").read_text(encoding="utf-8")
    source.write_text(text.replace("SLUG-LABEL", "template"), encoding="utf-8")
    path, error, _ = build_notebooks.build(source)
    assert not error, error
    return path, path.with_suffix(".ipynb")

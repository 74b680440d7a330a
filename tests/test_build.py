"""The one-way build: same bytes every time, nothing half-written, clear failures."""

import json
import shutil
import subprocess
import sys

import build_notebooks
import gates
import pytest
from _book import ROOT, sources

HEAD = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# T

"""


def chapter(folder, *cells):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "01_small.md"
    fences = [f"```{{code-cell}} ipython3\n{code}\n```\n" for code in cells]
    path.write_text(HEAD + "\n".join(fences))
    return path


def test_three_builds_are_byte_identical(template):
    source, notebook = template
    first = notebook.read_bytes()
    for _ in range(2):
        assert build_notebooks.build(source)[1] == ""
        assert notebook.read_bytes() == first


def test_notebook_is_lean(template):
    nb = json.loads(template[1].read_text())
    assert set(nb["metadata"]) == {"kernelspec", "language_info"}
    assert "version" not in nb["metadata"]["language_info"]
    ids = [cell["id"] for cell in nb["cells"]]
    assert len(set(ids)) == len(ids)


def test_equal_cells_get_different_ids(tmp_path):
    source = chapter(tmp_path / "1_a", "1 + 1", "1 + 1")
    assert build_notebooks.build(source)[1] == ""
    ids = [c["id"] for c in gates.load_notebook(source.with_suffix(".ipynb"))["cells"]]
    assert len(set(ids)) == len(ids)


def test_prose_build_keeps_outputs_and_refuses_changed_code(tmp_path):
    source = chapter(tmp_path / "1_a", "print(1 + 1)", "print(5)")
    assert build_notebooks.build(source)[1] == ""
    notebook = source.with_suffix(".ipynb")
    source.write_text(source.read_text().replace("# T\n", "# Another title\n"))
    _, error, record = build_notebooks.build_and_record(source, prose=True)
    assert error == ""
    assert record["inputs"] == "prose"
    by_prose = notebook.read_bytes()
    assert b"Another title" in by_prose
    assert build_notebooks.build(source)[1] == ""
    assert notebook.read_bytes() == by_prose  # a full build gives the same bytes
    for spoilt, said in (
        (source.read_text().replace("1 + 1", "1 + 2"), "code cell 1 changed"),
        (source.read_text() + "\n```{code-cell} ipython3\n7\n```\n", "number of code"),
    ):
        source.write_text(spoilt)
        _, error, _ = build_notebooks.build_and_record(source, prose=True)
        assert said in error
        assert notebook.read_bytes() == by_prose


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "x = 1\nprint('so far')\nraise ValueError('the reason')",
            "ValueError: the reason",
        ),
        ("import warnings\nwarnings.warn('careful')", "writes to stderr"),
        ("object()", "memory address"),
        ("x = (", "cannot format"),
    ],
)
def test_a_failing_cell_is_named_and_the_old_notebook_stays(tmp_path, code, said):
    source = chapter(tmp_path / "3_a", "1 + 1")
    notebook = source.with_suffix(".ipynb")
    assert build_notebooks.build(source)[1] == ""
    before = notebook.read_bytes()
    chapter(tmp_path / "3_a", "1 + 1", code)
    error = build_notebooks.build(source)[1]
    assert said in error
    if "format" not in said:
        assert "3.01, code cell 2" in error and "line 13" in error
    assert notebook.read_bytes() == before
    assert sorted(p.suffix for p in source.parent.iterdir()) == [".ipynb", ".md"]


def test_cells_are_formatted_to_79_columns(tmp_path):
    source = chapter(tmp_path / "1_a", "x = {'a':1}\nx", ":tags: [export]\n\ny=2")
    assert build_notebooks.format_cells(source)
    text = source.read_text()
    assert 'x = {"a": 1}' in text and ":tags: [export]\n\ny = 2" in text
    assert not build_notebooks.format_cells(source)


def test_pictures_keep_at_most_128_colours(template):
    import base64
    import io

    from PIL import Image

    nb = json.loads(template[1].read_text())
    pictures = [
        out["data"]["image/png"]
        for cell in gates.code_cells(nb)
        for out in cell["outputs"]
        if "image/png" in out.get("data", {})
    ]
    image = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    assert len(image.getcolors()) <= 128 and "Software" not in image.info


def test_a_change_in_an_imported_module_makes_a_chapter_stale(template, monkeypatch):
    source, _ = template
    modules = {
        p.name
        for p in build_notebooks.package_modules(
            "from llmbook import claims\nfrom llmbook.grading import grade\n"
            'grade("template-1", f)'
        )
    }
    assert {"claims.py", "_core.py", "template.py", "book.mplstyle"} <= modules
    assert "train.py" not in modules
    record = {"inputs": build_notebooks.inputs_hash(source)}
    import hashlib

    record["output"] = hashlib.sha256(
        source.with_suffix(".ipynb").read_bytes()
    ).hexdigest()
    state = {"1.03": record}
    assert build_notebooks.current(source, state)
    monkeypatch.setattr(
        build_notebooks, "package_modules", lambda code: {ROOT / "README.md"}
    )
    assert not build_notebooks.current(source, state)


@pytest.mark.parametrize("tampered", [False, True])
def test_nbval_sees_a_changed_number(template, tmp_path, tampered):
    """Gate 3 can fail: one digit of one stored output."""
    _, notebook = template
    copy = tmp_path / "03_template.ipynb"
    text = notebook.read_text()
    assert "independent draws: 3.2" in text
    if tampered:
        text = text.replace("independent draws: 3.2", "independent draws: 3.3")
    copy.write_text(text)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", str(copy)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode == 1) == tampered, run.stdout[-2000:]
    said = run.stdout.rsplit(" in ", 1)[0]  # without "… passed in 3.31s"
    assert ("3.3" in said) == tampered


def test_import_takes_an_edit_back(template, tmp_path):
    import import_notebook

    source, notebook = (shutil.copy(p, tmp_path) for p in template)
    source, notebook = type(template[0])(source), type(template[0])(notebook)
    nb = json.loads(notebook.read_text())
    cell = next(c for c in nb["cells"] if "standard_error(x)" in "".join(c["source"]))
    cell["source"] = "def standard_error(x):\n    return x.std(ddof=0)"
    cell["metadata"]["collapsed"] = True
    notebook.write_text(json.dumps(nb))
    text = import_notebook.imported(source, notebook)
    assert "ddof=0" in text and "collapsed" not in text
    assert text.startswith(source.read_text().split("\n---\n")[0])


@pytest.mark.parametrize("source", sources(), ids=lambda p: p.stem[3:])
def test_import_of_an_unedited_chapter_changes_no_cell(source, tmp_path):
    import import_notebook
    from _book import read_source

    copy = tmp_path / source.name
    copy.write_text(import_notebook.imported(source, source.with_suffix(".ipynb")))
    old = [(c.cell_type, c.source, dict(c.metadata)) for c in read_source(source).cells]
    new = [(c.cell_type, c.source, dict(c.metadata)) for c in read_source(copy).cells]
    assert old == new


# --- the command line: one clear line, never a traceback ------------------------------


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        (["build_notebooks.py", "9.99"], "no chapter '9.99'"),
        (["new_chapter.py", "3.3", "x"], "part and two digits"),
        (["new_chapter.py", "3.77", "Bad-Slug"], "small letters"),
        (["new_chapter.py"], "make new"),
        (["import_notebook.py"], "make import"),
        (["mutants.py", "nosuch"], "no chapter 'nosuch'"),
        (["portability.py", "nosuch"], "no chapter 'nosuch'"),
    ],
)
def test_wrong_arguments_get_one_clear_line(tool, said):
    run = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool[0]), *tool[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode and run.stderr.startswith("error: ") and said in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chapter"], "make chapter C=3.02"),
        (["new", "C=3.03"], "make new C=3.03 S=transformer"),
        (["book", "TORCH=gpu"], "use TORCH=cpu"),
    ],
)
def test_make_says_what_is_missing(words, said):
    # An existing file as stamp, declared old: nothing is installed here.
    run = subprocess.run(
        ["make", *words, "STAMP=Makefile", "-o", "Makefile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode and said in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_new_chapter_writes_a_skeleton_that_builds(tmp_path, monkeypatch):
    import new_chapter

    monkeypatch.setattr(new_chapter, "CHAPTERS", tmp_path / "chapters")
    monkeypatch.setattr(new_chapter, "ROOT", tmp_path)
    (tmp_path / "chapters").mkdir()
    shutil.copytree(ROOT / "templates", tmp_path / "templates")
    folder = tmp_path / "llmbook" / "grading" / "exercises"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "llmbook/grading/exercises/template.py", folder)
    assert new_chapter.main(["3.99", "brand_new"]) == 0
    text = (tmp_path / "chapters/3_language_models/99_brand_new.md").read_text()
    assert "(ch-brand-new)=" in text and 'grade("brand_new-1"' in text
    assert '"brand_new-1"' in (folder / "brand_new.py").read_text()


def test_new_chapter_never_overwrites(monkeypatch, template):
    import new_chapter

    monkeypatch.setattr(
        new_chapter, "sources", lambda: [ROOT / "chapters/1_x/03_taken.md"]
    )
    with pytest.raises(SystemExit, match="exists already"):
        new_chapter.main(["3.98", "taken"])

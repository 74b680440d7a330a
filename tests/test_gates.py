"""The static gates over every chapter, and proof that each of them can fail."""

import copy

import gates
import pytest
from _book import number, sources

CHAPTERS = sources()
IDS = [f"{number(p)}-{p.stem[3:]}" for p in CHAPTERS]


def built(source):
    notebook = source.with_suffix(".ipynb")
    assert notebook.exists(), f"run: make chapter C={number(source)}"
    return gates.load_notebook(notebook)


def test_there_are_chapters_and_no_orphans():
    assert CHAPTERS
    folder = CHAPTERS[0].parent.parent
    notebooks = {
        p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
    }
    assert notebooks == {p.with_suffix(".ipynb") for p in CHAPTERS}


@pytest.mark.parametrize("source", CHAPTERS, ids=IDS)
@pytest.mark.parametrize("gate", ["twin", "exports", "style", "claims_tried"])
def test_source_gates(source, gate):
    assert getattr(gates, gate)(source, built(source)) == []


@pytest.mark.parametrize("source", CHAPTERS, ids=IDS)
@pytest.mark.parametrize("gate", ["order", "ignored", "figures", "ledger"])
def test_notebook_gates(source, gate):
    assert getattr(gates, gate)(built(source)) == []


# --- each gate can fail -----------------------------------------------------------


@pytest.fixture
def sound(template):
    source, notebook = template
    nb = gates.load_notebook(notebook)
    assert gates.twin(source, nb) == gates.order(nb) == gates.ledger(nb) == []
    assert gates.figures(nb) == gates.ignored(nb) == []
    return source, copy.deepcopy(nb)


def claim_output(nb):
    return next(
        out["data"]
        for cell in gates.code_cells(nb)
        for out in cell["outputs"]
        if gates.MIME in out.get("data", {})
    )


def test_twin_sees_an_edited_source(sound, tmp_path):
    source, nb = sound
    other = tmp_path / source.name
    other.write_text(source.read_text().replace("1.0, 3.0, 5.0", "1.0, 3.0, 6.0"))
    assert "differs" in gates.twin(other, nb)[0]


def test_twin_sees_a_dropped_cell_and_changed_tags(sound):
    source, nb = sound
    nb["cells"].pop()
    assert gates.twin(source, nb)
    _, nb = sound
    nb["cells"][0]["metadata"] = {"tags": ["no-live"]}
    assert any("metadata" in p for p in gates.twin(source, nb))


def test_order_sees_a_cleared_notebook(sound):
    _, nb = sound
    for cell in gates.code_cells(nb):
        cell["execution_count"], cell["outputs"] = None, []
    assert "execution counts" in gates.order(nb)[0]


def test_order_sees_a_swapped_run_an_error_and_stderr(sound):
    _, nb = sound
    first, second, third = gates.code_cells(nb)[:3]
    first["execution_count"], second["execution_count"] = 2, 1
    second["outputs"] = [{"output_type": "error", "ename": "ValueError"}]
    third["outputs"] = [{"output_type": "stream", "name": "stderr", "text": ["x"]}]
    found = "\n".join(gates.order(nb))
    assert "execution counts" in found and "ValueError" in found and "stderr" in found


def test_order_sees_foreign_metadata(sound):
    _, nb = sound
    nb["cells"][0]["metadata"] = {"collapsed": True}
    assert "metadata" in gates.order(nb)[0]


def test_ignored_sees_too_many_and_a_hidden_claim(sound):
    _, nb = sound
    for cell in gates.code_cells(nb)[:3]:
        cell["metadata"]["tags"] = ["nbval-ignore-output"]
    assert "3 cells" in gates.ignored(nb)[0]
    nb = sound[1]
    gates.code_cells(nb)[4]["metadata"]["tags"] = ["claim", "nbval-ignore-output"]
    assert any("claim" in p for p in gates.ignored(nb))


@pytest.mark.parametrize("trick", ["# NBVAL_SKIP", "# NBVAL_IGNORE_OUTPUT"])
def test_ignored_sees_comment_tricks(sound, trick):
    _, nb = sound
    gates.code_cells(nb)[0]["source"] = trick + "\nx = 1"
    assert gates.ignored(nb)


def test_figures_sees_missing_alt_text(sound):
    _, nb = sound
    for cell in gates.code_cells(nb):
        cell["metadata"].get("mystnb", {}).pop("image", None)
    assert "alt text" in gates.figures(nb)[0]


def test_ledger_sees_a_typed_verdict(sound):
    _, nb = sound
    data = claim_output(nb)
    data[gates.MIME]["verdict"] = data[gates.MIME]["status"] = "holds"
    assert "its evidence gives" in gates.ledger(nb)[0]


def test_ledger_sees_changed_evidence(sound):
    _, nb = sound
    data = claim_output(nb)[gates.MIME]
    data["evidence"]["draws that share a seed"] = 3.2
    assert any("'holds'" in p for p in gates.ledger(nb))


def test_ledger_sees_html_that_says_something_else(sound):
    _, nb = sound
    data = claim_output(nb)
    html = "".join(data["text/html"])
    data["text/html"] = html.replace("holds when the runs are independent", "holds")
    assert any("HTML" in p for p in gates.ledger(nb))


def test_ledger_sees_a_rule_that_comes_after(sound):
    _, nb = sound
    for cell in gates.code_cells(nb):
        if "rule" in gates.tags_of(cell):
            cell["outputs"] = []
    assert any("not shown before" in p for p in gates.ledger(nb))


def test_claims_tried_sees_an_undeclared_claim(sound, tmp_path):
    source, nb = sound
    other = tmp_path / source.name
    other.write_text(source.read_text().replace("claims: [C00]", "claims: [C00, C99]"))
    assert gates.claims_tried(source, nb) == []
    assert "C99" in gates.claims_tried(other, nb)[0]


def test_exports_sees_drift_both_ways(tmp_path):
    (tmp_path / "llmbook").mkdir()
    room = tmp_path / "llmbook" / "room.py"
    room.write_text(
        'def f(x: int) -> int:\n    """F.\n\n    Built in ch-a.\n    """\n'
        "    return x + 1\n"
    )
    cell = {"cell_type": "code", "metadata": {"tags": ["export"]}, "source": ""}
    md = tmp_path / "01_a.md"
    cell["source"] = "def f(x):\n    # why\n    return x + 1"
    assert gates.exports(md, {"cells": [cell]}, tmp_path) == []
    cell["source"] = "def f(x):\n    return x - 1"
    assert "differs" in gates.exports(md, {"cells": [cell]}, tmp_path)[0]
    cell["source"] = "def g(x):\n    return x"
    found = gates.exports(md, {"cells": [cell]}, tmp_path)
    assert len(found) == 2 and "no such name" in found[0] and "no cell does" in found[1]


def test_style_sees_filler_and_long_cells(sound, tmp_path):
    source, nb = sound
    other = tmp_path / source.name
    other.write_text(source.read_text() + "\nLet's dive in.\n")
    gates.code_cells(nb)[0]["source"] = "x = 1\n" * 41
    found = "\n".join(gates.style(other, nb))
    assert "filler" in found and "41 lines" in found


def test_ledger_sees_a_rule_that_was_swapped_after_it_was_shown(sound):
    _, nb = sound
    for cell in gates.code_cells(nb):
        if "rule" in gates.tags_of(cell):
            data = cell["outputs"][0]["data"]
            text = "".join(data["text/plain"])
            data["text/plain"] = text.replace("0.15", "0.35", 1)
    assert any("not shown before" in p for p in gates.ledger(nb))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('claims.verdict("C0", rule, {"a": 1.0})', "typed in"),
        ('claims.verdict("C0", rule, old)', "older than its rule"),
        ('claims.verdict("C0", rule, dict(a=1))', "dictionary or a name"),
        ('claims.verdict("C0", rule, new)', ""),
        ('claims.verdict("C0", rule, {"a": measured()})', ""),
    ],
)
def test_ledger_sees_typed_and_stale_evidence(code, said):
    found = gates._typed(code, {"old": 2, "new": 5}, rule_cell=3)
    assert bool(found) == bool(said) and all(said in p for p in found)


def test_ignored_sees_a_tag_that_nbval_obeys(sound):
    _, nb = sound
    gates.code_cells(nb)[4]["metadata"]["tags"] = ["pytest-validate-ignore-output"]
    assert any("unknown tags" in p for p in gates.ignored(nb))

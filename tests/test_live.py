"""Cells that run in the page: the judgement, and a browser that runs them."""

import hashlib
import json
import os
import re
import subprocess
import threading
from itertools import pairwise

import build_site
import live_assets
import live_cells
import pytest
from _book import ROOT, sources

# --- The judgement ---------------------------------------------------------------


def judge(*cells, tags=()):
    nb = [{"source": c, "metadata": {"tags": list(tags)}} for c in cells]
    return live_cells.analyse(nb)


def lives(*cells):
    return [c["live"] for c in judge(*cells)["cells"]]


def test_packages_come_from_imports_of_live_cells():
    found = judge("import numpy as np", "import sklearn.datasets", "import torch")
    assert found["packages"] == ["numpy", "scikit-learn"]
    assert [c.get("why") for c in found["cells"]] == [None, None, "PyTorch"]


def test_a_cell_that_uses_what_torch_made_is_not_live():
    assert lives("import torch", "x = torch.ones(2)", "y = x + 1", "z = 3") == [
        False,
        False,
        False,
        True,
    ]


def test_what_a_function_of_the_book_imports_is_loaded():
    start = "from llmbook import claims, data"
    assert "scikit-learn" not in judge(start)["packages"]
    assert "scikit-learn" in judge(start, "data.photo('china')")["packages"]
    assert "scipy" in judge(start, "claims.interval([1, 2, 3])")["packages"]


def test_a_room_is_judged_by_its_own_imports(monkeypatch, tmp_path):
    (tmp_path / "llmbook").mkdir()
    for name, code in (
        (
            "plain",
            "import numpy\nfrom typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import torch\n",
        ),
        ("deep", "from llmbook import under\n"),
        ("under", "import torch\n"),
    ):
        (tmp_path / "llmbook" / f"{name}.py").write_text(code)
    monkeypatch.setattr(live_cells, "ROOT", tmp_path)
    live_cells._room.cache_clear()
    assert lives("from llmbook import plain") == [True]
    assert lives("from llmbook import deep") == [False]
    assert judge("from llmbook import deep")["cells"][0]["why"] == "PyTorch"
    assert lives("from llmbook import absent") == [False]
    live_cells._room.cache_clear()


def test_a_name_that_torch_makes_anew_is_lost():
    assert lives("x = 1", "import torch\nx = torch.ones(x)", "x + 1") == [
        True,
        False,
        False,
    ]


def test_what_torch_has_altered_is_lost():
    start = "found = {}\nrows = []\nother = []"
    assert lives(start, "import torch\nfound['a'] = torch.ones(1)", "len(found)") == [
        True,
        False,
        False,
    ]
    append = "import torch\nrows.append(torch.ones(1))"
    assert lives(start, append, "len(rows)", "len(other)")[2:] == [False, True]


def test_names_inside_functions_count_and_local_ones_do_not():
    assert lives("import torch", "def f(a):\n    b = a\n    return torch.ones(b)") == [
        False,
        False,
    ]
    body = "def f(a):\n    torch = a\n    return [torch for c in a if c]"
    assert lives(body, "f([1])") == [True, True]
    assert lives("class A:\n    x = 1\n    y = x\n", "A().y") == [True, True]


def test_an_augmented_assignment_reads_its_name():
    assert lives("x += 1") == [False]
    assert lives("x = 0", "x += 1") == [True, True]


def test_what_no_browser_has_is_named():
    found = judge("import subprocess", "import dask", "%time 1", "undefined_name")
    assert [c["why"] for c in found["cells"]] == [
        "the module subprocess",
        "dask",
        "a shell or notebook command",
        "undefined_name, which is not defined",
    ]
    texts = judge("from llmbook import data", "data.minilm()", "data.intents()")
    assert [c["live"] for c in texts["cells"]] == [True, False, True]


def test_a_grader_that_needs_torch_is_not_live(tmp_path, monkeypatch):
    monkeypatch.setattr(live_cells, "EXERCISES", tmp_path)
    (tmp_path / "some_slug.py").write_text("import numpy\nfrom llmbook import files\n")
    cells = ("from llmbook.grading import grade", 'grade("some_slug-2", print)')
    assert lives(*cells) == [True, True]
    (tmp_path / "some_slug.py").write_text("import torch\n")
    assert lives(*cells) == [True, False]


def test_an_error_that_is_the_lesson_is_expected():
    cells = judge("1 / 0", tags=["raises-exception"])["cells"]
    assert cells == [{"live": True, "raises": True}]


def test_the_tag_opts_out():
    assert judge("1 + 1", tags=["no-live"])["cells"][0]["live"] is False


def test_a_generator_used_by_a_torch_cell_is_out_of_step():
    start = "import numpy as np\nrng = np.random.default_rng(0)"
    cells = judge(
        start,
        "a = rng.random()",
        "import torch\nrng.random()",
        "b = rng.random()",
        "b + 1",
        "a",
    )
    assert [c.get("drift", False) for c in cells["cells"]] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


# --- The assets ------------------------------------------------------------------


def test_the_lock_has_hashes_and_no_addresses():
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    entries = [v for k, v in lock["packages"].items() if k]
    assert entries and all(v["integrity"].startswith("sha512-") for v in entries)
    assert all("resolved" not in v for v in entries)
    wanted = json.loads((ROOT / "web" / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in wanted.values())


def test_a_wheel_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(live_assets, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("LLMBOOK_WHEELS", str(tmp_path))
    monkeypatch.setattr(live_assets, "CDN", "http://127.0.0.1:9/{version}/{name}")
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"spoilt")
    good = hashlib.sha256(b"whole").hexdigest()
    entry = {"file_name": "a-1-py3-none-any.whl", "sha256": good}
    with pytest.raises(live_assets.Missing, match=r"a-1-py3-none-any\.whl"):
        live_assets.wheel(entry, "1")
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"whole")
    path, source = live_assets.wheel(entry, "1")
    assert path.read_bytes() == b"whole" and source == str(tmp_path)
    assert live_assets.wheel(entry, "1")[1] == "the cache"


def test_without_a_source_the_page_is_left_as_it_was(tmp_path, monkeypatch):
    def nothing(target):
        raise live_assets.Missing("no source answers")

    monkeypatch.setattr(live_assets, "prepare", nothing)
    source = next(p for p in sources() if p.stem == "04_probability_and_mle")
    page = tmp_path / source.relative_to(ROOT).with_suffix(".html")
    page.parent.mkdir(parents=True)
    page.write_text("<body><p>text</p></body>")
    live_cells.insert(page, source.with_suffix(".ipynb"), 2, True)
    assert "live.js" in page.read_text()
    line = build_site.add_live_cells(tmp_path)
    assert page.read_text() == "<body><p>text</p></body>"
    assert line.startswith("live cells: left out, no source answers")


# --- In a real browser --------------------------------------------------------------

NUMBER = re.compile(r"[-−]?\d+(?:[.,]\d+)?(?:e[-+]?\d+)?")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The site with its live cells, served on 127.0.0.1."""
    found = live_assets.for_tests()
    assert found, "no source has Pyodide's wheels: name one with LLMBOOK_WHEELS"
    out = tmp_path_factory.mktemp("live")
    site = build_site.build(out).parent
    httpd = build_site.server(0, site)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}", site
    httpd.shutdown()


@pytest.fixture
def chromium(chrome):
    """The browser, under the name that says which one."""
    return chrome


def chosen():
    """Chapters to drive: those just changed, and an eighth picked by the commit."""
    every = sources()
    if os.environ.get("ALL") == "1":
        return every

    def git(*words):
        run = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    head = git("rev-parse", "HEAD")
    changed = set(git("diff", "--name-only", "HEAD~1").split()) if head else set()
    turn = int(head[:8], 16) % 8 if head else 0
    touched = [p for p in every if str(p.relative_to(ROOT)) in changed]
    return sorted({*touched[:2], *every[turn::8]})


def text_of(outputs):
    """What a reader sees of stored outputs, as words."""
    words = []
    for output in outputs:
        data = output.get("data", {})
        if output["output_type"] == "stream":
            words.append("".join(output["text"]))
        elif "image/png" in data:
            continue
        elif "text/html" in data:
            words.append(re.sub(r"<[^>]+>", " ", "".join(data["text/html"])))
        elif "text/plain" in data:
            words.append("".join(data["text/plain"]))
    return " ".join(words)


def seen(result):
    """What the reader sees of live outputs, as words, read as the stored ones are."""
    return " ".join(
        re.sub(r"<[^>]+>", " ", part["html"]) if "html" in part else part["text"]
        for part in result["texts"]
    )


def close(stored, live):
    """Equal words, and numbers that agree to 5 % or to their last digit or two."""
    assert NUMBER.sub("#", stored).split() == NUMBER.sub("#", live).split()
    for a, b in zip(NUMBER.findall(stored), NUMBER.findall(live), strict=True):
        x, y = (float(t.replace("−", "-").replace(",", "")) for t in (a, b))
        unit = 10.0 ** -len(a.partition(".")[2])
        assert abs(x - y) <= max(0.05 * abs(x), 2 * unit), (a, b)


def unescape(text):
    import html

    return re.sub(r"\s+", " ", html.unescape(text)).strip()


def open_page(chromium, served, source, **options):
    address, _ = served
    page = chromium.new_page(**options)
    page.problems = []
    page.on(
        "console",
        lambda m: page.problems.append(m.text) if m.type == "error" else None,
    )
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on("requestfailed", lambda r: page.problems.append(r.url))
    page.asked = []
    page.on("request", lambda r: page.asked.append(r.url))
    name = source.relative_to(ROOT).with_suffix(".html")
    page.goto(f"{address}/{name}")
    return page


RUN = """async (index) => {
  const cell = bookLive.cells.find((c) => c.index === index);
  await cell.openEditor();
  await cell.run();
  const shown = cell.shown;
  const texts = [];
  for (const part of shown?.querySelectorAll(".output, .live-error") ?? [])
    texts.push(part.matches(".text_html")
      ? {html: part.innerHTML} : {text: part.textContent});
  const images = [...(shown?.querySelectorAll(":scope > img") ?? [])];
  return {status: cell.status.textContent, texts,
          images: images.length, drift: Boolean(cell.drift)};
}"""


@pytest.mark.site
@pytest.mark.slow
@pytest.mark.parametrize("source", chosen(), ids=lambda p: p.stem)
def test_unedited_cells_give_the_stored_output(source, served, chromium):
    nb = json.loads(source.with_suffix(".ipynb").read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    judged = live_cells.analyse(code)
    page = open_page(chromium, served, source)
    page.set_default_timeout(120_000)
    assert page.locator("div.cell").count() == len(code)
    assert not [u for u in page.asked if "/pyodide/" in u or "editor.js" in u]
    for index, (cell, found) in enumerate(zip(code, judged["cells"], strict=True)):
        tags = cell["metadata"].get("tags", [])
        if not found["live"]:
            continue
        result = page.evaluate(RUN, index)
        where = f"cell {index + 1}: {''.join(cell['source'])[:60]!r}"
        if "raises-exception" in tags:
            assert "error" in result["status"], where
            continue
        assert result["status"].startswith("done"), (where, result)
        images = sum("image/png" in o.get("data", {}) for o in cell["outputs"])
        assert result["images"] == images, where
        if not (found.get("drift") or "nbval-ignore-output" in tags):
            try:
                close(unescape(text_of(cell["outputs"])), unescape(seen(result)))
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from None
    assert page.problems == []
    page.close()


@pytest.fixture(scope="module")
def small():
    """A chapter whose cells are live and quick."""
    return next(p for p in sources() if p.stem == "04_probability_and_mle")


@pytest.mark.site
@pytest.mark.slow
def test_a_reader_edits_runs_stops_and_resets(served, chromium, small):
    page = open_page(chromium, served, small)
    page.set_default_timeout(120_000)
    cell = page.locator("div.cell").nth(2)
    cell.get_by_role("button", name="Edit & run").click()
    status = cell.locator(".live-status")
    page.wait_for_function("bookLive.cells[2].status.textContent.startsWith('done')")
    assert "0.0902" in cell.locator(".live-output").inner_text()

    # An edit is run by Shift+Enter, and an error is readable.
    editor = cell.locator(".cm-content")
    editor.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("print(6 * 7)\n1 / 0")
    assert page.evaluate("bookLive.cells[2].text") == "print(6 * 7)\n1 / 0"
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("bookLive.cells[2].status.textContent.includes('error')")
    shown = cell.locator(".live-output")
    assert "42" in shown.inner_text()
    assert "ZeroDivisionError: division by zero" in shown.inner_text()

    # Tab leaves the editor; the edit survives a reload.
    editor.focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Run"
    page.reload()
    assert "edited" in page.locator("div.cell").nth(2).inner_text()
    page.locator("div.cell").nth(2).get_by_role("button", name="Edit & run").click()
    assert (
        "6 * 7" in page.locator("div.cell").nth(2).locator(".cm-content").inner_text()
    )

    # Original brings back source and stored output.
    page.wait_for_function("!bookLive.cells[2].runButton.disabled")
    page.locator("div.cell").nth(2).get_by_role("button", name="Original").click()
    text = page.locator("div.cell").nth(2).inner_text()
    assert "0.0902" in text and "6 * 7" not in text
    assert (
        page.evaluate(
            "Object.keys(localStorage).filter(k => k.startsWith('book-edit')).length"
        )
        == 0
    )

    # Stop ends a loop that would never end, and the next run starts again.
    page.evaluate("bookLive.cells[0].text = 'while True: pass'")
    page.evaluate(
        "void bookLive.cells[0].openEditor().then(() => bookLive.cells[0].run())"
    )
    first = page.locator("div.cell").first
    first.get_by_role("button", name="Stop").click()
    page.wait_for_function("bookLive.cells[0].status.textContent.startsWith('stopped')")
    page.evaluate("bookLive.cells[0].restore()")
    first.get_by_role("button", name="Run", exact=True).click()
    page.wait_for_function("bookLive.cells[0].status.textContent === 'done'")
    assert page.problems == []
    page.close()
    assert status is not None


@pytest.mark.site
@pytest.mark.slow
def test_a_solution_passes_its_grader_in_the_page(served, chromium, small):
    nb = json.loads(small.with_suffix(".ipynb").read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    index = next(
        i
        for i, c in enumerate(code)
        if "solution" in c["metadata"].get("tags", [])
        and "grade(" in "".join(c["source"])
    )
    page = open_page(chromium, served, small)
    page.set_default_timeout(120_000)
    result = page.evaluate(RUN, index)
    stored = unescape(text_of(code[index]["outputs"]))
    assert "pass" in stored and unescape(seen(result)) == stored
    page.close()


@pytest.mark.site
@pytest.mark.slow
def test_a_readers_own_right_answer_counts_as_done(served, chromium, small):
    nb = json.loads(small.with_suffix(".ipynb").read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    graded = [
        (i, "".join(c["source"]))
        for i, c in enumerate(code)
        if "grade(" in "".join(c["source"])
    ]
    (starter, _), (_, solution) = next(
        (a, b)
        for a, b in pairwise(graded)
        if "starter" in code[a[0]]["metadata"]["tags"]
    )
    name = re.search(r'grade\("([\w-]+)"', solution)[1]
    page = open_page(chromium, served, small)
    page.set_default_timeout(120_000)
    done = page.locator(f"#ex-{name.replace('_', '-')} input")
    page.evaluate(RUN, starter)
    assert not done.is_checked()
    page.evaluate(
        "([i, t]) => { bookLive.cells.find((c) => c.index === i).text = t; }",
        [starter, solution],
    )
    result = page.evaluate(RUN, starter)
    assert "all" in seen(result) and done.is_checked()
    page.close()


@pytest.mark.site
@pytest.mark.slow
def test_an_error_above_stops_and_is_shown_where_it_is(served, chromium, small):
    page = open_page(chromium, served, small)
    page.set_default_timeout(120_000)
    page.evaluate("bookLive.cells[1].text = '1 / 0'")
    result = page.evaluate(RUN, page.evaluate("bookLive.cells[3].index"))
    assert "raised an error, shown there" in result["status"]
    assert result["texts"] == []
    assert "ZeroDivisionError" in page.evaluate("bookLive.cells[1].shown.textContent")
    page.close()


@pytest.mark.site
@pytest.mark.slow
def test_the_download_carries_the_edit(served, chromium, small, tmp_path):
    page = open_page(chromium, served, small)
    page.evaluate("bookLive.cells[1].text = 'print(1)\\nprint(2)'")
    with page.expect_download() as wait:
        page.get_by_role("button", name="Download with my edits").click()
    target = tmp_path / wait.value.suggested_filename
    wait.value.save_as(target)
    nb = json.loads(target.read_text())
    code = [c for c in nb["cells"] if c["cell_type"] == "code"]
    assert "".join(code[1]["source"]) == "print(1)\nprint(2)"
    assert code[1]["outputs"] == [] and target.name.endswith(".ipynb")
    page.close()


@pytest.mark.site
@pytest.mark.slow
def test_from_a_file_the_button_says_what_to_do(served, chromium, small):
    _, site = served
    page = chromium.new_page()
    page.goto((site / small.relative_to(ROOT).with_suffix(".html")).as_uri())
    page.get_by_role("button", name="Edit & run").first.click()
    assert "make read" in page.locator("div.cell").first.inner_text()
    page.close()


@pytest.mark.site
@pytest.mark.slow
def test_a_failed_download_is_said_in_words(served, chromium, small):
    page = open_page(chromium, served, small)
    page.route("**/*.whl", lambda route: route.abort())
    cell = page.locator("div.cell").first
    cell.get_by_role("button", name="Edit & run").click()
    page.wait_for_function("bookLive.cells[0].status.textContent.includes('try again')")
    page.close()

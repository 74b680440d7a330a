"""What the site does for a reader: terms, copied links, progress; in a real browser."""

import json
import re
import subprocess
import sys

import build_pdf
import live_assets
import pytest
from _book import ROOT
from bs4 import BeautifulSoup

sys.path.insert(0, str(ROOT / "tools" / "sphinx_ext"))
import reader
from test_live import chromium, served  # noqa: F401 - fixtures

pytestmark = [pytest.mark.site, pytest.mark.slow]
SMALL = "chapters/1_mathematics/12_learning_rate_schedules"
PAGE = "chapters/1_mathematics/10_learning_rate_limit.html"


@pytest.fixture
def page(chromium, served):  # noqa: F811
    address, _ = served
    context = chromium.new_context(accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.address = address
    page.problems = []
    page.on("pageerror", lambda e: page.problems.append(str(e)))
    page.on("requestfailed", lambda r: page.problems.append(r.url))
    yield page
    assert page.problems == []
    context.close()


def test_terms_skip_plain_words_and_take_every_form():
    found = reader.terms(ROOT)
    assert "shape" not in found and "key" not in found
    assert found["singular value"] == "singular value"
    assert found["RoPE"] == found["rotary position embedding"]
    assert all(term.isascii() for term in found)


def test_a_term_shows_its_definition_in_both_languages(page):
    page.goto(f"{page.address}/{PAGE}")
    link = page.locator("a:has(> .book-term)", has_text="edge of stability").first
    assert not page.evaluate("'bookGlossary' in window")
    link.hover()
    note = page.locator(".book-definition")
    note.wait_for()
    assert "edge of stability" in note.inner_text()
    assert note.locator("[lang=zh]").count() == 1
    page.keyboard.press("Escape")
    assert note.count() == 0
    link.focus()
    note.wait_for()
    assert link.get_attribute("aria-describedby") == "book-definition"
    anchor = link.get_attribute("href").split("#")[1]
    page.goto(f"{page.address}/pages/glossary.html")
    assert page.locator(f"#{anchor}").count() == 1


def test_each_term_is_linked_once_a_page(page):
    page.goto(f"{page.address}/{PAGE}")
    targets = page.eval_on_selector_all(
        "a:has(> .book-term)", "links => links.map(a => a.hash)"
    )
    assert len(targets) > 5 and len(set(targets)) == len(targets)
    assert page.locator("h1 .book-term, h2 .book-term, pre .book-term").count() == 0


def test_a_reference_to_a_chapter_is_its_number_with_its_title(served):  # noqa: F811
    _, site = served
    soup = BeautifulSoup((site / f"{SMALL}.html").read_text("utf8"), "html.parser")
    links = {
        a.get_text(): a["title"]
        for a in soup.select("article a.reference[title]")
        if "hapter" in a.get_text()
    }
    assert {"Chapter 1.09", "chapter 1.09"} <= set(links)
    target = site / "chapters/1_mathematics/09_gradient_descent.html"
    heading = BeautifulSoup(target.read_text("utf8"), "html.parser").h1.get_text()
    assert links["chapter 1.09"] in heading


def test_a_reference_to_a_section_quotes_its_title(served):  # noqa: F811
    _, site = served
    folder = site / "chapters" / "1_mathematics"
    page = folder / "13_distributed_optimization.html"
    soup = BeautifulSoup(page.read_text("utf8"), "html.parser")

    def sentences(end):
        found = soup.select(f'article p a.reference[href$="#sec-{end}"]')
        assert found
        return [(a.get_text(), a.find_parent("p").get_text()) for a in found]

    for title, text in sentences("gradient-descent-noise"):
        assert f"“{title}” in chapter 1.09" in text
    for title, text in sentences("distributed-optimization-rate"):
        assert f"“{title}”" in text and f"“{title}” in" not in text


def test_anchors_of_exercises_are_copied(page):
    page.goto(f"{page.address}/{PAGE}")
    link = page.locator("#ex-learning-rate-limit-1 a.headerlink")
    page.locator("#ex-learning-rate-limit-1").scroll_into_view_if_needed()
    page.locator("#ex-learning-rate-limit-1 .admonition-title").hover()
    link.click()
    page.locator(".book-copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{page.address}/{PAGE}#ex-learning-rate-limit-1"


def test_a_printed_book_has_numbers_and_links_inside(served, tmp_path):  # noqa: F811
    from pypdf import PdfReader

    _, site = served
    out = tmp_path / "book.pdf"
    # A process of its own: this one drives a browser already.
    command = [sys.executable, "tools/build_pdf.py", "--site", str(site)]
    command += ["--out", str(out), "--pages", SMALL, "pages/glossary"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    numbers = build_pdf.destinations(out)
    reader = PdfReader(out)
    contents = reader.pages[1].extract_text()
    start = numbers[build_pdf.anchor("pages/glossary")]
    assert re.search(rf"Glossary\s*{start}\b", contents)
    assert "Glossary" in reader.pages[start - 1].extract_text()
    targets = [
        a.get_object().get("/A", {}).get("/URI", "")
        for page in reader.pages
        for a in page.get("/Annots", [])
    ]
    assert targets.count("") > 20  # links within the document
    assert not [t for t in targets if "127.0.0.1" in t or t.startswith("file:")]
    assert not (site / "print.html").exists()


def test_links_of_pages_become_places_in_the_document():
    pages = {"a/b", "a/c", "d"}
    assert build_pdf.address("a/b", "c.html#x", pages) == "#a-c--x"
    assert build_pdf.address("a/b", "../d.html", pages) == "#d"
    assert build_pdf.address("a/b", "#x", pages) == "#a-b--x"
    assert build_pdf.address("a/b", "https://x.org/y", pages) == "https://x.org/y"
    assert build_pdf.address("a/b", "../z.html", pages) == ""


def test_progress_is_kept_shown_exported_and_imported(page, tmp_path):
    page.goto(f"{page.address}/{PAGE}")
    page.get_by_label("I have read this chapter").check()
    page.locator("#ex-learning-rate-limit-1 input").check()
    page.goto(f"{page.address}/index.html")
    box = page.locator(".book-progress")
    box.locator("li").wait_for()
    assert box.locator("p").first.inner_text().startswith("1 of ")
    assert "1.10" in box.locator("li").inner_text()
    with page.expect_download() as wait:
        box.get_by_role("button", name="Export").click()
    saved = tmp_path / "progress.json"
    wait.value.save_as(saved)
    data = json.loads(saved.read_text())
    assert list(data["exercises"]) == ["ex-learning-rate-limit-1"]

    box.get_by_role("button", name="Forget").click()
    assert box.locator("p").first.inner_text().startswith("0 of ")
    saved.with_name("other.json").write_text('{"read": 3}')
    page.set_input_files(".book-progress input", saved.with_name("other.json"))
    page.get_by_text("nothing imported").wait_for()
    page.set_input_files(".book-progress input", saved)
    page.get_by_text("imported", exact=True).wait_for()
    assert box.locator("p").first.inner_text().startswith("1 of ")
    page.goto(f"{page.address}/{PAGE}")
    assert page.get_by_label("I have read this chapter").is_checked()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(served, chromium, scheme):  # noqa: F811
    address, site = served
    axe = (live_assets.modules() / "axe-core" / "axe.min.js").read_text("utf8")
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(120_000)
    found = []
    for path in sorted(site.rglob("*.html")):
        if "_static" in path.parts or path.name in ("genindex.html", "search.html"):
            continue
        page.goto(f"{address}/{path.relative_to(site)}")
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        found += [
            f"{path.name}: {v['id']}: {node['html'][:200]}"
            for v in result["violations"]
            if v["impact"] in ("serious", "critical")
            for node in v["nodes"]
        ]
    context.close()
    assert not found

"""The site as a reader meets it: built fresh with -W, opened in a real browser."""

import re
import shutil
import statistics
import subprocess
import sys
import threading
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

import browser
import build_site
import gates
import pytest
from _book import ROOT, sources
from fontTools.ttLib import TTFont

sys.path.insert(0, str(ROOT / "tools" / "sphinx_ext"))
import lean

pytestmark = [pytest.mark.site, pytest.mark.slow]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, built from nothing into a temporary folder."""
    return build_site.build(tmp_path_factory.mktemp("site")).parent


def pages(site):
    skip = {"search.html", "genindex.html", "404.html", "py-modindex.html"}
    return sorted(
        p
        for p in site.rglob("*.html")
        if p.name not in skip and "_static" not in p.parts
    )


def test_no_notebook_was_executed(site):
    assert not list(site.parent.rglob("reports/*.log"))
    config = (ROOT / "_config.yml").read_text()
    assert re.search(r"execute_notebooks:\s*[\"']off[\"']", config)


def test_only_two_warnings_are_suppressed():
    import yaml

    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["sphinx"]["config"]["suppress_warnings"] == [
        "bibtex.duplicate_citation",
        "mystnb.unknown_mime_type",
    ]


def test_the_only_unknown_mime_type_is_the_claims():
    known = {
        "text/plain",
        "text/html",
        "image/png",
        "image/jpeg",
        "text/latex",
        "text/markdown",
    }
    for source in sources():
        nb = gates.load_notebook(source.with_suffix(".ipynb"))
        for cell in gates.code_cells(nb):
            for out in cell["outputs"]:
                assert set(out.get("data", {})) <= known | {gates.MIME}


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("id"):
            self.ids.add(attrs["id"])
        if tag == "a" and attrs.get("href"):
            self.links.append(attrs["href"])
        if tag == "img":
            self.images.append(attrs)


def parsed(path):
    parser = _Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def test_every_inner_link_leads_somewhere(site):
    seen = {p: parsed(p) for p in site.rglob("*.html") if "_static" not in p.parts}
    broken = []
    for page, parser in seen.items():
        for href in parser.links:
            url = urlparse(href)
            if url.scheme or url.netloc:
                continue
            target = (page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.exists():
                broken.append(f"{page.name}: {href}")
            elif url.fragment and target in seen:
                if unquote(url.fragment) not in seen[target].ids:
                    broken.append(f"{page.name}: {href}")
    assert not broken


def test_every_picture_has_alt_text(site):
    for page in pages(site):
        for image in parsed(page).images:
            assert image.get("alt") is not None, (
                f"{page.name}: {image.get('src', '')[:60]}"
            )


def test_the_ledger_shows_every_claim_with_its_stored_verdict(site):
    import json

    html = (site / "pages" / "ledger.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", " ", html)
    claims = json.loads((ROOT / "assets" / "claims.json").read_text(encoding="utf-8"))
    claims = claims.get("claims", claims) if isinstance(claims, dict) else claims
    ids = [c["id"] for c in claims] if isinstance(claims, list) else list(claims)
    assert ids == [f"C{i:02}" for i in range(1, 52)]
    assert all(re.search(rf"\b{i}\b", text) for i in ids)
    assert "not tried yet" in text.lower()
    for source in sources():
        for data in gates.verdicts(gates.load_notebook(source.with_suffix(".ipynb"))):
            # Quotes are curled in running text.
            assert data["verdict"] in unescape(html).replace("’", "'")


def test_gate_4_sees_a_broken_reference(tmp_path):
    """A copy of the book with one broken reference must not build."""
    book = tmp_path / "book"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", "_build", ".cache", "*.ipynb", "*_cache"
    )
    shutil.copytree(ROOT, book, ignore=ignore)
    (book / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (book / "index.md").write_text("# T\n\nSee {ref}`sec-that-does-not-exist`.\n")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib; sys.path.insert(0, 'tools'); import build_site; "
            "build_site.build(root=pathlib.Path('.').resolve())",
        ],
        cwd=book,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode and "sec-that-does-not-exist" in run.stderr
    (book / "index.md").write_text("# T\n\nA page without a broken reference.\n")
    good = subprocess.run(
        run.args, cwd=book, capture_output=True, text=True, check=False
    )
    assert good.returncode == 0, good.stderr


def test_every_chinese_character_has_a_glyph():
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, 'tools'); import subset_font; "
            "print(''.join(sorted(subset_font.missing_characters())))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "", f"run tools/subset_font.py; missing: {run.stdout}"


# --- in a real browser ----------------------------------------------------------------


@pytest.fixture(scope="session")
def address(site):
    httpd = build_site.server(0, site)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def visit(chrome, address, width, dark, check):
    """Open every page; collect outside requests, errors and what ``check`` finds."""
    context = chrome.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if dark else "light",
    )
    found = []

    def route(r):
        if r.request.url.startswith((address, "data:", "blob:")):
            return r.continue_()
        found.append(f"asks outside: {r.request.url}")
        return r.abort()

    context.route("**/*", route)
    page = context.new_page()
    where = [""]
    page.on("pageerror", lambda e: found.append(f"{where[0]}: script error: {e}"))
    page.on(
        "console",
        lambda m: (
            found.append(f"{where[0]}: console: {m.text}")
            if m.type == "error"
            else None
        ),
    )
    page.on(
        "response",
        lambda r: (
            found.append(f"{where[0]}: {r.status} {r.url}") if r.status >= 400 else None
        ),
    )
    for name in check["pages"]:
        where[0] = name
        page.goto(f"{address}/{name}", wait_until="load")
        found += [f"{name}: {problem}" for problem in check["look"](page)]
    context.close()
    return found


WIDER = """() => {
  const room = document.documentElement.clientWidth;
  return document.documentElement.scrollWidth > room + 1
    ? [`scrolls sideways: ${document.documentElement.scrollWidth} > ${room}`] : [];
}"""
MATHS = (
    """() => document.querySelectorAll('mjx-merror').length ? ['MathJax error'] : []"""
)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_in_a_browser(site, chrome, address, width, dark):
    names = [str(p.relative_to(site)) for p in pages(site)]

    def look(page):
        page.wait_for_function(
            "() => !window.MathJax || !MathJax.startup || !MathJax.startup.promise || "
            "MathJax.startup.promise.then(() => true)"
        )
        return page.evaluate(WIDER) + page.evaluate(MATHS)

    found = visit(chrome, address, width, dark, {"pages": names, "look": look})
    assert not found, "\n".join(found[:20])


def test_sliders_move_by_keyboard(site, chrome, address):
    names = [
        str(p.relative_to(site))
        for p in pages(site)
        if "llmbook-slider" in p.read_text()
    ]
    if not names:
        pytest.fail("no chapter has a slider")

    def look(page):
        problems = []
        for box in page.locator(".llmbook-slider").all():

            def shown(box=box):
                return box.locator("img:not([hidden])").get_attribute("alt")

            before, text = shown(), box.locator("output").inner_text()
            box.locator("input").focus()
            page.keyboard.press("ArrowRight")
            if shown() == before or box.locator("output").inner_text() == text:
                problems.append("the slider does not move")
            if not box.locator("input").get_attribute("aria-valuetext"):
                problems.append("the slider announces no value")
        return problems

    assert visit(chrome, address, 390, False, {"pages": names, "look": look}) == []


def test_solutions_open_and_search_finds_a_word(site, chrome, address):
    chapter = next(
        str(p.relative_to(site)) for p in pages(site) if "solution" in p.read_text()
    )

    def look(page):
        toggles = page.locator(
            ".solution .toggle-details, .solution.dropdown button, .solution summary"
        )
        return [] if toggles.count() else ["no drop-down solution"]

    assert visit(chrome, address, 1280, False, {"pages": [chapter], "look": look}) == []
    context = chrome.new_context()
    page = context.new_page()
    page.goto(f"{address}/search.html?q=attention")
    page.wait_for_selector("#search-results li", timeout=15000)
    context.close()


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        ("λ", ["1.10 ", "Notation"]),
        ("η", ["1.10 ", "1.12 ", "Notation"]),
        ("困惑度", ["Glossary"]),
        ("λ_max", ["1.10 "]),
    ],
)
def test_search_finds_symbols_and_chinese(site, chrome, address, query, pages):
    page = chrome.new_context().new_page()
    page.goto(f"{address}/search.html?q={query}")
    page.wait_for_function(
        "document.querySelector('.search-summary')?.textContent.includes('finished')"
    )
    found = page.locator("ul.search li a").all_inner_texts()
    missing = [x for x in pages if not any(text.startswith(x) for text in found)]
    assert not missing, found
    page.context.close()


def test_a_chapter_is_offered_as_notebook_source_and_print(chrome, address):
    name = "chapters/1_mathematics/02_eigen_svd_pca"
    page = chrome.new_context().new_page()
    page.goto(f"{address}/{name}.html")
    page.locator(".dropdown-download-buttons > button").click()
    offers = page.locator(".dropdown-download-buttons .dropdown-menu .dropdown-item")
    assert [x.strip() for x in offers.all_inner_texts()] == [".ipynb", ".md", ".pdf"]
    for i, suffix in enumerate((".ipynb", ".md")):
        answer = page.request.get(offers.nth(i).evaluate("(a) => a.href"))
        assert answer.body() == (ROOT / name).with_suffix(suffix).read_bytes()
    page.context.close()


def test_the_median_page_weighs_at_most_500_kB(site, chrome, address):
    weights = {}
    for path in pages(site):
        page = chrome.new_context().new_page()  # nothing in its cache
        page.goto(f"{address}/{path.relative_to(site)}")
        page.evaluate("window.MathJax?.startup?.promise")
        page.evaluate("document.fonts.ready.then(() => null)")
        page.wait_for_load_state("networkidle")
        weights[str(path)] = browser.weight(page, site)
        page.context.close()
    assert statistics.median(weights.values()) <= 500_000, weights


def test_only_icons_in_use_are_sent(site):
    styles = '.fa-a:before{content:"\\f001"}.fa-b:before,.fa-c:before{content:"\\f002"}'
    styles += '.x:after{content:"\\f003";font-family:Font Awesome\\ 6 Free}'
    assert lean.icons_in(styles, {"fa-c"}) == {0xF002, 0xF003}
    assert lean.cut_styles(styles, {"fa-c"}) == styles.split("}", 1)[1]
    assert lean.cut_styles(styles, {"fa-a"}).count("fa-") == 1
    font = TTFont(site / f"{lean.FONT}.woff2")
    bars, ghost = 0xF0C9, 0xF6E2
    assert bars in font.getBestCmap() and ghost not in font.getBestCmap()
    assert all("fontawesome.js" not in p.read_text("utf8") for p in pages(site))


def test_the_served_folder_is_local_only(site):
    httpd = build_site.server(0, site)
    assert httpd.server_address[0] == "127.0.0.1"
    httpd.server_close()


def test_build_prints_where_the_book_is(site):
    assert Path(site, "index.html").exists()

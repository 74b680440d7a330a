"""Print the whole book as one PDF: contents with page numbers, working links.

python tools/build_pdf.py [--out FILE]     default: _build/proved-by-running.pdf

The built pages become one document, whose links point inside it; a headless Chromium
prints it twice, the second time with the page numbers that the first one found.
"""

import argparse
import html
import posixpath
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import browser
import build_site
import yaml
from _book import ROOT, fail
from bs4 import BeautifulSoup, Tag

# What only makes sense on a screen.
SCREEN = (
    "a.headerlink, .live-bar, .live-panel, .live-why, script, .book-progress, "
    ".prev-next-footer, .toggle-button, button, .landing-actions, input"
)
STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 14px; }
body { background: #fff; }
.bd-article { max-width: none; padding: 0 !important; }
.print-page { break-before: page; }
.print-title { height: 90vh; display: grid; align-content: center; text-align: center; }
.print-title h1 { font-size: 2.6rem; }
.print-contents ol { list-style: none; padding-left: 0; }
.print-contents li { display: flex; gap: 0.5rem; margin: 0.15rem 0; }
.print-contents li.part { font-weight: 650; margin-top: 0.9rem; }
.print-contents li a { flex: 1; color: inherit; text-decoration: none; }
.print-contents .number { font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap !important; overflow-wrap: anywhere; }
.output.text_html, .pst-scrollable-table-container, .llmbook-scroll {
  overflow: visible !important;
}
table { font-size: 0.8rem; }
h1, h2, h3, h4 { break-after: avoid; }
figure, img, .llmbook-claim, .llmbook-rule, tr { break-inside: avoid; }
details > summary { display: none !important; }
"""


def order() -> list[tuple[str, str]]:
    """Return (page, caption of its part) for every page of the book, in order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    found = [(toc["root"], "")]
    for part in toc["parts"]:
        caption = part.get("caption", "")

        def walk(entries: list[dict[str, Any]], caption: str = caption) -> None:
            for entry in entries:
                found.append((entry["file"], caption))
                walk(entry.get("sections", []))

        walk(part.get("chapters", []))
    return [(page.removesuffix(".md").removesuffix(".ipynb"), c) for page, c in found]


def anchor(page: str, fragment: str = "") -> str:
    """Return the id that a place of a page has in the one document."""
    base = page.replace("/", "-").replace("_", "-")
    return f"{base}--{fragment}" if fragment else base


def address(page: str, href: str, pages: set[str]) -> str:
    """Return where a link of a page leads in the one document.

    Args:
        page: where the link stands, such as ``chapters/1_mathematics/02_x``.
        href: as written in the page.
        pages: all pages of the document.
    """
    if "://" in href or href.startswith("mailto:"):
        return href
    path, fragment = urldefrag(href)
    if not path:
        return "#" + anchor(page, unquote(fragment))
    folder = posixpath.dirname(page)
    target = posixpath.normpath(posixpath.join(folder, unquote(path)))
    target = target.removesuffix(".html")
    if target in pages:
        return "#" + anchor(target, unquote(fragment))
    return ""


def article(site: Path, page: str, pages: set[str]) -> Tag:
    """Return a page's text with ids of its own, links inwards, and folds open."""
    soup = BeautifulSoup((site / f"{page}.html").read_text("utf8"), "html.parser")
    body = soup.select_one("article.bd-article")
    if body is None:
        fail(f"{page}.html: the page has no article; build the site again: make book")
    for gone in body.select(SCREEN):
        gone.decompose()
    for node in body.find_all(id=True):
        node["id"] = anchor(page, node["id"])
    for link in body.find_all("a", href=True):
        target = address(page, link["href"], pages)
        if target:
            link["href"] = target
        else:
            del link["href"]
    for image in body.find_all("img", src=True):
        if not image["src"].startswith("data:"):
            folder = posixpath.dirname(page)
            image["src"] = posixpath.normpath(posixpath.join(folder, image["src"]))
        image["loading"] = "eager"
    for fold in body.find_all("details"):
        fold["open"] = ""
    body.name = "section"
    body["id"] = anchor(page)
    body["class"] = [*body.get("class", []), "print-page"]
    return body


def title(part: Tag) -> str:
    """Return a page's heading as text."""
    head = part.find("h1")
    return head.get_text(" ", strip=True) if head else ""


def document(site: Path, listed: list[tuple[str, str]], numbers: dict[str, int]) -> str:
    """Return the whole book as one page of HTML.

    Args:
        site: the built site.
        listed: what `order` gives, or some of it; the landing page is left out.
        numbers: page of the PDF for each anchor; empty at the first printing.
    """
    listed = [row for row in listed if row[0] != "index"]
    pages = {page for page, _ in listed}
    bodies = {page: article(site, page, pages) for page, _ in listed}
    rows, last = [], ""
    for page, caption in listed:
        if caption != last:
            rows.append(f'<li class="part">{html.escape(caption)}</li>')
            last = caption
        number = numbers.get(anchor(page), "")
        rows.append(
            f'<li><a href="#{anchor(page)}">{html.escape(title(bodies[page]))}</a>'
            f'<span class="number">{number}</span></li>'
        )
    # Styles and MathJax as a page with formulas has them.
    model = next(
        page
        for page, _ in listed
        if "_static/mathjax" in (site / f"{page}.html").read_text("utf8")
    )
    up = "../" * model.count("/")
    soup = BeautifulSoup((site / f"{model}.html").read_text("utf8"), "html.parser")
    styles = "".join(
        f'<link rel="stylesheet" href="{link["href"].removeprefix(up)}">'
        for link in soup.select("head link[rel=stylesheet]")
    )
    mathjax = "".join(
        str(script).replace(f"{up}_static", "_static")
        for script in soup.find_all("script")
        if "mathjax" in str(script).lower()
    )
    return (
        '<!doctype html><html lang="en" data-theme="light"><head>'
        '<meta charset="utf-8">'
        f"<title>Proved by Running</title>{styles}<style>{STYLE}</style>{mathjax}"
        "</head>"
        '<body><main class="bd-content"><section class="print-title">'
        "<h1>Proved by Running</h1><p>The executable textbook for LLM engineers</p>"
        '<p lang="zh">《跑通大模型：算法工程师可执行教材》</p></section>'
        '<section class="print-page print-contents"><h1>Contents</h1><ol>'
        + "".join(rows)
        + "</ol></section>"
        + "".join(str(bodies[page]) for page, _ in listed)
        + "</main></body></html>"
    )


def destinations(pdf: Path) -> dict[str, int]:
    """Return the page, counted from 1, of every named place in a PDF."""
    from pypdf import PdfReader

    reader = PdfReader(pdf)
    return {
        unquote(name.lstrip("/")): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def build(out: Path, site: Path, listed: list[tuple[str, str]]) -> Path:
    """Print the site into one file.

    Args:
        out: the PDF to write; replaced only when the printing has succeeded.
        site: folder of the built site.
        listed: the pages to print, as `order` gives them.

    Raises:
        SystemExit: without a browser.
    """
    from playwright.sync_api import sync_playwright

    path = browser.get()
    if not path:
        fail(f"no browser to print with; {browser.ADVICE}")
    whole = site / "print.html"
    httpd = build_site.server(0, site)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    draft = out.with_suffix(".part.pdf")
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers: dict[str, int] = {}
    try:
        with sync_playwright() as p:
            engine = p.chromium.launch(executable_path=path, args=browser.FLAGS)
            for _ in range(2):
                whole.write_text(document(site, listed, numbers), "utf8")
                page = engine.new_page()
                page.set_default_timeout(600_000)
                page.goto(f"http://127.0.0.1:{httpd.server_port}/print.html")
                page.evaluate("window.MathJax.startup.promise.then(() => null)")
                page.pdf(
                    path=draft,
                    prefer_css_page_size=True,
                    display_header_footer=True,
                    header_template="<span></span>",
                    footer_template='<div style="width:100%;text-align:center;'
                    'font-size:8px"><span class="pageNumber"></span></div>',
                    print_background=True,
                    outline=True,
                    tagged=True,
                )
                page.close()
                numbers = destinations(draft)
            engine.close()
        draft.replace(out)
    finally:
        whole.unlink(missing_ok=True)
        draft.unlink(missing_ok=True)
        httpd.shutdown()
    return out


def main(argv: list[str] | None = None) -> int:
    """Build the site when there is none, print it, and say where the file is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=ROOT / "_build" / "proved-by-running.pdf"
    )
    parser.add_argument("--site", type=Path, help="a site that is built already")
    parser.add_argument("--pages", nargs="+", help="only these, such as pages/glossary")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    site = args.site or build_site.build().parent
    listed = [p for p in order() if not args.pages or p[0] in args.pages]
    out = build(args.out.resolve(), site, listed)
    from pypdf import PdfReader

    count = len(PdfReader(out).pages)
    size = out.stat().st_size / 1e6
    seconds = time.perf_counter() - start
    print(f"the book: {out}, {count} pages, {size:.0f} MB, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Keep pages light: what no page uses is not sent.

The theme ships every icon twice (a script and a font), MathJax with its menu, and
the search index to every page. A reader on a phone pays for all of it before the
first sentence. This extension

* loads MathJax's parts that set a formula and tell screen readers what it says;
* takes the icon script out of every page, and cuts the icon font down to the
  icons that some page, script or style names;
* takes the names of all other icons out of the theme's style sheet;
* leaves the search index to the search page;
* lets the browser fetch a figure when the reader comes near it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

MATHJAX = ("input/tex", "output/chtml", "a11y/assistive-mml")
ICON_SCRIPT = re.compile(r"\s*<script[^>]*scripts/fontawesome\.js[^>]*></script>")
SEARCH_SCRIPTS = re.compile(
    r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*">'
    r"</script>"
)
EAGER = re.compile(r"<img (?![^>]*\bloading=)")
RULE = re.compile(r'([^{}]+)\{[^{}]*content:"\\(f[0-9a-f]{2,3})"[^{}]*\}')
ICON_RULE = re.compile(r'(?:\.fa-[a-z0-9-]+:{1,2}before,?)+\{content:"[^"]*"\}')
ICON = re.compile(r"\bfa-[a-z0-9-]+")
FONT = "_static/vendor/fontawesome/webfonts/fa-solid-900"


def choose_mathjax(_: Sphinx, config: Config) -> None:
    """Name the parts of MathJax to load, after the offline extension named all."""
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {
        **(config.mathjax3_config or {}),
        "loader": {"load": list(MATHJAX)},
    }


def lighten(page: str, *, search: bool = False) -> str:
    """Return a page without the scripts that it does not use.

    Args:
        page: HTML.
        search: this is the search page, which needs its index.
    """
    page = ICON_SCRIPT.sub("", page)
    if not search:
        page = SEARCH_SCRIPTS.sub("", page)
    return EAGER.sub('<img loading="lazy" ', page)


def icons_in(styles: str, used: Iterable[str]) -> set[int]:
    """Return the code points of the icon font that styles can show.

    Args:
        styles: CSS, minified or not.
        used: class names such as ``fa-bars`` that pages or scripts mention.
    """
    used = set(used)
    points = set()
    for selectors, code in RULE.findall(styles):
        names = ICON.findall(selectors)
        if not names or used & set(names):
            points.add(int(code, 16))
    return points


def cut_styles(styles: str, used: Iterable[str]) -> str:
    """Return the styles without the rules of icons that nothing mentions."""
    used = set(used)

    def keep(rule: re.Match[str]) -> str:
        return rule[0] if used & set(ICON.findall(rule[0])) else ""

    return ICON_RULE.sub(keep, styles)


def cut_font(font: bytes, points: set[int]) -> bytes:
    """Return a woff2 font with these code points only.

    Raises:
        ExtensionError: the font lacks one of them.
    """
    face = TTFont(io.BytesIO(font))
    if missing := points - set(face.getBestCmap()):
        raise ExtensionError(f"the icon font lacks {sorted(map(hex, missing))}")
    options = subset.Options(flavor="woff2", layout_features=[], notdef_outline=True)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=points)
    cutter.subset(face)
    face.flavor = "woff2"
    out = io.BytesIO()
    face.save(out)
    return out.getvalue()


def finish(app: Sphinx, error: Exception | None) -> None:
    """Lighten every page that was written, then the icon font."""
    if error or app.builder.format != "html":
        return
    site = Path(app.outdir)
    used: set[str] = set()
    pages = [p for p in site.rglob("*.html") if "_static" not in p.parts]
    for path in pages:
        text = path.read_text("utf8")
        light = lighten(text, search=path == site / "search.html")
        if light != text:
            path.write_text(light, "utf8")
        used.update(ICON.findall(light))
    for script in site.glob("_static/**/*theme*.js"):
        used.update(ICON.findall(script.read_text("utf8")))
    sheets = {p: p.read_text("utf8") for p in site.glob("_static/**/*.css")}
    points = icons_in("".join(sheets.values()), used)
    for path, styles in sheets.items():
        cut = cut_styles(styles, used)
        if cut != styles:
            path.write_text(cut, "utf8")
    whole = (site / FONT).with_suffix(".ttf")
    if not whole.exists():
        raise ExtensionError(f"the theme has no icon font {FONT}.ttf any more")
    (site / FONT).with_suffix(".woff2").write_bytes(
        cut_font(whole.read_bytes(), points)
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", choose_mathjax, priority=900)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

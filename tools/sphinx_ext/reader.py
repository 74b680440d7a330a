"""What the site does for a reader: glossary at a touch, links to copy, progress kept.

* The first occurrence of a glossary term in a chapter links to its entry; pointing at
  it, or reaching it with Tab, shows the definition in both languages
  (``_static/glossary.js``, loaded at the first touch, also from ``file://``).
* ``_static/book.js`` gives every anchor a button that copies its address, exercises
  their own anchor, and keeps in the browser which chapters were read and which
  exercises are done. ``{progress}`` is the place on the landing page that shows it.

* Every chapter can be had as notebook, as source and printed.
* A search for η finds the formulas that TeX spells out.
* ``{ref}`ch-…``` without words of its own reads "chapter 1.09", with the title as a
  tooltip: a title that is a sentence cannot stand inside another one. A section's
  title stands in quotation marks.

Authors do nothing for any of this.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import unicodedata
from pathlib import Path
from typing import Any

from book_site import CHAPTER, docname_of, label_of, reading_order, syllabus
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.search import languages
from sphinx.search.en import SearchEnglish
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

GLOSSARY = "pages/glossary"
# Terms that are also plain words, or mean several things: only {term} links them.
PLAIN = frozenset(
    """activation attention baseline checkpoint claim contamination curvature decoder
    encoder energy entropy epoch gradient head key leak likelihood logits loss margin
    mask matrix mode momentum mutant norm orthogonal padding parameter parameters
    posterior precision prior projection quadratic quantile query rank recall retrieval
    router rule saturation score seed sentinel shape spectrum temperature tensor token
    value verdict whitening dropout vocabulary invariance sharpness
    divergence top-1""".split()
)


def terms(source: Path) -> dict[str, str]:
    """Return the English terms of the glossary, each with its entry's first word."""
    text = (source / f"{GLOSSARY}.md").read_text("utf8")
    found: dict[str, str] = {}
    for block in re.findall(r":::\{glossary\}\n(.*?)\n:::", text, re.DOTALL):
        for line in block.split("\n"):
            name = line.strip()
            if not name or line.startswith(" ") or not name.isascii():
                continue
            for word in re.sub(r"\(.*?\)", "", name).split(","):
                word = word.strip()
                if len(word) > 2 and word.lower() not in PLAIN:
                    found.setdefault(word, name)
    return found


class LinkTerms(SphinxTransform):
    """Link the first occurrence of each glossary term in a chapter's paragraphs."""

    default_priority = 870  # before Chinese text is marked

    def apply(self, **kwargs: Any) -> None:
        """Replace text by pending references; leave links, code and formulas alone."""
        if not CHAPTER.match(self.env.docname):
            return
        source = Path(self.env.srcdir)
        self.env.note_dependency(str(source / f"{GLOSSARY}.md"))
        wanted = terms(source)
        if not wanted:
            return
        names = sorted(wanted, key=len, reverse=True)
        exact = {n for n in names if n != n.lower()}
        pattern = re.compile(
            r"(?<![\w-])(?:" + "|".join(map(re.escape, names)) + r")(?:s)?(?![\w-])",
            re.IGNORECASE,
        )
        lookup = {n.lower(): n for n in names}
        seen: set[str] = set()
        for paragraph in self.document.findall(nodes.paragraph):
            if self._outside(paragraph):
                continue
            for text in list(paragraph.findall(nodes.Text)):
                if isinstance(text.parent, (nodes.paragraph, nodes.emphasis)):
                    self._link(text, pattern, lookup, exact, wanted, seen)

    @staticmethod
    def _outside(paragraph: nodes.Node) -> bool:
        parent = paragraph.parent
        while parent is not None:
            if isinstance(parent, (nodes.citation, nodes.caption, nodes.title)):
                return True
            parent = parent.parent
        return False

    def _link(
        self,
        text: nodes.Text,
        pattern: re.Pattern[str],
        lookup: dict[str, str],
        exact: set[str],
        wanted: dict[str, str],
        seen: set[str],
    ) -> None:
        pieces: list[nodes.Node] = []
        last = 0
        whole = str(text)
        for hit in pattern.finditer(whole):
            words = hit[0]
            name = lookup.get(words.lower()) or lookup.get(words.lower().rstrip("s"))
            if name is None or (name in exact and words != name):
                continue
            entry = wanted[name]
            if entry in seen:
                continue
            seen.add(entry)
            ref = addnodes.pending_xref(
                "",
                nodes.inline(words, words, classes=["book-term"]),
                refdomain="std",
                reftype="term",
                reftarget=entry,
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            if hit.start() > last:
                pieces.append(nodes.Text(whole[last : hit.start()]))
            pieces.append(ref)
            last = hit.end()
        if pieces:
            if last < len(whole):
                pieces.append(nodes.Text(whole[last:]))
            text.parent.replace(text, pieces)


class NameReferences(SphinxTransform):
    """Words for a bare ``{ref}`ch-…``` or ``{ref}`sec-…```: titles are sentences here.

    A chapter reads "chapter 1.09". A section keeps its title, in quotation marks,
    and "in chapter 1.09" follows where it stands in another chapter.
    """

    default_priority = 860

    def apply(self, **kwargs: Any) -> None:
        """Rewrite the references that have no words of their own."""
        source = Path(self.env.srcdir)
        chapters = {
            chapter["slug"].replace("_", "-"): (label_of(part, chapter), part, chapter)
            for part in syllabus(source)
            for chapter in part["chapters"]
        }
        for ref in list(self.document.findall(addnodes.pending_xref)):
            if ref.get("reftype") != "ref" or ref["refexplicit"]:
                continue
            kind, _, rest = ref.get("reftarget", "").partition("-")
            if kind == "ch" and rest in chapters:
                before = ref.parent[: ref.parent.index(ref)]
                text = before[-1].astext().rstrip() if before else ""
                first = not before or text.endswith((".", "!", "?"))
                words = f"{'Chapter' if first else 'chapter'} {chapters[rest][0]}"
                ref["refexplicit"] = True
                ref.children = []
                ref += nodes.inline(words, words)
            elif kind == "sec":
                slugs = [s for s in chapters if rest.startswith(s + "-")]
                after = "”"
                if slugs:
                    number, *place = chapters[max(slugs, key=len)]
                    if docname_of(*place) != self.env.docname:
                        after += f" in chapter {number}"
                at = ref.parent.index(ref)
                ref.parent.insert(at + 1, nodes.Text(after))
                ref.parent.insert(at, nodes.Text("“"))


def add_titles(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Show a chapter's title where the mouse rests on its number."""
    for ref in doctree.findall(nodes.reference):
        if re.match(r"[Cc]hapter \d\.\d\d$", ref.astext()):
            target = ref.get("refuri", "").split("#")[0]
            page = relpath_of(docname, target.removesuffix(".html"))
            if page in app.env.titles:
                ref["reftitle"] = app.env.titles[page].astext()


def relpath_of(docname: str, target: str) -> str:
    """Return the page that a relative address leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(docname), target))


class Progress(SphinxDirective):
    """The place of the reader's progress; filled in the browser."""

    def run(self) -> list[nodes.Node]:
        """Return an empty box that scripts fill and that reads without them."""
        text = '<div class="book-progress" hidden></div>'
        return [nodes.raw("", text, format="html")]


def _definitions(env: BuildEnvironment) -> dict[str, dict[str, Any]]:
    """Return every entry of the glossary by the anchors that lead to it."""
    found: dict[str, dict[str, Any]] = {}
    if GLOSSARY not in env.found_docs:
        return found
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        heads = list(item.findall(nodes.term))
        text = "\n\n".join(
            _text(p) for d in item.findall(nodes.definition) for p in d.children
        )
        entry = {"terms": [h.astext() for h in heads], "text": text}
        for head in heads:
            found.update(dict.fromkeys(head["ids"], entry))
    return found


def _text(node: nodes.Node) -> str:
    """Return a definition as text, formulas in the marks that MathJax reads."""
    if isinstance(node, nodes.math):
        return rf"\({node.astext()}\)"
    if isinstance(node, nodes.Text):
        return str(node)
    return "".join(_text(child) for child in node.children)


def _chapters(env: BuildEnvironment) -> list[dict[str, Any]]:
    """Return the standing chapters with title, address and exercises."""
    found = []
    for docname in reading_order(env):
        match = CHAPTER.match(docname)
        if not match:
            continue
        doctree = env.get_doctree(docname)
        exercises = [
            node["ids"][0]
            for node in doctree.findall()
            if "exercise" in getattr(node, "attributes", {}).get("classes", [])
            and node.get("ids")
        ]
        found.append(
            {
                "page": docname,
                "number": f"{match[1]}.{match[2]}",
                "title": env.titles[docname].astext(),
                "exercises": [x for x in exercises if x.startswith("ex-")],
            }
        )
    return found


def write_data(app: Sphinx, error: Exception | None) -> None:
    """Write the two files that the page's script reads."""
    if error is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "_static"
    for name, variable, value in (
        ("glossary.js", "bookGlossary", _definitions(app.env)),
        ("chapters.js", "bookChapters", _chapters(app.env)),
    ):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (folder / name).write_text(f"window.{variable}={text};\n", "utf8")


class FormulaSearch(SearchEnglish):
    """Index the Greek letters of formulas as readers type them."""

    command = re.compile(r"\\(var)?([A-Za-z]+)")

    @classmethod
    def letter(cls, name: str) -> str:
        """Return the letter of a TeX command such as ``eta`` or ``Lambda``, or ''."""
        size = "CAPITAL" if name[0].isupper() else "SMALL"
        try:
            # Unicode spells it LAMDA.
            name = name.upper().replace("LAMBDA", "LAMDA")
            return unicodedata.lookup(f"GREEK {size} LETTER {name}")
        except KeyError:
            return ""

    def split(self, text: str) -> list[str]:
        """Split into words, each TeX command of a letter followed by it."""
        spaced = self.command.sub(lambda m: f"{m[0]} {self.letter(m[2])} ", text)
        return super().split(spaced)


def offer_source(
    app: Sphinx, pagename: str, _: str, context: dict[str, Any], __: nodes.document
) -> None:
    """Put a chapter's source beside its notebook in the download menu."""
    source = Path(app.srcdir) / f"{pagename}.md"
    if not CHAPTER.match(pagename) or not source.exists():
        return
    target = Path(app.outdir) / "_sources" / f"{pagename}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    menu = next(x for x in context["header_buttons"] if x["type"] == "group")
    menu["buttons"].insert(
        1,
        {
            "type": "link",
            "url": context["pathto"](f"_sources/{pagename}.md", 1),
            "text": ".md",
            "icon": "fas fa-file-lines",
            "tooltip": "Download the chapter's source",
            "label": "download-chapter-source",
        },
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything; called by Sphinx."""
    app.add_transform(LinkTerms)
    app.add_transform(NameReferences)
    app.add_directive("progress", Progress)
    app.connect("doctree-resolved", add_titles, priority=800)
    app.connect("build-finished", write_data)
    app.connect("html-page-context", offer_source, priority=700)
    languages["en"] = FormulaSearch
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

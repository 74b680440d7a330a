"""The site's own Sphinx extension: numbers, ledger, part lists, and no outside request.

It adds eight things to Jupyter Book, and nothing else:

* chapters are numbered as their files are: ``chapters/3_…/02_…`` is 3.02, its
  figures are Figure 3.02.1, 3.02.2, …;
* ``{ledger}`` collects every verdict stored in the notebooks of the book;
* ``{part-chapters} 3`` lists a part's chapters, standing and to come, and
  ``{standing}`3``` counts them;
* references are labelled by their key, which is unique, where initials are not;
* Chinese text is marked ``lang="zh"``, so that fonts and screen readers agree;
* punctuation stays on the line of the formula that it belongs to;
* scripts that would ask another host are taken out of every page;
* a few pieces of markup are mended for keyboards and screen readers.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.environment.collectors.toctree import TocTreeCollector
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective, SphinxRole

CLAIM_MIME = "application/vnd.llmbook.claim+json"
CHAPTER = re.compile(r"^chapters/(\d)_\w+/(\d\d)_(\w+)$")
PART = re.compile(r"^chapters/(\d)_\w+/index$")
CJK = re.compile(
    r"[\u2e80-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]+"
)

# Statuses in the order in which the ledger counts them.
STATUSES = (
    "holds",
    "holds when",
    "does not hold",
    "dated",
    "not settled here",
    "not tried yet",
)
SIGNS = {"<=": "≤", "<": "<", ">=": "≥", ">": ">"}


# --- What the book plans, and what stands ------------------------------------


def syllabus(source: Path) -> list[dict[str, Any]]:
    """Return the seven parts with their planned chapters."""
    return json.loads((source / "assets" / "syllabus.json").read_text("utf8"))["parts"]


def docname_of(part: dict[str, Any], chapter: dict[str, Any]) -> str:
    """Return a chapter's page name, whether or not the chapter stands."""
    return f"chapters/{part['folder']}/{chapter['number']:02d}_{chapter['slug']}"


def label_of(part: dict[str, Any], chapter: dict[str, Any]) -> str:
    """Return a chapter's number as readers see it, such as ``3.02``."""
    return f"{part['number']}.{chapter['number']:02d}"


def reading_order(env: BuildEnvironment) -> list[str]:
    """Return all pages of the table of contents, first to last."""
    site_map = env.app.config.external_site_map

    def walk(name: str) -> Iterator[str]:
        yield name
        for child in site_map[name].child_files():
            yield from walk(child)

    return list(walk(site_map.root.docname))


def _standing(env: BuildEnvironment) -> list[str]:
    return [name for name in reading_order(env) if CHAPTER.match(name)]


def _link(docname: str, here: str, text: str = "") -> nodes.Node:
    """Return a link to a page: to its title, or with a text of its own."""
    ref = addnodes.pending_xref(
        "",
        refdomain="std",
        reftype="doc",
        reftarget="/" + docname,
        refexplicit=bool(text),
        refwarn=True,
        refdoc=here,
    )
    ref += nodes.inline(text, text or docname, classes=["doc"])
    return ref


# --- Numbers -------------------------------------------------------------------


def _number(docname: str) -> tuple[str, ...] | None:
    if match := CHAPTER.match(docname):
        return match[1], match[2]
    return None


def assign_numbers(_: TocTreeCollector, env: BuildEnvironment) -> list[str]:
    """Number every chapter by its file name; sections below it stay unnumbered."""
    changed = []
    before, env.toc_secnumbers = env.toc_secnumbers, {}
    for docname, toc in env.tocs.items():
        number = _number(docname)
        if number is None:
            continue
        secnumbers: dict[str, tuple[str, ...] | None] = {}
        for reference in toc.findall(nodes.reference):
            own = number if not reference["anchorname"] else None
            secnumbers[reference["anchorname"]] = own
            reference["secnumber"] = own
        env.titles[docname]["secnumber"] = number
        env.toc_secnumbers[docname] = secnumbers  # type: ignore[assignment]
        if secnumbers != before.get(docname):
            changed.append(docname)
    return changed


# --- Chinese text ---------------------------------------------------------------


class MarkChinese(SphinxTransform):
    """Wrap runs of Chinese characters in ``<span lang="zh">``."""

    default_priority = 880

    def apply(self, **kwargs: Any) -> None:
        """Split text nodes; leave code, formulas and raw HTML alone."""
        skip = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block)
        for text in list(self.document.findall(nodes.Text)):
            parent = text.parent
            if not CJK.search(text) or isinstance(
                parent, (*skip, nodes.raw, nodes.comment)
            ):
                continue
            if "language-zh" in getattr(parent, "get", lambda *_: [])("classes", []):
                continue
            pieces: list[nodes.Node] = []
            last = 0
            for run in CJK.finditer(text):
                if run.start() > last:
                    pieces.append(nodes.Text(text[last : run.start()]))
                pieces.append(nodes.inline("", run[0], classes=["language-zh"]))
                last = run.end()
            if last < len(text):
                pieces.append(nodes.Text(text[last:]))
            parent.replace(text, pieces)


# --- Formulas in a line ----------------------------------------------------------


class KeepPunctuation(SphinxTransform):
    """Keep a full stop with the formula before it, a bracket with the one after.

    A rendered formula is a box to the browser, which may break a line at its sides.
    """

    default_priority = 885

    def apply(self, **kwargs: Any) -> None:
        """Wrap each formula and the punctuation that touches it."""
        for math in list(self.document.findall(nodes.math)):
            parent = math.parent
            place = parent.index(math)
            before = after = ""
            if place and isinstance(left := parent[place - 1], nodes.Text):
                before = re.search(r"[(\[“‘]*$", left)[0]
                if before:
                    # By place: equal texts would be mixed up by replace().
                    parent[place - 1] = nodes.Text(left[: -len(before)])
            if place + 1 < len(parent) and isinstance(
                right := parent[place + 1], nodes.Text
            ):
                after = re.match(r"[.,;:!?)\]’”–-]*", right)[0]
                if after:
                    parent[place + 1] = nodes.Text(right[len(after) :])
            if before or after:
                box = nodes.inline(classes=["nowrap"])
                parent[place] = box
                box += [nodes.Text(before), math, nodes.Text(after)]


# --- The ledger -----------------------------------------------------------------


def stored_verdicts(notebook: Path) -> Iterator[dict[str, Any]]:
    """Yield the structured data of every claim card in a notebook, top to bottom."""
    cells = json.loads(notebook.read_text("utf8"))["cells"]
    for cell in cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {}).get(CLAIM_MIME)
            if data is not None:
                yield data


def collect(env: BuildEnvironment) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return for every claim id its verdicts as ``(chapter, data)``, in book order."""
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for docname in _standing(env):
        path = Path(env.doc2path(docname))
        if path.suffix == ".ipynb" and path.exists():
            for data in stored_verdicts(path):
                found.setdefault(data["claim"], []).append((docname, data))
    return found


def _claims(env: BuildEnvironment) -> list[dict[str, Any]]:
    """Return the claims in words; the page is rebuilt when any evidence changes."""
    source = Path(env.srcdir)
    env.note_dependency(str(source / "assets/claims.json"))
    env.note_dependency(str(source / "_toc.yml"))
    for docname in _standing(env):
        env.note_dependency(env.doc2path(docname))
    return json.loads((source / "assets/claims.json").read_text("utf8"))["claims"]


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)


def _slug(status: str) -> str:
    return status.replace(" ", "-")


def _badge(status: str, text: str = "") -> str:
    return (
        f"<span class='claim-badge verdict-{_slug(status)}'>{_e(text or status)}</span>"
    )


def _measured(value: float | list[float], case: dict[str, Any]) -> str:
    def one(x: float) -> str:
        if abs(x) < case.get("floor", 0.0):
            return f"< {case['floor']:g}"
        return f"{x:.{case['digits']}g}" if abs(x) < 1e-4 else f"{x:g}"

    return " to ".join(map(one, value)) if isinstance(value, list) else one(value)


def _demand(case: dict[str, Any]) -> str:
    if case["comparison"] == "==":
        return f"= {case['bound']:g} ± {case['margin']:g}"
    margin = f", margin {case['margin']:g}" if case["margin"] else ""
    return f"{SIGNS[case['comparison']]} {case['bound']:g}{margin}"


def _evidence_table(data: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr class='outcome-{_e(data['outcomes'][c['name']])}'>"
        f"<th scope='row'>{_e(c['name'])}<span class='claim-setting'>"
        f"{_e(c['setting'])}</span></th>"
        f"<td>{_e(c['quantity'])}</td><td>{_e(_demand(c))}</td>"
        f"<td>{_e(_measured(data['evidence'][c['name']], c))}</td>"
        f"<td>{_e(data['outcomes'][c['name']])}</td></tr>"
        for c in data["rule"]["cases"]
    )
    untested = data["rule"].get("untested", "")
    note = (
        f"<p class='llmbook-untested'>Not tested: {_e(untested)}</p>"
        if untested
        else ""
    )
    return (
        "<div class='llmbook-scroll' tabindex='0' role='region' "
        f"aria-label='Evidence on {_e(data['claim'])}'><table class='claim-evidence'>"
        "<thead><tr><th scope='col'>Case</th><th scope='col'>Quantity</th>"
        "<th scope='col'>Must be</th><th scope='col'>Measured</th>"
        f"<th scope='col'>Met</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"{note}"
    )


def _raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


class Ledger(SphinxDirective):
    """Show every claim, its verdict, the deciding chapter and all evidence."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Build the page from ``assets/claims.json`` and the notebooks."""
        claims = _claims(self.env)
        found = collect(self.env)
        found.pop("C00", None)  # the example claim of a chapter just begun
        if unknown := sorted(set(found) - {claim["id"] for claim in claims}):
            raise self.error(
                f"{', '.join(unknown)}: verdict without a claim in assets/claims.json"
            )
        status = {
            claim["id"]: found[claim["id"]][-1][1]["status"]
            if claim["id"] in found
            else "not tried yet"
            for claim in claims
        }
        plan = {
            chapter["slug"]: (
                label_of(part, chapter),
                docname_of(part, chapter),
                chapter,
            )
            for part in _parts(self.env, "all")
            for chapter in part["chapters"]
        }
        result: list[nodes.Node] = [_raw(self._summary(claims, status))]
        for claim in claims:
            result.append(self._entry(claim, found.get(claim["id"], []), status, plan))
        return result

    @staticmethod
    def _summary(claims: list[dict[str, Any]], status: dict[str, str]) -> str:
        tried = sum(value != "not tried yet" for value in status.values())
        counts = "".join(
            f"<li><strong>{sum(v == s for v in status.values())}</strong> "
            f"{_badge(s)}</li>"
            for s in STATUSES
        )
        grid = "".join(
            f"<li><a class='verdict-{_slug(status[c['id']])}' "
            f"href='#claim-{c['id'].lower()}' title='{_e(status[c['id']])}'>"
            f"{_e(c['id'])}<span class='visually-hidden'>: {_e(status[c['id']])}</span>"
            "</a></li>"
            for c in claims
        )
        return (
            f"<p class='ledger-count'>{tried} of {len(claims)} claims tried so far.</p>"
            f"<ul class='ledger-summary'>{counts}</ul>"
            f"<ul class='ledger-grid' aria-label='All claims'>{grid}</ul>"
        )

    def _entry(
        self,
        claim: dict[str, Any],
        verdicts: list[tuple[str, dict[str, Any]]],
        status: dict[str, str],
        plan: dict[str, tuple[str, str, dict[str, Any]]],
    ) -> nodes.Node:
        key, own = claim["id"], status[claim["id"]]
        anchor = f"claim-{key.lower()}"
        std = self.env.domains["std"]
        std.anonlabels[anchor] = (self.env.docname, anchor)
        std.labels[anchor] = (self.env.docname, anchor, key)

        box = nodes.container(ids=[anchor], classes=["ledger-entry"])
        text = verdicts[-1][1]["verdict"] if verdicts else own
        box += _raw(
            f"<p class='ledger-head'><a class='ledger-id' href='#{anchor}'>{key}</a>"
            f" {_badge(own, text)}</p>"
        )
        words, _ = self.state.inline_text(claim["claim"], self.lineno)
        box += nodes.paragraph("", "", *words, classes=["ledger-claim"])

        line = nodes.paragraph(classes=["ledger-where"])
        tried = {docname for docname, _ in verdicts}
        if verdicts:
            line += nodes.Text("Decided in ")
            line += self._chapter(verdicts[-1][0])
            line += nodes.Text(". ")
        waiting = [
            plan[slug] for slug in claim["chapters"] if plan[slug][1] not in tried
        ]
        if waiting:
            names = ", ".join(f"{number} {c['plan']}" for number, _, c in waiting)
            line += nodes.Text(
                f"Still to be tried in {names}." if verdicts else f"Planned: {names}."
            )
        box += line

        if verdicts:
            cases = sum(len(data["rule"]["cases"]) for _, data in verdicts)
            many = "chapters" if len(tried) > 1 else "chapter"
            box += _raw(
                f"<details class='ledger-evidence'><summary>Evidence: {cases} "
                f"{'cases' if cases > 1 else 'case'} in {len(tried)} {many}</summary>"
            )
            for docname, data in verdicts:
                if len(verdicts) > 1:
                    head = nodes.paragraph(classes=["ledger-source"])
                    head += self._chapter(docname)
                    head += nodes.Text(": " + data["verdict"])
                    box += head
                box += _raw(_evidence_table(data))
            box += _raw("</details>")
        return box

    def _chapter(self, docname: str) -> nodes.Node:
        number = ".".join(_number(docname) or ())
        group = nodes.inline(classes=["ledger-chapter"])
        group += nodes.Text(number + " ")
        group += _link(docname, self.env.docname)
        return group


# --- References -------------------------------------------------------------------


class KeyLabels(BaseLabelStyle):
    """Label entries by their key: unique in a book of any length, and never shown."""

    def format_labels(self, sorted_entries: list[Any]) -> Iterator[str]:
        """Yield one label for each entry."""
        for entry in sorted_entries:
            yield entry.key


class BookStyle(PlainStyle):
    """Pybtex's plain style, sorted by author and year, labelled by key."""

    default_label_style = KeyLabels


# --- Parts ----------------------------------------------------------------------


def _parts(env: BuildEnvironment, which: str) -> list[dict[str, Any]]:
    """Return the part of that number, or all; the page then depends on the plan."""
    source = Path(env.srcdir)
    env.note_dependency(str(source / "assets/syllabus.json"))
    env.note_dependency(str(source / "_toc.yml"))
    parts = syllabus(source)
    if which != "all":
        parts = [part for part in parts if str(part["number"]) == which]
        if not parts:
            raise ExtensionError(f"{env.docname}: there is no part {which!r}")
    return parts


class PartChapters(SphinxDirective):
    """List the chapters of a part: a link where it stands, its plan where not.

    The argument is a part's number or ``all``; ``:standing:`` leaves out the rest.
    """

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"standing": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Build the list from ``assets/syllabus.json`` and ``_toc.yml``."""
        standing = set(_standing(self.env))
        listing = nodes.bullet_list(classes=["part-chapters"], bullet="-")
        for part in _parts(self.env, self.arguments[0]):
            for chapter in part["chapters"]:
                stands = docname_of(part, chapter) in standing
                if stands or "standing" not in self.options:
                    listing += self._item(part, chapter, stands)
        return [listing] if listing.children else []

    def _item(
        self, part: dict[str, Any], chapter: dict[str, Any], stands: bool
    ) -> nodes.Node:
        line = nodes.paragraph()
        line += nodes.inline("", label_of(part, chapter), classes=["chapter-number"])
        body = nodes.inline(classes=["chapter-line"])
        if stands:
            body += _link(docname_of(part, chapter), self.env.docname)
            body += nodes.inline("", chapter["plan"], classes=["chapter-plan"])
        else:
            body += nodes.Text(chapter["plan"] + " ")
            body += nodes.inline("", "to come", classes=["chapter-state"])
        line += body
        state = "stands" if stands else "to-come"
        return nodes.list_item("", line, classes=[state])


class Standing(SphinxRole):
    """``{standing}`3``` gives "1 of 17"; also for ``all`` and for ``claims``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Count the pages of the table of contents against the syllabus."""
        if self.text == "claims":
            claims = _claims(self.env)
            text = f"{len(collect(self.env))} of {len(claims)}"
            return [nodes.inline("", text, classes=["standing"])], []
        parts = _parts(self.env, self.text)
        numbers = {str(part["number"]) for part in parts}
        planned = sum(len(part["chapters"]) for part in parts)
        count = sum(name.split("/")[1][0] in numbers for name in _standing(self.env))
        return [nodes.inline("", f"{count} of {planned}", classes=["standing"])], []


# --- No outside request ----------------------------------------------------------


def strip_outside(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Take out thebe's loader and refuse any other script or style from outside."""
    kept = []
    for script in context.get("script_files", ()):
        name = str(getattr(script, "filename", script) or "")
        body = str(getattr(script, "attributes", {}).get("body", ""))
        if "thebe" in name or "THEBE" in body:
            continue
        if name.startswith(("http:", "https:", "//")):
            raise ExtensionError(f"{pagename}: asks an outside host for {name}")
        kept.append(script)
    context["script_files"] = kept
    kept = []
    for style in context.get("css_files", ()):
        name = str(getattr(style, "filename", style) or "")
        if "thebe" in name:
            continue
        if name.startswith(("http:", "https:", "//")):
            raise ExtensionError(f"{pagename}: asks an outside host for {name}")
        kept.append(style)
    context["css_files"] = kept


# Markup of Sphinx and its extensions that assistive technology cannot use, and ours.
MENDED = (
    (' role="doc-biblioentry"', ""),
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
    ("<div class='llmbook-scroll'>", "<div class='llmbook-scroll' tabindex='0'>"),
    ("<th></th>", "<td></td>"),  # the empty corner of a data frame
)


def mend_markup(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Replace markup that is wrong for keyboards and screen readers."""
    if body := context.get("body"):
        for wrong, right in MENDED:
            body = body.replace(wrong, right)
        context["body"] = body


def unload_thebe_config(app: Sphinx, doctree: nodes.document, _: str) -> None:
    """Drop the hidden configuration block that thebe writes into every page."""
    for raw in list(doctree.findall(nodes.raw)):
        if "text/x-thebe-config" in raw.rawsource + raw.astext():
            raw.parent.remove(raw)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything; called by Sphinx."""
    TocTreeCollector.assign_section_numbers = assign_numbers  # type: ignore[method-assign]
    register_plugin("pybtex.style.formatting", "book", BookStyle)
    app.add_transform(MarkChinese)
    app.add_transform(KeepPunctuation)
    app.add_directive("ledger", Ledger)
    app.add_directive("part-chapters", PartChapters)
    app.add_role("standing", Standing())
    app.connect("doctree-resolved", unload_thebe_config, priority=900)
    app.connect("html-page-context", strip_outside, priority=900)
    app.connect("html-page-context", mend_markup, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

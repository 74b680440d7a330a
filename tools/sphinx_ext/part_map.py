"""``{part-map} 3``: a drawing of which chapter needs which, made from the chapters.

The arrows are read from the line "Needs: …" in each chapter's box: a ``{ref}`` to
another chapter's label is an arrow from it. Nothing is typed twice, so the drawing
cannot disagree with the chapters. Chapters of other parts stand in outline.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from book_site import CHAPTER, _parts, docname_of, label_of, reading_order, syllabus
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

WIDTH, HEIGHT, GAP_X, GAP_Y, PER_ROW = 148, 50, 18, 40, 4


class Node(NamedTuple):
    """A chapter in the drawing."""

    slug: str
    number: str
    docname: str
    home: bool  # of the part that is drawn


def needs(source: str) -> list[str]:
    """Return the slugs that a chapter's box links to in the sentence "Needs: …"."""
    box = re.search(r":class: chapter-box\n(.*?)^:::", source, re.M | re.S)
    found = re.search(r"^Needs:(.*?\.)$", box[1] if box else "", re.M | re.S)
    labels = re.findall(r"\bch-([a-z0-9-]+)", found[1] if found else "")
    return [label.replace("-", "_") for label in dict.fromkeys(labels)]


def reduced(parents: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out arrows that a longer path already draws.

    Raises:
        ExtensionError: when chapters need each other in a circle.
    """

    def above(slug: str, path: tuple[str, ...] = ()) -> set[str]:
        if slug in path:
            circle = " → ".join((*path[path.index(slug) :], slug))
            raise ExtensionError(f'chapters need each other, see "Needs:": {circle}')
        direct = parents.get(slug, set())
        return direct.union(*(above(p, (*path, slug)) for p in direct))

    for slug in parents:
        above(slug)
    return {
        slug: {p for p in direct if not any(p in above(q) for q in direct - {p})}
        for slug, direct in parents.items()
    }


def rows(parents: dict[str, set[str]], order: list[str]) -> list[list[str]]:
    """Arrange the chapters so that each stands below all that it needs."""

    def depth(slug: str) -> int:
        return 1 + max((depth(p) for p in parents.get(slug, ())), default=-1)

    result: list[list[str]] = []
    for level in range(max(map(depth, order), default=-1) + 1):
        here = [slug for slug in order if depth(slug) == level]
        result += [here[i : i + PER_ROW] for i in range(0, len(here), PER_ROW)]
    return result


def _wrap(text: str, width: int = 21) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if len(joined) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = joined
    return lines


def draw(chapters: dict[str, Node], parents: dict[str, set[str]], here: str) -> str:
    """Return the SVG, boxes linked to their chapters, with the arrows as its text."""
    order = sorted(chapters, key=lambda slug: chapters[slug].number)
    levels = rows(parents, order)
    total = max(len(row) for row in levels) * (WIDTH + GAP_X) - GAP_X + 4
    spot: dict[str, tuple[float, float]] = {}
    for y, row in enumerate(levels):
        left = (total - (len(row) * (WIDTH + GAP_X) - GAP_X)) / 2
        for x, slug in enumerate(row):
            spot[slug] = (left + x * (WIDTH + GAP_X), 2 + y * (HEIGHT + GAP_Y))
    tall = len(levels) * (HEIGHT + GAP_Y) - GAP_Y + 4
    arrows, boxes, words = [], [], []
    for child in order:
        for parent in sorted(parents.get(child, ()), key=order.index):
            (x1, y1), (x2, y2) = spot[parent], spot[child]
            x1, x2, y1 = x1 + WIDTH / 2, x2 + WIDTH / 2, y1 + HEIGHT
            bend = (y2 - y1) / 2
            arrows.append(
                f'<path d="M{x1:.0f} {y1} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} '
                f'{y2 - bend:.0f} {x2:.0f} {y2 - 4}" marker-end="url(#part-map-tip)"/>'
            )
            words.append(f"{chapters[child].number} needs {chapters[parent].number}")
    for slug in order:
        node, (x, y) = chapters[slug], spot[slug]
        url = os.path.relpath(node.docname, os.path.dirname(here)) + ".html"
        lines = _wrap(slug.replace("_", " "))[:2]
        text = "".join(
            f'<tspan x="{x + WIDTH / 2:.0f}" dy="14">{html.escape(line)}</tspan>'
            for line in lines
        )
        top = y + (16 if len(lines) == 2 else 21)
        boxes.append(
            f'<a href="{url}" class="{"home" if node.home else "abroad"}">'
            f'<rect x="{x:.0f}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
            f'<text text-anchor="middle" y="{top - 2}"><tspan class="number" '
            f'x="{x + WIDTH / 2:.0f}">{node.number}</tspan>{text}</text></a>'
        )
    label = html.escape("; ".join(words) or "no chapter needs another", quote=True)
    return (
        f'<div class="part-map" tabindex="0" role="group" aria-label="Which chapter '
        f'needs which: {label}"><svg viewBox="0 0 {total} {tall}" width="{total}" '
        f'height="{tall}" xmlns="http://www.w3.org/2000/svg"><defs><marker '
        'id="part-map-tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>'
        f'<g class="arrows">{"".join(arrows)}</g>{"".join(boxes)}</svg></div>'
    )


class PartMap(SphinxDirective):
    """Draw a part's standing chapters and what they need."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the chapters' boxes and return one raw node."""
        source = Path(self.env.srcdir)
        standing = {n for n in reading_order(self.env) if CHAPTER.match(n)}
        everywhere: dict[str, Node] = {}
        [wanted] = _parts(self.env, self.arguments[0])
        for part in syllabus(source):
            for chapter in part["chapters"]:
                docname = docname_of(part, chapter)
                if docname in standing:
                    home = part["number"] == wanted["number"]
                    slug, number = chapter["slug"], label_of(part, chapter)
                    everywhere[slug] = Node(slug, number, docname, home)
        parents: dict[str, set[str]] = {}
        for slug, node in everywhere.items():
            if node.home:
                file = source / f"{node.docname}.md"
                self.env.note_dependency(str(file))
                found = needs(file.read_text("utf8"))
                parents[slug] = {s for s in found if s in everywhere} - {slug}
        shown = set(parents).union(*parents.values()) if parents else set()
        if not shown:
            return []
        chapters = {slug: everywhere[slug] for slug in shown}
        drawing = draw(chapters, reduced(parents), self.env.docname)
        return [nodes.raw("", drawing, format="html")]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive; called by Sphinx."""
    app.add_directive("part-map", PartMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

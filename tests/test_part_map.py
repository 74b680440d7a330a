"""The drawing of a part says what its chapters say, and nothing else."""

import re
import sys

import pytest
from _book import ROOT
from sphinx.errors import ExtensionError

sys.path.insert(0, str(ROOT / "tools" / "sphinx_ext"))
import part_map

BOX = """
:::{admonition} 30 min to read
:class: chapter-box
Needs: {ref}`attention <ch-attention>`, the {ref}`ch-modern-decoder`
and {ref}`ch-attention` again.
The {ref}`ch-pretraining-run` uses it.
:::
Later, {ref}`ch-vae`.
"""


def test_needs_are_the_references_of_one_sentence():
    assert part_map.needs(BOX) == ["attention", "modern_decoder"]
    assert part_map.needs("no box, {ref}`ch-vae`") == []


def test_an_arrow_that_a_path_already_draws_is_left_out():
    parents = {"a": set(), "b": {"a"}, "c": {"a", "b"}}
    assert part_map.reduced(parents) == {"a": set(), "b": {"a"}, "c": {"b"}}


def test_a_circle_of_needs_is_named():
    with pytest.raises(ExtensionError, match="a → b → a"):
        part_map.reduced({"a": {"b"}, "b": {"a"}})


def test_each_chapter_stands_below_all_it_needs():
    parents = {"a": set(), "b": {"a"}, "c": {"b"}, "d": {"a", "c"}}
    levels = part_map.rows(parents, list("abcd"))
    at = {slug: y for y, row in enumerate(levels) for slug in row}
    assert set(at) == set("abcd")
    for child, above in parents.items():
        assert all(at[child] > at[p] for p in above)


def test_the_drawing_links_its_boxes_and_reads_its_arrows_aloud():
    chapters = {
        "a_b": part_map.Node("a_b", "1.01", "chapters/1_x/01_a_b", False),
        "c": part_map.Node("c", "3.02", "chapters/3_y/02_c", True),
    }
    svg = part_map.draw(chapters, {"c": {"a_b"}}, "chapters/3_y/index")
    assert re.findall(r'href="([^"]+)"', svg) == ["../1_x/01_a_b.html", "02_c.html"]
    assert svg.count("marker-end") == 1
    assert "3.02 needs 1.01" in svg

"""The house is where the design says, and says of itself what is true."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml
from _book import CHAPTERS, ROOT, number, sources

EXPECTED = """README.md CONTRIBUTING.md CHANGELOG.md LICENSE CITATION.cff Makefile
requirements.txt constraints.txt pyproject.toml _config.yml _toc.yml references.bib
index.md pages/how_to_read.md pages/notation.md pages/glossary.md pages/ledger.md
pages/bibliography.md pages/changelog.md assets/claims.json assets/css/book.css
assets/data/README.md templates/chapter.md .ci/run conftest.py
tools/build_notebooks.py tools/new_chapter.py benchmarks/book.py""".split()

TARGETS = (
    "book read test check chapter new import lab bench portability pdf clean"
).split()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_file_exists(name):
    assert (ROOT / name).stat().st_size > 0


def test_make_alone_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    for target in TARGETS:
        assert re.search(rf"^{target}:.*## ", text, re.M), target
    assert ".DEFAULT_GOAL := help" in text


def test_ci_calls_the_readmes_test_command():
    ci, readme = (ROOT / ".ci/run").read_text(), (ROOT / "README.md").read_text()
    assert ci.strip().splitlines()[-1] == "make test" and "make test" in readme
    assert "make book" in readme and os.access(ROOT / ".ci/run", os.X_OK)


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return dict(
        re.match(r"([A-Za-z0-9_.\-]+)==(\S+)", x).groups()
        for x in lines
        if "==" in x and x[0] != "#"
    )


def canonical(names):
    return {re.sub(r"[-_.]+", "-", k).lower(): v for k, v in names.items()}


def test_every_requirement_is_pinned_and_explained():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"[\w.\-]+==[\w.]+\s+# \S+", line), line


def test_constraints_hold_the_pins_and_the_closure():
    direct = canonical(pins("requirements.txt"))
    closure = canonical(pins("constraints.txt"))
    assert {k: closure.get(k) for k in direct} == direct
    assert len(closure) > 2 * len(direct)


def test_the_installed_versions_are_the_pins():
    from importlib.metadata import version

    for name, wanted in pins("requirements.txt").items():
        assert version(name).split("+")[0] == wanted, name


def test_no_file_is_large_and_no_product_is_committed():
    run = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if run.returncode:
        pytest.fail("not a git checkout: cannot tell what is committed")
    for name in run.stdout.decode().split("\0"):
        if not name or not (ROOT / name).exists():
            continue
        assert not re.search(
            r"(^|/)(_build|\.venv|node_modules|\.cache|__pycache__)/", name
        ), name
        # The trained model is the one thing that may be larger.
        limit = 8_000_000 if name.startswith("assets/models/") else 1_000_000
        assert (ROOT / name).stat().st_size <= limit, name


def toc_files(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("file", "root"):
                yield value
            else:
                yield from toc_files(value)
    elif isinstance(node, list):
        for item in node:
            yield from toc_files(item)


def test_every_chapter_is_in_the_toc_in_order():
    toc = list(toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text())))
    listed = [x for x in toc if re.search(r"/\d\d_", x)]
    assert listed == [str(p.relative_to(ROOT).with_suffix("")) for p in sources()]
    assert len(toc) == len(set(toc))


def test_no_chapter_imports_a_chapter_and_rooms_import_nothing_upward():
    order = ["files", "tokenizer", "attention", "model", "generate", "train"]
    for name in order:
        path = ROOT / "llmbook" / f"{name}.py"
        if path.exists():
            used = set(
                re.findall(
                    r"^\s*from llmbook(?:\.| import )(\w+)", path.read_text(), re.M
                )
            )
            later = set(order[order.index(name) + 1 :])
            assert not used & later, f"{name} imports {used & later}"
    for path in (ROOT / "llmbook").rglob("*.py"):
        assert not re.search(
            r"^\s*(from|import) (chapters|tools)\b", path.read_text(), re.M
        )


def test_torch_free_rooms_stay_torch_free():
    rooms = ["plot", "checks", "grading", "data", "claims"]
    names = ", ".join(f"llmbook.{room}" for room in rooms)
    code = f"import sys, {names}; llmbook.setup(0); sys.exit('torch' in sys.modules)"
    assert subprocess.run([os.sys.executable, "-c", code], check=False).returncode == 0


def test_docstrings_name_real_chapters():
    with open(ROOT / "assets" / "claims.json", encoding="utf-8") as f:
        assert len(f.read()) > 1000
    labels = {"ch-" + p.stem[3:].replace("_", "-") for p in sources()}
    for path in (ROOT / "llmbook").rglob("*.py"):
        for label in re.findall(
            r"(?<!To be )[Bb]uilt in (ch-[a-z-]+)", path.read_text()
        ):
            assert label in labels, f"{path.name}: {label}"


def test_pyproject_names_the_package():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert data["project"]["name"] == "llmbook"


def test_chapter_numbers_follow_their_folders():
    assert sources() == sorted(sources(), key=number)
    assert {p.parent.parent for p in sources()} == {CHAPTERS}

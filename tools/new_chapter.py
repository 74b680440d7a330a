"""Start a chapter from templates/chapter.md.

python tools/new_chapter.py 3.03 transformer
"""

import re
import sys

from _book import CHAPTERS, ROOT, fail, sources, write_atomically

PARTS = {
    "1": "1_mathematics",
    "2": "2_learning",
    "3": "3_language_models",
    "4": "4_practice",
    "5": "5_deployment",
    "6": "6_frontier",
    "7": "7_career",
}


def main(argv: list[str]) -> int:
    """Write the skeleton and its grading module; refuse to overwrite anything."""
    if len(argv) != 2:
        fail("say which chapter: make new C=3.03 S=transformer")
    chapter, slug = argv
    if not re.fullmatch(r"[1-7]\.\d\d", chapter):
        fail(f"chapter {chapter!r}: part and two digits, such as 3.03")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        fail(f"slug {slug!r}: small letters, digits and underscores")
    part, order = chapter.split(".")
    path = CHAPTERS / PARTS[part] / f"{order}_{slug}.md"
    taken = [p for p in sources() if p.stem[3:] == slug or p == path]
    taken += list(path.parent.glob(f"{order}_*.md"))
    if taken:
        fail(f"{taken[0].relative_to(ROOT)} exists already")
    text = (ROOT / "templates" / "chapter.md").read_text(encoding="utf-8")
    text = text.replace("SLUG-LABEL", slug.replace("_", "-"))
    text = text.replace("template-1", f"{slug}-1")
    grader = ROOT / "llmbook" / "grading" / "exercises" / f"{slug}.py"
    example = grader.with_name("template.py").read_text(encoding="utf-8")
    example = example.replace("template-1", f"{slug}-1").replace(
        "the example exercise of ``templates/chapter.md``", f"chapter {chapter}"
    )
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, text)
    if not grader.exists():
        write_atomically(grader, example)
    print(f"wrote {path.relative_to(ROOT)} and {grader.relative_to(ROOT)}")
    toc = str(path.relative_to(ROOT).with_suffix(""))
    print(f"next: add '- file: {toc}' to _toc.yml, then: make chapter C={chapter}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

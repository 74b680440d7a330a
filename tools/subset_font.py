"""Cut the Chinese font down to the characters that the book uses.

Usage: ``python tools/subset_font.py`` writes ``assets/fonts/noto-sans-sc-book.woff2``
from Noto Sans CJK SC (Debian: fonts-noto-cjk; or give a path with ``--font``).
``python tools/subset_font.py --check`` only says which characters are missing, and
needs no source font.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FONT = ROOT / "assets" / "fonts" / "noto-sans-sc-book.woff2"
SOURCES = (
    Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"),
    Path("/usr/share/fonts/noto-cjk/NotoSansCJK-Regular.ttc"),
)
FACE = "Noto Sans CJK SC"
# What readers see; the same ranges stand in assets/css/book.css.
PATTERNS = (
    "index.md",
    "_toc.yml",
    "CHANGELOG.md",
    "pages/*.md",
    "chapters/*/*.md",
    "chapters/*/*.ipynb",
    "assets/*.json",
    "assets/bank/**/*.json",
)
CJK = re.compile(
    "[\u2e80-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]"
)
LIMIT = 200_000  # bytes


def used_characters(root: Path = ROOT) -> set[str]:
    """Return every Chinese character and sign in the book's sources."""
    found: set[str] = set()
    for pattern in PATTERNS:
        for path in root.glob(pattern):
            text = path.read_text("utf8")
            if path.suffix in (".ipynb", ".json"):  # \u4e2d may stand for 中
                text = json.dumps(json.loads(text), ensure_ascii=False)
            found.update(CJK.findall(text))
    return found


def font_characters(font: Path = FONT) -> set[str]:
    """Return the characters that the built font can draw."""
    from fontTools.ttLib import TTFont

    with TTFont(font) as face:
        return {chr(code) for code in face.getBestCmap()}


def missing_characters(root: Path = ROOT) -> set[str]:
    """Return characters in the sources that the built font lacks; empty is right."""
    font = root / FONT.relative_to(ROOT)
    return used_characters(root) - (font_characters(font) if font.exists() else set())


def build(source: Path, out: Path = FONT, root: Path = ROOT) -> int:
    """Write the subset and return its size in bytes."""
    from fontTools import subset
    from fontTools.ttLib import TTCollection, TTFont

    if source.suffix == ".ttc":
        faces = TTCollection(source).fonts
        face = next((f for f in faces if f["name"].getDebugName(4) == FACE), None)
        if face is None:
            sys.exit(f"{source} holds no face named {FACE}")
    else:
        face = TTFont(source)
    face.recalcTimestamp = False
    wanted = used_characters(root)
    options = subset.Options(
        flavor="woff2", layout_features=["locl"], hinting=False, desubroutinize=True
    )
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=map(ord, wanted))
    cutter.subset(face)
    out.parent.mkdir(parents=True, exist_ok=True)
    subset.save_font(face, str(out), options)
    if unknown := wanted - font_characters(out):
        sys.exit(f"{source} cannot draw {' '.join(sorted(unknown))}")
    return out.stat().st_size


def main() -> int:
    """Build or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="build nothing")
    parser.add_argument("--font", type=Path, help="path of Noto Sans CJK SC")
    args = parser.parse_args()
    if args.check:
        missing = missing_characters()
        if missing:
            print("missing:", " ".join(sorted(missing)))
            print("next: python tools/subset_font.py")
        return 1 if missing else 0
    source = args.font or next((path for path in SOURCES if path.exists()), None)
    if source is None or not source.exists():
        sys.exit("no Noto Sans CJK here; install fonts-noto-cjk or give --font PATH")
    size = build(source)
    name = FONT.relative_to(ROOT)
    print(f"{name}: {len(font_characters())} characters, {size // 1000} kB")
    if size > LIMIT:
        sys.exit(
            f"larger than {LIMIT // 1000} kB: leave out what the pages do not need"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

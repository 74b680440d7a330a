"""Runs of chapter 3.08 that are too long for a page, and one that needs datasketch.

    python benchmarks/pretraining_data.py decoder      5 seeds, about 3 minutes
    python benchmarks/pretraining_data.py datasketch   needs datasketch 1.6.5

The script executes the chapter's cells that say "shared with" it, so that both use
the same crawl, arms and model, and writes
assets/data/results/pretraining_data_decoder.json with a hash of these cells. What
the file holds is kept: remove an entry to run it anew. The chapter repeats one run
and compares.
"""

import argparse
import ast
import datetime
import hashlib
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "assets" / "data" / "results" / "pretraining_data_decoder.json"
N_SEEDS, N_CANARY_SEEDS = 5, 3
MARK = "# shared with benchmarks/pretraining_data.py"

sys.path.insert(0, str(ROOT / "tools"))


def shared_cells() -> list[str]:
    """Return the chapter's cells that carry MARK, top to bottom."""
    from _book import find, read_source

    cells = read_source(find(["3.08"])[0]).cells
    return [c.source for c in cells if c.cell_type == "code" and MARK in c.source]


def fingerprint(sources: list[str]) -> str:
    """Hash what the shared cells do; comments and spacing do not count."""
    trees = [ast.dump(ast.parse(source)) for source in sources]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def chapter_names() -> dict[str, Any]:
    """Run the shared cells and return the names that they define."""
    names: dict[str, Any] = {"__name__": "chapter"}
    for source in shared_cells():
        exec(compile(source, "<chapter 3.08>", "exec"), names)
    return names


def processor() -> str:
    """Name the processor, as the system does."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    match = re.search(r"model name\s*: (.*)", text)
    return match[1] if match else platform.machine()


def save(**new: object) -> None:
    """Add results to the file, with hardware and date."""
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    old |= {
        "made_by": "benchmarks/pretraining_data.py",
        "hardware": f"{processor()}, 1 thread",
        "date": datetime.date.today().isoformat(),
        "shared_cells": fingerprint(shared_cells()),
        **new,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(old, indent=1) + "\n")


def decoder() -> None:
    """Train the arms, seed by seed; what the file holds already is kept."""
    names = chapter_names()
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    runs = old.get("decoder", {})
    for arm in ("raw", "both", "raw, twice", "both, twice"):
        n_steps = 400 if arm.endswith("twice") else 200
        for seed in range(len(runs.setdefault(arm, [])), N_SEEDS):
            bits = names["decoder_arm"](arm.split(",")[0], seed, n_steps)
            runs[arm].append(round(bits, 4))
            print(seed, arm, runs[arm][-1], flush=True)
        save(decoder=runs)
    for name, copied in (("canaries", True), ("no canaries", False)):
        marks = old.get(name, [])
        for seed in range(len(marks), N_CANARY_SEEDS):
            tokens, marked = names["canaries"](seed, copied)
            model, _ = names["decoder_run"](tokens, 200, seed)
            row = [names["decoder_bits"](model, part) for part in marked]
            marks.append([round(bits, 4) for bits in row])
            print(seed, marks[-1], flush=True)
            save(**{name: marks})


def datasketch() -> None:
    """Store the hash of datasketch's signatures, made with the chapter's constants."""
    import numpy as np
    from datasketch import __version__, minhash

    from llmbook import corpus, data

    minhash._mersenne_prime = np.uint64(corpus.PRIME)
    ours = corpus.MinHash(seed=0)
    _, text = data.documentation_split("prose")
    held = [d for d in text.split("\n\n\n") if len(d.split()) >= 20]
    rows = []
    for document in held[:40]:
        theirs = minhash.MinHash(
            num_perm=112,
            permutations=(ours.a[:, 0], ours.b[:, 0]),
            hashfunc=int,
        )
        theirs.update_batch(ours.shingles(document))
        rows.append(theirs.hashvalues)
    signatures = np.array(rows).astype("<u8")
    digest = hashlib.sha256(signatures.tobytes()).hexdigest()
    save(datasketch={"version": __version__, "n": len(rows), "sha256": digest})


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")  # the cells import pyplot
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("decoder", "datasketch"))
    {"decoder": decoder, "datasketch": datasketch}[parser.parse_args().what]()

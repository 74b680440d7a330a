"""Train the models of chapter 3.03 over seeds and store what they reach.

    python benchmarks/transformer_dates.py                 what is missing
    python benchmarks/transformer_dates.py --seconds 80    stop after that long

The code is the chapter's own: its imports, definitions and capitalised constants
are taken from the source, so the two cannot differ; a digest of what the runs use
is stored beside them. First each model's learning rate is chosen on the validation
months over three seeds, then five other seeds answer for the test months. Finished
runs are kept in ``assets/data/results/transformer_dates.json``; delete the file to
start again. One thread; about fourteen minutes in all on one core of 2026.
"""

import argparse
import ast
import hashlib
import json
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from _book import find, read_source, write_atomically  # noqa: E402

STORE = ROOT / "assets" / "data" / "results" / "transformer_dates.json"
KINDS = ("sinusoids", "sinusoids x 2", "sinusoids x 4", "learned", "LSTM")
RATES = dict.fromkeys(KINDS, (2e-3, 4e-3, 8e-3, 16e-3))
RATES |= {"sinusoids x 2": (2e-3, 4e-3, 8e-3), "sinusoids x 4": (2e-3, 4e-3, 8e-3)}
USED = ("new_model", "train", "measure", "make_notes", "split_months")


def statements(path: Path) -> list[ast.stmt]:
    """Return imports, definitions and CAPITAL constants of a chapter's cells."""
    out: list[ast.stmt] = []
    for cell in read_source(path).cells:
        if cell.cell_type != "code" or "starter" in cell.metadata.get("tags", []):
            continue
        out += [node for node in ast.parse(cell.source).body if _keep(node)]
    return out


def definitions(path: Path) -> dict[str, Any]:
    """Run the statements of a chapter that define something."""
    space: dict[str, Any] = {"__name__": "chapter"}
    exec(compile(ast.Module(statements(path), []), path.name, "exec"), space)
    return space


def digest(path: Path) -> str:
    """Hash the definitions that a run uses, and those that they use in turn."""
    defined: dict[str, list[ast.stmt]] = {}
    for node in statements(path):
        for name in _names(node):
            defined.setdefault(name, []).append(node)
    todo, used = list(USED), set()
    while todo:
        name = todo.pop()
        if name in used or name not in defined:
            continue
        used.add(name)
        for node in defined[name]:
            todo += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    text = [ast.unparse(node) for name in sorted(used) for node in defined[name]]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return []


def _keep(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign):
        return all(name.isupper() for name in _names(node))
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    return isinstance(node, kinds)


def selection() -> list[dict[str, Any]]:
    """List the runs that choose: every rate of every model, three seeds."""
    return [
        _job(kind, "validation", seed, 1, lr)
        for kind in KINDS
        for lr in RATES[kind]
        for seed in (100, 101, 102)
    ]


def trial(best: dict[str, float]) -> list[dict[str, Any]]:
    """List the runs that answer, at the rates chosen."""
    return [_job(k, "test", seed, 1, best[k]) for seed in range(5) for k in KINDS]


def _job(kind: str, notes: str, seed: int, times: int, lr: float) -> dict[str, Any]:
    return {"kind": kind, "notes": notes, "seed": seed, "times": times, "lr": lr}


def chosen(kept: list[dict[str, Any]]) -> dict[str, float]:
    """Return the rate with the best mean over the selection seeds, by model."""
    scores: dict[tuple[str, float], float] = {}
    for r in kept:
        if r["job"]["notes"] == "validation":
            key = r["job"]["kind"], r["job"]["lr"]
            scores[key] = scores.get(key, 0.0) + r["greedy"]
    return {k: max(RATES[k], key=lambda lr: scores[k, lr]) for k in KINDS}


def run(job: dict[str, Any], c: dict[str, Any]) -> dict[str, Any]:
    """Train one model and measure it; ``c`` holds the chapter's definitions."""
    model = c["new_model"](job["kind"], job["seed"])
    start = time.process_time()
    n_steps = c["N_STEPS"] * job["times"]
    losses, early = c["train"](model, job["lr"], job["seed"], n_steps)
    seconds = time.process_time() - start
    which = {"validation": 1, "test": 2}[job["notes"]]
    notes = c["make_notes"](c["split_months"]()[which], 300, seed=1)
    if job["notes"] == "validation":
        row = {"greedy": c["exact"](c["answers"](model, notes), notes)}
    else:
        row = c["measure"](model, early, notes)
    early_losses = [round(x, 5) for x in losses[9:50:20]]
    return row | {"cpu_s": round(seconds, 1), "losses": early_losses}


def main() -> None:
    """Run what is missing, and store after every run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    limit = time.monotonic() + parser.parse_args().seconds
    chapter = find(["3.03"])[0]
    c = definitions(chapter)
    c["llmbook"].setup(seed=0)
    stamp = {
        "made_by": "benchmarks/transformer_dates.py",
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, one thread of a shared processor",
        "torch": c["torch"].__version__,
        "source": digest(chapter),
    }
    kept = []
    if STORE.exists():
        old = json.loads(STORE.read_text())
        if old["source"] != stamp["source"]:
            raise SystemExit(f"the chapter has changed: delete {STORE.name} first")
        kept = old["runs"]
    for phase in (selection, lambda: trial(chosen(kept))):
        for job in phase():
            if any(r["job"] == job for r in kept):
                continue
            if time.monotonic() > limit:
                print("time is up; run again for the rest")
                return
            kept.append({"job": job} | run(job, c))
            print(kept[-1], flush=True)
            STORE.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(stamp | {"runs": kept}, indent=1)
            write_atomically(STORE, text + "\n")


if __name__ == "__main__":
    main()

"""Train chapter 3.06's mixture and dense layers eight times longer.

    python benchmarks/moe_longer.py
    python benchmarks/moe_longer.py --time "older CPU"    only times a step, again

The definitions are taken from the chapter's own cells, so nothing is copied; a hash of
them is stored, and the chapter compares it. Writes assets/data/results/moe_longer.json,
seed by seed: bits per character after 2,400 steps on text and on facts, at three rates,
with the bits on other characters of the held-out text, by which the chapter picks the
rate; bits after 300 steps, some of which the chapter trains again; and a sweep over the
speed of the balancing bias. About four minutes on one CPU thread. The second form adds
the times of a step under a name of your choice; the stored "older CPU" ran with
ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Haswell.
"""

import ast
import contextlib
import datetime
import hashlib
import io
import json
import platform
import statistics
import sys
from pathlib import Path
from time import process_time

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

CHAPTER = ROOT / "chapters" / "3_language_models" / "06_mixture_of_experts.md"
TARGET = ROOT / "assets" / "data" / "results" / "moe_longer.json"
USED = (
    *("route", "swiglu", "grouped_linear", "grouped_experts", "expert_load"),
    *("balance_loss", "wrong_axis_loss", "sample", "new_models", "predict"),
    *("train", "evaluate"),
)
LAYERS: dict[str, tuple[float, dict]] = {  # coefficient of balancing, shape
    "mixture": (0.1, {"width": 24, "n_experts": 8, "k": 2}),
    "dense, equal active": (0.0, {"width": 48}),
    "dense, equal total": (0.0, {"width": 192}),
}


def definitions() -> tuple[dict, str]:
    """Run the chapter's cells up to the one that defines ``evaluate``.

    Returns the names, and a hash of the source of the functions in ``USED``.
    """
    from _book import read_source

    names: dict = {"__name__": "chapter"}
    sources: dict[str, str] = {}
    for cell in read_source(CHAPTER).cells:
        if cell.cell_type != "code":
            continue
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.FunctionDef):
                sources[node.name] = ast.get_source_segment(cell.source, node) or ""
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(cell.source, str(CHAPTER), "exec"), names)
        if "evaluate" in sources:
            text = "\n".join(sources[name].strip() for name in USED)
            return names, hashlib.sha256(text.encode()).hexdigest()
    raise SystemExit(f"{CHAPTER} defines no evaluate(): update this script")


def seconds(chapter: dict) -> dict[str, float]:
    """Median processor time of ten training steps of six seeds, 15 rounds."""
    rounds: dict[str, list[float]] = {name: [] for name in LAYERS}
    for _ in range(15):
        for name, (alpha, shape) in LAYERS.items():
            start = process_time()
            chapter["train"]([chapter["Arm"](alpha=alpha)], n_steps=10, **shape)
            rounds[name].append(process_time() - start)
    return {name: round(statistics.median(x), 4) for name, x in rounds.items()}


def main() -> None:
    """Train every layer at every length and rate, and store the losses."""
    import torch

    chapter, digest = definitions()
    if sys.argv[1:2] == ["--time"]:
        result = json.loads(TARGET.read_text(encoding="utf-8"))
        result["seconds"][sys.argv[2]] = seconds(chapter)
        print(result["seconds"])
        TARGET.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return
    Arm, train, evaluate = (chapter[name] for name in ("Arm", "train", "evaluate"))
    text, context = chapter["test_text"], chapter["CONTEXT"]
    places = torch.arange(len(text) - context)
    free = places[~torch.isin(places, chapter["starts"])]
    g = torch.Generator().manual_seed(33)
    at = free[torch.randperm(len(free), generator=g)[:4096]]
    tuning = text[at[:, None] + torch.arange(context + 1)]

    runs: list[dict] = []

    def numbers(x: object) -> list[float]:
        return [round(float(b), 6) for b in x]

    def record(arms: list, labels: dict, shape: dict, **more: float) -> None:
        w, bias, _ = train(arms, **shape, **more)
        k = shape.get("k", 1)
        bits, picks = evaluate(arms, w, bias, k=k)
        other, _ = evaluate(arms, w, bias, k=k, text=tuning)
        for i, arm in enumerate(arms):
            row = {**labels, "task": arm.task, **more, "bits": numbers(bits[i])}
            if arm.task == "text":
                row["tuning"] = numbers(other[i])
            if arm.speed or labels["layer"] == "no balancing":
                load = chapter["expert_load"](picks[i], 8)
                idle = (load < 1 / 32).sum(1)
                row |= {"speed": arm.speed, "idle": [int(n) for n in idle]}
            runs.append(row)
            print(row, flush=True)

    for n_steps, lr in ((300, 0.03), (2400, 0.01), (2400, 0.03), (2400, 0.003)):
        for name, (alpha, shape) in LAYERS.items():
            arms = [Arm(task, alpha=alpha) for task in ("text", "facts")]
            record(arms, {"layer": name}, shape, n_steps=n_steps, lr=lr)
    for lr in (0.017, 0.052):
        for name in ("mixture", "dense, equal active"):
            alpha, shape = LAYERS[name]
            record([Arm(alpha=alpha)], {"layer": name}, shape, n_steps=300, lr=lr)
    shape = LAYERS["mixture"][1]
    record([Arm()], {"layer": "no balancing"}, shape, n_steps=300, lr=0.03)
    speeds = [Arm(speed=u) for u in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)]
    record(speeds, {"layer": "bias"}, shape, n_steps=300, lr=0.03)

    result = {
        "script": "benchmarks/moe_longer.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": f"{platform.machine()} CPU, one thread, double precision",
        "torch": torch.__version__,
        "definitions_sha256": digest,
        "seconds": {"our CPU": seconds(chapter)},
        "runs": runs,
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

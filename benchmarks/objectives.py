"""Pretrain one small encoder by each objective at equal compute, and probe it.

    python benchmarks/objectives.py --seed 0      (then 1, 2, 3, 4)
    python benchmarks/objectives.py --more 0      (then 1, 2, 3, 4)
    python benchmarks/objectives.py --ceiling

Runs the code cells of the chapter on pretraining objectives that say they are shared
with this script, so that there is no second copy to drift. Each call adds one seed
(or the frozen MiniLM) to assets/data/results/objectives_probes.json with the machine,
the date and the versions; --more adds other budgets to a seed that is there and leaves
what it holds alone. All together take twenty minutes of one thread.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("LLMBOOK_THREADS", "1")

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = ROOT / "chapters" / "3_language_models" / "07_pretraining_objectives.md"
RESULTS = ROOT / "assets" / "data" / "results" / "objectives_probes.json"
SHARED = "# shared with benchmarks/objectives.py"

N_STEPS = 640
MAIN = ("MLM", "causal", "spans", "NSP", "MLM + NSP")
UNTRAINED = {"causal": "random, causal", "spans": "random, spans"}
SPOILED = {  # name: (objective, steps); three seeds
    "MLM, always <mask>": ("MLM", N_STEPS),
    "MLM, loss everywhere": ("MLM", N_STEPS),
    "causal, not shifted": ("causal", N_STEPS // 4),
}
MORE = {  # name: (objective, steps, seeds); 1,164 steps: MLM charged for its head
    "MLM, 1164 steps": ("MLM", 1164, 5),
    "spans, 1280 steps": ("spans", 1280, 5),
    "causal, 160 steps": ("causal", 160, 3),
    "NSP, 2000 steps": ("NSP", 2000, 3),
}
OWN = {"MLM": 3, "causal": 3}  # arms read again by their own output layer: seeds


def chapter() -> dict:
    """Run the chapter's shared cells and return their names."""
    names: dict = {}
    cells = re.findall(
        r"^```\{code-cell\}[^\n]*\n(.*?)^```$", CHAPTER.read_text(), re.M | re.S
    )
    for cell in cells:
        body = re.sub(
            r"\A(---\n.*?^---\n|(:[^\n]*\n)+\s*)", "", cell, flags=re.M | re.S
        )
        if body.lstrip().startswith(SHARED):
            exec(compile(body, str(CHAPTER), "exec"), names)
    return names


def spoilers(c: dict) -> dict:
    """What each broken recipe does to a correct batch."""
    return {
        "MLM, always <mask>": lambda batch, clean: (
            batch[0].masked_fill(batch[1] != -100, c["MASK"]),
            batch[1],
            batch[2],
        ),
        "MLM, loss everywhere": lambda batch, clean: (batch[0], clean, batch[2]),
        "causal, not shifted": lambda batch, clean: (batch[0], clean, batch[2]),
    }


def held_out(c: dict, model: "nn.Module", objective: str) -> dict:
    """Loss on held-out windows, and what the pair head knows about order."""
    torch, held, source = c["torch"], c["held"], c["held_source"]
    look = c["LOOK"].get(objective, c["EVERYONE"])
    out = {}
    with torch.no_grad():
        rows = torch.arange(256) * (len(held) // 256)
        noise = torch.Generator().manual_seed(0)
        batch = c["make_batch"](objective, rows, noise, held, source)
        if batch[1] is not None:
            x = model(batch[0], look)
            out["loss"] = c["token_loss"](model, x, batch[1]).item()
        if batch[2] is not None:
            every = torch.arange(len(held))
            ids, pair = c["pairs"](every, held, source, noise)
            logits = model.pair(model(ids, look)[:, 0])
            out["next"] = (logits.argmax(1) == pair).double().mean().item()
            half = c["HALF"]
            swapped = torch.cat([held[:, half : 2 * half], held[:, :half]], 1)
            margin = []
            for w in (held[:, : 2 * half], swapped):
                sep = torch.full((len(w), 1), c["SEP"])
                ids = c["framed"](torch.cat([w[:, :half], sep, w[:, half:]], 1))
                margin.append(
                    model.pair(model(ids, look)[:, 0]) @ torch.tensor([1.0, -1])
                )
            out["order"] = (margin[0] > margin[1]).double().mean().item()
    return out


def one_seed(c: dict, seed: int) -> dict:
    """Every objective, every probe, one seed."""
    torch, tasks, runs = c["torch"], c["labelled"](seed), {}

    def fresh() -> "nn.Module":
        torch.manual_seed(seed)
        return c["Encoder"]()

    def tuned(model: "nn.Module", objective: str) -> dict:
        return {"bank": c["fine_tune"](model, tasks["bank"], objective, seed)}

    for objective in ("MLM", "causal", "spans"):
        name = UNTRAINED.get(objective, "random")
        runs[name] = {"probes": c["probes"](fresh(), objective, seed)}
        runs[name]["fine-tuned"] = tuned(fresh(), objective)
    spoil = spoilers(c)
    arms = [(name, name, N_STEPS) for name in MAIN]
    if seed < 3:
        arms += [(name, *SPOILED[name]) for name in SPOILED]
    for name, objective, n_steps in arms:
        start = time.process_time()
        model, losses = c["pretrain"](objective, seed, n_steps, spoil.get(name))
        run = {
            "losses": [round(float(x), 4) for x in losses.reshape(-1, 10).mean(1)],
            "seconds": round(time.process_time() - start, 1),
            "probes": c["probes"](model, objective, seed),
            "held-out": held_out(c, model, objective),
        }
        if name in MAIN[:4]:
            run["fine-tuned"] = tuned(model, objective)
        runs[name] = run
        print(seed, name, run["seconds"], run["losses"][-1], run["probes"], flush=True)
    return runs


def own_answer(c: dict, model: "nn.Module", objective: str, seed: int) -> float:
    """Share of hidden common words that the model's own output layer names."""
    torch, held = c["torch"], c["held"]
    row, where, which = c["hidden_words"](held, seed)
    ids, where = c["framed"](held[row]), torch.tensor(where)
    states = torch.tensor(c["word_states"](model, objective, ids, where))
    with torch.no_grad():
        found = model.logits(states)[:, c["COMMON"]].argmax(1)
    return (found.numpy() == which).mean()


def more(c: dict, seed: int) -> dict:
    """Other budgets for one seed, and what the output layers say themselves."""
    runs = {}
    for name, (objective, n_steps, n_seeds) in MORE.items():
        if seed >= n_seeds:
            continue
        start = time.process_time()
        model, losses = c["pretrain"](objective, seed, n_steps)
        tens = losses[: n_steps // 10 * 10].reshape(-1, 10)
        runs[name] = {
            "losses": [round(float(x), 4) for x in tens.mean(1)],
            "seconds": round(time.process_time() - start, 1),
            "probes": c["probes"](model, objective, seed),
            "held-out": held_out(c, model, objective),
        }
        if objective != "NSP":
            runs[name]["own"] = own_answer(c, model, objective, seed)
        print(seed, name, runs[name]["probes"], runs[name]["held-out"], flush=True)
    for name in OWN:
        if seed < OWN[name]:
            model, losses = c["pretrain"](name, seed, N_STEPS)
            runs[name] = {"own": own_answer(c, model, name, seed)}
            last = round(float(losses[-10:].mean()), 4)
            print(seed, name, runs[name], "last loss", last, flush=True)
    return runs


def ceiling(c: dict) -> dict:
    """Frozen MiniLM under the same linear probe, the samples of five seeds."""
    import numpy as np

    model, out = c["data"].minilm(), []
    vectors: dict = {}

    def encode(texts: Sequence) -> "np.ndarray":
        new = sorted({str(t) for t in texts} - vectors.keys())
        vectors.update(zip(new, model.encode(new), strict=True))
        return np.array([vectors[str(t)] for t in texts])

    for seed in range(5):
        score = {}
        for task, (a, a_labels, b, b_labels) in c["labelled"](seed).items():
            score[task] = c["linear_probe"](encode(a), a_labels, encode(b), b_labels)
        out.append(score)
    return {"probes": out}


def machine() -> dict:
    """Say where and with what a run was made."""
    import numpy
    import sklearn
    import torch

    info = Path("/proc/cpuinfo")
    model = (
        re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    )
    return {
        "date": datetime.date.today().isoformat(),
        "processor": model[1] if model else platform.processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
    }


def main() -> int:
    """Run one piece and merge it into the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--more", type=int, metavar="SEED")
    parser.add_argument("--ceiling", action="store_true")
    arguments = parser.parse_args()
    c = chapter()
    start = time.process_time()
    if arguments.ceiling:
        key, value = "MiniLM", ceiling(c)
    elif arguments.more is not None:
        key, value = str(arguments.more), more(c, arguments.more)
    elif arguments.seed is not None:
        key, value = str(arguments.seed), one_seed(c, arguments.seed)
    else:
        parser.error("say --seed, --more or --ceiling")
    piece = {"runs": value, "seconds": round(time.process_time() - start)}
    piece["machine"] = machine()
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"pieces": {}}
    if arguments.more is not None:
        piece["added"] = {k: piece.pop(k) for k in ("seconds", "machine")}
        there = old["pieces"][key]
        piece["runs"] = there["runs"] | {
            name: there["runs"].get(name, {}) | run for name, run in value.items()
        }
        piece = there | piece
    old["n_steps"] = N_STEPS
    old["pieces"] = dict(sorted((old["pieces"] | {key: piece}).items()))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(old, indent=1) + "\n")
    print(key, round(time.process_time() - start), "s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())

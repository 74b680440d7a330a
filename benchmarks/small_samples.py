"""Learn from 5 to 500 examples per class by every method of chapter 2.06.

    python benchmarks/small_samples.py                 what is missing
    python benchmarks/small_samples.py --seconds 300   stop after that long

Tasks, methods and tuning are those of `llmbook.small_samples`,
`llmbook.small_networks` and `llmbook.drawn_digits`, which the chapter uses too; digests
of the files are stored. A run is one task, one size, one draw of the training sample
and one method: its configuration is chosen by two-fold cross-validation inside the
sample, then the test sets are answered once. After the trial, fine-tuning and the
networks on pictures run on for longer than the trial allows. Every answer goes into
assets/data/results/small_samples.json, which is written every few seconds; delete the
file to start again. One thread; the seconds are processor time, about an hour in all.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("LLMBOOK_THREADS", "1")

import llmbook
from llmbook.files import replacing

if TYPE_CHECKING:
    from numpy import ndarray

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "assets" / "data" / "results" / "small_samples.json"
SOURCES = {
    "source": ("small_samples.py", "small_networks.py"),
    "source of drawn": ("drawn_digits.py",),
}

TUNED = "MiniLM fine-tuned"
ONLY = {"random MiniLM + logistic": "bank", "SVM on edges": "digits"}
SEEDS = range(5)
SIZES = {
    "bank": (5, 10, 20, 50),
    "digits": (5, 10, 20, 50, 100),
    "drawn": (5, 20, 100, 500),
    "library": (5, 20, 100, 500),
}
TUNED_SIZES = {"bank": (5, 20, 50)}  # it costs the most
STEPS = (10, 20, 40, 80)  # of fine-tuning, beyond what the trial allows
HEADS = ("random", "fitted")
PICTURE_STEPS = (800, 1600, 3200, 6400)  # the trial stops at 800
PICTURE_SIZES = {"drawn": (20, 100, 500), "digits": (20, 100)}
PICTURE_NETS = ("MLP", "CNN", "CNN + shifts")


def digest(names: tuple[str, ...]) -> str:
    """Hash what modules of the package do, whatever their layout and comments.

    The interval is left out: it reads the runs and makes none.
    """
    folder = Path(llmbook.__file__).parent
    trees = [ast.parse((folder / name).read_text()) for name in names]
    text = "\n".join(ast.unparse(_bare(tree)) for tree in trees)
    return hashlib.sha256(text.encode()).hexdigest()


def _bare(tree: ast.AST) -> ast.AST:
    """Take the docstrings and the interval out."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module):
            body = node.body = [
                part
                for part in node.body
                if getattr(part, "name", None) != "crossed_interval"
            ]
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(body[0].value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]  # type: ignore
    return tree


def jobs(methods: dict[str, dict]) -> Iterator[tuple[str, int, int, str]]:
    """Yield task, size, seed and method; fine-tuning comes last."""
    for task, sizes in SIZES.items():
        for n in sizes:
            for seed in SEEDS:
                for method in methods[task]:
                    if method != TUNED and ONLY.get(method, task) == task:
                        yield task, n, seed, method
    for task, sizes in TUNED_SIZES.items():
        for n in sizes:
            for seed in SEEDS:
                yield task, n, seed, TUNED


def longer(task: dict[str, Any], seed: int, head: str) -> list[dict[str, str]]:
    """Fine-tune on a draw of five per class, and ask after each of `STEPS` steps.

    The head starts at random, as in the trial, or is a logistic regression fitted to
    the frozen vectors and then learns as slowly as the body.
    """
    import torch
    from sklearn.linear_model import LogisticRegression

    from llmbook import small_networks as networks
    from llmbook import small_samples as samples

    def fitted(task: samples.Task, train: "ndarray", where: "ndarray") -> tuple:
        model, inputs, asked = networks.fine_tuned(task, train, where)
        with torch.no_grad():
            x = model.eval().pooled(*inputs).numpy()
            fit = LogisticRegression(max_iter=1000).fit(x, task["y"][train])
            model.head.weight.copy_(torch.tensor(fit.coef_))
            model.head.bias.copy_(torch.tensor(fit.intercept_))
        return model, inputs, asked

    build, head_lr = (fitted, 1) if head == "fitted" else (networks.fine_tuned, 50)
    method = networks.network(build, 0, STEPS[0], STEPS[0], head_lr=head_lr)
    configs = [(1e-4, n // STEPS[0]) for n in STEPS]
    where = samples.np.concatenate(list(task["tests"].values()))
    train = samples.draw(task, 5, seed)
    return [written(task, row) for row in method(task, train, where, seed, configs)]


def longer_pictures(task: dict[str, Any], n: int, seed: int, net: str) -> list:
    """Train a network on pictures, and ask after each of `PICTURE_STEPS` steps."""
    from llmbook import small_networks as networks
    from llmbook import small_samples as samples

    build = {
        "MLP": networks.perceptron(samples.column("pixels")),
        "CNN": networks.pictures(False),
        "CNN + shifts": networks.pictures(True),
    }[net]
    method = networks.network(build, 0, PICTURE_STEPS[0], PICTURE_STEPS[0])
    configs = [(3e-3, steps // PICTURE_STEPS[0]) for steps in PICTURE_STEPS]
    where = samples.np.concatenate(list(task["tests"].values()))
    train = samples.draw(task, n, seed)
    return [written(task, row) for row in method(task, train, where, seed, configs)]


def written(task: dict[str, Any], found: "ndarray") -> dict[str, str]:
    """Write answers as text, a digit for each item of each test."""
    answers, start = {}, 0
    for test, rows in task["tests"].items():
        part = found[start : start + len(rows)]
        answers[test] = "".join(str(int(label)) for label in part)
        start += len(rows)
    return answers


def record(task: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Turn what a trial returned into JSON."""
    return {
        "chosen": found["chosen"],
        "hits": [int(h) for h in found["hits"]],
        "seconds": [round(s, 4) for s in found["seconds"]],
        "answers": written(task, found["found"]),
    }


def save(content: dict[str, Any]) -> None:
    """Write the results, a line for each run."""
    *front, (last, runs) = content.items()
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in front]
    lines.append(f"{json.dumps(last)}: {{")
    rows = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in runs.items()]
    text = "{" + ",\n".join(lines) + "\n" + ",\n".join(rows) + "\n}}\n"
    STORE.parent.mkdir(parents=True, exist_ok=True)
    with replacing(STORE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main() -> None:
    """Run what is missing, and store every few seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    limit = time.monotonic() + parser.parse_args().seconds
    llmbook.setup(seed=0)
    import numpy
    import sklearn
    import torch

    from llmbook import drawn_digits
    from llmbook import small_networks as networks
    from llmbook import small_samples as samples

    torch.set_num_threads(1)
    text = samples.TEXT | networks.TEXT
    methods = {
        "bank": text,
        "library": text,
        "digits": samples.IMAGES | networks.IMAGES,
        "drawn": samples.IMAGES | networks.IMAGES,
    }
    makers = {
        "bank": lambda: samples.add_vectors(samples.bank_task(), random=True),
        "library": lambda: samples.add_vectors(samples.library_task()),
        "digits": samples.digits_task,
        "drawn": drawn_digits.drawn_digits_task,
    }
    stamp = {
        "made_by": "benchmarks/small_samples.py",
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, one thread of a shared processor",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "scikit-learn": sklearn.__version__,
        "seeds": list(SEEDS),
        **{key: digest(names) for key, names in SOURCES.items()},
        "encoding_seconds": {},
        "longer": {},
    }
    runs: dict[str, Any] = {}
    if STORE.exists():
        old = json.loads(STORE.read_text())
        if any(old.get(key, stamp[key]) != stamp[key] for key in SOURCES):
            raise SystemExit(f"the methods have changed: delete {STORE.name} first")
        runs = old["runs"]
        stamp |= {key: old[key] for key in ("encoding_seconds", "longer") if key in old}
    tasks: dict[str, Any] = {}
    saved = time.monotonic()
    for name, n, seed, method in jobs(methods):
        key = f"{name}|{n}|{seed}|{method}"
        if key in runs:
            continue
        if time.monotonic() > limit:
            print("time is up; run again for the rest")
            break
        if name not in tasks:
            tasks[name] = makers[name]()
            if "minilm" in tasks[name]:  # the price of a vector
                start = time.process_time()
                samples.minilm().encode(list(tasks[name]["texts"][:200]))
                price = (time.process_time() - start) / 200
                stamp["encoding_seconds"][name] = round(price, 5)
        found = samples.trial(tasks[name], *methods[name][method], n, seed)
        runs[key] = record(tasks[name], found)
        print(key, runs[key]["hits"], runs[key]["seconds"], flush=True)
        if time.monotonic() > saved + 3:
            save(stamp | {"runs": runs})
            saved = time.monotonic()
    for head in HEADS:
        for seed in SEEDS:
            key = f"{seed}|{head}"
            if key not in stamp["longer"] and time.monotonic() < limit:
                task = tasks.setdefault("bank", samples.bank_task())
                stamp["longer"][key] = longer(task, seed, head)
                print("fine-tuning", key, flush=True)
    asked = [(name, n) for name, sizes in PICTURE_SIZES.items() for n in sizes]
    for name, n in asked:
        for seed in SEEDS:
            for net in PICTURE_NETS:
                key = f"{name}|{n}|{seed}|{net}"
                if key not in stamp["longer"] and time.monotonic() < limit:
                    if name not in tasks:
                        tasks[name] = makers[name]()
                    found = longer_pictures(tasks[name], n, seed, net)
                    stamp["longer"][key] = found
                    print("longer", key, flush=True)
    save(stamp | {"runs": runs})


if __name__ == "__main__":
    main()

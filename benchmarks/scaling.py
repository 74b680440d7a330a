"""Small training runs, a law fitted to them, and what it says of the shipped model.

    python benchmarks/scaling.py run        # about 15 minutes of one CPU core
    python benchmarks/scaling.py fit 1500   # fit, intervals, prediction for a budget

`run` writes one row per run to assets/data/results/scaling.json and skips rows that
are there. `fit` adds the fit and the prediction. benchmarks/pretrain.py refuses to
start before the prediction is on file.
"""

import datetime
import json
import math
import os
import platform
import re
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.optimize import least_squares  # noqa: E402

from llmbook import pretrained  # noqa: E402
from llmbook.files import replacing  # noqa: E402
from llmbook.model import Config, Decoder  # noqa: E402
from llmbook.tokenizer import Tokenizer, train_bpe  # noqa: E402
from llmbook.train import Data, TrainConfig, bits_per_byte, train  # noqa: E402

RESULTS = ROOT / "assets" / "data" / "results" / "scaling.json"
VOCAB, SEQ_LEN, BATCH = 4096, 256, 8
SHAPES = {"A": (1, 64), "B": (2, 96), "C": (2, 128), "D": (3, 192)}  # layers, width
TOKENS = (600_000, 1_200_000, 2_400_000)
TUNED_ON = 300_000  # tokens of the runs that only choose the learning rate
RATES = (2e-3, 4e-3, 8e-3)  # tried at three widths
EDGE = (1e-3,)  # tried where the lowest of them was the best
CANDIDATES = {  # layers, width, tokens per CPU second (median of 8 steps)
    "C": (2, 128, 13_861),
    "D": (3, 192, 8_961),
    "4 × 192": (4, 192, 7_591),
    "3 × 256": (3, 256, 7_051),
    "4 × 256": (4, 256, 5_956),
}
EVERY = 4  # of the held-out documents one in four is measured on


def machine() -> str:
    """Describe the processor."""
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.exists() and (m := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        name = m[1]
    return f"{name}, 1 thread of {os.cpu_count()}"


def config(n_layers: int, width: int) -> Config:
    """Heads of 32; two query heads share a key-value head where that is even."""
    heads = width // 32
    return Config(
        vocab_size=VOCAB,
        n_layers=n_layers,
        n_heads=heads,
        n_kv_heads=heads // 2 if heads % 2 == 0 else heads,
        d_model=width,
        d_ff=-(-8 * width // (3 * 32)) * 32,
        max_len=SEQ_LEN,
    )


def run_config(n_tokens: int, lr: float, seed: int = 0) -> TrainConfig:
    """The recipe that all runs share: a twentieth of the steps is warmup."""
    n_steps = round(n_tokens / (BATCH * SEQ_LEN))
    return TrainConfig(
        n_steps=n_steps,
        batch_size=BATCH,
        seq_len=SEQ_LEN,
        lr=lr,
        warmup=min(200, n_steps // 20),
        bfloat16=True,
        eval_every=n_steps,
        eval_tokens=512,
        seed=seed,
    )


def tokenizer(text: str) -> Tokenizer:
    """Train the tokenizer on training text only, or take the one on file."""
    path = pretrained.FOLDER / "tokenizer.json"
    if not path.exists():
        documents = text.split(pretrained.END_OF_TEXT)
        train_bpe(documents, VOCAB, pretrained.SPECIAL_TOKENS).save(path)
    return Tokenizer.load(path)


def prepare(keep_every: int = 1) -> tuple[Data, Tokenizer, str]:
    """Ids of the book's training and held-out text, tokenizer, training text."""
    text, held_out = pretrained.texts(keep_every)
    tok = tokenizer(text)
    return Data.from_texts(text, held_out, tok), tok, text


def load() -> dict:
    """What is on file."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


def store(results: dict) -> None:
    """Replace the file whole."""
    with replacing(RESULTS) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def measure(data: Data, shape: str, n_tokens: int, lr: float, seed: int) -> dict:
    """One run from scratch, measured on the held-out sample, in CPU seconds."""
    torch.manual_seed(seed)
    model = Decoder(config(*SHAPES[shape]))
    run = run_config(n_tokens, lr, seed)
    start = time.process_time()
    history = train(model, data, run)
    seconds = time.process_time() - start
    bits = bits_per_byte(model, data.valid, data.token_bytes, SEQ_LEN)
    return {
        "shape": shape,
        "n_params": model.n_params,
        "n_tokens": run.n_steps * BATCH * SEQ_LEN,
        "lr": lr,
        "seed": seed,
        "bits_per_byte": bits,
        "train_loss_last_tenth": float(np.mean(history.loss[-run.n_steps // 10 :])),
        "cpu_seconds": round(seconds, 1),
        "asked": [shape, n_tokens, lr, seed],
    }


def best_rate(runs: list[dict], shape: str) -> float:
    """Lowest point of a parabola in log lr, through the best rate and its neighbours.

    The best rate itself where it is the last one tried.
    """
    rows = [r for r in runs if r["asked"][:2] == [shape, TUNED_ON]]
    tried = {r["lr"]: r["bits_per_byte"] for r in rows if r["lr"] in RATES + EDGE}
    rates = sorted(tried)
    i = rates.index(min(tried, key=tried.__getitem__))
    if not 0 < i < len(rates) - 1:
        return rates[i]
    near = rates[i - 1 : i + 2]
    a, b, _ = np.polyfit(np.log(near), [tried[lr] for lr in near], 2)
    return math.exp(-b / (2 * a))


def rate_rule(runs: list[dict]) -> tuple[float, float]:
    """(lr at width 128, power of the width): a line through the three best rates."""
    best = {shape: best_rate(runs, shape) for shape in ("A", "C", "D")}
    widths = [SHAPES[shape][1] / 128 for shape in best]
    power, level = np.polyfit(np.log(widths), np.log(list(best.values())), 1)
    return float(math.exp(level)), float(power)


def run() -> None:
    """Rates first, then the grid with the rate that the rule gives."""
    torch.set_num_threads(1)
    data, tok, text = prepare(EVERY)
    results = load()
    results["setting"] = {
        "tokenizer": tok.fingerprint,
        "training_characters": len(text),
        "training_tokens": len(data.train),
        "held_out": f"every {EVERY}th document, {len(data.valid):,} tokens",
        "vocab_size": VOCAB,
        "seq_len": SEQ_LEN,
        "batch_size": BATCH,
        "bfloat16": True,
        "shapes": SHAPES,
        "machine": machine(),
        "torch": torch.__version__,
    }
    runs = results["runs"]

    def do(shape: str, n_tokens: int, lr: float, seed: int = 0) -> None:
        if [shape, n_tokens, lr, seed] in [r["asked"] for r in runs]:
            return
        runs.append(measure(data, shape, n_tokens, lr, seed))
        print(runs[-1], flush=True)
        store(results)

    for shape in ("A", "C", "D"):
        for lr in RATES:
            do(shape, TUNED_ON, lr)
        if best_rate(runs, shape) == RATES[0]:
            do(shape, TUNED_ON, EDGE[0])
    level, power = rate_rule(runs)
    results["rate_rule"] = {"lr_at_128": level, "power_of_width": power}
    print(results["rate_rule"], flush=True)
    for n_tokens in TOKENS:
        for shape, (_, width) in SHAPES.items():
            if n_tokens < TOKENS[-1] or shape in ("A", "B"):  # the longest is dear
                do(shape, n_tokens, float(f"{level * (width / 128) ** power:.3g}"))
    results["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    store(results)


def law(p: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Bits per byte E + A / N^a + B / D^b; N in millions, D in millions of tokens."""
    e, log_a, a, log_b, b = p
    return math.exp(e) + np.exp(log_a - a * np.log(n)) + np.exp(log_b - b * np.log(d))


def fit_law(
    n: np.ndarray, d: np.ndarray, bits: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """Least squares on log bits with a Huber loss, best of 24 starts or from one."""
    low, high = [-5, -6, 0.05, -6, 0.05], [0.8, 2, 1.5, 2, 1.5]
    starts = [
        (e, -1.5, a, -0.5, b)
        for e in (-3.0, -0.7, 0.0)
        for a in (0.2, 0.5)
        for b in (0.2, 0.4, 0.6, 0.9)
    ]
    if start is not None:
        starts = [np.clip(start, np.add(low, 1e-3), np.subtract(high, 1e-3))]

    def residual(p: np.ndarray) -> np.ndarray:
        return np.log(law(p, n, d)) - np.log(bits)

    fits = [
        least_squares(residual, s, bounds=(low, high), loss="huber", f_scale=0.01)
        for s in starts
    ]
    return min(fits, key=lambda f: f.cost).x


def table(runs: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, D, bits per byte) of the grid, N and D in millions."""
    rows = [
        [r["n_params"] / 1e6, r["n_tokens"] / 1e6, r["bits_per_byte"]] for r in runs
    ]
    return tuple(np.array(rows).T)


def bootstrap(n, d, bits, n_samples: int = 200) -> np.ndarray:  # noqa: ANN001
    """Fits to the law plus resampled residuals, inflated for five fitted numbers."""
    rng = np.random.default_rng(0)
    p = fit_law(n, d, bits)
    residual = np.log(bits) - np.log(law(p, n, d))
    residual *= (len(bits) / (len(bits) - len(p))) ** 0.5
    fits = [
        fit_law(n, d, law(p, n, d) * np.exp(rng.choice(residual, len(bits))), p)
        for _ in range(n_samples)
    ]
    return np.array([p, *fits])


def predict(fits: np.ndarray, n: float, d: float) -> dict[str, float]:
    """Prediction of the fit, and the middle 95 % of the bootstrap."""
    values = [float(law(p, np.array(n), np.array(d))) for p in fits]
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return {"value": values[0], "low": float(low), "high": float(high)}


def effective(d: float, unique: float) -> float:
    """Tokens worth their repetition, by Muennighoff et al. (2023), R* = 15.4."""
    repeats = max(d / unique - 1, 0.0)
    return min(d, unique) + min(d, unique) * 15.4 * (1 - math.exp(-repeats / 15.4))


def fit(seconds: float) -> None:
    """Fit, test on held-back runs, choose the shape for the budget, predict it."""
    results = load()
    level, power = rate_rule(results["runs"])

    def by_rule(shape: str) -> float:
        return float(f"{level * (SHAPES[shape][1] / 128) ** power:.3g}")

    grid = [r for r in results["runs"] if r["asked"][1] != TUNED_ON]
    first = [r for r in grid if r["seed"] == 0]
    shorter = [r for r in first if r["asked"][1] < TOKENS[-1]]
    back = [r for r in first if r["asked"][1] == TOKENS[-1]]
    early = bootstrap(*table(shorter))
    fits = bootstrap(*table(first))
    results["fit"] = {
        "law": "exp(p0) + exp(p1 - p2 log N) + exp(p3 - p4 log D), N and D in millions",
        "parameters": fits[0].tolist(),
        "low": np.quantile(fits[1:], 0.025, axis=0).tolist(),
        "high": np.quantile(fits[1:], 0.975, axis=0).tolist(),
        "bootstrap": fits[1:].round(4).tolist(),
    }
    results["held_back"] = [
        {
            "shape": r["shape"],
            "n_tokens": r["n_tokens"],
            "measured": r["bits_per_byte"],
            "predicted": predict(early, r["n_params"] / 1e6, r["n_tokens"] / 1e6),
        }
        for r in back
    ]
    unique = results["setting"]["training_tokens"] / 1e6
    choices = []
    for name, (n_layers, width, speed) in CANDIDATES.items():
        c = config(n_layers, width)
        n = Decoder(c).n_params
        d = speed * seconds / 1e6
        choices.append(
            {
                "name": name,
                "n_layers": n_layers,
                "width": width,
                "n_params": n,
                "n_tokens": round(d * 1e6),
                "tokens_per_cpu_second": speed,
                "megabytes_fp16": n * 2 / 1e6,
                "predicted": predict(fits, n / 1e6, d),
                "predicted_with_repeats": predict(fits, n / 1e6, effective(d, unique)),
                "lr": float(f"{level * (width / 128) ** power:.3g}"),
            }
        )
    small = [c for c in choices if c["megabytes_fp16"] < 7.9]
    results["choices"] = choices
    best = min(small, key=lambda c: c["predicted_with_repeats"]["value"])
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    results["prediction"] = {"made": now, "budget_cpu_seconds": seconds, **best}
    store(results)
    print(json.dumps({k: results[k] for k in ("held_back", "choices")}, indent=1))
    print(results["fit"]["parameters"], results["prediction"])


if __name__ == "__main__":
    if sys.argv[1:] == ["run"]:
        run()
    elif sys.argv[1:2] == ["fit"] and len(sys.argv) == 3:
        fit(float(sys.argv[2]))  # CPU seconds
    else:
        sys.exit(__doc__)

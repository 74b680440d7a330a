"""Pretrain the decoder that the book ships, in about 30 minutes of one CPU core.

    python benchmarks/pretrain.py           # continues where it was stopped
    python benchmarks/pretrain.py measure   # baselines and the shipped file again

Shape, tokens and learning rate are those that benchmarks/scaling.py chose and
predicted, in assets/data/results/scaling.json. Writes assets/models/ (its README from
benchmarks/model_card.md) and
assets/data/results/pretraining.json; the checkpoint lies in .cache/pretraining/.
"""

import bz2
import copy
import datetime
import hashlib
import json
import lzma
import math
import os
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))

import numpy as np  # noqa: E402
import scaling  # noqa: E402
import torch  # noqa: E402

from llmbook import pretrained  # noqa: E402
from llmbook.files import replacing  # noqa: E402
from llmbook.generate import Sampling, complete  # noqa: E402
from llmbook.model import Decoder  # noqa: E402
from llmbook.tokenizer import Tokenizer  # noqa: E402
from llmbook.train import Data, TrainConfig, bits_per_byte, train  # noqa: E402

RESULTS = ROOT / "assets" / "data" / "results" / "pretraining.json"
WORK = ROOT / ".cache" / "pretraining"
CURVE_EVERY = 16  # held-out documents on the curve: one in so many


def ngrams(data: Data, order: int) -> list[float]:
    """Bits per byte of n-gram models of orders 1..n on the same tokens.

    Witten-Bell smoothing: orders are mixed from the shortest up, and a context speaks
    with the weight count / (count + number of different tokens seen after it).
    """
    ids, valid = data.train.tolist(), data.valid.tolist()
    grams = [
        Counter(zip(*(ids[i:] for i in range(n)), strict=False))
        for n in range(1, order + 1)
    ]
    seen = [Counter() for _ in grams]  # per context: how often it occurred
    kinds = [Counter() for _ in grams]  # and how many different tokens followed
    for n, counts in enumerate(grams):
        for gram, count in counts.items():
            seen[n][gram[:-1]] += count
            kinds[n][gram[:-1]] += 1
    nats = [0.0] * order
    for i in range(1, len(valid)):
        p = 1.0 / len(data.token_bytes)
        for n in range(order):
            gram = tuple(valid[max(i - n, 0) : i + 1])
            if len(gram) == n + 1 and (often := seen[n][gram[:-1]]):
                different = kinds[n][gram[:-1]]
                p = (grams[n][gram] + different * p) / (often + different)
            nats[n] -= math.log(p)
    n_bytes = int(data.token_bytes[data.valid[1:]].sum())
    return [x / math.log(2) / n_bytes for x in nats]


def baselines(data: Data, text: str, held_out: str) -> dict[str, float]:
    """Bits per byte of compressors and n-grams on the same held-out bytes."""
    before, new = text.encode(), held_out.encode()
    n = int(data.token_bytes[data.valid[1:]].sum())
    new = new.replace(pretrained.END_OF_TEXT.encode(), b"\n\n\n")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 25}]

    def xz(content: bytes) -> int:
        return len(lzma.compress(content, lzma.FORMAT_RAW, filters=filters))

    found = {
        "gzip -9": len(zlib.compress(new, 9)),
        "bzip2 -9": len(bz2.compress(new, 9)),
        "xz -9": xz(new),
        "xz -9 after the training text": xz(before + new) - xz(before),
    }
    bits = {name: 8 * size / n for name, size in found.items()}
    for order, value in enumerate(ngrams(data, 4), 1):
        bits[f"{order}-gram of tokens"] = value
    return bits


def run() -> None:
    """Train, with a checkpoint every 500 steps, then ship."""
    prediction = scaling.load().get("prediction")
    if prediction is None:
        sys.exit("no prediction on file: run benchmarks/scaling.py run, then fit")
    torch.set_num_threads(1)
    data, tok, text = scaling.prepare(CURVE_EVERY)
    shape = scaling.config(prediction["n_layers"], prediction["width"])
    n_steps = prediction["n_tokens"] // (scaling.BATCH * scaling.SEQ_LEN)
    config = TrainConfig(
        n_steps=n_steps,
        batch_size=scaling.BATCH,
        seq_len=scaling.SEQ_LEN,
        lr=prediction["lr"],
        warmup=200,
        bfloat16=True,
        eval_every=250,
        eval_tokens=0,
        checkpoint_every=250,
        seed=0,
    )
    torch.manual_seed(0)
    model = Decoder(shape)
    WORK.mkdir(parents=True, exist_ok=True)
    sessions = WORK / "sessions.jsonl"
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    wall, cpu = time.perf_counter(), time.process_time()
    history = train(model, data, config, WORK / "run.pt", resume=True, progress=True)
    session = {
        "started": started,
        "wall_seconds": round(time.perf_counter() - wall),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    with sessions.open("a") as file:
        file.write(json.dumps(session) + "\n")
    half = copy.deepcopy(model).half()
    half.save(pretrained.FOLDER / "decoder.safetensors", tok.fingerprint)
    k = max(1, n_steps // 200)
    cut = n_steps // k * k

    def thin(values: list[float]) -> list[float]:
        return np.mean(np.reshape(values[:cut], (-1, k)), axis=1).round(4).tolist()

    results = {
        "machine": scaling.machine(),
        "torch": torch.__version__,
        "sessions": [json.loads(line) for line in sessions.read_text().splitlines()],
        "shape": vars(shape),
        "n_params": model.n_params,
        "train_config": vars(config),
        "training_text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "training_characters": len(text),
        "training_tokens": len(data.train),
        "steps_per_point": k,
        "loss": thin(history.loss),
        "grad_norm": thin(history.grad_norm),
        "largest_grad_norm": max(history.grad_norm),
        "first_loss": history.loss[0],
        "eval_steps": history.eval_steps,
        "held_out_curve": [round(b, 4) for b in history.bits_per_byte],
        "held_out_curve_text": f"every {CURVE_EVERY}th held-out document",
    }
    if RESULTS.exists():
        old = json.loads(RESULTS.read_text())
        names = ("baselines", "baselines_for")
        results |= {name: old[name] for name in names if name in old}
    store(results)
    measure()


def measure() -> None:
    """What the shipped file gives, and what simpler models give, on the same bytes."""
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text())
    tok = Tokenizer.load(pretrained.FOLDER / "tokenizer.json")
    path = pretrained.FOLDER / "decoder.safetensors"
    model = Decoder.load(path, tok.fingerprint)
    for name, every in (
        ("full", 1),
        ("scaling_sample", scaling.EVERY),
        ("sample", CURVE_EVERY),
    ):
        text, held_out = pretrained.texts(every)
        data = Data.from_texts(text, held_out, tok)
        bits = bits_per_byte(model, data.valid, data.token_bytes, scaling.SEQ_LEN)
        results[f"bits_per_byte_{name}"] = bits
        results[f"held_out_{name}_bytes"] = int(data.token_bytes[data.valid[1:]].sum())
        results[f"held_out_{name}_tokens"] = len(data.valid)
        if name == "full":
            part = data.train[: len(data.valid)]
            results["bits_per_byte_training_text"] = bits_per_byte(
                model, part, data.token_bytes, scaling.SEQ_LEN
            )
            # They depend on the texts and the tokenizer alone.
            if results.get("baselines_for") != data.fingerprint:
                results["baselines"] = baselines(data, text, held_out)
                results["baselines_for"] = data.fingerprint
    results["sha256"] = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (path, pretrained.FOLDER / "tokenizer.json")
    }
    results["file_bytes"] = path.stat().st_size
    store(results)
    write_card(results, model, tok)
    print(json.dumps({k: v for k, v in results.items() if not isinstance(v, list)}))


PROMPTS = ("Return the sum of", "Plot the", "Parameters\n----------\nx : array")


def write_card(results: dict, model: Decoder, tok: Tokenizer) -> None:
    """Write assets/models/README.md from what was measured."""
    config, run = results["shape"], results["train_config"]
    sampling = Sampling(max_new_tokens=80, temperature=0.7, top_k=50, seed=0)
    samples = [f"[{p}]{complete(model, tok, p, sampling)}" for p in PROMPTS]
    predicted = scaling.load()["prediction"]["predicted"]
    seen = run["n_steps"] * run["batch_size"] * run["seq_len"]
    sessions = results["sessions"]
    card = (
        (ROOT / "benchmarks" / "model_card.md")
        .read_text()
        .format(
            files="; ".join(
                f"`{k}` sha256 `{v}`" for k, v in results["sha256"].items()
            ),
            shape=", ".join(f"{k} {v}" for k, v in config.items()),
            n_params=results["n_params"],
            megabytes=results["file_bytes"] / 1e6,
            vocab=tok.vocab_size,
            special=", ".join(f"`{s}`" for s in tok.special).replace("|", "\\|"),
            context=run["seq_len"],
            full=results["bits_per_byte_full"],
            held_bytes=results["held_out_full_bytes"],
            train_bits=results["bits_per_byte_training_text"],
            baselines=", ".join(
                f"{k} {v:.2f}" for k, v in results["baselines"].items()
            ),
            characters=results["training_characters"],
            tokens=results["training_tokens"],
            text_hash=results["training_text_sha256"],
            steps=run["n_steps"],
            batch=run["batch_size"],
            seen=seen,
            epochs=seen / results["training_tokens"],
            lr=run["lr"],
            warmup=run["warmup"],
            decay=run["weight_decay"],
            clip=run["clip"],
            machine=results["machine"],
            torch=results["torch"],
            cpu=sum(s["cpu_seconds"] for s in sessions),
            wall=sum(s["wall_seconds"] for s in sessions),
            started=sessions[0]["started"][:16],
            predicted=f"{predicted['value']:.2f} bits per byte on each fourth held-out "
            f"document, between {predicted['low']:.2f} and {predicted['high']:.2f}; "
            f"measured {results['bits_per_byte_scaling_sample']:.2f}",
            samples="\n----\n".join(samples),
        )
    )
    with replacing(pretrained.FOLDER / "README.md") as path:
        path.write_text(card)


def store(results: dict) -> None:
    """Replace the file whole."""
    with replacing(RESULTS) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["measure"]):
        measure() if sys.argv[1:] else run()
    else:
        sys.exit(__doc__)

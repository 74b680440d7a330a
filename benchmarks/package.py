"""Measure llmbook side by side with the libraries a practitioner would use.

    python benchmarks/package.py [--repeats 7] [--quick]

Training and generation against Hugging Face's Llama (same weights, same logits) and
GPT-2 (equal size), the tokenizer against `tokenizers`, on two threads. Contestants
take turns inside one process, so a slow minute hits all of them; each repeat gives
one ratio per rival, and the table shows their median and range. Peak memory is
measured in a process of its own per contestant. Ratios above 1 mean that llmbook is
faster. Nothing here is a test.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "tests"))

import rivals  # noqa: E402
import torch  # noqa: E402
from _book import write_atomically  # noqa: E402
from book import machine  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from llmbook.generate import Sampling, generate_batch  # noqa: E402
from llmbook.model import Config, Decoder  # noqa: E402

SHAPE = Config(
    vocab_size=4096, n_layers=4, n_heads=4, n_kv_heads=2, d_model=256, d_ff=704
)
BATCH, SEQ_LEN = 16, 256
PROMPT, NEW = 32, 128
VOCAB = 4096
Contestants = dict[str, Callable[[], Any]]


def ours() -> Decoder:
    """Return llmbook's decoder with seeded weights."""
    torch.manual_seed(0)
    return Decoder(SHAPE)


def llama(model: Decoder) -> torch.nn.Module:
    """Return Hugging Face's Llama with the same weights, free to go on to the end."""
    return rivals.llama(
        model,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation="sdpa",
    )


def gpt2(model: Decoder) -> torch.nn.Module:
    """Return Hugging Face's GPT-2 of the same width, depth and about as many weights.

    Its feed-forward has two matrices where SwiGLU has three; the inner width makes up
    for it.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    config = GPT2Config(
        vocab_size=c.vocab_size,
        n_positions=c.max_len,
        n_embd=c.d_model,
        n_layer=c.n_layers,
        n_head=c.n_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    attention = 4 * c.d_model**2
    mine = sum(p.numel() for p in model.blocks.parameters()) / c.n_layers
    config.n_inner = round((mine - attention) / (2 * c.d_model))
    return GPT2LMHeadModel(config)


def steps(models: dict[str, torch.nn.Module]) -> Contestants:
    """One training step each: forward, loss, backward, clip, AdamW."""
    torch.manual_seed(1)
    tokens = torch.randint(SHAPE.vocab_size, (BATCH, SEQ_LEN + 1))
    x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> float:
        logits = model(x)
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def contestant(model: torch.nn.Module) -> Callable[[], float]:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        return lambda: step(model, optimizer)

    return {name: contestant(model) for name, model in models.items()}


def texts(models: dict[str, torch.nn.Module], batch: int) -> Contestants:
    """Greedy continuations with a cache, as lists of ids."""
    torch.manual_seed(2)
    prompts = torch.randint(SHAPE.vocab_size, (batch, PROMPT))
    sampling = Sampling(max_new_tokens=NEW)

    def hf(model: torch.nn.Module) -> list[list[int]]:
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW,
            do_sample=False,
            use_cache=True,
        )
        return out[:, PROMPT:].tolist()

    calls: Contestants = {}
    for name, model in models.items():
        model.eval()
        if isinstance(model, Decoder):
            rows = prompts.tolist()
            calls[name] = lambda m=model, r=rows: generate_batch(m, r, sampling)
        else:
            calls[name] = lambda m=model: hf(m)
    return calls


def corpus(quick: bool) -> str:
    """Return the text that tokenizers are trained on."""
    from llmbook.data import documentation_split

    train, _ = documentation_split("prose")
    return train[:300_000] if quick else train


def race(calls: Contestants, repeats: int) -> dict[str, list[float]]:
    """Seconds of each contestant, taking turns; one unmeasured round first."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for name in calls:
        calls[name]()
    for repeat in range(repeats):
        order = list(calls) if repeat % 2 == 0 else list(calls)[::-1]
        for name in order:
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(what: str, seconds: dict[str, list[float]], amount: int, unit: str) -> dict:
    """Throughputs and, per rival, the ratio of each repeat: median, lowest, highest."""
    mine = seconds["llmbook"]
    result: dict[str, Any] = {"what": what, "unit": unit, "throughput": {}, "ratio": {}}
    for name, values in seconds.items():
        result["throughput"][name] = amount / statistics.median(values)
        if name != "llmbook":
            ratios = [a / b for a, b in zip(values, mine, strict=True)]
            result["ratio"][name] = [
                round(f(ratios), 3) for f in (statistics.median, min, max)
            ]
    print(json.dumps(result), flush=True)
    return result


def memory(job: str) -> float:
    """MB that a job adds to a process that has imported all: a child measures."""
    command = [sys.executable, __file__, "--memory", job]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"error: {' '.join(command)}\n{run.stderr[-2000:]}")
    return float(run.stdout.split()[-1])


def memory_child(job: str) -> None:
    """Run one job and print the MB by which the peak resident size grew."""
    import transformers.models.gpt2.modeling_gpt2
    import transformers.models.llama.modeling_llama  # noqa: F401

    import llmbook.tokenizer

    task, name = job.split(":")
    text = corpus(quick=False) if task.startswith("bpe") else ""

    def peak() -> float:
        # Not getrusage: its maximum is inherited from the process that started us.
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024

    def fresh_peak() -> float:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
        return peak()

    if task.startswith("bpe"):
        before = fresh_peak()
        if name == "llmbook":
            tokenizer = llmbook.tokenizer.train_bpe(text, VOCAB)
        else:
            tokenizer = rivals.byte_level_bpe(text, VOCAB)
        if task == "bpe-encode":
            before = fresh_peak()
            tokenizer.encode(text)
        print(f"{peak() - before:.1f}")
        return
    model = ours()
    if name != "llmbook":
        model = {"HF Llama": llama, "HF GPT-2": gpt2}[name](model)
    before = fresh_peak()
    if task == "train":
        for _ in range(3):
            steps({name: model})[name]()
    else:
        texts({name: model}, int(task.removeprefix("generate")))[name]()
    print(f"{peak() - before:.1f}")


def peaks() -> dict[str, dict[str, float]]:
    """Peak memory of every job for every contestant, MB."""
    models = ("llmbook", "HF Llama", "HF GPT-2")
    jobs = dict.fromkeys(("train", "generate1", "generate16"), models)
    jobs |= dict.fromkeys(("bpe-train", "bpe-encode"), ("llmbook", "tokenizers"))
    return {
        task: {name: memory(f"{task}:{name}") for name in rivals}
        for task, rivals in jobs.items()
    }


def table(stored: dict[str, Any]) -> str:
    """The stored figures as Markdown."""
    sizes = [f"{k} {v / 1e6:.2f} M" for k, v in stored["weights"].items()]
    lines = [
        f"# llmbook beside the libraries ({stored['date']})",
        "",
        f"Machine: {stored['machine']}.",
        f"{stored['repeats']} interleaved repeats; a ratio above 1 means llmbook is "
        "faster: median (lowest to highest). Made by `make bench`.",
        "",
        f"Model: {', '.join(sizes)} weights.",
        "",
        "| what | llmbook | rival | its figure | ratio |",
        "|---|---:|---|---:|---:|",
    ]
    for r in stored["results"]:
        mine = f"{r['throughput']['llmbook']:,.0f} {r['unit']}"
        for name, (median, low, high) in r["ratio"].items():
            theirs = f"{r['throughput'][name]:,.0f}"
            ratio = f"{median:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {r['what']} | {mine} | {name} | {theirs} | {ratio} |")
    lines += ["", "Peak memory added by the job, MB:", "", "| job | contestant | MB |"]
    lines += ["|---|---|---:|"]
    for task, rows in stored["peak_mb"].items():
        lines += [f"| {task} | {name} | {mb:,.0f} |" for name, mb in rows.items()]
    return "\n".join([*lines, ""])


def store(stored: dict[str, Any]) -> None:
    """Write the figures and their table, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / "package.json", json.dumps(stored, indent=1) + "\n")
    write_atomically(RESULTS / "package.md", table(stored))


def main() -> int:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small, not stored")
    parser.add_argument("--peaks", action="store_true", help="memory again, alone")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(THREADS)
    if args.memory:
        memory_child(args.memory)
        return 0
    if args.peaks:
        stored = json.loads((RESULTS / "package.json").read_text())
        store(stored | {"peak_mb": peaks()})
        print((RESULTS / "package.md").read_text())
        return 0
    if args.repeats < 5 and not args.quick:
        parser.error("--repeats must be at least 5 for a table with a spread")
    model = ours()
    models = {"llmbook": model, "HF Llama": llama(model), "HF GPT-2": gpt2(model)}
    sizes = {k: sum(p.numel() for p in m.parameters()) for k, m in models.items()}
    with torch.inference_mode():
        x = torch.arange(64)[None]
        gap = (model(x) - models["HF Llama"](x).logits).abs().max().item()
    assert gap < 1e-5, f"not the same model: logits differ by {gap}"
    results = []
    for batch in (1, 16):
        calls = texts({k: models[k] for k in ("llmbook", "HF Llama")}, batch)
        assert calls["llmbook"]() == calls["HF Llama"](), "different tokens"
        calls = texts(models, batch)
        what = f"generation with cache, batch {batch}"
        results.append(
            summary(what, race(calls, args.repeats), batch * NEW, "tokens/s")
        )
    what = f"training step, {BATCH} x {SEQ_LEN} tokens"
    seconds = race(steps(models), args.repeats)
    results.append(summary(what, seconds, BATCH * SEQ_LEN, "tokens/s"))

    from llmbook.tokenizer import train_bpe

    text = corpus(args.quick)
    size = len(text.encode())
    mine, rival = train_bpe(text, VOCAB), rivals.byte_level_bpe(text, VOCAB)
    slice_ = text[:200_000]
    assert mine.encode(slice_) == rival.encode(slice_).ids, "different ids"
    calls = {
        "llmbook": lambda: train_bpe(text, VOCAB),
        "tokenizers": lambda: rivals.byte_level_bpe(text, VOCAB),
    }
    what = f"BPE training to {VOCAB} tokens"
    results.append(summary(what, race(calls, args.repeats), size, "bytes/s"))

    def encode_afresh() -> None:
        mine._cache.clear()
        mine.encode(text)

    lines_ = text.split("\n")
    calls = {
        "llmbook": encode_afresh,
        "tokenizers": lambda: rival.encode(text),
        "tokenizers, batch of lines": lambda: rival.encode_batch(lines_),
    }
    seconds = race(calls, args.repeats)
    results.append(summary("BPE encoding", seconds, size, "bytes/s"))
    stored = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{machine()}; {THREADS} threads, float32, "
        f"torch {torch.__version__}",
        "repeats": args.repeats,
        "weights": sizes,
        "results": results,
        "peak_mb": {} if args.quick else peaks(),
    }
    print(table(stored))
    if not args.quick:
        store(stored)
    return 0


if __name__ == "__main__":
    sys.exit(main())

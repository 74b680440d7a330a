"""Time one recurrent and one attention layer over lengths, for chapter 3.03.

    python benchmarks/transformer_seconds.py

Forward and backward pass of PyTorch's own modules at equal width, one thread, the
repeats of all layers interleaved. Writes
``assets/data/results/transformer_seconds.json``; about a minute.
"""

import json
import platform
import sys
import time
from datetime import date
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from _book import write_atomically  # noqa: E402

STORE = ROOT / "assets" / "data" / "results" / "transformer_seconds.json"
WIDTHS, LENGTHS, BATCH, REPEATS = (64, 256), (16, 32, 64, 128, 256, 512, 1024), 4, 7


def layers(d: int) -> dict[str, nn.Module]:
    """Return the three layers under test, all of width ``d``."""
    return {
        "LSTM": nn.LSTM(d, d, batch_first=True),
        "attention": nn.MultiheadAttention(d, 4, batch_first=True),
        "block": nn.TransformerEncoderLayer(d, 4, 4 * d, 0.0, batch_first=True),
    }


def seconds(layer: nn.Module, x: torch.Tensor) -> float:
    """Time one forward and backward pass."""
    start = time.perf_counter()
    if isinstance(layer, nn.MultiheadAttention):
        y = layer(x, x, x, need_weights=False)[0]
    else:
        y = layer(x)
        y = y[0] if isinstance(layer, nn.LSTM) else y
    y.sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and store."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for d in WIDTHS:
        nets = layers(d)
        for n in LENGTHS:
            x = torch.randn(BATCH, n, d)
            for net in nets.values():
                seconds(net, x)  # warm up
            laps = [[seconds(net, x) for net in nets.values()] for _ in range(REPEATS)]
            for name, lap in zip(nets, zip(*laps)):
                ms = sorted(1000 * s for s in lap)
                rows.append({"d": d, "n": n, "layer": name, "ms": round(ms[1], 3)})
                rows[-1] |= {"median_ms": round(ms[len(ms) // 2], 3)}
                print(rows[-1], flush=True)
    stamp = {
        "made_by": "benchmarks/transformer_seconds.py",
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, one thread of a shared processor",
        "torch": torch.__version__,
        "what": f"forward and backward, batch {BATCH}; second best and median of "
        f"{REPEATS} interleaved repeats, milliseconds",
    }
    write_atomically(STORE, json.dumps(stamp | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

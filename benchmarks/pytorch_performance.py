"""Five ways to run one model, measured for chapter 2.11.

    python benchmarks/pytorch_performance.py

Two models: MiniLM's six layers, and a recurrent cell written out as a Python loop.
Five forms each: eager, torch.compile, torch.export, ONNX Runtime, TorchScript; and
ONNX Runtime with int8 weights for MiniLM. Rounds interleave the forms. Time is CPU
time of the process on one thread, so that other programs disturb it less. Memory is
the peak of a fresh process that loads one form and runs it.

The script imports the chapter's cells that say "shared with" it, and writes
``assets/data/results/pytorch_performance.json``; about four minutes of one core.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "assets" / "data" / "results" / "pytorch_performance.json"
MARK = "# shared with benchmarks/pytorch_performance.py"
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "TORCHINDUCTOR_VEC_ISA_OK": "1",
}
os.environ.update(SETTINGS)
sys.path.insert(0, str(ROOT / "tools"))
ROUNDS = 15
SHAPES = {"one short text": (1, 12), "16 texts of 64 tokens": (16, 64)}
HEADER = """\
from pathlib import Path
import torch
import torch.nn.functional as F
from torch import nn
from llmbook import data
"""


def shared_cells() -> list[str]:
    """Return the chapter's cells that carry MARK, top to bottom."""
    from _book import find, read_source

    cells = read_source(find(["2.11"])[0]).cells
    return [c.source for c in cells if c.cell_type == "code" and MARK in c.source]


def fingerprint(sources: list[str]) -> str:
    """Hash what the shared cells define; order, comments and spacing do not count."""
    nodes = [node for source in sources for node in ast.parse(source).body]
    trees = sorted(ast.dump(node) for node in nodes)
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def chapter_module(folder: Path) -> ModuleType:
    """Write the shared cells to a file, as TorchScript reads sources, and import it."""
    path = folder / "chapter.py"
    path.write_text(HEADER + "\n\n".join(shared_cells()))
    spec = importlib.util.spec_from_file_location("chapter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chapter"] = module
    spec.loader.exec_module(module)
    return module


def seconds(f: Any, args: tuple, calls: int) -> float:  # noqa: ANN401 - any callable
    """CPU time of one call, a mean over ``calls``."""
    start = time.process_time()
    for _ in range(calls):
        f(*args)
    return (time.process_time() - start) / calls


def interleaved(forms: dict[str, Any], args: tuple, calls: int) -> dict[str, list]:
    """Milliseconds per call, ``ROUNDS`` of each form, forms taking turns."""
    for f in forms.values():
        seconds(f, args, 3)  # warm up
    laps: dict[str, list] = {name: [] for name in forms}
    for turn in range(ROUNDS):
        names = list(forms)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            laps[name].append(round(1e3 * seconds(forms[name], args, calls), 4))
    return laps


def compile_seconds(f: Any, args: tuple) -> float:  # noqa: ANN401 - any callable
    """CPU time of a first call, the C++ compiler's included."""

    def spent() -> float:
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + child.ru_utime + child.ru_stime

    start = spent()
    f(*args)
    return round(spent() - start, 2)


def peak_of(form: str, folder: Path) -> dict[str, float]:
    """Load one saved form in a fresh process, run it, report MB and CPU seconds."""
    feed = "np.ones((16, 64), dtype=np.int64), np.ones((16, 64), dtype=bool)"
    tensors = "[torch.from_numpy(a) for a in (" + feed + ")]"
    code = {
        "ONNX Runtime": "import onnxruntime as o\ns = o.SessionOptions()\n"
        "s.intra_op_num_threads = 1\n"
        f"r = o.InferenceSession({str(folder / 'model.onnx')!r}, s)\n"
        "n = [i.name for i in r.get_inputs()]\n"
        f"r.run(None, dict(zip(n, ({feed}))))\n",
        "ONNX Runtime int8": "import onnxruntime as o\ns = o.SessionOptions()\n"
        "s.intra_op_num_threads = 1\n"
        f"r = o.InferenceSession({str(folder / 'int8.onnx')!r}, s)\n"
        "n = [i.name for i in r.get_inputs()]\n"
        f"r.run(None, dict(zip(n, ({feed}))))\n",
        "TorchScript": "import torch, warnings\nwarnings.simplefilter('ignore')\n"
        f"m = torch.jit.load({str(folder / 'model.ts')!r})\n"
        f"with torch.no_grad(): m(*{tensors})\n",
        "export": "import torch\n"
        f"m = torch.export.load({str(folder / 'model.pt2')!r}).module()\n"
        f"with torch.no_grad(): m(*{tensors})\n",
        "eager": f"import sys, torch\nsys.path.insert(0, {str(folder)!r})\n"
        "import chapter\nm = chapter.load_minilm()\n"
        f"with torch.no_grad(): m(*{tensors})\n",
        "compile": f"import sys, torch\nsys.path.insert(0, {str(folder)!r})\n"
        "import chapter\nm = torch.compile(chapter.load_minilm())\n"
        f"with torch.no_grad(): m(*{tensors})\n",
    }[form]
    tail = (
        "import resource, re\nu = resource.getrusage(resource.RUSAGE_SELF)\n"
        "c = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        # Not ru_maxrss: a new process inherits its parent's.
        "peak = re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(int(peak) * 1.024e-3, sum(r.ru_utime + r.ru_stime for r in (u, c)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import numpy as np\n" + code + tail],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    megabytes, spent = map(float, done.stdout.split()[-2:])
    return {"peak_mb": round(megabytes), "start_s": round(spent, 1)}


def processor() -> str:
    """Name the processor, as the system does."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    match = re.search(r"model name\s*: (.*)", text)
    return match[1] if match else "unknown"


def main() -> None:
    """Measure, print and store."""
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder))
    STORE.write_text(json.dumps(result, indent=1) + "\n")


def measure(folder: Path) -> dict[str, Any]:
    """Run everything; what is built lies in ``folder``."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    chapter = chapter_module(folder)
    result: dict[str, Any] = {
        "made_by": "benchmarks/pytorch_performance.py",
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, one thread of a shared processor",
        "torch": torch.__version__,
        "what": "CPU milliseconds per call, forms interleaved; peak of a new process",
        "shared_cells": fingerprint(shared_cells()),
        "models": {},
    }

    def record(model: str, shape: str, forms: dict, args: tuple, calls: int) -> None:
        entry = result["models"].setdefault(model, {})
        right = forms["eager"](*args)
        first = compile_seconds(forms["compile"], args)
        row = {"compile_s": first, "ms": interleaved(forms, args, calls)}
        row["max_difference"] = {
            name: float((f(*args) - right).abs().max()) for name, f in forms.items()
        }
        row["cosine"] = {
            name: float(torch.cosine_similarity(f(*args), right).min())
            for name, f in forms.items()
        }
        entry[shape] = row
        middle = {n: sorted(v)[ROUNDS // 2] for n, v in row["ms"].items()}
        print(model, shape, first, middle, row["max_difference"], flush=True)

    with torch.no_grad():
        batch = torch.export.Dim("B", min=1, max=64), torch.export.Dim("T", max=512)
        axes = tuple({0: batch[0], 1: batch[1]} for _ in range(2))
        ids = torch.randint(1000, 20000, (4, 16))
        sample = (ids, torch.ones(4, 16, dtype=torch.bool))
        model = chapter.load_minilm()
        forms = chapter.build_forms(model, sample, axes, folder)
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            folder / "model.onnx",
            folder / "int8.onnx",
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        int8 = chapter.session(str(folder / "int8.onnx"))
        names = [i.name for i in int8.get_inputs()]
        forms["ONNX Runtime int8"] = lambda *args: torch.from_numpy(
            int8.run(None, {n: a.numpy() for n, a in zip(names, args)})[0]
        )
        for shape, (B, T) in SHAPES.items():
            ids = torch.randint(1000, 20000, (B, T))
            real = torch.arange(T) < torch.randint(T // 2, T + 1, (B, 1))
            record("MiniLM", shape, forms, (ids, real), 8 if B == 1 else 1)
        files = {"export": "pt2", "ONNX Runtime": "onnx", "TorchScript": "ts"}
        result["files_mb"] = {}
        for form, ending in files.items():
            size = sum(p.stat().st_size for p in folder.glob(f"model.{ending}*"))
            result["files_mb"][form] = round(size / 1e6)
        size = (folder / "int8.onnx").stat().st_size
        result["files_mb"]["ONNX Runtime int8"] = round(size / 1e6)
        result["process"] = {form: peak_of(form, folder) for form in forms}
        print(result["files_mb"], result["process"], flush=True)

        torch.compiler.reset()
        loop, x = chapter.Loop(32), torch.randn(4, 24, 32)
        axes = ({0: batch[0]},)
        forms = chapter.build_forms(loop.eval(), (x,), axes, folder)
        record("loop", "24 steps of width 32", forms, (x,), 10)
    return result


if __name__ == "__main__":
    main()

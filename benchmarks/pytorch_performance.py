"""Five ways to run one model, measured for chapter 2.11.

    python benchmarks/pytorch_performance.py

Two models: MiniLM's six layers, and a recurrent cell written out as a Python loop.
Five forms each: eager, torch.compile, torch.export, ONNX Runtime, TorchScript; and
ONNX Runtime with int8 weights for MiniLM. The inputs are random tokens. Time is CPU
time on one thread, so that other programs disturb it less.

Five processes measure one after the other: rounds within a process agree better with
each other than processes do, so the sample of an interval is a process. Within each,
the forms take turns, and the median of its rounds counts. The first finds the
compiler's cache empty, the others find what it left. Memory is the peak of a fresh
process that loads one saved form and runs it; no form builds weights twice.

The script imports the chapter's cells that say "shared with" it, and writes
``assets/data/results/pytorch_performance.json``; about six minutes of one core.
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
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
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
sys.path.insert(0, str(ROOT / "tools"))
PROCESSES, ROUNDS = 5, 3
SHAPES = {"one short text": (1, 12), "16 texts of 64 tokens": (16, 64)}
USES_DATA = "from llmbook import data\n"
HEADER = f"""\
from pathlib import Path
import torch
import torch.nn.functional as F
from torch import nn
{USES_DATA}"""


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
    (encoder,) = (cell for cell in shared_cells() if "class Encoder" in cell)
    (folder / "encoder.py").write_text(HEADER.replace(USES_DATA, "") + encoder)
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


def interleaved(forms: dict[str, Any], args: tuple, calls: int) -> dict[str, float]:
    """Milliseconds per call, the median of ``ROUNDS`` rounds, forms taking turns."""
    for f in forms.values():
        seconds(f, args, 3)  # warm up
    laps: dict[str, list] = {name: [] for name in forms}
    for turn in range(ROUNDS):
        names = list(forms)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            laps[name].append(1e3 * seconds(forms[name], args, calls))
    return {name: round(median(rounds), 4) for name, rounds in laps.items()}


def compile_seconds(f: Any, args: tuple) -> float:  # noqa: ANN401 - any callable
    """CPU time of a first call, the C++ compiler's included."""

    def spent() -> float:
        child = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + child.ru_utime + child.ru_stime

    start = spent()
    f(*args)
    return round(spent() - start, 2)


def peak_of(form: str, folder: Path, cache: Path) -> dict[str, float]:
    """Load one saved form in a fresh process, run it, report MB and CPU seconds."""
    feed = "np.ones((16, 64), dtype=np.int64), np.ones((16, 64), dtype=bool)"
    tensors = "[torch.from_numpy(a) for a in (" + feed + ")]"
    eager = (
        f"import sys, torch\nsys.path.insert(0, {str(folder)!r})\n"
        "from encoder import Encoder\n"
        "with torch.device('meta'):\n    m = Encoder(6)\n"
        f"m.load_state_dict(torch.load({str(folder / 'state.pt')!r}), assign=True)\n"
        "m.eval()\n"
    )
    runtime = (
        "import onnxruntime as o\ns = o.SessionOptions()\n"
        "s.intra_op_num_threads = 1\n"
        f"r = o.InferenceSession({str(folder)!r} + '/FILE.onnx', s)\n"
        "n = [i.name for i in r.get_inputs()]\n"
        f"r.run(None, dict(zip(n, ({feed}))))\n"
    )
    run = f"with torch.no_grad(): m(*{tensors})\n"
    code = {
        "ONNX Runtime": runtime.replace("FILE", "model"),
        "ONNX Runtime int8": runtime.replace("FILE", "int8"),
        "TorchScript": "import torch, warnings\nwarnings.simplefilter('ignore')\n"
        f"m = torch.jit.load({str(folder / 'model.ts')!r})\n" + run,
        "export": "import torch\n"
        f"m = torch.export.load({str(folder / 'model.pt2')!r}).module()\n" + run,
        "eager": eager + run,
        "compile": eager + "m = torch.compile(m)\n" + run,
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
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)},
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
    """Measure in fresh processes, combine, print and store."""
    os.environ.update(SETTINGS)  # before torch is imported
    if len(sys.argv) > 1:  # one of the processes that measure
        folder = Path(sys.argv[1])
        (folder / "out.json").write_text(json.dumps(measure(folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        root, parts = Path(name), []
        for k in range(PROCESSES):
            folder = root / str(k)
            folder.mkdir()
            env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(root / "inductor")}
            subprocess.run([sys.executable, __file__, str(folder)], check=True, env=env)
            parts.append(json.loads((folder / "out.json").read_text()))
            print(f"process {k + 1} of {PROCESSES}", json.dumps(parts[-1]), flush=True)
        result = {
            "made_by": "benchmarks/pytorch_performance.py",
            "date": date.today().isoformat(),
            "hardware": f"{processor()}, one thread of a shared processor",
            "torch": version("torch"),
            "what": "CPU milliseconds per call, a median of rounds for each process; "
            "peak of a new process that loads one form",
            "shared_cells": fingerprint(shared_cells()),
            "models": {
                model: {
                    shape: combined([part[model][shape] for part in parts])
                    for shape in shapes
                }
                for model, shapes in parts[0].items()
            },
            **files_and_processes(root / "0", root / "another"),
        }
    STORE.write_text(json.dumps(result, indent=1) + "\n")


def combined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One workload from all processes: times as lists, differences at their worst."""

    def each(key: str, join: Callable) -> dict[str, Any]:
        return {form: join([row[key][form] for row in rows]) for form in rows[0][key]}

    return {
        "compile_s": rows[0]["compile_s"],
        "compile_again_s": median(row["compile_s"] for row in rows[1:]),
        "ms": each("ms", list),
        "max_difference": each("max_difference", max),
        "cosine": each("cosine", min),
    }


def files_and_processes(folder: Path, cache: Path) -> dict[str, Any]:
    """Sizes of the saved forms, and a fresh process for each; ``cache`` is empty."""
    files = {"export": "pt2", "ONNX Runtime": "onnx", "TorchScript": "ts"}
    sizes = {
        form: sum(p.stat().st_size for p in folder.glob(f"model.{ending}*"))
        for form, ending in files.items()
    }
    sizes["eager"] = (folder / "state.pt").stat().st_size
    sizes["ONNX Runtime int8"] = (folder / "int8.onnx").stat().st_size
    forms = ("eager", "compile", *files, "ONNX Runtime int8")
    process = {form: peak_of(form, folder, cache) for form in forms}
    again = peak_of("compile", folder, cache)["start_s"]
    process["compile"]["start_again_s"] = again
    print(sizes, process, flush=True)
    megabytes = {form: round(size / 1e6) for form, size in sizes.items()}
    return {"files_mb": megabytes, "process": process}


def measure(folder: Path) -> dict[str, Any]:
    """Build and time all forms; what is built lies in ``folder``."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    chapter = chapter_module(folder)
    result: dict[str, Any] = {}

    def record(model: str, shape: str, forms: dict, args: tuple, calls: int) -> None:
        right = forms["eager"](*args)
        row: dict[str, Any] = {"compile_s": compile_seconds(forms["compile"], args)}
        row["ms"] = interleaved(forms, args, calls)
        row["max_difference"] = {
            name: float((f(*args) - right).abs().max()) for name, f in forms.items()
        }
        row["cosine"] = {
            name: float(torch.cosine_similarity(f(*args), right).min())
            for name, f in forms.items()
        }
        result.setdefault(model, {})[shape] = row

    with torch.no_grad():
        batch = torch.export.Dim("B", min=1, max=64), torch.export.Dim("T", max=512)
        axes = tuple({0: batch[0], 1: batch[1]} for _ in range(2))
        ids = torch.randint(1000, 20000, (4, 16))
        sample = (ids, torch.ones(4, 16, dtype=torch.bool))
        model = chapter.load_minilm()
        forms = chapter.build_forms(model, sample, axes, folder)
        torch.save(model.state_dict(), folder / "state.pt")
        forms["ONNX Runtime int8"] = int8_form(chapter, folder)
        for shape, (B, T) in SHAPES.items():
            ids = torch.randint(1000, 20000, (B, T))
            real = torch.arange(T) < torch.randint(T // 2, T + 1, (B, 1))
            record("MiniLM", shape, forms, (ids, real), 8 if B == 1 else 1)

        torch.compiler.reset()
        loop, x = chapter.Loop(32), torch.randn(4, 24, 32)
        (folder / "loop").mkdir()
        axes = ({0: batch[0]},)
        forms = chapter.build_forms(loop.eval(), (x,), axes, folder / "loop")
        record("loop", "24 steps of width 32", forms, (x,), 10)
    return result


def int8_form(chapter: ModuleType, folder: Path) -> Callable:
    """Quantise the saved ONNX model's weights and load it."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        folder / "model.onnx",
        folder / "int8.onnx",
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    session = chapter.session(str(folder / "int8.onnx"))
    names = [i.name for i in session.get_inputs()]
    return lambda *args: torch.from_numpy(
        session.run(None, {n: a.numpy() for n, a in zip(names, args)})[0]
    )


if __name__ == "__main__":
    main()

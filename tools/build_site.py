"""Build the HTML site from stored outputs, or serve it on 127.0.0.1.

python tools/build_site.py build [--out FOLDER]
python tools/build_site.py serve [--port 8000]
"""

import argparse
import functools
import http.server
import shutil
import subprocess
import sys
import time
from pathlib import Path

import live_assets
import live_cells
from _book import ROOT, fail, sources

SITE = ROOT / "_build" / "html"


def build(out: Path | None = None, root: Path = ROOT) -> Path:
    """Build with warnings as errors; no notebook is executed.

    Args:
        out: folder that receives ``_build``; None is the project itself.
        root: the book's source folder.

    Returns:
        Path of the landing page.
    """
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root)]
    command += ["-W", "-n", "--keep-going", "-q"]
    if out:
        command += ["--path-output", str(out)]
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    index = (
        out / "_build" / "html" if out else root / "_build" / "html"
    ) / "index.html"
    if run.returncode or not index.exists():
        words = [x for x in (run.stdout + run.stderr).splitlines() if x.strip()]
        said = [x for x in words if "WARNING" in x or "ERROR" in x] or words[-30:]
        # Pages read before the failure would not warn again.
        shutil.rmtree(index.parent.parent / ".doctrees", ignore_errors=True)
        fail("the site does not build:\n" + "\n".join(said))
    print(add_live_cells(index.parent))
    html = index.parent.rglob("*.html")
    pages = sum("_static" not in path.parts for path in html)
    print(f"{pages} pages in {time.perf_counter() - start:.0f} s, no notebook executed")
    return index


def add_live_cells(site: Path) -> str:
    """Let the built pages run their cells, where all that takes can be had.

    Returns:
        One line on what was done, or on what was missing.
    """
    target = site / "_static" / "live"
    try:
        line = f"live cells: ready, wheels from {live_assets.prepare(target)}"
        on = True
    except live_assets.Missing as missing:
        line = f"live cells: left out, {missing}; the pages show their stored outputs"
        on = False
    for source in sources():
        name = source.relative_to(ROOT)
        page = site / name.with_suffix(".html")
        if page.exists():
            live_cells.insert(
                page, source.with_suffix(".ipynb"), len(name.parts) - 1, on
            )
    return line


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing per request."""


def server(
    port: int, folder: Path = SITE, host: str = "127.0.0.1"
) -> http.server.ThreadingHTTPServer:
    """Return a server of the built site; port 0 picks a free one."""
    handler = functools.partial(_Quiet, directory=str(folder))
    return http.server.ThreadingHTTPServer((host, port), handler)


def main(argv: list[str] | None = None) -> int:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["build", "serve"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    args = parser.parse_args(argv)
    if args.command == "build":
        print(f"the book: {build(args.out)}")
        return 0
    if not (SITE / "index.html").exists():
        fail("there is no site yet; run: make book")
    try:
        httpd = server(args.port, host=args.host)
    except (OSError, OverflowError) as error:
        fail(f"port {args.port}: {error}; choose another: make read PORT=8001")
    print(f"the book: http://{args.host}:{httpd.server_port}/", flush=True)
    print("next: open that address; Ctrl+C stops the server", flush=True)
    try:
        httpd.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())

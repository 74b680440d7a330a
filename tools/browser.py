"""Find a Chromium for the browser tests, or get one.

python tools/browser.py        prints the path; installs one when there is none
"""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# Headless, and silent towards the outside: a browser asks its maker's hosts otherwise.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
ADVICE = (
    "install Chromium or Chrome (Debian: apt-get install chromium), or name one with "
    "LLMBOOK_BROWSER=/path/to/chrome"
)


def present() -> str:
    """Return the path of a browser that is already here, or an empty string."""
    named = os.environ.get("LLMBOOK_BROWSER", "")
    if named:
        if not Path(named).exists():
            sys.exit(f"error: LLMBOOK_BROWSER={named}: there is no such file")
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    for path in PLACES:
        if Path(path).exists():
            return path
    return _playwright()


def _playwright() -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        path = p.chromium.executable_path
    return path if path and Path(path).exists() else ""


def get() -> str:
    """Return a browser, installing one when needed; '' when none can be had."""
    if path := present():
        return path
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts.insert(0, ["apt-get", "install", "-y", "-qq", "chromium"])
        attempts.insert(0, ["apt-get", "update", "-qq"])
    for command in attempts:
        print("getting a browser: " + " ".join(command), file=sys.stderr, flush=True)
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
        if path := present():
            return path
    return ""


def weight(page: Any, site: Path, *, figures: bool = False) -> int:
    """Return the gzipped bytes that a page of the site has asked for so far.

    Args:
        page: a Playwright page that has come to rest.
        site: the folder that is served.
        figures: count the figures below the window too, which come on scrolling.
    """
    asked = page.evaluate(
        "(all) => [location.href, "
        "...performance.getEntriesByType('resource').map((e) => e.name), "
        "...(all ? [...document.images].map((i) => i.src) : [])]",
        figures,
    )
    names = {unquote(urlparse(x).path) for x in asked if x.startswith("http")}
    files = [site / name.lstrip("/") for name in names]
    return sum(len(gzip.compress(f.read_bytes(), 6)) for f in files if f.is_file())


if __name__ == "__main__":
    found = get()
    if not found:
        sys.exit(f"error: no browser could be had; {ADVICE}")
    print(found)

"""How long a reader waits for Python in the page: medians of five fresh visits.

python benchmarks/live.py      writes benchmarks/results/live.md and live.json

Each visit is a new browser context with an empty cache, on the page of chapter 1.04:
from the click on "Edit & run" to Python, to the first figure, to the first result of
scikit-learn. Every page's weight before any click is counted too. A
measurement of this machine, never a test.
"""

import json
import platform
import statistics
import sys
import threading
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import browser  # noqa: E402
import build_site  # noqa: E402
from _book import write_atomically  # noqa: E402

PAGE = "chapters/1_mathematics/04_probability_and_mle.html"
VISITS = 5
RESULTS = ROOT / "benchmarks" / "results"

MEASURE = """async () => {
  const start = performance.now();
  const at = () => (performance.now() - start) / 1000;
  const times = {};
  const [first] = bookLive.cells;
  await first.openEditor();
  await bookLive.engine.load(() => {});
  times["Python and packages ready"] = at();
  const figure = bookLive.cells.find((c) => c.text.includes("plt.show()"));
  await figure.openEditor();
  await figure.run();
  times["first figure"] = at();
  const learn = bookLive.cells.find((c) => /^from sklearn/m.test(c.text));
  await learn.openEditor();
  await learn.run();
  times["first scikit-learn result"] = at();
  const done = learn.status.textContent.startsWith("done");
  if (!figure.shown.querySelector("img") || !done)
    throw new Error("a cell did not run");
  return times;
}"""


def visits(address: str) -> list[dict[str, float]]:
    """Return the seconds of each visit."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as p:
        app = p.chromium.launch(executable_path=browser.get(), args=browser.FLAGS)
        for _ in range(VISITS):
            page = app.new_context().new_page()
            page.set_default_timeout(300_000)
            start = time.perf_counter()
            page.goto(f"{address}/{PAGE}")
            loaded = time.perf_counter() - start
            found.append({"page loaded": loaded, **page.evaluate(MEASURE)})
            page.context.close()
        app.close()
    return found


def weights(address: str, site: Path) -> dict[str, list[int]]:
    """Return each page's gzipped bytes on arrival, and with every figure."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as p:
        app = p.chromium.launch(executable_path=browser.get(), args=browser.FLAGS)
        for path in sorted(site.rglob("*.html")):
            if "_static" in path.parts:
                continue
            name = path.relative_to(site).as_posix()
            page = app.new_context().new_page()
            page.goto(f"{address}/{name}")
            page.evaluate("window.MathJax?.startup?.promise")
            page.evaluate("document.fonts.ready.then(() => null)")
            page.wait_for_load_state("networkidle")
            found[name] = [
                browser.weight(page, site, figures=figures) for figures in (False, True)
            ]
            page.context.close()
        app.close()
    return found


def main() -> int:
    """Measure, and write both files."""
    site = build_site.build().parent
    httpd = build_site.server(0, site)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{httpd.server_port}"
    runs = visits(address)
    sizes = weights(address, site)
    httpd.shutdown()
    rows = {
        name: {
            "median_s": round(statistics.median(r[name] for r in runs), 1),
            "range_s": [round(f(r[name] for r in runs), 1) for f in (min, max)],
        }
        for name in runs[0]
    }
    found = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}",
        "visits": VISITS,
        "seconds": rows,
        "gzipped_bytes_before_a_click": sizes,
    }
    lines = [
        "# Python in the page",
        "",
        f"{VISITS} visits with an empty cache, headless Chromium, {found['date']}; "
        "the server is on the same machine, so the network costs nothing.",
        "",
        "| from the click to | median, s | range |",
        "|---|---|---|",
        *(
            f"| {name} | {row['median_s']} | {row['range_s'][0]}–{row['range_s'][1]} |"
            for name, row in rows.items()
        ),
        "",
        "The first row counts from opening the page.",
        "",
        "Gzipped kB before any click; figures below the window come on scrolling.",
        "",
        "| page | on arrival | with every figure |",
        "|---|---|---|",
        *(f"| {n} | {a / 1000:.0f} | {b / 1000:.0f} |" for n, (a, b) in sizes.items()),
        "| **median** | "
        + " | ".join(
            f"**{statistics.median(x) / 1000:.0f}**"
            for x in zip(*sizes.values(), strict=True)
        )
        + " |",
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    for name, text in (
        ("live.json", json.dumps(found, indent=1) + "\n"),
        ("live.md", "\n".join(lines)),
    ):
        write_atomically(RESULTS / name, text)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

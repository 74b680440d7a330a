"""How the chapters are re-run: strict where results must match, lax elsewhere."""

import json
import platform
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))


def reference_environment() -> str:
    """Return '' on the reference environment, else what differs from it."""
    differences = []
    if sys.version_info[:2] != (3, 11):
        differences.append(f"Python {platform.python_version()} (reference 3.11)")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        differences.append(f"{sys.platform} {platform.machine()} (linux x86_64)")
    return ", ".join(differences)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    # The path in pyproject.toml is relative; pytest may run from any folder.
    config.option.nbval_sanitize_with = str(ROOT / "tests" / "sanitize.cfg")
    # Stored outputs are compared on the reference environment only; on any other
    # every cell must still run, and the assertions in the cells still decide.
    if config.option.nbval and reference_environment():
        config.option.nbval = False
        config.option.nbval_lax = True


def pytest_report_header(config):
    if not (config.option.nbval or config.option.nbval_lax):
        return "chapters: not run (add --nbval)"
    other = reference_environment()
    if other:
        return f"chapters: lax, because this is {other}"
    return "chapters: strict, every stored output is compared"


def _seconds():
    path = ROOT / "benchmarks" / "results" / "book.json"
    if not path.exists():
        return {}
    return json.loads(path.read_text())["chapters"]


def pytest_collection_modifyitems(config, items):
    # The longest chapters first, so that two workers finish together.
    seconds = _seconds()

    def length(item):
        path = Path(str(item.path))
        if path.suffix == ".ipynb":
            return -seconds.get(path.stem, 60.0)
        return -1000.0 if path.stem in ("test_site", "test_live") else 0.0

    items.sort(key=length)

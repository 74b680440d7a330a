"""Fixtures that several test files share."""

import importlib.util
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """The template chapter, executed: (source, notebook)."""
    import build_notebooks

    folder = tmp_path_factory.mktemp("book") / "1_mathematics"
    folder.mkdir()
    source = folder / "03_template.md"
    text = (ROOT / "templates" / "chapter.md").read_text(encoding="utf-8")
    source.write_text(text.replace("SLUG-LABEL", "template"), encoding="utf-8")
    # In a process of its own: a browser's event loop may be running in this one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        path, error, _ = pool.submit(build_notebooks.build, source).result()
    assert not error, error
    return path, path.with_suffix(".ipynb")


@pytest.fixture(scope="session")
def benchmark_module():
    """Return a function that imports a script of benchmarks/ by its name."""

    def load(name):
        path = ROOT / "benchmarks" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def chrome():
    """One browser for all tests of a process: two would not start side by side."""
    import browser
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LLMBOOK_BROWSER") or browser.present()
    if not path:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no browser: {browser.ADVICE}")
        pytest.skip(f"the browser tests did not run: {browser.ADVICE}")
    with sync_playwright() as p:
        app = p.chromium.launch(executable_path=path, args=browser.FLAGS)
        yield app
        app.close()

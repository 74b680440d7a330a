"""Chapter 3.03: stored runs against its source, graders against wrong answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from llmbook.grading import grade

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "assets" / "data" / "results"


@pytest.fixture(scope="module")
def script(benchmark_module):
    return benchmark_module("transformer_dates")


@pytest.fixture(scope="module")
def dates():
    return json.loads((RESULTS / "transformer_dates.json").read_text())


def test_the_runs_were_made_by_the_chapter_as_it_stands(script, dates):
    assert dates["source"] == script.digest(script.find(["3.03"])[0])


def test_every_planned_run_is_stored_once_at_the_rate_that_was_chosen(script, dates):
    jobs = [r["job"] for r in dates["runs"]]
    assert jobs == script.selection() + script.trial(script.chosen(dates["runs"]))
    assert {len(r) for r in dates["runs"] if r["job"]["notes"] == "validation"} == {4}
    assert all(0 <= r["greedy"] <= 1 for r in dates["runs"])


def test_every_layer_was_timed_at_every_size():
    rows = json.loads((RESULTS / "transformer_seconds.json").read_text())["rows"]
    sizes = {(r["d"], r["n"]) for r in rows}
    assert len(rows) == 3 * len(sizes) == 42
    assert all(0 < r["ms"] <= r["median_ms"] for r in rows)


def beam(width):
    """Return a search that keeps ``width`` unfinished prefixes."""

    def best_sequence(next_log_probs, end, max_len):
        best, kept = (-np.inf, ()), [(0.0, ())]
        for _ in range(max_len):
            longer = []
            for score, prefix in kept:
                for token, step in enumerate(next_log_probs(prefix)):
                    new = score + step, (*prefix, token)
                    if token != end:
                        longer.append(new)
                    elif new[0] > best[0]:
                        best = new
            kept = [x for x in sorted(longer)[-width:] if x[0] > best[0]]
        return best

    return best_sequence


@pytest.mark.parametrize("width", [1, 4, 8, 32, 64])
def test_no_beam_passes_for_exact_search(width):
    assert not grade("transformer-3", beam(width)).passed


def pad_to(rows, pad, n):
    return np.array([row + [pad] * (n - len(row)) for row in rows])


def appends_filler(f, rows, pad):
    n = max(map(len, rows))
    return np.abs(f(pad_to(rows, pad, n)) - f(pad_to(rows, pad, n + 10))).max()


def keeps_filler(f, rows, pad):
    x = pad_to(rows, pad, max(map(len, rows)))
    return max(np.abs(f(x)[i] - f(x[i : i + 1])[0]).max() for i in range(len(x)))


def pads_left(f, rows, pad):
    n = max(map(len, rows))
    x = np.array([[pad] * (n - len(row)) + row for row in rows])
    return max(np.abs(f(x)[i] - f(np.array([r]))[0]).max() for i, r in enumerate(rows))


@pytest.mark.parametrize("wrong", [appends_filler, keeps_filler, pads_left])
def test_a_leak_test_that_misses_something_fails(wrong):
    assert not grade("transformer-6", wrong).passed

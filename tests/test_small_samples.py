"""The trial of chapter 2.06: samples are fair, nothing sees the test, one interval."""

import json

import numpy as np
import pytest
from scipy.ndimage import label

from llmbook import claims, drawn_digits, small_networks, small_samples

BANK = small_samples.bank_task()


def test_draws_are_balanced_nested_and_differ():
    small, large = (small_samples.draw(BANK, n, seed=3) for n in (5, 20))
    assert set(small) < set(large) <= set(BANK["pool"])
    assert np.bincount(BANK["y"][large]).tolist() == [20] * 10
    assert set(small) != set(small_samples.draw(BANK, 5, seed=4))


def test_a_trial_tunes_inside_the_sample_and_asks_the_test_once():
    calls = []

    def spy(task, train, where, seed, configs):
        calls.append((set(train), set(where), list(configs)))
        return np.array([task["y"][where] if c == "b" else where * 0 for c in configs])

    found = small_samples.trial(BANK, spy, ["a", "b", "c"], 5, 0)
    sample = set(small_samples.draw(BANK, 5, 0))
    *folds, (train, where, configs) = calls
    assert found["chosen"] == 1 and found["hits"][1] == 50
    assert train == sample and configs == ["b"] and len(where) == 220
    assert len(folds) == 2
    for fit, held, _ in folds:
        assert fit | held == sample and not fit & held


def test_crossed_interval_is_the_t_interval_where_one_lottery_is_silent():
    x = np.random.default_rng(0).normal(size=6)
    for d in (np.tile(x[:, None], 9), np.tile(x, (9, 1))):
        found = small_samples.crossed_interval(d)
        assert np.allclose(found, claims.interval(x))
    d = np.random.default_rng(1).normal(size=(5, 40)) + x[:5, None]
    assert np.allclose(
        small_samples.crossed_interval(d), small_samples.crossed_interval(d.T)
    )


def test_draws_from_a_small_pool_widen_the_interval():
    rows = np.tile(np.random.default_rng(2).normal(size=6)[:, None], 9)
    for d, times in ((rows, 2), (rows.T, 1)):  # items are no draws from the pool
        low, high = small_samples.crossed_interval(d)
        wide = small_samples.crossed_interval(d, 0.75)
        assert np.isclose(wide[1] - wide[0], times * (high - low))


def test_library_texts_hold_no_name_and_no_run_of_the_test():
    task = small_samples.library_task(n_pool=50, n_test=20)
    assert np.bincount(task["y"]).tolist() == [70] * 5
    assert not any(small_samples.NAMES.search(text) for text in task["texts"])
    assert len({text[:20] for text in task["texts"]}) > 300


@pytest.mark.parametrize(
    "text", ["np.linspace", "scikit-learn", "pandas.Series", "a_np_b", "PyPlot"]
)
def test_names_are_found(text):
    assert small_samples.NAMES.search(text)
    assert not small_samples.NAMES.search("input, expand, updates, simple")


def test_a_longer_run_passes_through_the_shorter():
    method = small_networks.network(small_networks.from_scratch, 0, 3, 3)
    rows = small_samples.draw(BANK, 2, 0)
    both = method(BANK, rows, rows, 0, [(0.01, 2), (0.01, 1)])
    assert np.array_equal(both[1:], method(BANK, rows, rows, 0, [(0.01, 1)]))
    assert np.array_equal(both[:1], method(BANK, rows, rows, 0, [(0.01, 2)]))


@pytest.mark.parametrize("face", drawn_digits.FACES + drawn_digits.NEW_FACES)
def test_outlines_have_the_holes_of_their_digits(face):
    found = []
    for digit in range(10):
        paper, _ = label(1 - drawn_digits.outlined(face, digit))
        areas = np.bincount(paper.ravel())[1:]
        found.append((areas > 9).sum() - 1)  # smaller: a corner that is pinched off
    assert found == [1, 0, 0, 0, 1, 0, 1, 0, 2, 1]


def test_drawn_digits_are_balanced_grey_and_upright():
    task = drawn_digits.drawn_digits_task(n_pool=20, n_test=5)
    assert task["pixels"].shape == (300, 64)
    assert np.array_equal(task["pixels"] * 16, (task["pixels"] * 16).round())
    for rows, n in zip([task["pool"], *task["tests"].values()], (20, 5, 5)):
        assert np.bincount(task["y"][rows]).tolist() == [n] * 10
    rng = np.random.default_rng(0)
    seven = drawn_digits.drawn_digits(np.full(200, 7), drawn_digits.FACES, rng)
    rows = seven.mean(0).reshape(8, 8).sum(1)
    assert rows[:3].sum() > 1.3 * rows[5:].sum()  # its bar is on top
    with pytest.raises(FileNotFoundError, match="no typeface Comic"):
        drawn_digits.outlined("Comic", 1)


def test_the_results_belong_to_these_methods(benchmark_module):
    bench = benchmark_module("small_samples")
    stored = json.loads(bench.STORE.read_text())
    for key, names in bench.SOURCES.items():
        assert stored[key] == bench.digest(names)

"""checks, plot and setup: what they accept and what they refuse."""

import os
import re
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import llmbook
from llmbook import checks, plot


def test_agree_prints_the_tolerance_not_the_difference(capsys):
    checks.agree("x", np.ones((2, 3)), np.ones((2, 3)) + 1e-9)
    checks.agree("x", torch.ones(2, 3, requires_grad=True), np.ones((2, 3)))
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == "x: equal to 1e-06, shape (2, 3)"


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (np.ones(3), np.ones(4), "shapes differ"),
        (np.ones(3), np.ones(3) * 1.1, "largest difference 0.1"),
        (np.array([np.nan, 1]), np.array([1.0, 1]), "NaN"),
        (np.array([np.inf, 1]), np.array([1.0, 1]), "inf"),
        (np.array([]), np.array([]), "empty"),
    ],
)
def test_agree_refuses(ours, theirs, why):
    with pytest.raises(AssertionError, match=why):
        checks.agree("x", ours, theirs)


def test_agree_knows_equal_infinities(capsys):
    checks.agree("mask", np.array([-np.inf, 1]), np.array([-np.inf, 1]), atol=0)
    assert "exactly equal" in capsys.readouterr().out


def test_gradient_accepts_right_and_refuses_wrong():
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    checks.gradient(lambda v: float((v**3).sum()), 3 * x**2, x)
    with pytest.raises(AssertionError, match="largest difference"):
        checks.gradient(lambda v: float((v**3).sum()), 2 * x**2, x)
    with pytest.raises(TypeError, match="float64"):
        checks.gradient(lambda v: float(v.sum()), x, x.astype("float32"))


def test_heatmap_writes_numbers_and_refuses_vectors():
    fig, ax = plt.subplots()
    plot.heatmap(ax, [[1, -np.inf], [0.5, 2]], fmt="{:.1f}")
    assert [t.get_text() for t in ax.texts] == ["1.0", "−∞", "0.5", "2.0"]
    plt.close(fig)
    with pytest.raises(ValueError, match="2-D"):
        plot.heatmap(ax, [1, 2])


def draw(value):
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.plot([0, value])
    return fig


def test_slider_has_a_frame_per_value_and_no_script_tag():
    s = plot.slider(
        draw, [0.1, 0.2, 0.3], label="rate η", fmt="{:.1f}", alt="A line for"
    )
    html = s._repr_html_()
    assert html.count("<img") == 3 and html.count("hidden") >= 2
    assert "max='2'" in html and "aria-valuetext" in html and "<script" not in html
    assert len(re.findall(r"alt='A line for rate η = 0\.[123]'", html)) == 3
    assert repr(s) == "Slider: rate η, 0.1 to 0.3 in 3 steps"


def test_slider_refuses_one_value_and_no_figure():
    with pytest.raises(ValueError, match="2 to 24"):
        plot.slider(draw, [1], label="x")
    with pytest.raises(TypeError, match="must return a Figure"):
        plot.slider(lambda v: None, [1, 2], label="x")


def test_setup_is_reproducible_and_pins_threads():
    a, b = llmbook.setup(3).normal(size=4), llmbook.setup(3).normal(size=4)
    assert np.array_equal(a, b)
    assert torch.get_num_threads() == 1 and os.environ["HF_HUB_OFFLINE"] == "1"


def test_setup_before_torch_pins_torch_too():
    code = (
        "import llmbook; llmbook.setup(0); import torch; print(torch.get_num_threads())"
    )
    env = {k: v for k, v in os.environ.items() if "THREADS" not in k}
    for threads in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={**env, "LLMBOOK_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == threads


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_setup_refuses_a_bad_seed(seed):
    with pytest.raises(ValueError, match="seed"):
        llmbook.setup(seed)


def test_setup_refuses_bad_threads(monkeypatch):
    monkeypatch.setenv("LLMBOOK_THREADS", "many")
    with pytest.raises(ValueError, match="LLMBOOK_THREADS"):
        llmbook.setup(0)

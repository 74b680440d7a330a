"""Draw the landing page's figure: sharpness climbs to 2/η, and stays there.

A tanh network learns 500 handwritten digits by plain gradient descent, once for
each of three learning rates η. Along the way the largest eigenvalue of the
Hessian, λ_max, is computed by power iteration on Hessian-vector products. It
rises until it meets 2/η, the edge of stability, and hovers there while the loss
goes on falling (chapter 1.10 explains why).

Usage: ``python tools/hero_figure.py`` writes ``assets/figures/hero-light.png``,
``hero-dark.png`` and ``hero.json`` (the numbers drawn). It takes about ten
seconds on one core.
"""

import argparse
import io
import json
from pathlib import Path

FIGURES = Path(__file__).resolve().parents[1] / "assets" / "figures"
RATES = (0.25, 0.4, 0.8)
TIME = 600.0  # η × steps: the same distance for every rate
READINGS = 160
LOOKS = {
    "light": {
        "background": "#ffffff",
        "text": "#1f2933",
        "faint": "#8a94a0",
        "grid": "#e8ebee",
        "lines": ("#1f6f8b", "#c4622d", "#6a4c93"),
    },
    "dark": {
        "background": "#14181e",
        "text": "#e3e7eb",
        "faint": "#8f99a5",
        "grid": "#2a3038",
        "lines": ("#5bb6d3", "#f0945e", "#b79be0"),
    },
}


def train(rate: float, time: float = TIME, readings: int = READINGS) -> dict:
    """Train at one learning rate and return steps, sharpness and loss as lists."""
    n_steps = round(time / rate)
    every = round(n_steps / readings)
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images[:500] / 16.0).float()
    x = x - x.mean(0)
    y = torch.nn.functional.one_hot(torch.from_numpy(labels[:500]), 10).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 10),
    )
    weights = list(net.parameters())
    vector = [torch.randn_like(w) for w in weights]

    def loss_of() -> torch.Tensor:
        return 0.5 * ((net(x) - y) ** 2).sum(1).mean()

    def sharpness(n_iterations: int) -> float:
        """Return the Rayleigh quotient after power iteration from the last vector."""
        nonlocal vector
        grads = torch.autograd.grad(loss_of(), weights, create_graph=True)
        for _ in range(n_iterations):
            norm = torch.sqrt(sum((v * v).sum() for v in vector))
            vector = [v / norm for v in vector]
            product = torch.autograd.grad(
                grads, weights, grad_outputs=vector, retain_graph=True
            )
            value = sum((v * p).sum() for v, p in zip(vector, product, strict=True))
            vector = [p.detach() for p in product]
        return float(value)

    steps, values, losses = [], [], []
    for step in range(n_steps + 1):
        if step % every == 0:
            values.append(sharpness(60 if step == 0 else 12))
            steps.append(step)
            losses.append(float(loss_of().detach()))
        grads = torch.autograd.grad(loss_of(), weights)
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight -= rate * grad
    return {
        "rate": rate,
        "steps": steps,
        "sharpness": np.round(values, 3).tolist(),
        "loss": np.round(losses, 5).tolist(),
    }


def draw(runs: list[dict], look: dict) -> bytes:
    """Return the figure as PNG bytes, reduced to 64 colours."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    style = {
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "mathtext.fontset": "dejavusans",
        "text.color": look["text"],
        "axes.facecolor": look["background"],
        "figure.facecolor": look["background"],
        "axes.edgecolor": look["grid"],
        "axes.labelcolor": look["text"],
        "xtick.color": look["faint"],
        "ytick.color": look["faint"],
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        fig, ax = plt.subplots(figsize=(6.0, 4.4), layout="constrained")
        last = max(run["rate"] * run["steps"][-1] for run in runs)
        for run, colour in zip(runs, look["lines"], strict=True):
            edge = 2 / run["rate"]
            ax.axhline(edge, color=colour, lw=1.1, ls=(0, (4, 3)), alpha=0.75)
            time = [run["rate"] * step for step in run["steps"]]
            ax.plot(time, run["sharpness"], color=colour, lw=2.0)
            ax.annotate(
                f"η = {run['rate']:g}\n2/η = {edge:g}",
                (last, edge),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                linespacing=1.35,
                annotation_clip=False,
            )
        ax.set_xlim(0, last)
        ax.set_ylim(0, max(max(run["sharpness"]) for run in runs) * 1.06)
        ax.set_yticks([0, 2, 4, 6, 8])
        ax.set_xlabel("training time, learning rate η × steps")
        ax.set_title(
            r"largest Hessian eigenvalue $\lambda_{\max}$", loc="left", fontsize=12
        )
        ax.tick_params(length=0)
        ax.grid(axis="x", color=look["grid"], lw=0.8)
        buffer = io.BytesIO()
        fig.savefig(buffer, dpi=200)
        plt.close(fig)
    image = Image.open(buffer).convert("RGB")
    image = image.quantize(64, method=Image.Quantize.MEDIANCUT, dither=0)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Train, draw both looks and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redraw", action="store_true", help="reuse hero.json")
    redraw = parser.parse_args().redraw
    numbers = FIGURES / "hero.json"
    if redraw:
        runs = json.loads(numbers.read_text("utf8"))
    else:
        import torch

        torch.set_num_threads(1)
        runs = [train(rate) for rate in RATES]
        FIGURES.mkdir(parents=True, exist_ok=True)
        numbers.write_text(json.dumps(runs) + "\n", "utf8")
    for name, look in LOOKS.items():
        path = FIGURES / f"hero-{name}.png"
        path.write_bytes(draw(runs, look))
        print(
            f"{path.relative_to(FIGURES.parents[1])}: {path.stat().st_size // 1000} kB"
        )
    for run in runs:
        tail = run["sharpness"][-20:]
        print(
            f"η = {run['rate']:g}: 2/η = {2 / run['rate']:g}, λ_max over the last "
            f"{len(tail)} readings {min(tail):.1f} to {max(tail):.1f}"
        )


if __name__ == "__main__":
    main()

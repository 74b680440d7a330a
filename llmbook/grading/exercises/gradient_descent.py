"""Checks of the exercises in ch-gradient-descent, against other references."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from llmbook.grading import Check, Exercise
from llmbook.grading.compare import close

F = Callable[..., Any]


def _close(ours: object, wanted: object, what: str, rtol: float = 1e-9) -> None:
    close(ours, wanted, what, atol=1e-12, rtol=rtol)


# --- gradient_descent-2: AMSGrad ---------------------------------------------------


def _amsgrad_run(f: F, beta1: float, beta2: float, eps: float) -> None:
    rng = np.random.default_rng()
    x, lr = rng.normal(size=5), 0.07
    w = torch.tensor(x.copy(), requires_grad=True)
    theirs = torch.optim.Adam(
        [w], lr=lr, betas=(beta1, beta2), eps=eps, amsgrad=True, foreach=False
    )
    m = v = v_max = np.zeros(5)
    for t in range(1, 13):
        g = rng.normal(size=5) * (6.0 if t in (2, 7) else 0.3)
        before = [a.copy() for a in (x, g, m, v, v_max)]
        new = f(x, g, m, v, v_max, t, lr, beta1, beta2, eps)
        for a, b in zip((x, g, m, v, v_max), before, strict=True):
            if not np.array_equal(a, b):
                raise AssertionError("an argument was changed in place")
        x, m, v, v_max = new
        w.grad = torch.from_numpy(g)
        theirs.step()
        _close(x, w.detach().numpy(), f"x after step {t}")
    state = theirs.state[w]
    _close(m, state["exp_avg"].numpy(), "m")
    _close(v, state["exp_avg_sq"].numpy(), "v")
    _close(v_max, state["max_exp_avg_sq"].numpy(), "v_max")


def _amsgrad_torch(f: F) -> None:
    _amsgrad_run(f, 0.9, 0.99, 1e-8)
    _amsgrad_run(f, 0.5, 0.8, 1e-8)


def _amsgrad_eps(f: F) -> None:
    _amsgrad_run(f, 0.8, 0.9, 0.1)


# --- gradient_descent-3: clipping --------------------------------------------------


def _clip_large(f: F) -> None:
    rng = np.random.default_rng()
    for shapes in (((3, 4), (5,)), ((2, 2, 3),), ((1,), (6, 2), (4,))):
        grads = [rng.normal(size=s) * 3 for s in shapes]
        flat = np.concatenate([g.ravel() for g in grads])
        norm = np.linalg.norm(flat)
        clipped, before = f([g.copy() for g in grads], 0.5 * norm)
        _close(before, norm, "the norm before clipping")
        if len(clipped) != len(grads):
            raise AssertionError(f"{len(clipped)} arrays, wanted {len(grads)}")
        for a, b in zip(clipped, grads, strict=True):
            _close(a, 0.5 * b, f"half the norm, shape {b.shape}")


def _clip_small(f: F) -> None:
    grads = [np.array([0.3, -0.4]), np.array([[0.0]])]
    for limit in (0.5, 0.6, 10.0):
        clipped, before = f([g.copy() for g in grads], limit)
        _close(before, 0.5, "norm of (0.3, −0.4)")
        _close(clipped[0], grads[0], f"norm 0.5 under a limit of {limit}")
        _close(clipped[1], grads[1], f"norm 0.5 under a limit of {limit}")
    clipped, before = f([np.zeros(3)], 1.0)
    _close(clipped[0], np.zeros(3), "zero gradients")
    _close(before, 0.0, "norm of zero gradients")


def _clip_nan(f: F) -> None:
    for bad in (np.nan, np.inf, -np.inf):
        try:
            f([np.ones(2), np.array([1.0, bad])], 1.0)
        except ValueError:
            continue
        raise AssertionError(f"a gradient of {bad}: no ValueError was raised")


# --- gradient_descent-4: the floor -------------------------------------------------


def _floor_values(f: F) -> None:
    rng = np.random.default_rng()
    for n in (1, 3, 6):
        lam, s = rng.uniform(0.2, 3, n), rng.uniform(0.1, 2, n)
        for lr, batch in ((0.1, 1), (0.5, 8), (0.3, 5)):
            # The fixed point of V = (1 − ηλ)² V + η² s² / B, by its recursion.
            v = np.zeros(n)
            for _ in range(3000):
                v = (1 - lr * lam) ** 2 * v + lr**2 * s**2 / batch
            wanted = 0.5 * np.sum(lam * v)
            what = f"{n} axes, η = {lr}, B = {batch}"
            _close(f(lam.tolist(), s.tolist(), lr, batch), wanted, what, 1e-6)


def _floor_edge(f: F) -> None:
    for lam, lr in (([1.0, 4.0], 0.5), ([1.0, 4.0], 0.6), ([0.5, 0.1], 4.0)):
        got = f(lam, [1.0, 1.0], lr, 4)
        if not np.isposinf(got):
            raise AssertionError(f"curvatures {lam}, η = {lr} diverges: got {got}")
    if not np.isfinite(f([1.0, 4.0], [1.0, 1.0], 0.49, 4)):
        raise AssertionError("curvatures [1, 4], η = 0.49 is stable")


# --- gradient_descent-5: the critical batch size -------------------------------------


def _batch_values(f: F) -> None:
    for s_min, critical, extra in (
        (1000, 31.0, 0.5),
        (700, 250.5, 0.2),
        (90, 12.0, 3.3),
        (1234, 1000.0, 1.0),
        (10, 4.0, 0.25),
    ):
        batch = 1
        budget = (1 + extra) * s_min * critical
        while s_min * (batch + 1 + critical) <= budget * (1 + 1e-12):
            batch += 1
        steps = -int(-s_min * (batch + critical) // batch)
        got = f(s_min, critical, extra)
        if tuple(got) != (batch, steps):
            what = f"s_min {s_min}, critical {critical}, extra {extra}"
            raise AssertionError(f"{what}: got {got}, wanted {(batch, steps)}")


def _batch_budget(f: F) -> None:
    for extra in (0.01, 0.05):
        try:
            f(100, 8.0, extra)
        except ValueError:
            continue
        raise AssertionError(f"critical 8, extra {extra}: no batch fits, no error")


# --- gradient_descent-6: memory ------------------------------------------------------


def _memory_values(f: F) -> None:
    for n, cards, states, size in (
        (6_738_000_000, 8, 2, 4),
        (68_976_000_000, 3, 2, 1),
        (1_100_000_000, 5, 1, 2),
        (500_000_000, 2, 0, 4),
    ):
        half = 2 * n * 2  # weights and gradients
        rest = 4 * n + states * size * n
        what = f"{n} parameters, {cards} cards, {states} states of {size} bytes"
        _close(f(n, cards, states, size, False), (half + rest) / 1e9, what)
        wanted = (half + rest / cards) / 1e9
        _close(f(n, cards, states, size, True), wanted, f"{what}, sharded")


# --- gradient_descent-7: diagnose an optimiser ---------------------------------------


def _adam_step(version: str) -> F:
    def step(x: np.ndarray, g: np.ndarray, state: dict) -> tuple[np.ndarray, dict]:
        w = torch.tensor(np.array(x, dtype=float), requires_grad=True)
        grad = np.array(g, dtype=float)
        if version == "no correction":
            m = 0.9 * state.get("m", 0.0) + 0.1 * grad
            v = 0.999 * state.get("v", 0.0) + 0.001 * grad**2
            new = np.array(x) * (1 - 0.01 * 0.1) - 0.01 * m / (np.sqrt(v) + 1e-8)
            return new, {"m": m, "v": v}
        kind = torch.optim.AdamW if version == "correct" else torch.optim.Adam
        opt = kind([w], lr=0.01, weight_decay=0.1, foreach=False)
        if "torch" in state:
            opt.load_state_dict(state["torch"])
        w.grad = torch.from_numpy(grad)
        opt.step()
        return w.detach().numpy().copy(), {"torch": opt.state_dict()}

    return step


def _diagnose_all(f: F) -> None:
    for version in np.random.default_rng().permutation(
        ["correct", "no correction", "l2"]
    ):
        got = f(_adam_step(str(version)))
        if got != version:
            raise AssertionError(f"{version!r} was taken for {got!r}")


EXERCISES = {
    "gradient_descent-2": Exercise(
        function="amsgrad_step",
        checks=(
            Check("twelve steps of torch", _amsgrad_torch, hint="max of raw v."),
            Check("a large eps", _amsgrad_eps, hint="eps goes outside the root."),
        ),
    ),
    "gradient_descent-3": Exercise(
        function="clip_gradients",
        checks=(
            Check("too large", _clip_large, hint="One norm over all arrays."),
            Check("small enough", _clip_small, hint="Never scale up."),
            Check("not finite", _clip_nan, hint="Raise ValueError."),
        ),
    ),
    "gradient_descent-4": Exercise(
        function="settled_loss",
        checks=(
            Check("values", _floor_values, hint="Multiply V by λ / 2 and add up."),
            Check("stability", _floor_edge, hint="η λ must stay below 2."),
        ),
        equivalent={
            "room <= 0 → room < 0": "with no room left the division is infinite too",
        },
    ),
    "gradient_descent-5": Exercise(
        function="largest_batch",
        checks=(
            Check("values", _batch_values, hint="Examples are steps times batch."),
            Check("too little", _batch_budget, hint="Raise ValueError below one."),
        ),
    ),
    "gradient_descent-6": Exercise(
        function="gb_per_card",
        checks=(
            Check("GB per card", _memory_values, hint="Only 32-bit parts are split."),
        ),
    ),
    "gradient_descent-7": Exercise(
        function="diagnose",
        checks=(
            Check("three versions", _diagnose_all, hint="Try x = 0, then a large x."),
        ),
        equivalent={
            "moved > 0.02 → moved >= 0.02": "any border from 0.01 to 0.03 will do",
            "far < 99.95 → far <= 99.95": "any border from 99.9 to 99.99 will do",
        },
    ),
}

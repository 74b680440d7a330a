"""Chapter 2.11: stored runs against its source, and chunks that pile up."""

import json

import torch

from llmbook.grading import grade


def test_the_stored_runs_come_from_the_cells_that_the_chapter_has_now(benchmark_module):
    runs = benchmark_module("pytorch_performance")
    stored = json.loads(runs.STORE.read_text())
    assert stored["shared_cells"] == runs.fingerprint(runs.shared_cells())
    for shapes in stored["models"].values():
        for row in shapes.values():
            assert {len(ms) for ms in row["ms"].values()} == {runs.PROCESSES}


def test_chunks_that_autograd_keeps_alive_are_not_memory_saved(capsys):
    def piled_up(h, W, target, chunk):
        h, W = h.detach().requires_grad_(), W.detach().requires_grad_()
        loss = 0.0
        for x, t in zip(h.split(chunk), target.split(chunk)):
            loss = loss + torch.nn.functional.cross_entropy(
                x @ W.T, t, reduction="sum"
            ) / len(h)
        return loss, *torch.autograd.grad(loss, (h, W))

    report = grade("pytorch_performance-3", piled_up)
    assert not report.passed
    assert "pile up" in repr(report)

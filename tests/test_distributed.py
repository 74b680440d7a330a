"""Workers and the ring: right sums, and failures that are loud."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from llmbook import distributed


def simulate(arrays):
    """Every rank's sum, and the bytes that each sent."""
    n = len(arrays)
    ranks = [distributed.ring_sum(x, rank, n) for rank, x in enumerate(arrays)]
    arrived, sent, sums = [None] * n, np.zeros(n, dtype=int), []
    for _ in range(2 * (n - 1)):
        out = [g.send(a).copy() for g, a in zip(ranks, arrived)]
        sent += [part.nbytes for part in out]
        arrived = [out[-1], *out[:-1]]
    for g, a in zip(ranks, arrived):
        with pytest.raises(StopIteration) as end:
            g.send(a)
        sums.append(end.value.value)
    return sums, sent


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (1,), (2, 3, 4)])
def test_every_rank_gets_the_same_sum_and_keeps_its_array(n, shape):
    arrays = list(np.random.default_rng(n).integers(-99, 99, (n, *shape)))
    before = [x.copy() for x in arrays]
    sums, sent = simulate(arrays)
    for ours in sums:
        np.testing.assert_array_equal(ours, np.sum(arrays, axis=0))
    for x, old in zip(arrays, before):
        np.testing.assert_array_equal(x, old)
    part = -(-arrays[0].size // n) * arrays[0].itemsize
    assert (sent == 2 * (n - 1) * part).all()


def _sum(rank, n, offset):
    import torch
    from torch import distributed as dist

    print("not for the notebook")
    x = torch.tensor([float(rank + offset)])
    dist.all_reduce(x)
    return rank, x.item()


def test_results_come_in_the_order_of_the_ranks(capfd):
    assert distributed.launch(_sum, 3, 10) == [(0, 33.0), (1, 33.0), (2, 33.0)]
    assert capfd.readouterr() == ("", "")


def test_a_function_defined_on_the_spot_travels_by_value():
    factor = 3
    assert distributed.launch(lambda rank, n: factor * rank + n, 2) == [2, 5]


def _misbehave(rank, n, how):
    import torch
    from torch import distributed as dist

    if rank == 1:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            os._exit(3)
        if how == "raise":
            raise ValueError("bad row 17")
        time.sleep(60)
    dist.all_reduce(torch.ones(2))
    return "done"


@pytest.mark.parametrize(
    "how, wanted",
    [
        ("kill", "killed by SIGKILL"),
        ("exit", "ended without an answer, exit code 3"),
        ("raise", "ValueError: bad row 17"),
    ],
)
def test_a_failed_rank_is_named_and_no_result_is_returned(how, wanted):
    began = time.monotonic()
    with pytest.raises(distributed.WorkerFailure) as caught:
        distributed.launch(_misbehave, 2, how)
    assert caught.value.failures[1] == wanted
    assert "by peer" in caught.value.failures[0]
    assert wanted in str(caught.value)
    assert time.monotonic() - began < 120


def test_a_stalled_rank_ends_by_the_timeout_of_the_operation():
    with pytest.raises(distributed.WorkerFailure) as caught:
        distributed.launch(_misbehave, 2, "stall", timeout=3.0)
    assert "Timed out waiting 3000ms" in caught.value.failures[0]
    assert "_misbehave" in caught.value.tracebacks[0]
    assert "still running when another rank failed" in caught.value.failures[1]


def test_a_temporary_folder_may_have_any_name(tmp_path, monkeypatch):
    folder = tmp_path / "a b#c?é%20"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert distributed.launch(_sum, 2, 0) == [(0, 1.0), (1, 1.0)]
    assert list(folder.glob("llmbook-*")) == []


def test_a_result_that_cannot_travel_is_named():
    with pytest.raises(distributed.WorkerFailure, match="cannot pickle"):
        distributed.launch(lambda rank, n: (i for i in range(n)), 2)


def test_a_rank_that_dies_in_the_middle_of_its_answer_is_a_failure():
    def function(rank, n):
        if rank == 1:
            import struct
            import sys

            frame = sys._getframe()
            while "pipe" not in frame.f_locals:
                frame = frame.f_back
            header = struct.pack("!i", 1000)  # 1,000 bytes announced, 9 sent
            os.write(frame.f_locals["pipe"].fileno(), header + b"truncated")
            os._exit(0)

    with pytest.raises(distributed.WorkerFailure) as caught:
        distributed.launch(function, 2)
    assert caught.value.failures[1] == "ended without an answer, exit code 0"


LAUNCHER = """
import os, signal, sys, time
from pathlib import Path
from llmbook import distributed

def busy(rank, n):
    Path(sys.argv[1], f"{rank}.pid").write_text(str(os.getpid()))
    while True:
        time.sleep(0.1)

if __name__ == "__main__":
    # A shell that runs the tests in the background has its children ignore Ctrl+C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    distributed.launch(busy, 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_launcher(how, tmp_path):
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHER)
    launcher = subprocess.Popen(
        [sys.executable, script, tmp_path],
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    pids = _wait(lambda: [p.read_text() for p in tmp_path.glob("*.pid")], 2)
    launcher.send_signal(how)
    launcher.wait(60)
    _wait(lambda: [pid for pid in pids if _ended(pid)], 2)


def _ended(pid):
    """Whether a process is gone, or a zombie that nobody has buried yet."""
    try:
        return (
            Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        )
    except FileNotFoundError:
        return True


def _wait(ask, wanted):
    """Ask until the list has its length and no empty string in it."""
    end = time.monotonic() + 120
    while len([x for x in ask() if x]) < wanted:
        assert time.monotonic() < end, "two minutes have passed"
        time.sleep(0.05)
    return ask()


def _sleep(rank, n, seconds):
    time.sleep(seconds)


def test_the_limit_of_the_launch_kills_what_has_not_answered():
    with pytest.raises(distributed.WorkerFailure) as caught:
        distributed.launch(_sleep, 2, 60, limit=1.0)
    assert set(caught.value.failures) == {0, 1}
    assert "1 s had passed" in caught.value.failures[0]


@pytest.mark.parametrize(
    "bad", [{"n": 0}, {"n": 2, "limit": 0}, {"n": 2, "timeout": 0}]
)
def test_senseless_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="above 0"):
        distributed.launch(_sleep, bad.pop("n"), 0, **bad)

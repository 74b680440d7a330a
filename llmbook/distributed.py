"""Several workers on one machine, and the ring that adds up their gradients.

``launch`` runs a function on n real processes that talk over loopback, and either
returns every rank's result or raises with what each failed rank said: it neither
hangs nor returns a part. ``ring_sum`` is one rank's side of a ring all-reduce, as a
generator, so that the same code runs on real links and in a simulation.
"""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Generator
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from time import monotonic
from typing import Any

import cloudpickle
import numpy as np

__all__ = ["WorkerFailure", "launch", "ring_sum"]

_GRACE = 10.0  # seconds the others get to say what they saw, after a failure


class WorkerFailure(RuntimeError):
    """A launch that gave no result.

    ``failures`` maps a rank to one line on its end: first the dead, then those that
    raised, then those that were still running. ``tracebacks`` holds the text of what
    was raised, ``logs`` what each rank wrote to its standard output and error.
    """

    def __init__(
        self,
        failures: dict[int, str],
        tracebacks: dict[int, str],
        logs: dict[int, str],
    ) -> None:
        self.failures, self.tracebacks, self.logs = failures, tracebacks, logs
        lines = [f"rank {rank}: {text}" for rank, text in failures.items()]
        lines += [f"--- rank {rank}\n{text}" for rank, text in tracebacks.items()]
        super().__init__("no result from this launch\n" + "\n".join(lines))


def ring_sum(
    x: np.ndarray, rank: int, n: int
) -> Generator[np.ndarray, np.ndarray, np.ndarray]:
    """One rank's side of a ring all-reduce (sum), as a generator.

    It yields what to send to rank + 1 and must be sent what came from rank - 1. In
    the first n - 1 exchanges a part that arrives is added, in the last n - 1 it
    replaces. Every yielded part has ceil(x.size / n) numbers, so a rank sends
    2 (n - 1) / n times the array when n divides its size.

    Args:
        x: this rank's array, any shape; it is left as it is.
        rank: 0 to n - 1.
        n: number of ranks; all pass arrays of one shape and dtype.

    Returns:
        The sum over all ranks, of the shape of ``x``, as the generator's value
        (``StopIteration.value``).

    Source: Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters
    of workstations, 2009.

    Built in ch-distributed-optimization.
    """
    parts = np.pad(x.ravel(), (0, -x.size % n)).reshape(n, -1)
    for step in range(2 * (n - 1)):
        arrived = yield parts[(rank - step) % n]
        here = (rank - step - 1) % n
        parts[here] = parts[here] + arrived if step < n - 1 else arrived
    return parts.ravel()[: x.size].reshape(x.shape)


def launch(
    function: Callable[..., Any],
    n: int,
    *args: Any,  # noqa: ANN401
    limit: float = 240.0,
    timeout: float = 60.0,
) -> list[Any]:
    """Run ``function(rank, n, *args)`` on n processes and return their results.

    Inside, ``torch.distributed`` is ready, with gloo as its backend and one thread
    per worker. Processes meet through a file in a temporary folder and connect over
    the loopback interface only. The function and its results travel by value, so it
    may be defined in a notebook. What workers print goes to a log of their own. They
    do not outlive the launcher, however it ends.

    Args:
        function: called on every rank as ``function(rank, n, *args)``.
        n: number of processes, at least 1.
        *args: passed on; anything that can be pickled.
        limit: seconds until workers that have not answered are killed; it also bounds
            the wait for each other at the start.
        timeout: seconds that one collective operation may wait for its peers.

    Returns:
        The results, in the order of the ranks.

    Raises:
        WorkerFailure: a worker raised, died or did not answer within ``limit``. The
            others are then killed, by their process ids.
        ValueError: n is below 1, or a time is not above 0.

    Used in ch-distributed-optimization.
    """
    if n < 1 or limit <= 0 or timeout <= 0:
        raise ValueError(
            f"launch: n={n}, limit={limit} and timeout={timeout} must all be above 0"
        )
    payload = cloudpickle.dumps((function, args))
    context = _context()
    with tempfile.TemporaryDirectory(prefix="llmbook-") as folder:
        workers, pipes = [], []
        try:
            for rank in range(n):
                ours, theirs = context.Pipe(duplex=False)
                worker = context.Process(
                    target=_work,
                    args=(rank, n, payload, folder, (limit, timeout), theirs),
                )
                worker.start()
                theirs.close()  # so that the end of the worker is seen as end of file
                workers.append(worker)
                pipes.append(ours)
            results, failures, tracebacks = _collect(workers, pipes, limit)
            if failures:
                raise WorkerFailure(failures, tracebacks, _logs(folder, n))
            return [results[rank] for rank in range(n)]
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.kill()
            for worker, pipe in zip(workers, pipes):
                worker.join()
                worker.close()
                pipe.close()


def _context() -> Any:  # noqa: ANN401 - the context types differ by platform
    """Return a way to start processes that imports torch once, not once a worker.

    Only on Linux: elsewhere a fork after such imports is not safe.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", __name__])
    return context


def _collect(
    workers: list[Any], pipes: list[Any], limit: float
) -> tuple[dict[int, Any], dict[int, str], dict[int, str]]:
    """Wait for every rank's answer; after a failure for a short grace only."""
    end, waiting = monotonic() + limit, dict(enumerate(pipes))
    results: dict[int, Any] = {}
    dead: dict[int, str] = {}
    raised: dict[int, str] = {}
    tracebacks: dict[int, str] = {}
    while waiting:
        ready = connection.wait(list(waiting.values()), max(0.0, end - monotonic()))
        if not ready:
            break
        for rank in [r for r, pipe in waiting.items() if pipe in ready]:
            try:
                answer = waiting.pop(rank).recv_bytes()
            except (EOFError, OSError):  # gone, perhaps in the middle of its answer
                workers[rank].join(_GRACE)
                dead[rank] = _obituary(workers[rank].exitcode)
            else:
                good, value, trace = cloudpickle.loads(answer)
                if good:
                    results[rank] = value
                    continue
                raised[rank], tracebacks[rank] = value, trace
            end = min(end, monotonic() + _GRACE)
    why = "another rank failed" if dead or raised else f"{limit:g} s had passed"
    silent = {rank: f"still running when {why}; killed" for rank in waiting}
    return results, dead | raised | silent, tracebacks


def _obituary(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended without an answer, exit code {code}"
    return f"killed by {signal.Signals(-code).name}"


def _logs(folder: str, n: int) -> dict[int, str]:
    paths = {rank: Path(folder, f"{rank}.log") for rank in range(n)}
    return {
        rank: path.read_text(errors="replace") if path.exists() else ""
        for rank, path in paths.items()
    }


def _work(
    rank: int,
    n: int,
    payload: bytes,
    folder: str,
    times: tuple[float, float],
    pipe: Any,  # noqa: ANN401
) -> None:
    """Join the others, run the function, answer with its result or its error."""
    threading.Thread(target=_end_with_the_launcher, daemon=True).start()
    log = os.open(Path(folder, f"{rank}.log"), os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.stdout = sys.stderr = os.fdopen(log, "w", buffering=1, closefd=False)
    try:
        value = _joined(rank, n, payload, folder, *times)
        answer = cloudpickle.dumps((True, value, ""))
    except BaseException as error:  # whatever it is, the launcher must hear of it
        text = f"{type(error).__name__}: {error}".strip()
        answer = cloudpickle.dumps((False, text, traceback.format_exc()))
    pipe.send_bytes(answer)
    pipe.close()


def _end_with_the_launcher() -> None:
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        os._exit(1)


def _joined(
    rank: int, n: int, payload: bytes, folder: str, limit: float, timeout: float
) -> Any:  # noqa: ANN401
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = _loopback()
    # A store by its path: as a URL, a folder with a space in its name is not found.
    store = distributed.FileStore(str(Path(folder, "meet")), n)
    store.set_timeout(timedelta(seconds=limit))
    distributed.init_process_group(
        "gloo",
        store=store,
        rank=rank,
        world_size=n,
        timeout=timedelta(seconds=limit),
    )
    function, args = cloudpickle.loads(payload)
    distributed.barrier()  # all have started and imported: now the clock may be short
    distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout))
    value = function(rank, n, *args)
    distributed.barrier()  # nobody leaves while another still needs it
    distributed.destroy_process_group()
    return value


def _loopback() -> str:
    names = [name for _, name in socket.if_nameindex()]
    for name in ("lo", "lo0"):
        if name in names:
            return name
    raise OSError(f"no loopback interface lo or lo0 among {names}")

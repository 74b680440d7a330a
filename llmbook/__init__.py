"""What the chapters of *Proved by Running* build, and later chapters reuse.

Modules are rooms with one purpose. Nothing here is a framework: every function
is derived in the chapter its docstring names.
"""

import os
import random
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__version__ = "0.1.0"
__all__ = ["setup"]

_STYLE = Path(__file__).parent / "book.mplstyle"


def setup(seed: int = 0) -> "np.random.Generator":
    """Make a chapter reproducible: seed, threads, offline mode, figure style.

    Call it once, in the first cell. It pins NumPy's BLAS and (if imported
    before or after) torch to ``LLMBOOK_THREADS`` threads, default 1, because
    results and speed of small models depend on the thread count.

    Args:
        seed: a non-negative integer; seeds ``random``, NumPy and, when it is
            already imported, torch. Seed torch yourself where it is imported.

    Returns:
        numpy.random.Generator seeded with ``seed``.

    Raises:
        ValueError: when ``seed`` or ``LLMBOOK_THREADS`` is not usable.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"setup(seed): seed must be an integer >= 0, not {seed!r}")
    threads = _thread_count()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # transformers imports tqdm, which asks for notebook widgets we do not use.
    warnings.filterwarnings("ignore", message="IProgress not found")

    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if sys.platform != "emscripten":
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
    _use_style()
    return np.random.default_rng(seed)


def _thread_count() -> int:
    text = os.environ.get("LLMBOOK_THREADS", "1")
    if not text.isdigit() or int(text) < 1:
        raise ValueError(
            f"LLMBOOK_THREADS={text!r}: set it to a whole number of threads, "
            "for example LLMBOOK_THREADS=2, or leave it unset for 1"
        )
    return int(text)


def _use_style() -> None:
    from matplotlib import style

    style.use(["petroff10", str(_STYLE)])
    if "IPython" in sys.modules:
        from IPython import get_ipython

        shell = get_ipython()
        if shell is not None and "matplotlib_inline" in sys.modules:
            # The inline backend would re-apply its own defaults otherwise.
            shell.run_line_magic("config", "InlineBackend.rc = {}")

"""Run one cell in the browser and send its outputs as Jupyter would show them."""

import ast
import base64
import io
import linecache
import os
import sys
import traceback
import warnings

os.environ["MPLBACKEND"] = "agg"
os.environ["LLMBOOK_CACHE"] = "/tmp/llmbook"
os.chdir("/book")
sys.path.insert(0, "/book")
# pandas and seaborn warn about what only a full installation has.
warnings.filterwarnings("ignore", category=DeprecationWarning)
# So does threadpoolctl, of how the browser lists its libraries.
warnings.filterwarnings("ignore", category=RuntimeWarning, module="threadpoolctl")

_names = {"__name__": "__main__"}
_send = None


class _Stream(io.TextIOBase):
    def __init__(self, name):
        self.name = name

    def writable(self):
        return True

    def write(self, text):
        if text:
            _send("stream", self.name, text)
        return len(text)


def _show_figures(*args, **kwargs):
    if "matplotlib.pyplot" not in sys.modules:
        return
    plt = sys.modules["matplotlib.pyplot"]
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, format="png", bbox_inches="tight")
        _send("image", "png", base64.b64encode(picture.getvalue()).decode())
    plt.close("all")


def display(*values):
    """Show values as Jupyter does: a figure, HTML, or text."""
    for value in values:
        if value is None:
            continue
        if type(value).__module__.startswith("matplotlib") and hasattr(
            value, "savefig"
        ):
            _show_figures()
            continue
        html = None
        if hasattr(value, "_repr_mimebundle_"):
            bundle = value._repr_mimebundle_()
            bundle = bundle[0] if isinstance(bundle, tuple) else bundle
            html = bundle.get("text/html")
        if html is None and hasattr(value, "_repr_html_"):
            html = value._repr_html_()
        if html is not None:
            _send("html", "", html)
        else:
            _send("text", "", repr(value))


def _adopt_pyplot():
    """Let plt.show() send the figures; nothing else shows them."""
    if "matplotlib.pyplot" in sys.modules:
        plt = sys.modules["matplotlib.pyplot"]
        if plt.show is not _show_figures:
            plt.show = _show_figures


def run(source, name, send):
    """Execute a cell; its last expression is displayed. Returns whether it succeeded."""
    global _send
    _send = send
    file = f"<{name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    _names["display"] = display
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream("stdout"), _Stream("stderr")
    try:
        tree = ast.parse(source, file)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            if not source.rstrip().endswith(";"):
                last = ast.Expression(tree.body.pop().value)
        for statement in tree.body:
            exec(compile(ast.Module([statement], []), file, "exec"), _names)
            _adopt_pyplot()
        if last is not None:
            display(eval(compile(last, file, "eval"), _names))
        _show_figures()
    except BaseException as error:
        _show_figures()
        kept = error.__traceback__
        while kept is not None and kept.tb_frame.f_code.co_filename != file:
            kept = kept.tb_next
        lines = traceback.format_exception(type(error), error, kept)
        send("error", type(error).__name__, "".join(lines))
        return False
    finally:
        sys.stdout, sys.stderr = out, err
    return True

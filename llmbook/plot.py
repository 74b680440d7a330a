"""Figure helpers that several chapters use; everything else is plain Matplotlib."""

import base64
import html
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Slider", "heatmap", "slider"]


def heatmap(
    ax: Axes,
    matrix: Any,  # noqa: ANN401 - anything NumPy can read
    fmt: str = "{:.2f}",
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Any:  # noqa: ANN401 - a Matplotlib AxesImage
    """Draw a small matrix as an image with its numbers written in the cells.

    Args:
        ax: axes to draw on.
        matrix: real matrix, shape ``(rows, columns)``; ``-inf`` is allowed.
        fmt: format of one number; ``""`` writes none.
        cmap: Matplotlib colour map.
        vmin: value of the darkest colour; None takes the smallest finite entry.
        vmax: value of the brightest colour; None takes the largest finite entry.
        rows: labels of the rows, or None for none.
        columns: labels of the columns, or None for none.

    Returns:
        The Matplotlib image, for a colour bar.

    Raises:
        ValueError: when ``matrix`` is not two-dimensional or has no finite entry.
    """
    values = np.asarray(matrix, dtype=float)
    if values.ndim != 2 or not np.isfinite(values).any():
        raise ValueError(
            f"heatmap: needs a 2-D matrix with numbers, got {values.shape}"
        )
    finite = values[np.isfinite(values)]
    low = finite.min() if vmin is None else vmin
    high = finite.max() if vmax is None else vmax
    image = ax.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    image.get_cmap().set_bad("#d9d9d9")
    if fmt:
        span = (high - low) or 1.0
        for (i, j), value in np.ndenumerate(values):
            shade = (value - low) / span if np.isfinite(value) else 0.0
            red, green, blue, _ = image.get_cmap()(min(max(shade, 0.0), 1.0))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            text = fmt.format(value).replace("-inf", "−∞").replace("inf", "∞")
            ax.text(j, i, text, ha="center", va="center", color="w" if dark else "k")
    ax.grid(False)
    ax.set_xticks(range(values.shape[1]), columns or [""] * values.shape[1])
    ax.set_yticks(range(values.shape[0]), rows or [""] * values.shape[0])
    ax.tick_params(length=0)
    return image


class Slider:
    """A strip of figures with one native range input; displays itself."""

    def __init__(
        self, frames: list[bytes], texts: list[str], label: str, alt: str
    ) -> None:
        self.frames, self.texts, self.label, self.alt = frames, texts, label, alt

    def __repr__(self) -> str:
        n = len(self.texts)
        return f"Slider: {self.label}, {self.texts[0]} to {self.texts[-1]} in {n} steps"

    def _repr_html_(self) -> str:
        images = "".join(
            f"<img src='data:image/png;base64,{base64.b64encode(f).decode()}' "
            f"alt='{_e(self.alt)} {_e(self.label)} = {_e(t)}'{' hidden' if i else ''}>"
            for i, (f, t) in enumerate(zip(self.frames, self.texts, strict=True))
        )
        # Everything the input needs hangs on its own element: no ids, no library.
        move = (
            "const b=this.closest('.llmbook-slider'),t="
            f"{json.dumps(self.texts, ensure_ascii=False)}[this.value];"
            "b.querySelectorAll('img').forEach((m,i)=>m.hidden=i!=this.value);"
            "b.querySelector('output').textContent=t;"
            "this.setAttribute('aria-valuetext',t)"
        )
        return (
            "<div class='llmbook-slider'><label>"
            f"<span>{_e(self.label)} = <output>{_e(self.texts[0])}</output></span>"
            f"<input type='range' min='0' max='{len(self.texts) - 1}' value='0' "
            f"step='1' style='width:100%' aria-valuetext='{_e(self.texts[0])}' "
            f'oninput="{html.escape(move, quote=True)}"></label>{images}</div>'
        )


def slider(
    draw: Callable[[Any], Figure],
    values: Sequence[Any],
    label: str,
    fmt: str = "{:.2f}",
    alt: str = "Figure for",
    dpi: int = 80,
    colours: int = 32,
) -> Slider:
    """Render one figure per value into a slider that needs no kernel and no library.

    Assert the numbers that the frames show in an ordinary cell: pictures are not
    compared when the notebook is re-run.

    Args:
        draw: function of one value that returns a Matplotlib figure; fix its axes
            limits, or the picture jumps.
        values: 2 to 24 values, in the order of the slider.
        label: what the slider changes, with its symbol.
        fmt: how a value is shown.
        alt: start of every frame's alternative text.
        dpi: resolution of the frames.
        colours: palette size of the frames, 2 to 256.

    Returns:
        Slider, which displays itself in a notebook and in the built page.

    Raises:
        ValueError: when the number of values is out of range.
        TypeError: when ``draw`` returns something other than a figure.
    """
    from PIL import Image

    if not 2 <= len(values) <= 24:
        raise ValueError(f"slider: give 2 to 24 values, not {len(values)}")
    frames = []
    for value in values:
        figure = draw(value)
        if not isinstance(figure, Figure):
            raise TypeError(
                f"slider: draw({value!r}) must return a Figure, not {type(figure)}"
            )
        raw, packed = io.BytesIO(), io.BytesIO()
        figure.savefig(raw, format="png", dpi=dpi)
        plt.close(figure)
        picture = Image.open(raw).convert("RGB").quantize(colours)
        picture.save(packed, format="png", optimize=True)
        frames.append(packed.getvalue())
    return Slider(frames, [fmt.format(v) for v in values], label, alt)


def _e(text: str) -> str:
    return html.escape(text, quote=True)

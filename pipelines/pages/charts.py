"""Charts of a report as SVG, to stand inside a page: its colours are the page's, in light and in dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that matplotlib is told and that the page's take the place of; nothing else is drawn in them.
_INK, _FIRST, _SECOND = "#010203", "#020304", "#030405"
_PAGE_COLOURS = {_INK: "currentColor", _FIRST: "var(--first)", _SECOND: "var(--second)"}

_STYLE: Any = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11.0,
    "svg.fonttype": "none",  # text stays text, in the page's own letters
    "svg.hashsalt": "samtok-data",  # else names of parts are drawn by lot
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_INCHES = (6.4, 3.0)


def iou_chart(counts: NDArray[np.int64], baseline: NDArray[np.int64] | None, *, name: str) -> str:
    """How many masks reach which r-IoU, as shares of all masks.

    Args:
        counts: of masks in equal parts of 0..1; at least one mask.
        baseline: the same of the image-blind codebook, drawn as a line.
        name: unique in the page; a part of the names of the SVG's parts.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _empty()
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.bar(edges[:-1], 100 * counts / counts.sum(), width=1 / len(counts), align="edge", color=_FIRST, lw=0)
        if baseline is not None:
            axes.stairs(100 * baseline / baseline.sum(), edges, color=_SECOND, lw=2, label="image-blind codebook")
            axes.legend(frameon=False)
        axes.set(xlim=(0, 1), xlabel="r-IoU", ylabel="% of masks")
        return _svg(figure, name)


def code_chart(counts_K: NDArray[np.int64], *, name: str) -> str:
    """How often each code of a level is used, the most frequent first; a line where all would be used alike.

    Args:
        counts_K: masks of each code; at least one mask.
        name: unique in the page; a part of the names of the SVG's parts.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _empty()
        shares = 100 * np.sort(counts_K)[::-1] / counts_K.sum()
        axes.bar(np.arange(1, len(shares) + 1), shares, width=1.0, color=_FIRST, lw=0)
        axes.axhline(100 / len(shares), color=_SECOND, lw=1.5, label="all alike")
        axes.legend(frameon=False)
        axes.set(xlim=(0.5, len(shares) + 0.5), xlabel="codes, the most frequent first", ylabel="% of masks")
        return _svg(figure, name)


def fraction_chart(edges: NDArray[np.float64], counts: NDArray[np.int64], *, name: str) -> str:
    """How large masks are, as fractions of their images, on a logarithmic scale.

    Args:
        edges: of the parts, more than 0, growing; one more than parts.
        counts: masks of each part; at least one mask.
        name: unique in the page; a part of the names of the SVG's parts.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _empty()
        axes.bar(edges[:-1], 100 * counts / counts.sum(), width=np.diff(edges), align="edge", color=_FIRST, lw=0)
        axes.set_xscale("log")
        decades = 10.0 ** np.arange(np.round(np.log10(edges[0])), np.round(np.log10(edges[-1])) + 1)
        axes.set_xticks(decades, [f"{100 * decade:.6g} %" for decade in decades])
        axes.minorticks_off()
        axes.set(xlim=(edges[0], edges[-1]), xlabel="share of the image", ylabel="% of masks")
        return _svg(figure, name)


def bar_chart(counts: Mapping[str, int], *, label: str, unit: str, name: str) -> str:
    """Shares of a whole, a bar each.

    Args:
        counts: by what stands below the bar; more than 0 together.
        label: of all bars.
        unit: what is counted.
        name: unique in the page; a part of the names of the SVG's parts.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _empty()
        places, whole = np.arange(len(counts)), sum(counts.values())
        axes.bar(places, [100 * number / whole for number in counts.values()], width=0.9, color=_FIRST, lw=0)
        axes.set_xticks(places, list(counts))
        axes.set(xlabel=label, ylabel=f"% of {unit}")
        return _svg(figure, name)


def _empty() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_INCHES, layout="tight")
    return figure, figure.subplots()


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # without the head of a file
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)  # it holds the time
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)  # several charts share one page
    for colour, of_page in _PAGE_COLOURS.items():
        svg = svg.replace(colour, of_page)
    return svg

"""The curves of a training run as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.training.metrics import columns_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Mapping[int, Mapping[str, float]]

R_IOU = "r_iou"
# Other measures of all masks, with their names for the legend and their dashes.
R_IOU_VARIANTS = {
    "r_iou_at_0": ("all, cut at logit 0", "--"),
    "r_iou_unquantised": ("all, not quantised", ":"),
}

# Okabe and Ito's palette, which the colour-blind tell apart; without its yellow, which white swallows, and with
# black kept for totals. More curves than colours differ in their dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", "--", ":", "-.")
_TOTAL = "#000000"
_GREY = "#666666"

_INCHES = (17.0, 11.5)
_DOTS_PER_INCH = 100
# A noisy curve is smoothed over this share of its points; with few points there is nothing to smooth.
_SMOOTHED_SHARE = 1 / 40
_MARKED_POINTS = 60  # up to so many points a curve shows each of them


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    """What one panel shows: columns with their names for the legend, or a column of each level."""

    title: str
    unit: str
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    level_column: str = ""
    is_log: bool = False
    is_noisy: bool = True

    def labels(self, columns: Sequence[str]) -> dict[str, str]:
        """Names for the legend by column, of those columns that the panel shows."""
        start = f"{self.level_column}_"
        levels = [column for column in columns if self.level_column and column.startswith(start)]
        levels.sort(key=lambda column: (len(column), column))  # level 10 after level 9
        named = {column: f"level {column.removeprefix(start)}" for column in levels}
        return named | {column: label for column, label in self.columns.items() if column in columns}


_LOSSES = {"loss": "total", "loss_bce": "bce", "loss_dice": "dice", "loss_commitment": "commitment"}
_USED = _Panel(title="Codes used", unit="codes", level_column="used")
_PANELS = {
    (0, 0): _Panel(title="Losses", unit="loss, log scale", columns=_LOSSES, is_log=True),
    (1, 0): _USED,
    (1, 1): _Panel(title="Perplexity of the codes", unit="codes", level_column="perplexity"),
    (1, 2): _Panel(title="Dead codes restarted", unit="codes", level_column="restarted"),
    (2, 0): _Panel(title="Speed", unit="masks/s", columns={"masks_per_second": "masks per second"}),
    (2, 1): _Panel(
        title="Learning rate", unit="learning rate", columns={"learning_rate": "learning rate"}, is_noisy=False
    ),
    (2, 2): _Panel(title="Gradient norm", unit="norm, log scale", columns={"grad_norm": "grad norm"}, is_log=True),
}


def curves_png(rows: Rows, *, codebook_size: int | None = None) -> bytes:
    """Losses, r-IoU, use of the codebook, speed, learning rate and gradient norm over the steps.

    Args:
        rows: values by step; a panel whose columns are missing says so.
        codebook_size: codes of each level, drawn as a line beside the codes used; None: no line.

    Returns:
        A PNG file, 1700 x 1150 pixels; equal bytes for equal rows and the same matplotlib.
    """
    # Not pyplot: it keeps every figure that it makes, and looks for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(f"Training up to step {max(rows, default=0):,}", fontsize=14)
    grid = figure.add_gridspec(3, 3)
    columns = columns_of(rows.values())
    for (line, place), panel in _PANELS.items():
        axes = figure.add_subplot(grid[line, place])
        _dress(axes, rows, panel.title, panel.unit)
        _draw_panel(axes, rows, panel, panel.labels(columns))
        if panel is _USED and codebook_size is not None:
            axes.axhline(codebook_size, color=_GREY, linestyle="--", linewidth=1, label=f"codebook: {codebook_size}")
            axes.set_ylim(0, codebook_size * 1.08)
            _add_legend(axes)
    # The legend has room of its own: a dozen sources would cover the curves.
    wide, narrow = grid[0, 1:].subgridspec(1, 2, width_ratios=(4, 1))
    axes, legend = figure.add_subplot(wide), figure.add_subplot(narrow)
    legend.axis("off")
    _dress(axes, rows, "Reconstruction of the validation masks", "r-IoU")
    if _draw_iou(axes, rows, columns):
        handles, labels = axes.get_legend_handles_labels()
        legend.legend(handles, labels, loc="center left", fontsize=10, frameon=False)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})  # neither the library's version nor a time
    return buffer.getvalue()


def _dress(axes: Axes, rows: Rows, title: str, unit: str) -> None:
    from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

    axes.set_title(title, fontsize=12, loc="left", fontweight="bold")
    axes.set_xlabel("step", fontsize=10)
    axes.set_ylabel(unit, fontsize=10)
    axes.tick_params(labelsize=10)
    axes.grid(visible=True, color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: _number_text(value)))
    # All panels share their steps, so that a person can look straight up and down.
    last = max([1, *rows])
    axes.set_xlim(-0.02 * last, 1.02 * last)


def _draw_panel(axes: Axes, rows: Rows, panel: _Panel, labels: Mapping[str, str]) -> None:
    if not labels:
        _say(axes, "no values yet")
        return
    if panel.is_log:
        _make_log(axes)
    for place, (column, label) in enumerate(labels.items()):
        points = _points(rows, column, is_positive=panel.is_log)
        _draw_curve(axes, points, label, _style(place), is_noisy=panel.is_noisy)
    if not panel.is_log:
        axes.set_ylim(bottom=0)
    if len(labels) > 1:
        _add_legend(axes)
    _tell_of_lost_values(axes, rows, labels)


def _draw_iou(axes: Axes, rows: Rows, columns: Sequence[str]) -> bool:
    """All validation masks as a thick line with its best step, a thin line for each source; whether any is there."""
    start = f"{R_IOU}/"
    sources = sorted(column for column in columns if column.startswith(start))
    if R_IOU not in columns and not sources:
        _say(axes, "no validation yet")
        return False
    steps, values = _points(rows, R_IOU)
    if np.isfinite(values).any():
        best = int(np.nanargmax(values))
        label = f"best: {values[best]:.4f}\nat step {int(steps[best]):,}"
        axes.plot(steps[best], values[best], "*", color=_COLOURS[1], markersize=16, label=label, zorder=5)
    _draw_curve(axes, (steps, values), "all", {"color": _TOTAL, "linewidth": 2.2, "zorder": 4}, is_noisy=False)
    for column, (label, dashes) in R_IOU_VARIANTS.items():
        if column in columns:
            style = {"color": _GREY, "linestyle": dashes, "zorder": 3}
            _draw_curve(axes, _points(rows, column), label, style, is_noisy=False)
    for place, column in enumerate(sources):
        _draw_curve(axes, _points(rows, column), column.removeprefix(start), _style(place), is_noisy=False)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.01), min(high, 1.01))
    _tell_of_lost_values(axes, rows, [R_IOU, *sources])
    return True


def _style(place: int) -> dict[str, str]:
    """Colour and dashes of the curve at a place of its panel."""
    dashes = _DASHES[place // len(_COLOURS) % len(_DASHES)]
    return {"color": _COLOURS[place % len(_COLOURS)], "linestyle": dashes}


def _draw_curve(
    axes: Axes,
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    label: str,
    style: Mapping[str, object],
    *,
    is_noisy: bool,
) -> None:
    steps, values = points
    window = round(len(values) * _SMOOTHED_SHARE)
    marker = "o" if len(values) <= _MARKED_POINTS else ""
    name = label.replace("$", r"\$")  # no formulas
    whole = {"linewidth": 1.6, "marker": marker, "markersize": 3.5, **style}
    if is_noisy and window >= 3:
        axes.plot(steps, values, **{**whole, "linewidth": 0.6, "marker": "", "alpha": 0.35})
        values = _smoothed(values, window)
    axes.plot(steps, values, label=name, **whole)  # pyright: ignore[reportArgumentType]


def _points(rows: Rows, column: str, *, is_positive: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values of a column where it has one; what cannot be drawn is NaN, which breaks the line."""
    found = [(step, row[column]) for step, row in rows.items() if column in row]
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    can_be_drawn = np.isfinite(values) & (values > 0 if is_positive else True)
    return steps, np.where(can_be_drawn, values, np.nan)


def _smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Means over ``window`` points around each, over fewer at the ends; NaN stays NaN and counts nowhere."""
    counts = np.isfinite(values)
    ones = np.ones(window)
    sums = np.convolve(np.where(counts, values, 0.0), ones, "same")
    numbers = np.convolve(counts.astype(np.float64), ones, "same")
    return np.where(counts, sums / np.maximum(numbers, 1), np.nan)


def _make_log(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")  # which sets locators and formatters of its own
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: _number_text(value)))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())


def _number_text(value: float) -> str:
    """A tick's label: 0.05, 20,000, 1e-5."""
    mantissa, _, exponent = f"{value:,.5g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _add_legend(axes: Axes) -> None:
    """In the title's line, where it covers no curve."""
    axes.legend(
        fontsize=9,
        loc="lower right",
        bbox_to_anchor=(1.02, 0.99),
        ncols=8,
        frameon=False,
        columnspacing=1.0,
        handlelength=1.2,
        handletextpad=0.4,
    )


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY, fontsize=11)


def _tell_of_lost_values(axes: Axes, rows: Rows, columns: Sequence[str] | Mapping[str, str]) -> None:
    """A loss that is no number breaks its line; a gap alone would be overlooked."""
    values = np.array([row[column] for row in rows.values() for column in columns if column in row], np.float64)
    if lost := int((~np.isfinite(values)).sum()):
        text = f"not a finite number: {lost:,} of {len(values):,} values"
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        axes.text(0.99, 0.02, text, transform=axes.transAxes, ha="right", color="#B00000", fontsize=10, bbox=ground)

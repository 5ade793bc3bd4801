"""Plots: how they look, and their becoming SVG, the same bytes for the same numbers.

Text and axes are drawn in an ink that becomes ``currentColor`` in SVG, so that they follow the page into dark mode. The
other colors have a contrast of 3:1 and more on white and on nearly black, and can be told apart by the color-blind
(Okabe and Ito); where curves meet, their dashes differ too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import escape
from numpy.typing import ArrayLike

from btkeras.reporting.document import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
# CSS pixels; three such plots are as wide as the page.
SIZE = (400, 330)
BLUE, RED, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
COLORS = (BLUE, RED, GREEN, PINK)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))
# A line to compare with, and that comparison for a rate.
GREY = {"color": INK, "alpha": 0.3, "linewidth": 0.8}
DIAGONAL = ([0, 1], [0, 1], GREY)
# CSS pixels an inch, of which a point, an SVG's unit here, is 4/3.
_PIXELS = 96
_SHADE = 0.55
_STYLE: dict[Any, Any] = {
    **dict.fromkeys((f"{of}color" for of in ("grid.", "text.", "xtick.", "ytick.", "axes.edge", "axes.label")), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.6),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8),
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",
    # A class's name is no formula.
    "text.parse_math": False,
}  # fmt: skip
_STANDALONE = (
    "<style>svg{color:#1b1f24;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ed}}</style>"
)
# What is left out of an SVG: its document's parts, fonts, names that nothing refers to, line breaks.
_NOISE = (
    r"^.*?<svg[^>]*>|</svg>\s*$|<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->",
    r"(?<=<g) id=\"[^\"]*\"| font-family: [^;\"]*;?| transform=\"rotate\(-0 [^\"]*\"|(?<=>)\s+(?=<)",
)
_NUMBERS = r' (d|x|y|width|height|transform)="[^"]*"'
# Points of a line and Matplotlib's arguments for it, among them ``yerr`` for error bars.
Line = tuple[ArrayLike, ArrayLike, dict[str, Any]]


def nth_style(number: int) -> dict[str, Any]:
    """Color and dashes of the n-th of several curves that cross."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number + number // len(COLORS)) % len(DASHES)]}


def draw_lines(
    title: str,
    labels: tuple[str, str],
    lines: Sequence[Line],
    *,
    size: tuple[int, int] = SIZE,
    limits: tuple[Any, Any] = (None, None),
    whole: bool = False,
    **legend: Any,
) -> Figure:
    """Plots lines in their order, their legend below.

    Args:
        title: Above the plot.
        labels: Of the axes.
        lines: Points and style of each.
        size: In CSS pixels.
        limits: Of the axes; None for what the lines need.
        whole: Whether the first axis has whole numbers only, such as epochs.
        **legend: Matplotlib's arguments for the legend, where it is to be elsewhere.
    """
    from matplotlib.ticker import MaxNLocator

    figure, area = _axes(size, title)
    for x, y, style in lines:
        (area.errorbar if "yerr" in style else area.plot)(x, y, **style)
    area.set(xlabel=labels[0], ylabel=labels[1])
    area.set_xlim(limits[0])
    area.set_ylim(limits[1])
    if whole:
        area.xaxis.set_major_locator(MaxNLocator(integer=True))
    area.grid(visible=True)
    # Outside, so that it hides no data.
    figure.legend(**({"loc": "outside lower center", "ncols": 2} | legend))
    return figure


def draw_estimates(
    title: str, label: str, rows: Mapping[str, tuple[float, Sequence[float]]], marks: Mapping[str, float], mark: str
) -> Figure:
    """Plots values with their intervals, a row each from the top.

    Args:
        title: Above the plot.
        label: Of the axis.
        rows: Value and interval ``[low, high]`` by the row's name.
        marks: Another value to compare with, of some rows.
        mark: What that is, for the legend.
    """
    figure, area = _axes((SIZE[0], 130 + 22 * len(rows)), title)
    for y, (value, (low, high)) in enumerate(rows.values()):
        area.plot([low, high], [y, y], color=BLUE, linewidth=1.6)
        area.plot(value, y, "o", color=BLUE, markersize=5, label="here, with interval" if y == 0 else None)
    places = [list(rows).index(name) for name in marks]
    if marks:
        area.plot(list(marks.values()), places, "D", color=RED, markersize=5, fillstyle="none", label=mark)
    area.set_yticks(range(len(rows)), list(rows))
    area.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
    area.grid(visible=True, axis="x")
    area.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_matrix(title: str, matrix: Sequence[Sequence[int]], labels: Sequence[str], *, size: tuple[int, int]) -> Figure:
    """Plots a confusion matrix, ``[classes, classes]``: rows are true classes, columns predicted ones."""
    from matplotlib.patches import Rectangle

    figure, area = _axes(size, title)
    counts, middles = np.array(matrix), np.arange(len(labels)) + 0.5
    for i, j in np.ndindex(*counts.shape):
        share = counts[i, j] / max(counts[i].sum(), 1)
        # The root makes an error of one in a hundred visible.
        shade, color, weight = (share, BLUE, "bold") if i == j else (np.cbrt(share), RED, "normal")
        if shade:
            area.add_patch(Rectangle((j, i), 1, 1, facecolor=color, alpha=_SHADE * float(shade), linewidth=0))
        area.text(j + 0.5, i + 0.5, f"{counts[i, j]:,}", ha="center", va="center", fontweight=weight)
    area.set(xlim=(0, len(labels)), ylim=(len(labels), 0), xlabel="predicted class", ylabel="true class")
    area.set_xticks(middles, labels)
    area.set_yticks(middles, labels)
    area.tick_params(length=0)
    area.spines[:].set_visible(False)
    return figure


def _axes(size: tuple[int, int], title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((size[0] / _PIXELS, size[1] / _PIXELS), layout="constrained")
    area = figure.add_subplot()
    area.set_title(title)
    return figure, area


def to_svg(panel: Panel, *, standalone: bool = False) -> str:
    """Draws a panel as an ``svg`` element: part of a page, or a file with its own colors for light and dark."""
    data, (width, height) = _save(panel)
    drawing = re.sub("|".join(_NOISE), "", data.decode(), flags=re.DOTALL)
    # No number is finer than a hundredth of a point.
    drawing = re.sub(_NUMBERS, lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), drawing)
    drawing = drawing.replace(INK, "currentColor").strip()
    size = f'viewBox="0 0 {width * 0.75:g} {height * 0.75:g}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" {size} '
        f'role="img" aria-label="{escape(panel.alt)}">{_STANDALONE if standalone else ""}{drawing}</svg>\n'
    )


def _save(panel: Panel) -> tuple[bytes, list[int]]:
    """A drawing's file, without the metadata that change, and its size in CSS pixels."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    # The user's own matplotlibrc must not change a report. The salt makes names of an SVG's parts unique in a page.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": panel.name})
        figure = panel.draw()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return buffer.getvalue(), [round(side * _PIXELS) for side in figure.get_size_inches()]

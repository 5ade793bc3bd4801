"""Plots: how they look, and their becoming SVG or PDF, the same bytes for the same numbers.

Text and axes are drawn in an ink that becomes ``currentColor`` in SVG, so that they follow the page into dark mode. The
other colors have a contrast of 3:1 and more on white and on nearly black, and can be told apart by the color-blind
(Okabe and Ito); where curves meet, their dashes differ too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import escape
from numpy.typing import ArrayLike

from btkeras.reporting.document import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
BLUE, RED, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
COLORS = (BLUE, RED, GREEN, PINK)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))

# CSS pixels are 1/96 inch, points 1/72.
_PIXELS, _POINTS = 96, 72
_SHADE = 0.55
_STYLE: dict[Any, Any] = {
    **dict.fromkeys((f"{part}.color" for part in ("grid", "text", "xtick", "ytick")), INK),
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth"), 0.6),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8),
    "axes.titlesize": 9,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    # A class's name is no formula.
    "text.parse_math": False,
}  # fmt: skip
_STANDALONE = (
    "<style>svg{color:#1b1f24;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ed}}</style>"
)


@dataclass(frozen=True)
class Line:
    """A line of a plot: its points, and Matplotlib's arguments for it, among them ``yerr`` for error bars."""

    x: ArrayLike
    y: ArrayLike
    style: dict[str, Any] = field(default_factory=dict)

    def draw(self, area: Axes) -> None:
        """Draws it."""
        plot = area.errorbar if "yerr" in self.style else area.plot
        plot(self.x, self.y, **self.style)


def thin(x: ArrayLike, y: ArrayLike) -> Line:
    """A grey line to compare with."""
    return Line(x, y, {"color": INK, "alpha": 0.3, "linewidth": 0.8})


def nth_style(number: int) -> dict[str, Any]:
    """Color and dashes of the n-th of several curves that cross."""
    return {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[(number + number // len(COLORS)) % len(DASHES)]}


@dataclass(frozen=True)
class LinePlot:
    """A plot of lines: its title, the labels of its axes, and its lines in the order of drawing.

    The size is in CSS pixels; a limit that is None is what the lines need; ``legend`` holds Matplotlib's arguments.
    """

    title: str
    labels: tuple[str, str]
    lines: Sequence[Line]
    size: tuple[int, int] = (340, 310)
    limits: tuple[Any, Any] = (None, None)
    legend: dict[str, Any] = field(default_factory=lambda: {"loc": "best"})

    def draw(self) -> Figure:
        """Draws it."""
        figure, area = _axes(self.size, self.title)
        for line in self.lines:
            line.draw(area)
        area.set(xlabel=self.labels[0], ylabel=self.labels[1])
        area.set_xlim(self.limits[0])
        area.set_ylim(self.limits[1])
        area.grid(visible=True)
        area.legend(**self.legend)
        return figure


@dataclass(frozen=True)
class MatrixPlot:
    """A confusion matrix, ``[classes, classes]``: rows are true classes, columns predicted ones; size in CSS pixels."""

    title: str
    matrix: Sequence[Sequence[int]]
    labels: Sequence[str]
    size: tuple[int, int]

    def draw(self) -> Figure:
        """Draws it."""
        figure, area = _axes(self.size, self.title)
        counts = np.array(self.matrix)
        for i, j in np.ndindex(*counts.shape):
            _draw_cell(area, i, j, int(counts[i, j]), counts[i, j] / max(counts[i].sum(), 1))
        middles = np.arange(len(self.labels)) + 0.5
        area.set(xlim=(0, len(self.labels)), ylim=(len(self.labels), 0), xlabel="predicted class", ylabel="true class")
        area.set_xticks(middles, self.labels)
        area.set_yticks(middles, self.labels)
        area.tick_params(length=0)
        area.spines[:].set_visible(False)
        return figure


def _draw_cell(area: Axes, i: int, j: int, images: int, share: float) -> None:
    from matplotlib.patches import Rectangle

    # The root makes an error of one in a hundred visible.
    shade, color, weight = (share, BLUE, "bold") if i == j else (np.cbrt(share), RED, "normal")
    if images:
        area.add_patch(Rectangle((j, i), 1, 1, facecolor=color, alpha=_SHADE * float(shade), linewidth=0))
    area.text(j + 0.5, i + 0.5, f"{images:,}", ha="center", va="center", fontweight=weight)


def _axes(size: tuple[int, int], title: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((size[0] / _PIXELS, size[1] / _PIXELS), layout="constrained")
    area = figure.add_subplot()
    area.set_title(title)
    return figure, area


def to_svg(panel: Panel, *, standalone: bool = False) -> str:
    """Draws a panel as an ``svg`` element.

    Args:
        panel: What to draw.
        standalone: Whether it becomes a file, which brings its own colors for light and dark, or part of a page.
    """
    with _style(panel.name):
        figure, buffer = panel.draw(), io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        width, height = (round(side * _PIXELS) for side in figure.get_size_inches())
    scale = _POINTS / _PIXELS
    size = f'viewBox="0 0 {width * scale:g} {height * scale:g}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" {size} '
        f'role="img" aria-label="{escape(panel.alt)}">{_STANDALONE if standalone else ""}'
        f"{_tidied(buffer.getvalue(), panel.name)}</svg>\n"
    )


def to_pdf(panel: Panel) -> bytes:
    """Draws a panel as a PDF of one page."""
    with _style(panel.name):
        figure, buffer = panel.draw(), io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return buffer.getvalue()


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib as mpl

    # The user's own matplotlibrc must not change a report.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        yield


# What is left out of an SVG: its document's parts, fonts, and numbers finer than a hundredth of a point.
_NOISE = (
    (r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*|<!--.*?-->\s*", ""),
    (r" font-family: [^;\"]*;?", ""),
    (r' transform="rotate\(-0 [^"]*"', ""),
)


def _tidied(svg: str, name: str) -> str:
    """The drawing without its document's head, with names that are unique in a page and the page's font and ink."""
    svg = re.sub(r"^.*?<svg[^>]*>|</svg>\s*$", "", svg, flags=re.DOTALL)
    for pattern, replacement in _NOISE:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    names = {first or second for first, second in re.findall(r'url\(#([^)"]+)\)|xlink:href="#([^"]+)"', svg)}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in names else "", svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    numbers = r' (d|x|y|width|height|transform)="[^"]*"'
    svg = re.sub(numbers, lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), svg)
    return re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><").replace(INK, "currentColor").strip()

"""How plots look, and their becoming SVG or PDF: the same bytes for the same numbers.

Text and axes are drawn in an ink that becomes ``currentColor`` in SVG, so that they follow the page into dark mode. The
other colours have a contrast of 3:1 and more on white and on nearly black, and can be told apart by the colour-blind
(Okabe and Ito); where curves meet, their dashes differ too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from btkeras.reporting.document import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
BLUE, RED, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
COLOURS = (BLUE, RED, GREEN, PINK)
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1.5, 1, 1.5)))

# CSS pixels are 1/96 inch, points 1/72.
_PIXELS, _POINTS = 96, 72
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "grid.alpha": 0.15,
    "grid.color": INK,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "pdf.fonttype": 42,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    # A class's name is no formula.
    "text.parse_math": False,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}


def axes(width: int, height: int, title: str = "") -> tuple[Figure, Axes]:
    """An empty plot, to be called while a panel is being drawn.

    Args:
        width: CSS pixels.
        height: CSS pixels.
        title: Above it.
    """
    from matplotlib.figure import Figure

    figure = Figure((width / _PIXELS, height / _PIXELS), layout="constrained")
    area = figure.add_subplot()
    area.set_title(title)
    return figure, area


def to_svg(panel: Panel, *, standalone: bool = False) -> str:
    """Draws a panel as an ``svg`` element.

    Args:
        panel: What to draw.
        standalone: Whether it becomes a file, which brings its own colours for light and dark, or part of a page.
    """
    with _style(panel.name):
        figure, buffer = panel.draw(), io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        width, height = (round(side * _PIXELS) for side in figure.get_size_inches())
    scale = _POINTS / _PIXELS
    content = _tidied(buffer.getvalue(), panel.name)
    size = f'viewBox="0 0 {width * scale:g} {height * scale:g}" width="{width}" height="{height}"'
    style = _STANDALONE if standalone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="plot" {size} '
        f'role="img" aria-label="{_attribute(panel.alt)}">{style}{content}</svg>\n'
    )


def to_pdf(panel: Panel) -> bytes:
    """Draws a panel as a PDF of one page."""
    with _style(panel.name):
        figure, buffer = panel.draw(), io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return buffer.getvalue()


_STANDALONE = (
    "<style>svg{color:#1b1f24;font-family:system-ui,sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ed}}</style>"
)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib as mpl

    # The user's own matplotlibrc must not change a report.
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        yield


def _tidied(svg: str, name: str) -> str:
    """The drawing without its document's head, with names that are unique in a page and the page's font and ink."""
    svg = svg[svg.index("<svg") :]
    svg = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'url\(#([^)"]+)\)|xlink:href="#([^"]+)"', svg))
    names = {first or second for first, second in used}
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in names else "", svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' (d|x|y|width|height|transform)="[^"]*"', lambda found: _hundredths(found[0]), svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    return svg.replace(INK, "currentColor").strip()


def _hundredths(text: str) -> str:
    """Numbers without what is finer than a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", text)


def _attribute(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text

"""A report as one HTML file that needs nothing else: no script, no request, readable in light and dark and on paper."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from btkeras import __version__
from btkeras.reporting.document import Panel, Rendered, Report, header_groups
from btkeras.reporting.drawing import to_svg
from btkeras.reporting.template import fill


def render(report: Report, folder: str) -> Rendered:
    """Fills the template.

    Args:
        report: What to say.
        folder: Not used: the plots and images are in the file.
    """
    values = {"report": report, "version": __version__}
    # Whatever a file name or a label holds, it is text.
    return Rendered(fill("report.html.jinja", values, _FILTERS, autoescape=True))


def _breakable(text: str) -> Markup:
    """A name that may be broken after its underscores and slashes, and is copied without a trace of that."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(text))))


def _flowing(text: str) -> str:
    """Sentences whose numbers keep their percent sign on the line."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def _svg(panel: Panel) -> Markup:
    # Matplotlib escapes what it draws.
    return Markup(to_svg(panel))


def _jpeg(data: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


_FILTERS: dict[str, Callable[..., Any]] = {
    "svg": _svg,
    "jpeg": _jpeg,
    "groups": header_groups,
    "breakable": _breakable,
    "flowing": _flowing,
    "kind": lambda block: type(block).__name__,
}

"""What the web page tells of the model: its facts, and its card as a page."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from btkeras.decisions.calibration import COVERAGE
from btkeras.decisions.ood import OOD_PERCENTILE
from btkeras.inference.backends.base import InferenceBackend, ModelOutputs
from btkeras.inference.model_folder import EXTRA
from btkeras.server.problems import HTTPError
from btkeras.server.settings import ServerSettings

_CARD = "model_card.md"
_TABLE = '<div class="wide" role="group" aria-label="Table" tabindex="0">'
_T = TypeVar("_T")


class PageEngine(Protocol):
    """What the page needs of ``engine.Engine``."""

    settings: ServerSettings

    def network(self) -> InferenceBackend:
        """The version that answers now; raises Problem if there is none."""

    async def observe(self, pixels: NDArray[np.uint8]) -> ModelOutputs:
        """The network's outputs, through the server's queue and batches."""

    async def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """A function's result, from one of the server's threads."""


def network_of(engine: PageEngine) -> InferenceBackend:
    """The version that answers now.

    Raises:
        Problem: 503 if there is none: to a browser that is no wrong address, for a version is on its way.
    """
    try:
        return engine.network()
    except HTTPError as error:
        raise HTTPError(503, "No model is ready yet. Try again later.", {"Retry-After": "3"}) from error


def model_facts(network: InferenceBackend, settings: ServerSettings) -> dict[str, Any]:
    """What is known of a model before it sees a slice, and how large a file may be, bytes."""
    return {
        "model": settings.name,
        "version": network.version,
        "classes": network.classes,
        "coverage": COVERAGE if network.calibration else None,
        "ood_limit": 100 * OOD_PERCENTILE if network.reference else None,
        "explained": network.explain is not None,
        "card": _card_file(network) is not None,
        "most_bytes": settings.limits.body_bytes,
    }


def card_html(network: InferenceBackend) -> str:
    """A model's card as a piece of HTML; markup in the card itself is shown as text.

    Raises:
        Problem: 404 if it has none.
    """
    file = _card_file(network)
    if file is None:
        raise HTTPError(404, "This model has no card. Write one with: btkeras card RUN.")
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = markdown.parse(file.read_text(encoding="utf-8"))
    for token, inside in itertools.pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(inside.content))
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    # On a phone a wide table moves on its own, by keyboard too.
    return html.replace("<table>", _TABLE + "<table>").replace("</table>", "</table></div>")


def _anchor(heading: str) -> str:
    """What a link in the card calls a heading, as GitHub does."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _card_file(network: InferenceBackend) -> Path | None:
    places = (network.source / EXTRA / _CARD, network.source / _CARD)
    return next((file for file in places if file.is_file()), None)

"""A report's numbers as JSON: what every table and figure shows, unrounded."""

from __future__ import annotations

import json
import math
from typing import Any

from btkeras.reporting.document import Block, Cell, Figure, Gallery, Rendered, Report, Table


def render(report: Report, folder: str) -> Rendered:
    """Writes the document as JSON, without drawing anything.

    Args:
        report: What to say.
        folder: Not used: there are no further files.
    """
    document = {
        "title": report.title,
        "sections": [
            {"name": section.name, "title": section.title, "blocks": [_block(block) for block in section.blocks]}
            for section in report.sections
        ],
    }
    return Rendered(json.dumps(_finite(document), indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Table):
        columns = [column.full_title for column in block.columns]
        return _named(block, "table", columns=columns, rows=[[_value(cell) for cell in row] for row in block.rows])
    if isinstance(block, Figure):
        panels = [{"name": panel.name, "alt": panel.alt, "data": panel.data} for panel in block.panels]
        return _named(block, "figure", panels=panels)
    if isinstance(block, Gallery):
        images = [image.data for image in block.images]
        return _named(block, "images", images=images)
    return {"kind": "text", "role": block.role, "lines": list(block.lines)}


def _named(block: Table | Figure | Gallery, kind: str, **content: Any) -> dict[str, Any]:
    return {"kind": kind, "name": block.name, "caption": block.caption, **content, "notes": list(block.notes)}


def _value(cell: Cell) -> Any:
    if cell.value is not None:
        return cell.value
    return None if cell.text in ("", "—") else cell.text


def _finite(value: Any) -> Any:
    """The same without NaN and infinity, which JSON has not: None in their place."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

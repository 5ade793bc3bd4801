"""A report as Markdown with its plots and images in files beside it, for a repository or a lab book."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from btkeras.reporting.document import Block, Figure, Gallery, Rendered, Report, Table
from btkeras.reporting.drawing import to_svg

# What Markdown takes for markup within a line; no line begins with a text that comes from a file.
_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")


def render(report: Report, folder: str) -> Rendered:
    """Writes GitHub's kind of Markdown.

    Args:
        report: What to say.
        folder: Of the plots and images, as the text refers to it.
    """
    lines = [f"# {escape(report.title)}", ""]
    for section in report.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block, quote(folder)), ""]
    return Rendered("\n".join(lines).rstrip() + "\n", tuple(_files(report)))


def render_block(block: Block, folder: str = "") -> str:
    """One block of a report, without a line's end after it; arguments as for ``render``."""
    return "\n".join(_block(block, quote(folder)))


def escape(text: str) -> str:
    """Text as text, on one line."""
    text = " ".join(text.split())
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return _SPECIAL.sub(r"\\\1", text)


def _block(block: Block, folder: str) -> list[str]:
    if isinstance(block, Table):
        return list(_table(block))
    if isinstance(block, Figure):
        images = [f"![{escape(panel.alt)}]({folder}/{panel.name}.svg)" for panel in block.panels]
        return [*_caption(block), *images]
    if isinstance(block, Gallery):
        return list(_images(block, folder))
    if block.role == "list":
        return [f"- {escape(line)}" for line in block.lines]
    marks = {"headline": "**{}**", "warning": "> **Warning:** {}", "plain": "{}"}
    return _apart(marks[block.role].format(escape(line)) for line in block.lines)


def _table(table: Table) -> Iterator[str]:
    yield from (f"**{escape(table.caption)}**", "")
    yield _row(column.full_title for column in table.columns)
    yield "|" + "|".join(" ---: " if column.numeric else " --- " for column in table.columns) + "|"
    for row in table.rows:
        yield _row(cell.text for cell in row)
    for note in table.notes:
        yield from ("", escape(note))


def _row(texts: Iterable[str]) -> str:
    return "|" + "|".join(f" {escape(text)} " for text in texts) + "|"


def _images(block: Gallery, folder: str) -> Iterator[str]:
    yield from _caption(block)
    for item in block.images:
        image = f"![{escape(item.alt)}]({folder}/{item.name}.jpg) " if item.jpeg else ""
        yield f"- {image}{escape('; '.join(item.lines))}"


def _caption(block: Figure | Gallery) -> list[str]:
    return [f"**{escape(block.caption)}**", "", *(line for note in block.notes for line in (escape(note), ""))]


def _apart(paragraphs: Iterable[str]) -> list[str]:
    lines = [line for paragraph in paragraphs for line in (paragraph, "")]
    return lines[:-1]


def _files(report: Report) -> Iterator[tuple[str, bytes]]:
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield from ((f"{panel.name}.svg", to_svg(panel, standalone=True).encode()) for panel in block.panels)
            elif isinstance(block, Gallery):
                yield from ((f"{item.name}.jpg", item.jpeg) for item in block.images if item.jpeg)

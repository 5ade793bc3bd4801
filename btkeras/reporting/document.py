"""What a report says, apart from how it looks: sections of texts, tables, figures and images.

Numbers stand twice in it, as they are shown and as they are, so that every format says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: As shown.
        value: What it shows, JSON-ready; None where there is no more to it than the text.
    """

    text: str
    value: Any = None


@dataclass(frozen=True)
class Column:
    """A table's column.

    Attributes:
        title: Its header.
        group: Header above this and the neighbouring columns of the same group.
        numeric: Whether it holds numbers, which are aligned at the right.
    """

    title: str
    group: str = ""
    numeric: bool = True

    @property
    def full_title(self) -> str:
        """Group and title in one line."""
        return f"{self.group}, {self.title}" if self.group else self.title


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        caption: What it shows.
        columns: Headers.
        rows: A cell per column in each.
        notes: What must be known to read it.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A plot of a figure.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        alt: What it shows, for those who do not see it.
        draw: Makes the drawing, anew at each call.
        data: The numbers it shows, JSON-ready.
    """

    name: str
    alt: str
    draw: Callable[[], Drawing]
    data: Any


@dataclass(frozen=True)
class Figure:
    """Plots that belong together, of equal size.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        caption: What they show.
        panels: The plots.
        notes: What must be known to read them.
    """

    name: str
    caption: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GalleryImage:
    """An image of the dataset.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        jpeg: Its file; None where it cannot be shown.
        alt: What it shows, for those who do not see it.
        lines: What is said of it.
        data: The same, JSON-ready.
    """

    name: str
    jpeg: bytes | None
    alt: str
    lines: tuple[str, ...]
    data: Any


@dataclass(frozen=True)
class Gallery:
    """Images of the dataset.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        caption: What they show.
        images: In the order of their being shown.
        notes: What must be known to judge them.
    """

    name: str
    caption: str
    images: tuple[GalleryImage, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """Sentences.

    Attributes:
        lines: Paragraphs, or the points of a list.
        role: ``headline`` and ``warning`` stand out.
    """

    lines: tuple[str, ...]
    role: Literal["plain", "headline", "warning", "list"] = "plain"


Block = Text | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        name: Short and unique, of letters, digits and hyphens.
        title: Its heading.
        blocks: What it says.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report.

    Attributes:
        title: Its heading.
        sections: Its parts.
    """

    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Rendered:
    """A report in a format.

    Attributes:
        text: The file.
        files: Further files that it refers to, by their name in the folder that it was told.
    """

    text: str
    files: tuple[tuple[str, bytes], ...] = ()


def header_groups(columns: Sequence[Column]) -> list[tuple[str, list[Column]]]:
    """The upper row of a table's header: each group with its neighbouring columns; a column without one alone."""
    found: list[tuple[str, list[Column]]] = []
    for column in columns:
        if column.group and found and found[-1][0] == column.group:
            found[-1][1].append(column)
        else:
            found.append((column.group, [column]))
    return found

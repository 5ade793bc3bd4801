"""What a report says, apart from how it looks: sections of texts, tables, figures and galleries.

A table holds raw values; a column's format makes the text. So every output format shows the same numbers, and JSON has
them unrounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

UNKNOWN = "—"
DASH = "\N{EN DASH}"
Format = Callable[[Any], str]


def text(value: Any) -> str:
    """A value as it is; several separated by semicolons."""
    return "; ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def count(value: int | Sequence[int]) -> str:
    """A whole number, or a range of them: ``1,426`` or ``141-142``."""
    return DASH.join(f"{end:,}" for end in (value if isinstance(value, list | tuple) else [value]))


def percent(value: Any, digits: int = 2) -> str:
    """Fractions in percent, without the sign.

    Args:
        value: A fraction, an interval ``[low, high]`` (shown to a tenth), or a mapping: ``mean`` and ``std``, ``value``
            and ``interval``, or ``value`` and ``class``; None if it is not known.
        digits: Decimals.
    """
    match value:
        case None:
            return UNKNOWN
        case [low, high]:
            return f"{percent(low, 1)}{DASH}{percent(high, 1)}"
        case {"mean": mean, "std": std}:
            return percent(mean, digits) + (f" ± {percent(std, digits)}" if std is not None else "")
        case {"value": number, "interval": interval}:
            return percent(number, digits) + (f" ({percent(interval)})" if interval is not None else "")
        case {"value": number, "class": label}:
            return f"{percent(number, digits)} ({label})"
    return f"{100 * value:.{digits}f}"


def points(value: Any) -> str:
    """A difference of fractions, or an interval of it, in signed percentage points."""
    return " to ".join(f"{100 * end:+.2f}" for end in (value if isinstance(value, list | tuple) else [value]))


def p_value(value: float) -> str:
    """``0.032``, and ``< 0.001`` below that."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def check(value: bool) -> str:
    """A check mark or nothing."""
    return "✓" if value else ""


def tenths(value: float) -> str:
    """A fraction in percent with one decimal."""
    return percent(value, 1)


def decimals(digits: int, unit: float = 1) -> Format:
    """Makes a format of numbers with so many decimals, in a unit such as millions."""
    return lambda value: f"{value / unit:,.{digits}f}"


@dataclass(frozen=True)
class Column:
    """A table's column."""

    title: str
    format: Format = text
    # Leads through a row's mappings and attributes, such as ``spreads.f1``, or is a function of the row; or the title.
    key: str | Callable[[Any], Any] = ""
    group: str = ""  # the header above the title

    @classmethod
    def several(cls, titles: Iterable[str], formatter: Format = text, group: str = "") -> tuple[Column, ...]:
        """Columns of the same format and group; ``titles`` may be a mapping to the columns' keys."""
        keys = titles if isinstance(titles, Mapping) else {}
        return tuple(cls(title, formatter, keys.get(title, ""), group) for title in titles)

    @property
    def numeric(self) -> bool:
        """Whether its cells are aligned at the right."""
        return self.format is not text

    @property
    def full_title(self) -> str:
        return f"{self.group}, {self.title}" if self.group else self.title

    def value(self, row: Any) -> Any:
        """What its key leads to; None below what is None."""
        if callable(self.key):
            return self.key(row)
        for name in (self.key or self.title).split("."):
            if row is not None:
                row = row[name] if isinstance(row, Mapping) else getattr(row, name)
        return row

    def cell(self, value: Any) -> str:
        return UNKNOWN if value is None else self.format(value)


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows."""

    name: str  # unique, of letters, digits and hyphens
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]  # a JSON-ready value per column, None if not known
    notes: tuple[str, ...] = ()  # sentences below it

    @classmethod
    def from_rows(cls, name: str, caption: str, columns: Iterable[Column], rows: Iterable[Any], *notes: str) -> Table:
        """Builds a table from rows that are sequences, with a value per column, or else have the columns' keys."""
        columns = tuple(columns)
        values = (row if isinstance(row, list | tuple) else [column.value(row) for column in columns] for row in rows)
        return cls(name, caption, columns, tuple(map(tuple, values)), notes)

    @classmethod
    def from_facts(cls, name: str, caption: str, facts: Mapping[str, Any], *notes: str) -> Table:
        """Two columns; what is None or empty is left out."""
        rows = [item for item in facts.items() if item[1] not in (None, "", [])]
        return cls.from_rows(name, caption, Column.several(("fact", "value")), rows, *notes)

    @property
    def cells(self) -> list[list[str]]:
        return [[column.cell(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]

    @property
    def header_groups(self) -> list[tuple[str, list[Column]]]:
        """The upper row of its header: each group with its columns; a column without one alone."""
        grouped = groupby(self.columns, key=lambda column: column.group or column)
        return [("" if isinstance(group, Column) else group, list(columns)) for group, columns in grouped]


@dataclass(frozen=True)
class Panel:
    """A plot of a figure: a unique name, a text for those who do not see it, its drawing, its JSON-ready numbers."""

    name: str
    alt: str
    draw: Callable[[], Drawing]
    data: Any


@dataclass(frozen=True)
class Figure:
    """Plots that belong together; attributes as of ``Table``."""

    name: str
    caption: str
    panels: tuple[Panel, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GalleryImage:
    """An image of the dataset; ``data`` is what JSON has of it."""

    name: str
    jpeg: bytes | None  # None where it cannot be shown
    alt: str
    lines: tuple[str, ...]  # beside it
    data: Any = None


@dataclass(frozen=True)
class Gallery:
    """Images of the dataset; attributes as of ``Table``."""

    name: str
    caption: str
    images: tuple[GalleryImage, ...]
    notes: tuple[str, ...] = ()
    enlarged: bool = False  # whether a page shows them small at first, and at their own size when asked


@dataclass(frozen=True)
class Text:
    """Paragraphs, or the points of a list; ``summary`` and ``warning`` stand out."""

    lines: tuple[str, ...]
    role: Literal["plain", "summary", "warning", "list"] = "plain"


Block = Text | Table | Figure | Gallery


@dataclass(frozen=True)
class Report:
    """A whole report: the blocks of each section by its title; sections without any are not shown."""

    title: str
    sections: Mapping[str, Sequence[Block]]

    @property
    def blocks(self) -> list[Block]:
        return [block for blocks in self.sections.values() for block in blocks]


def slug(title: str) -> str:
    """A name of letters, digits and hyphens, for an anchor or a file."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "unnamed"

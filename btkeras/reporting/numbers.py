"""Numbers as cells: the text that is shown beside the value that it stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence

from btkeras.reporting.document import Cell

UNKNOWN = Cell("—")
DASH = "\N{EN DASH}"


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction in percent, without the sign."""
    return UNKNOWN.text if value is None else f"{100 * value:.{digits}f}"


def percent_cell(value: float | None, interval: Sequence[float] | None = None) -> Cell:
    """A fraction in percent, with its interval behind it."""
    if value is None:
        return UNKNOWN
    if interval is None:
        return Cell(percent(value), value)
    return Cell(f"{percent(value)} ({interval_text(interval)})", {"value": value, "interval": list(interval)})


def interval_text(interval: Sequence[float]) -> str:
    """An interval of fractions in percent: ``97.3-99.0``, to a tenth, for its ends are no surer than that."""
    return DASH.join(percent(end, 1) for end in interval)


def interval_cell(interval: Sequence[float] | None) -> Cell:
    """An interval of fractions in percent."""
    return UNKNOWN if interval is None else Cell(interval_text(interval), list(interval))


def spread_cell(mean: float, deviation: float | None) -> Cell:
    """Mean and standard deviation, fractions, in percent."""
    if deviation is None:
        return Cell(percent(mean), {"mean": mean, "std": None})
    return Cell(f"{percent(mean)} ± {percent(deviation)}", {"mean": mean, "std": deviation})


def count_cell(value: int | None) -> Cell:
    """A whole number with separators."""
    return UNKNOWN if value is None else Cell(f"{value:,}", value)


def range_cell(values: Sequence[int]) -> Cell:
    """A number that may differ between folds: ``141`` or ``141-142``."""
    low, high = min(values), max(values)
    return count_cell(low) if low == high else Cell(f"{low:,}{DASH}{high:,}", [low, high])


def scaled_cell(value: float | None, unit: float, digits: int) -> Cell:
    """A number in a larger unit, such as millions."""
    return UNKNOWN if value is None else Cell(f"{value / unit:,.{digits}f}", value)


def p_cell(value: float | None) -> Cell:
    """A p value: ``0.032``, and ``< 0.001`` below that."""
    if value is None:
        return UNKNOWN
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def slug(text: str) -> str:
    """A name of letters, digits and hyphens, for an anchor or a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"

"""Figures as lines of text in columns, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines of rows: the first column at the left, the others at the right, each as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([f"{row[0]:{widths[0]}}", *map("{:>{}}".format, row[1:], widths[1:])] for row in rows)
    return [f"{indent}{'   '.join(line)}".rstrip() for line in lines]


def percent(share: float | None, digits: int = 2) -> str:
    """A fraction in percent, ``98.25 %``; ``none`` where there are no images that it could be of."""
    return "none" if share is None else f"{100 * share:.{digits}f} %"


def ends(interval: Sequence[float] | None, unit: float = 100, digits: int = 1) -> str:
    """An interval, ``97.3 to 99.1``, of fractions in percent; nothing where there is none."""
    return " to ".join(f"{unit * end:.{digits}f}" for end in interval or ())

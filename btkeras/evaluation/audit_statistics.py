"""What the pictures of a class have in common besides what they show: size, mode, border, grey levels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btkeras.data.duplicates_scan import Facts
from btkeras.data.records import Record


@dataclass(frozen=True)
class ClassStatistics:
    """Of one class, over the pictures that could be read.

    Attributes:
        label: The class.
        count: Number of pictures.
        sizes: Number of different sizes.
        commonest_size: Width and height that most have.
        commonest_share: Share of the pictures that have it, 0..1.
        smallest: Shortest side of any, in pixels.
        largest: Longest side of any, in pixels.
        modes: Number of pictures by Pillow's mode, the commonest first.
        border: Median grey level of the outermost 2 %, 0..255.
        dark_border: Share of pictures whose border is darker than 8, 0..1.
        mean: Mean over the pictures of their mean grey level, 0..255.
        mean_spread: Standard deviation of that between pictures.
        contrast: Mean over the pictures of their grey levels' standard deviation.
    """

    label: str
    count: int
    sizes: int
    commonest_size: tuple[int, int]
    commonest_share: float
    smallest: int
    largest: int
    modes: dict[str, int]
    border: float
    dark_border: float
    mean: float
    mean_spread: float
    contrast: float


_DARK = 8


def class_statistics(records: Sequence[Record], facts: Sequence[Facts | str]) -> tuple[ClassStatistics, ...]:
    """Statistics of each class, by name; a class without a readable picture has none.

    Args:
        records: The pictures.
        facts: What is known of each, or why it could not be read.
    """
    members: dict[str, list[Facts]] = {}
    for record, fact in zip(records, facts, strict=True):
        if isinstance(fact, Facts):
            members.setdefault(record.label, []).append(fact)
    return tuple(_statistics(label, members[label]) for label in sorted(members))


def _statistics(label: str, facts: Sequence[Facts]) -> ClassStatistics:
    sizes = Counter((fact.width, fact.height) for fact in facts)
    size, count = sizes.most_common(1)[0]
    means, borders = np.array([fact.mean for fact in facts]), np.array([fact.border for fact in facts])
    return ClassStatistics(
        label=label,
        count=len(facts),
        sizes=len(sizes),
        commonest_size=size,
        commonest_share=count / len(facts),
        smallest=min(min(pair) for pair in sizes),
        largest=max(max(pair) for pair in sizes),
        modes=dict(Counter(fact.mode for fact in facts).most_common()),
        border=float(np.median(borders)),
        dark_border=float((borders < _DARK).mean()),
        mean=float(means.mean()),
        mean_spread=float(means.std()),
        contrast=float(np.mean([fact.deviation for fact in facts])),
    )

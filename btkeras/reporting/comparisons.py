"""Which differences between networks are more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btkeras.reporting.document import Block, Cell, Column, Table, Text
from btkeras.reporting.evidence import ReportData
from btkeras.reporting.numbers import UNKNOWN, count_cell, p_cell

# More sentences than these nobody reads; the table has all pairs.
_SENTENCES = 12


def comparison_blocks(evidence: ReportData) -> list[Block]:
    """The verdicts as sentences, and every pair's numbers."""
    pairs = evidence.comparisons
    if not pairs:
        alone = "There is one network in this report, so there is nothing to compare."
        apart = "No two networks of this report were tested on the same images."
        return [Text((alone if len(evidence.networks) == 1 else apart,))]
    return [Text(tuple(_sentences(evidence)), "list"), _table(evidence)]


def _sentences(evidence: ReportData) -> list[str]:
    decisions = [pair["conclusion"] for pair in evidence.comparisons]
    if len(decisions) <= _SENTENCES:
        return [f"{decision}." for decision in decisions]
    best = evidence.best.name
    chosen = [pair["conclusion"] for pair in evidence.comparisons if best in pair["models"]]
    return [
        *(f"{decision}." for decision in chosen),
        f"The other {len(decisions) - len(chosen)} pairs are in the table.",
    ]


def _table(evidence: ReportData) -> Table:
    bootstrap = evidence.sources[0].summary["bootstrap"]
    return Table(
        name="pairs",
        caption="Differences in accuracy between all pairs of networks",
        columns=(
            Column("network", numeric=False),
            Column("less network", numeric=False),
            Column("difference, points"),
            Column(f"{100 * bootstrap['level']:g} % interval"),
            Column("p", "bootstrap"),
            Column("adjusted", "bootstrap"),
            Column("only first right", "McNemar"),
            Column("only second right", "McNemar"),
            Column("p", "McNemar"),
            Column("adjusted", "McNemar"),
        ),
        rows=tuple(_row(pair) for pair in evidence.comparisons),
        notes=(
            "Points are percentage points of accuracy. The bootstrap draws whole groups and sees all networks on the "
            "same draws; it decides. McNemar's exact test takes every image as independent, and is for comparison "
            "with other reports; it needs one answer an image. p values are adjusted over all pairs by Holm's method.",
        ),
    )


def _row(pair: Mapping[str, Any]) -> tuple[Cell, ...]:
    first, second = pair["models"]
    low, high = pair["interval"]
    only = pair["discordant"] or (None, None)
    return (
        Cell(first, first),
        Cell(second, second),
        Cell(f"{100 * pair['difference']:+.2f}", pair["difference"]),
        Cell(f"{100 * low:+.2f} to {100 * high:+.2f}", list(pair["interval"])),
        p_cell(pair["bootstrap_p"]),
        p_cell(pair["bootstrap_p_adjusted"]),
        *(count_cell(count) if count is not None else UNKNOWN for count in only),
        p_cell(pair["mcnemar_p"]),
        p_cell(pair["mcnemar_p_adjusted"]),
    )

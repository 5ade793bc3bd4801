"""What is found of an engine, as JSON and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.inference.engines import Entrant
from benchmarks.rounds import Taken


@dataclass(frozen=True)
class Row:
    """An engine in a case; times in milliseconds a call.

    Attributes:
        engine: Its name.
        form: Of the network.
        ours: Whether btkeras gives it to its user.
        wall: What a caller waits, the median.
        p95: The same in the slowest of twenty calls.
        ratio: To the first engine's, the median of the rounds' quotients.
        processor: Time of all threads.
        processor_ratio: To the first engine's.
        images: A second.
        macs: Million multiply-accumulates an image.
        share: Of the rate at which a core multiplies matrices, by processor time; None where that was not measured.
    """

    engine: str
    form: str
    ours: bool
    wall: float
    p95: float
    ratio: float
    processor: float
    processor_ratio: float
    images: float
    macs: float
    share: float | None


def row(entrant: Entrant, batch: int, taken: Mapping[str, Taken], macs: float, rate: float | None) -> Row:
    """One engine's."""
    own = taken[entrant.name]
    ratio, processor_ratio = own.ratios(next(iter(taken.values())))
    return Row(
        engine=entrant.name,
        form=entrant.form,
        ours=entrant.ours,
        wall=round(1e3 * own.median, 2),
        p95=round(1e3 * own.p95, 2),
        ratio=round(ratio, 3),
        processor=round(1e3 * own.processor, 2),
        processor_ratio=round(processor_ratio, 3),
        images=round(batch / own.median, 2),
        macs=round(macs / 1e6, 1),
        share=round(macs * batch / own.processor / rate, 3) if rate else None,
    )


_HEADINGS = ("engine, form", "wall ms", "p95", "ratio", "images/s", "processor ms", "ratio", "of matrix rate")


def table(rows: Sequence[Row]) -> str:
    """A case in Markdown; what btkeras gives its user is in bold."""
    lines = [_HEADINGS, ("---",) * len(_HEADINGS), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    share = "" if row.share is None else f"{row.share:.0%}"
    times = (f"{row.wall:.1f}", f"{row.p95:.1f}", f"{row.ratio:.2f}", f"{row.images:.1f}")
    work = (f"{row.processor:.1f}", f"{row.processor_ratio:.2f}", share)
    return (f"**{row.engine}**" if row.ours else row.engine, *times, *work)

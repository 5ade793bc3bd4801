"""A ``Benchmark`` in words: a table, and what to use on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from btkeras.benchmark.benchmark import Benchmark, Loaded, Row

# Two that are this close are the same, as far as a shared machine can tell.
_SAME = 1.05
_ROWS = ("form", "batch", "ms", "p95", "images/s", "time", "CPU ms", "of the limit")
_LOADED = ("form", "first answer after", "peak memory", "differs by")


def format_benchmark(found: Benchmark) -> list[str]:
    """Lines of text."""
    lines = [_machine(found), "", *_table(_ROWS, [_row_cells(row) for row in found.rows])]
    lines += ["", *_table(_LOADED, [_loaded_cells(item) for item in found.loaded]), ""]
    lines += [f"{name} could not be measured: {reason}" for name, reason in found.failed.items()]
    return [*lines, conclusion(found)]


def conclusion(found: Benchmark) -> str:
    """What to use on this machine, in a sentence or two."""
    batches = sorted({row.batch for row in found.rows})
    uses = {item.form: item.use for item in found.loaded}
    best = [found.fastest(batch) for batch in batches]
    parts = [f"{row.form} for {_images(row.batch)} at a time ({_times(row)})" for row in best]
    names = dict.fromkeys(row.form for row in best)
    text = f"Fastest here: {'; '.join(parts)}. Use it with: {'; '.join(uses[name] for name in names)}"
    if not (Path(found.model) / "config.yaml").is_file():
        return text
    return (
        f"{text}\nA run has no files of other formats to compare: export it with --format savedmodel --format onnx "
        "--format litert and benchmark what that wrote."
    )


def _machine(found: Benchmark) -> str:
    machine = found.machine
    load = "" if machine["load"] is None else f", load {machine['load']}"
    instructions = " ".join(machine["instructions"])
    return (
        f"{machine['processor']} ({instructions}), {machine['threads']} of {machine['cores']} cores{load}; "
        f"{found.matrix_rate / 1e9:.0f} G multiply-accumulates a second and core in float32; "
        f"medians of {found.rounds} rounds"
    )


def _row_cells(row: Row) -> tuple[str, ...]:
    share = "" if row.share is None else f"{row.share:.0%}"
    times = (f"{row.milliseconds:.1f}", f"{row.p95:.1f}", f"{row.images:.1f}", f"{row.ratio:.2f}x")
    return (row.form, str(row.batch), *times, f"{row.processor:.1f}", share)


def _loaded_cells(item: Loaded) -> tuple[str, ...]:
    return (item.form, f"{item.seconds:.2f} s", f"{item.mebibytes:,.0f} MiB", f"{item.difference:.1e}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [_line(row, widths) for row in (head, *rows)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _times(row: Row) -> str:
    return f"{row.milliseconds:.1f} ms, {row.images:.0f} a second"

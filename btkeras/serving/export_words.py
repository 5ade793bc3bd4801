"""An export's manifest in words: what agrees with the checkpoint, and what quantisation costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = (
    f"{'format':<16}{'signature':<20}{'slices':>6}{'same label':>12}{'probability':>13}{'outlier score':>15}{'map':>10}"
)


def export_lines(manifest: Mapping[str, Any]) -> list[str]:
    """Lines of text.

    Args:
        manifest: With ``parity`` and ``quantization``, as ``export_extra.write_measured`` writes it.
    """
    parity = manifest["parity"]
    lines = [f"Largest differences from the checkpoint, {parity['inputs']}:", _HEAD]
    lines += [_agreement(row) for row in parity["rows"]]
    for cost in manifest["quantization"]:
        lines += ["", *_cost(cost)]
    return lines


def _agreement(row: Mapping[str, Any]) -> str:
    labels = "" if row.get("labels") is None else f"{row['labels']}/{row['images']}"
    differences = (_difference(row.get(name)) for name in ("probabilities", "outlier_score", "map"))
    cells = "".join(f"{text:>{width}}" for text, width in zip(differences, (13, 15, 10), strict=True))
    return f"{row['format']:<16}{row['signature']:<20}{row['images']:>6,}{labels:>12}{cells}".rstrip()


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _trust(cost: Mapping[str, Any]) -> str:
    """How prediction sets and outliers compare, each network's by what it carries."""
    parts = []
    if cost["sets_differ"] is not None:
        parts.append(f"another prediction set for {cost['sets_differ']}")
    if cost["outliers"]:
        before, after = cost["outliers"]
        parts.append(f"outliers {after}, float32 {before}, {cost['outliers_differ']} not the same")
    return "".join(f"; {part}" for part in parts)


def _cost(cost: Mapping[str, Any]) -> list[str]:
    (before, after), (low, high) = cost["accuracy"], cost["accuracy_interval"][1]
    sizes, times = ([*cost["bytes"]], [*cost["milliseconds"]])
    lines = [
        f"{cost['format']} in {cost['quantization']}, {cost['images']:,} slices of the {cost['split']} part:",
        f"  accuracy {100 * after:.2f} % (95 % interval {100 * low:.2f}..{100 * high:.2f}), "
        f"float32 {100 * before:.2f} %: {100 * (after - before):+.2f} points",
        f"  only float32 right {cost['only_float32']}, only {cost['quantization']} right {cost['only_quantised']} "
        f"(McNemar p {cost['p']:.2g}); difference of a probability {cost['difference']:.2g} at most, "
        f"{cost['mean_difference']:.1g} on average",
        f"  another answer to {cost['answers_differ']}{_trust(cost)}",
        f"  test part: accuracy {100 * cost['test']['accuracy']:.2f} % of {cost['test']['images']:,}",
    ]
    return [
        *lines,
        f"  {sizes[1] / 1e6:.1f} MB, float32 {sizes[0] / 1e6:.1f} MB; "
        f"{times[1]:.1f} ms a slice here, float32 {times[0]:.1f} ms",
    ]

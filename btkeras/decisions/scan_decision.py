"""From the decisions on slices to one on their scan or patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from btkeras.decisions.selective_classifier import REJECTED, UNCERTAIN, Floats
from btkeras.metrics.groups import NO_TUMOR, group_labels, group_probabilities
from btkeras.metrics.intervals import wilson


class ScanDecision(NamedTuple):
    """The decision on a scan."""

    label: str  # the most probable class, whatever the decision
    probabilities: Floats  # ``[classes]``
    decision: str  # a class name, ``uncertain`` or ``rejected``
    reasons: tuple[str, ...]  # why the decision is no class


def decide_scan(probabilities: Floats, decisions: Sequence[str], classes: Sequence[str]) -> ScanDecision:
    """Decides on a scan by its slices, of which the rejected do not count.

    The most probable class is that of ``metrics.groups.tumor_evidence``. It is the decision if at least half of the
    slices in question are decided as it: of ``no_tumor``, and where that is no class, these are all slices, of a tumour
    those that show one. Else
    the scan is uncertain, and rejected if no slice is left.

    Args:
        probabilities: ``[n, classes]`` of the slices, at least one.
        decisions: ``[n]``, each a class name, ``uncertain`` or ``rejected``.
        classes: Names, in the order of the columns.
    """
    counted = np.array([decision != REJECTED for decision in decisions], bool)
    rows = probabilities[counted] if counted.any() else probabilities
    (row,) = group_probabilities(rows, np.zeros(len(rows), np.intp), classes)
    label = classes[int(row.argmax())]
    if not counted.any():
        return ScanDecision(label, row, REJECTED, (f"none of its {len(rows):,} slices is a brain MRI slice",))
    tops = [classes[i] for i in rows.argmax(axis=1)]
    known = (decision for decision in decisions if decision != REJECTED)
    all_of_them = label == NO_TUMOR or NO_TUMOR not in classes
    asked = [decision for decision, top in zip(known, tops, strict=True) if all_of_them or top != NO_TUMOR]
    agreeing = sum(decision == label for decision in asked)
    if agreeing and 2 * agreeing >= len(asked):
        return ScanDecision(label, row, label, ())
    kind = "" if all_of_them else " that show a tumour"
    return ScanDecision(label, row, UNCERTAIN, (f"{agreeing:,} of {len(asked):,} slices{kind} are decided as {label}",))


def scan_decision_metrics(
    labels: Any, probabilities: Floats, decisions: Sequence[str], names: Sequence[str], classes: Sequence[str]
) -> Mapping[str, Any] | None:
    """Metrics of ``decide_scan`` over scans, JSON-ready.

    Args:
        labels: ``[n]`` class indices of the slices.
        probabilities: ``[n, classes]``.
        decisions: ``[n]``.
        names: ``[n]`` of scans; slices whose name is empty are left out, and scans whose slices show two tumours.
        classes: Names, in the order of the columns.

    Returns:
        ``coverage``, the share of scans with a class as the decision; their ``accuracy`` with Wilson's ``interval``;
        and ``withheld_accuracy``, of the most probable classes of the others. None in place of what has no scans; None
        if there are none at all.
    """
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name:
            members.setdefault(name, []).append(i)
    covered: list[bool] = []
    withheld: list[bool] = []
    for rows in members.values():
        (truth,) = group_labels(labels[rows], np.zeros(len(rows), np.intp), classes)
        found = decide_scan(probabilities[rows], [decisions[i] for i in rows], classes)
        if truth >= 0:
            (covered if found.decision == found.label else withheld).append(found.label == classes[truth])
    if not covered and not withheld:
        return None
    return {
        "coverage": len(covered) / (len(covered) + len(withheld)),
        "accuracy": float(np.mean(covered)) if covered else None,
        "interval": list(wilson(sum(covered), len(covered))) if covered else None,
        "withheld_accuracy": float(np.mean(withheld)) if withheld else None,
    }

"""One prediction for the slices of a scan or of a patient: three rules, in plain NumPy.

``GROUP_RULE`` decides. A whole head has many slices beside the tumour, which the mean of all probabilities, or a
majority, would outvote: with one tumour-free slice for each that shows the tumour, they find a quarter of the tumours
that they find without, and with three none, where ``tumor_evidence`` finds as many (docs/trust.md). Where all slices
show a tumour, as FigShare's do, the three agree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics.classification import FloatArray, IntArray
from btkeras.metrics.intervals import Resampling, recall_metrics, wilson

NO_TUMOR = "no_tumor"
# The share of a scan's slices that decides whether there is a tumour. The smallest tumours show on about as many.
EVIDENCE_SHARE = 0.1

GroupRule = Callable[[FloatArray, Sequence[str]], NDArray[np.float64]]


def tumor_evidence(probabilities: FloatArray, classes: Sequence[str]) -> NDArray[np.float64]:
    """Whether there is a tumour by the slices that show it best, and which one by all slices.

    The probability of ``no_tumor`` is the mean over the tenth of the slices, at least one, where it is lowest. The
    tumours share the rest as their probabilities' sums over all slices do, in which a slice without a tumour hardly
    counts. Without the class ``no_tumor`` this is the mean probability.

    Args:
        probabilities: ``[n, classes]`` of a group's slices, at least one.
        classes: Names, in the order of the columns.

    Returns:
        ``[classes]``, whose sum is 1.
    """
    tumors = np.asarray(probabilities, np.float64).copy()
    if NO_TUMOR not in classes:
        return tumors.mean(axis=0)
    free = list(classes).index(NO_TUMOR)
    decisive = max(1, int(np.ceil(EVIDENCE_SHARE * len(tumors) - 1e-9)))
    no_tumor = float(np.sort(tumors[:, free])[:decisive].mean())
    tumors[:, free] = 0
    sums = tumors.sum(axis=0)
    # Where no tumour is possible at all, there is nothing to share.
    shares = sums / sums.sum() if sums.any() else sums
    found = (1 - no_tumor) * shares
    found[free] = no_tumor if sums.any() else 1.0
    return found


def mean_probability(probabilities: FloatArray, classes: Sequence[str]) -> NDArray[np.float64]:
    """The mean of all slices; arguments and result as of ``tumor_evidence``."""
    return np.asarray(probabilities, np.float64).mean(axis=0)


def majority(probabilities: FloatArray, classes: Sequence[str]) -> NDArray[np.float64]:
    """Shares of the slices' most probable classes; the mean probability is one vote more, which breaks ties."""
    votes = np.bincount(probabilities.argmax(axis=1), minlength=len(classes))
    return (votes + mean_probability(probabilities, classes)) / (len(probabilities) + 1)


GROUP_RULE = "tumor_evidence"
GROUP_RULES: Mapping[str, GroupRule] = MappingProxyType(
    {"tumor_evidence": tumor_evidence, "mean_probability": mean_probability, "majority": majority}
)


def group_probabilities(
    probabilities: FloatArray, groups: IntArray, classes: Sequence[str], rule: str = GROUP_RULE
) -> NDArray[np.float64]:
    """Predicts groups of slices.

    Args:
        probabilities: ``[n, classes]`` of the slices.
        groups: ``[n]`` numbers of groups, 0 to the highest without a gap.
        classes: Names, in the order of the columns.
        rule: Of ``GROUP_RULES``.

    Returns:
        ``[groups, classes]``, whose rows' sums are 1.
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return np.array([GROUP_RULES[rule](probabilities[rows], classes) for rows in np.split(order, starts)])


def group_labels(labels: IntArray, groups: IntArray, classes: Sequence[str]) -> NDArray[np.int64]:
    """The class of each group ``[groups]``: the tumour that some of its slices show, or none; -1 of two tumours."""
    shown = np.zeros((int(groups.max()) + 1, len(classes)), bool)
    shown[groups, labels] = True
    if NO_TUMOR in classes:
        free = list(classes).index(NO_TUMOR)
        shown[:, free] &= shown.sum(axis=1) == 1
    return np.where(shown.sum(axis=1) == 1, shown.argmax(axis=1), -1)


def group_metrics(
    labels: IntArray,
    probabilities: FloatArray,
    groups: Sequence[Hashable],
    classes: Sequence[str],
    resampling: Resampling,
    repeats: Sequence[Hashable] | None = None,
) -> dict[str, Any] | None:
    """Metrics of the decisions on groups of slices by each of ``GROUP_RULES``.

    Args:
        labels: ``[n]`` class indices of the slices.
        probabilities: ``[n, classes]``.
        groups: ``[n]`` names of groups; slices whose name is empty are left out.
        classes: Names, in the order of the columns.
        resampling: Of the intervals, which draw whole groups.
        repeats: ``[n]`` which training predicted each slice, where several predicted the same slices. A group then has
            a decision of each, and counts once in the intervals.

    Returns:
        JSON-ready: ``groups`` and ``slices``, their numbers; ``two_tumors``, how many groups are left out because their
        slices show different tumours; ``rule``, the one that ``predict`` takes; and ``rules``: of each the
        ``metrics.intervals.recall_metrics``, whose ``intervals`` have ``accuracy_wilson`` too. None if there is no
        group.
    """
    named = np.array([bool(name) for name in groups], bool)
    if not named.any():
        return None
    labels, probabilities = labels[named], probabilities[named]
    keys = [(group, repeats[i] if repeats is not None else 0) for i, group in enumerate(groups) if group]
    decided, units = _numbers(keys), _numbers([group for group, _ in keys])
    truth = group_labels(labels, decided, classes)
    # Groups are numbered as they first come, so the unit of each is that of its first slice.
    unit = units[np.unique(decided, return_index=True)[1]]
    known = truth >= 0
    found: dict[str, Any] = {
        "groups": len(np.unique(unit[known])),
        "slices": int(known[decided].sum()),
        "two_tumors": len(np.unique(unit[~known])),
        "rule": GROUP_RULE,
    }
    if not known.any():
        return found | {"rules": {}}
    of_unit, rules = _numbers(unit[known].tolist()), {}
    for rule in GROUP_RULES:
        predictions = group_probabilities(probabilities, decided, classes, rule).argmax(axis=1)[known]
        metrics = recall_metrics(truth[known], predictions, of_unit, classes, resampling)
        right = np.bincount(of_unit, predictions == truth[known]) / np.bincount(of_unit)
        metrics["intervals"]["accuracy_wilson"] = list(wilson(float(right.sum()), len(right), resampling.level))
        rules[rule] = metrics
    return found | {"rules": rules}


def _numbers(keys: Sequence[Hashable]) -> NDArray[np.intp]:
    """Numbers of keys, in the order in which they first come."""
    known = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([known[key] for key in keys], np.intp)

"""The answer in plain words: the best network's accuracy, how sure it is, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btkeras.reporting import published
from btkeras.reporting.document import Block, Text
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.figure_tables import overview_table
from btkeras.reporting.numbers import interval_text, percent
from btkeras.reporting.sources import Source

# What a split keeps together; where images name their patient, every grouped split keeps patients together too.
_WORTH = {
    "image": "The split is image by image, so slices of one patient may lie on both sides of it.",
    "duplicate": "Near-copies of an image are on one side of the split, but slices of one patient may lie on both.",
    "series": "Slices of neighbouring numbers that look alike are on one side of the split, and near-copies too. "
    "They were taken for one patient's; where a collection lists its views one after the other, other views of that "
    "patient may lie on the other side.",
    "patient": "All slices of a patient are on one side of the split: the accuracy is one on new patients, of the same "
    "scanners and collections. Of images that name no patient, near-copies are kept together.",
    "official": "The test parts are the folds of FigShare's authors, who kept all slices of a patient together: the "
    "accuracy is one on new patients, of the same scanners and collections. Of images that name no patient, "
    "near-copies are kept together.",
}
_BY_PATIENT = ("patient", "official")
_NAMED = (
    " Slices of patients that are named are on one side too; of the other images, slices of one patient may lie on "
    "both."
)
# By what groups are of, and whether patients are named.
_RELATIVES = {
    ("duplicate", False): "near-copy",
    ("duplicate", True): "slice of the same patient, or a near-copy,",
    ("series", False): "near-copy, or a slice that was taken for one of the same patient,",
    ("series", True): "slice of the same patient or taken for one, or a near-copy,",
}
_EQUALS = {False: "byte-for-byte copy", True: "slice of the same patient, or an equal file,"}
_INFLATED = "Take the accuracy as the upper end of what a new patient's slices would get, not as an estimate of it."


def headline_blocks(evidence: ReportData) -> list[Block]:
    """What to know of the report if nothing else of it is read."""
    network = evidence.best
    blocks: list[Block] = [Text((_accuracy(network),), "headline")]
    warnings = (*synthetic_warning(evidence), *evidence.differences)
    if warnings:
        blocks.insert(0, Text(warnings, "warning"))
    points = [
        _in_counts(network),
        *split_caveats(network.source),
        *_against_the_paper(evidence),
        *_against_the_others(evidence),
    ]
    return [*blocks, Text(tuple(points), "list"), overview_table(evidence)]


def synthetic_warning(evidence: ReportData) -> list[str]:
    """A sentence for images that a program drew; none for others."""
    if not any(network.source.manifest.get("sources") == ["phantom"] for network in evidence.networks):
        return []
    return ["These images are drawn by a program (btkeras' phantom): the figures say nothing about real slices."]


def _accuracy(network: ReportedModel) -> str:
    figures = network.figures
    level = 100 * network.source.summary["bootstrap"]["level"]
    deviation = (figures["std"] or {}).get("accuracy")
    over = f" ± {percent(deviation)} over {len(network.runs)} trainings" if deviation is not None else ""
    interval = interval_text(accuracy_interval(network))
    return f"{network.name}: {percent(network.accuracy)} % accuracy{over} ({level:g} % interval {interval})."


def accuracy_interval(network: ReportedModel) -> list[float]:
    """The bootstrap's interval; Wilson's where every answer is right, or wrong, and the bootstrap has no width."""
    intervals = network.figures["intervals"]
    low, high = intervals["accuracy"]
    return [low, high] if high > low else list(intervals["accuracy_wilson"])


def _in_counts(network: ReportedModel) -> str:
    pooled = network.figures["pooled"]
    matrix = pooled["confusion_matrix"]
    right, total = sum(row[i] for i, row in enumerate(matrix)), pooled["images"]
    label, most = max(((label, row["images"]) for label, row in pooled["per_class"].items()), key=lambda item: item[1])
    return (
        f"{right:,} of {total:,} answers to test images are right, {total - right:,} wrong. Always answering "
        f"{label}, the most frequent class, would get {percent(most / total)} %."
    )


def split_caveats(source: Source) -> list[str]:
    """What a source's split says an accuracy on it is worth, as sentences."""
    group_by = source.summary["protocol"]["group_by"]
    points = [_WORTH.get(group_by, f"The split is by {group_by}.")]
    if group_by in ("duplicate", "series") and _names_patients(source):
        points[0] = points[0].partition(", but")[0].rstrip(".") + "." + _NAMED
    if group_by not in _BY_PATIENT:
        points[0] = f"{points[0]} {_INFLATED}"
    if group_by == "image" or source.regrouped_by:
        points += _relatives(source)
    points.append("Nothing here says how the networks do on another hospital's scanner.")
    return points


def _names_patients(source: Source) -> bool:
    return bool(source.summary["dataset"]["patients"])


def _relatives(source: Source) -> list[str]:
    """How many test images have a relative among those that were learnt from."""
    if "groups" not in source.splits[0]:
        # A run of before they were recorded.
        return []
    if not source.groups:
        return ["The dataset names no patients and has no equal files: how much the split leaks cannot be counted."]
    tested = related = 0
    for split in source.splits:
        known = {source.groups[path] for path in split["train"] if path in source.groups}
        tested += len(split["test"])
        related += sum(source.groups.get(path) in known for path in split["test"])
    named = _names_patients(source)
    kind = _RELATIVES.get((source.regrouped_by, named), _EQUALS[named])
    some = source.regrouped_by == "series"
    counted = "not all slices of one patient can" if some else "slices of one patient cannot"
    unknown = "" if named else f" The dataset names no patients, so {counted} be counted."
    share = f"{related:,} of {tested:,} test images ({percent(related / tested)} %)"
    return [f"{share} have a {kind} in the training part.{unknown}"]


def _against_the_paper(evidence: ReportData) -> list[str]:
    known = published.FIGURES[published.IMPROVED, "accuracy"]
    points = []
    for network in evidence.of_model(published.IMPROVED):
        low, high = accuracy_interval(network)
        place = "inside" if low <= known.value <= high else "below" if known.value < low else "above"
        points.append(
            f"The paper reports {known.text} % for {network.model}, {place} the interval "
            f"{interval_text((low, high))} of {network.name} here. Its images and splits are not known here, so this "
            "neither confirms nor refutes it."
        )
    return points


def _against_the_others(evidence: ReportData) -> list[str]:
    # Networks that were tested on other images do not compare; the warning says so.
    if len(evidence.networks) == 1 or evidence.differences:
        return []
    best = evidence.best.name
    wanted = _rivals(evidence) - {best}
    chosen = [pair for pair in evidence.comparisons if best in pair["models"] and _other(pair, best) in wanted]
    picked = (
        f"{best} is the best of {len(evidence.networks)} on the very images that its accuracy is of, which flatters "
        "it: judge by the verdicts, not by the rank."
    )
    return [*(f"{pair['conclusion']}." for pair in chosen), picked]


def _rivals(evidence: ReportData) -> set[str]:
    """The next best network, and the baseline."""
    ranked = sorted(evidence.networks, key=lambda network: -network.accuracy)
    return {network.name for network in (*ranked[1:2], *evidence.of_model(published.BASELINE))}


def _other(pair: Mapping[str, Any], name: str) -> str:
    first, second = pair["models"]
    return str(second if first == name else first)

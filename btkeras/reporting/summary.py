"""The summary: the best model's accuracy, how sure it is, and what the split says of it."""

from __future__ import annotations

from btkeras.reporting import published
from btkeras.reporting.document import Block, Text, percent
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import Source
from btkeras.reporting.tables import level_of, overview_table

_CAVEATS = {
    "image": "The split is by image: slices of one patient may be in both the training and the test subset.",
    "duplicate": "The split is by duplicate: near-duplicates are in one subset.",
    "series": "The split is by series: near-duplicates are in one subset, and so are slices with neighbouring numbers "
    "that look alike. They are taken for one patient's; where a collection lists its views one after the other, other "
    "views of that patient may be in another subset.",
    "patient": "The split is by patient: the accuracy is one on new patients, of the same scanners and collections. Of "
    "images that name no patient, near-duplicates are in one subset.",
    "official": "The split is that of FigShare's authors, by patient: the accuracy is one on new patients, of the same "
    "scanners and collections. Of images that name no patient, near-duplicates are in one subset.",
}
_BY_PATIENT = ("patient", "official")
# Of splits by duplicate and by series: whether patients are named.
_PATIENTS = {
    True: "Slices of a named patient are in one subset too; of the other images, slices of one patient may be in "
    "several.",
    False: "Slices of one patient may be in several subsets.",
}
# By what groups are of, and whether patients are named.
_RELATIVES = {
    ("duplicate", False): "near-duplicate",
    ("duplicate", True): "slice of the same patient, or a near-duplicate,",
    ("series", False): "near-duplicate, or a slice of the same series,",
    ("series", True): "slice of the same patient or series, or a near-duplicate,",
}
_EQUALS = {False: "byte-for-byte duplicate", True: "slice of the same patient, or an equal file,"}
_INFLATED = "The accuracy is an upper bound of that on a new patient's slices, not an estimate of it."


def summary_blocks(data: ReportData) -> list[Block]:
    """What to know of the report if nothing else of it is read."""
    warnings = (*synthetic_warning(data), *data.differences)
    points = (
        _counts(data.best),
        *split_caveats(data.best.source),
        *_against_the_paper(data),
        *_against_the_others(data),
    )
    return [
        *([Text(warnings, "warning")] if warnings else []),
        Text((_accuracy(data.best),), "summary"),
        Text(points, "list"),
        overview_table(data),
    ]


def synthetic_warning(data: ReportData) -> list[str]:
    """A sentence for images that a program drew; none for others."""
    if not any(source.manifest.get("sources") == ["phantom"] for source in data.sources):
        return []
    return ["These images are drawn by a program (btkeras' phantom): the metrics say nothing about real slices."]


def _accuracy(model: ReportedModel) -> str:
    spread = model.spreads["accuracy"]["std"]
    over = f" ± {percent(spread)} over {len(model.runs)} trainings" if spread is not None else ""
    interval = percent(model.accuracy_interval)
    return f"{model.name}: {percent(model.accuracy)} % accuracy{over} ({level_of(model.source)} interval {interval})."


def _counts(model: ReportedModel) -> str:
    per_class, total = model.metrics["pooled"]["per_class"], model.metrics["pooled"]["images"]
    label = max(per_class, key=lambda name: per_class[name]["images"])
    return (
        f"{model.correct:,} of {total:,} predictions are right, {total - model.correct:,} wrong. Always "
        f"predicting {label}, the most frequent class, would get {percent(per_class[label]['images'] / total)} %."
    )


def split_caveats(source: Source) -> list[str]:
    """What a source's split says about an accuracy on it, as sentences."""
    group_by = source.summary["protocol"]["group_by"]
    caveats = [_CAVEATS.get(group_by, f"The split is by {group_by}.")]
    if group_by in ("duplicate", "series"):
        caveats.append(_PATIENTS[_names_patients(source)])
    if group_by not in _BY_PATIENT:
        caveats.append(_INFLATED)
    if group_by == "image" or source.regrouped_by:
        caveats += _leakage(source)
    return [*caveats, "Nothing here says how the models do on another hospital's scanner."]


def _names_patients(source: Source) -> bool:
    return bool(source.summary["dataset"]["patients"])


def _leakage(source: Source) -> list[str]:
    """How many test images have a relative among the training images."""
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
    counted = "not all slices of one patient can" if source.regrouped_by == "series" else "slices of one patient cannot"
    unknown = "" if named else f" The dataset names no patients, so {counted} be counted."
    share = f"{related:,} of {tested:,} test images ({percent(related / tested)} %)"
    return [f"{share} have a {kind} in the training subset.{unknown}"]


def _against_the_paper(data: ReportData) -> list[str]:
    known, points = published.ABLATION_ACCURACY[published.IMPROVED], []
    for model in data.of_model(published.IMPROVED):
        low, high = model.accuracy_interval
        place = "inside" if low <= known <= high else "below" if known < low else "above"
        points.append(
            f"The paper reports {percent(known)} % for {model.model}, {place} the interval {percent([low, high])} of "
            f"{model.name} here. Its images and splits are not known here, so this neither confirms nor refutes it."
        )
    return points


def _against_the_others(data: ReportData) -> list[str]:
    # Models that were tested on other images do not compare; the warning says so.
    if len(data.models) == 1 or data.differences:
        return []
    best, *others = data.ranked
    rivals = {model.name for model in (*others[:1], *data.of_model(published.BASELINE))} - {best.name}
    chosen = [pair["conclusion"] for pair in data.comparisons if set(pair["models"]) - rivals == {best.name}]
    rank = (
        f"{best.name} is the best of {len(data.models)} on the same images that its accuracy is of, which flatters it: "
        "judge by the comparisons, not by the rank."
    )
    return [*(f"{conclusion}." for conclusion in chosen), rank]

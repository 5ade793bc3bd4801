"""A report on cross-validations and runs: its sections, its gallery of misclassified images, its provenance."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.datasets.readers.images import to_png_or_jpeg
from btkeras.errors import ImageError
from btkeras.evaluation.robustness import read_sheet
from btkeras.reporting import figures, paper_tables, published, risk_figures, tables
from btkeras.reporting.document import Block, Gallery, GalleryImage, Report, Text, percent
from btkeras.reporting.matrix_figures import headline_figures, matrix_blocks
from btkeras.reporting.measured_tables import measured_blocks
from btkeras.reporting.patient_tables import patient_blocks
from btkeras.reporting.report_data import ReportData, ReportedModel, load_report_data
from btkeras.reporting.sources import Source
from btkeras.splitting.fingerprints import changed_images, read_fingerprints

RESEARCH_ONLY = "Research use only: btkeras is no medical device."
# More sentences of comparisons than these nobody reads; the table has all pairs.
_SENTENCES = 12
# Mistakes, and the longest side of their images; a page shows them at 200 pixels, and enlarges them.
_SHOWN, _SIDE = 12, 512
_MISTAKES = "Some labels may be wrong."
_NEW_PATIENTS = (
    "the accuracy is one on new patients, of the same scanners and collections. Of images that name no patient, "
    "near-duplicates are in one subset."
)
_CAVEATS = {
    "image": "The split is by image: slices of one patient may be in both the training and the test subset.",
    "duplicate": "The split is by duplicate: near-duplicates are in one subset.",
    "series": "The split is by series: near-duplicates are in one subset, and so are slices with neighbouring numbers "
    "that look alike. They are taken for one patient's; where a collection lists its views one after the other, other "
    "views of that patient may be in another subset.",
    "patient": f"The split is by patient: {_NEW_PATIENTS}",
    "official": f"The split is that of FigShare's authors, by patient: {_NEW_PATIENTS}",
    "published": "The test subset is the one that the collection's authors published, as it is.",
}
# Of splits by duplicate and by series: whether patients are named.
_PATIENTS = {
    True: "Slices of a named patient are in one subset too; of other images, slices of one patient may be in several.",
    False: "Slices of one patient may be in several subsets.",
}
# By what intervals are regrouped by.
_RELATIVES = {"duplicate": ("near-duplicate",), "series": ("near-duplicate", "slice of the same series")}
_INFLATED = "The accuracy is an upper bound of that on a new patient's slices, not an estimate of it."


def build_report(
    paths: Sequence[Path], *, images: bool = True, intervals_group_by: str | None = None, cache: Path | None = None
) -> Report:
    """Reads cross-validations and runs, and reports on them.

    Args:
        paths: Folders of ``btkeras cv`` or ``btkeras train``.
        images: Whether the worst mistakes are shown as images.
        intervals_group_by: What intervals are clustered by, see ``splitting.groups.group_records``; None takes the
            splits' groups.
        cache: Folder that keeps what is found in the images.

    Raises:
        RunError: If a folder is no finished source or is named twice.
    """
    data = load_report_data(paths, intervals_group_by, cache)
    sets = [tables.set_table(data)] if any(model.is_calibrated for model in data.models) else []
    measured = measured_blocks(data)
    near = [tables.near_duplicate_table(data)] if any(model.without_near_duplicates for model in data.models) else []
    known_faults = [Text((_faults(data),)), Text((*published.FAULTS,), "list")]
    faults = known_faults if paper_tables.compares_with_paper(data) else []
    sections: dict[str, Sequence[Block]] = {
        "Summary": _summary_blocks(data, elsewhere=bool(measured["evaluations"])),
        "Comparisons": _comparison_blocks(data),
        "Tables of the paper": paper_tables.paper_tables(data),
        "Misclassified images": _misclassified_blocks(data, images=images),
        "Scores and patients": patient_blocks(data),
        "Near-duplicates in training": near,
        "Other datasets": measured["evaluations"],
        "Learning curves": figures.learning_blocks(data),
        "Confusion matrices": matrix_blocks(data),
        "ROC and precision-recall curves": figures.curve_blocks(data),
        "Calibration": [tables.calibration_table(data), *sets, figures.reliability_figure(data)],
        "Selective classification": [
            risk_figures.risk_figure(data),
            *risk_figures.other_dataset_blocks(data),
            *measured["selective"],
        ],
        "Robustness": _robustness_blocks(data),
        "Explanations": measured["explanations"],
        "Shortcuts": measured["shortcuts"],
        "Limits": [*faults, Text((RESEARCH_ONLY,), "list")],
        "Provenance": tables.provenance_tables(data),
    }
    return Report(f"btkeras report: {data.title}", sections)


def _summary_blocks(data: ReportData, *, elsewhere: bool) -> list[Block]:
    """What to know of the report if nothing else of it is read."""
    best, spread = data.best, data.best.spreads["accuracy"]["std"]
    over = f" ± {percent(spread)} over {len(best.runs)} trainings" if spread is not None else ""
    interval = f"({paper_tables.format_level(best.source)} interval {percent(best.accuracy_interval)})"
    warnings = (*unfinished_warning(data), *synthetic_warning(data), *data.differences)
    # The last says that nothing is known of other scanners.
    caveats = split_caveats(best.source)[: -1 if elsewhere else None]
    points = (_counts(best), *caveats, *_against_the_paper(data), *_against_the_others(data))
    return [
        *([Text(warnings, "warning")] if warnings else []),
        Text((f"{best.name}: {percent(best.accuracy)} % accuracy{over} {interval}.",), "summary"),
        *headline_figures(data),
        Text(points, "list"),
        paper_tables.overview_table(data),
        paper_tables.headline_table(data),
    ]


def unfinished_warning(data: ReportData) -> list[str]:
    """A sentence for each model whose training is unfinished."""
    text = "{}: {}. More epochs change its metrics, and its test subset was looked at before the end."
    return [text.format(model.name, model.unfinished) for model in data.models if model.unfinished]


def synthetic_warning(data: ReportData) -> list[str]:
    """A sentence for images that a program drew; none for others."""
    if not any(source.manifest.get("sources") == ["phantom"] for source in data.sources):
        return []
    return ["These images are drawn by a program (btkeras' phantom): the metrics say nothing about real slices."]


def _counts(model: ReportedModel) -> str:
    per_class, total, wrong = model.metrics["pooled"]["per_class"], len(model.labels), len(model.wrong)
    label = max(per_class, key=lambda name: per_class[name]["images"])
    return (
        f"{total - wrong:,} of {total:,} predictions are right, {wrong:,} wrong. Always predicting {label}, the most "
        f"frequent class, would get {percent(per_class[label]['images'] / total)} %."
    )


def split_caveats(source: Source) -> list[str]:
    """What a source's split says about an accuracy on it, as sentences."""
    group_by = "published" if source.published_test else source.group_by
    caveats = [_CAVEATS.get(group_by, f"The split is by {group_by}.")]
    if group_by in ("duplicate", "series", "published"):
        caveats.append(_PATIENTS[group_by != "published" and bool(source.manifest.get("patients"))])
    if group_by not in ("patient", "official"):
        caveats.append(_INFLATED)
    # Runs of before splits had groups recorded none.
    if source.regrouped_by or (group_by == "image" and "groups" in source.splits[0]):
        caveats.append(_leakage(source))
    return [*caveats, "Nothing here says how the models do on another hospital's scanner."]


def _leakage(source: Source) -> str:
    """How many test images have a relative among the training images."""
    near = [run.without_near_duplicates for run in source.runs]
    count = sum(found["near_duplicates"] for found in near if found)
    if not source.groups:
        total = sum(len(run.result.paths) for run in source.runs)
        counted = f"{count:,} of {total:,} test images have a near-duplicate" if all(near) else "No equal files are"
        return f"{counted} in the training subset. The dataset names no patients, so slices of one cannot be counted."
    tested = related = 0
    for split in source.splits:
        known = {source.groups[path] for path in split["train"] if path in source.groups}
        tested += len(split["test"])
        related += sum(source.groups.get(path) in known for path in split["test"])
    named = bool(source.manifest.get("patients"))
    relatives = _RELATIVES.get(source.regrouped_by, ("byte-for-byte duplicate",))
    kinds = " or ".join(("slice of the same patient", *relatives) if named else relatives)
    counted = "not all slices of one patient can" if source.regrouped_by == "series" else "slices of one patient cannot"
    unknown = "" if named else f" The dataset names no patients, so {counted} be counted."
    share = f"{related:,} of {tested:,} test images ({percent(related / tested)} %)"
    # Beside many slices of the same patients, few are the same slice.
    same = "" if source.regrouped_by or not all(near) else f"; {count:,} look nearly the same as an image there"
    return f"{share} have a {kinds} in the training subset{same}.{unknown}"


def _against_the_paper(data: ReportData) -> Iterator[str]:
    known = published.ABLATION[published.IMPROVED]["accuracy"]
    for model in data.of_model(published.IMPROVED) if not synthetic_warning(data) else ():
        if not published.compares_with(model.source.manifest["classes"]):
            continue
        low, high = model.accuracy_interval
        place = "inside" if low <= known <= high else "below" if known < low else "above"
        yield (
            f"The paper reports {percent(known)} % for {model.model}, {place} the interval {percent([low, high])} of "
            f"{model.name} here. Its images and splits are not known here, so this neither confirms nor refutes it."
        )


def _against_the_others(data: ReportData) -> Iterator[str]:
    # Models that were tested on other images do not compare; the warning says so.
    if len(data.models) == 1 or data.differences:
        return
    best, *others = data.ranked
    rivals = {model.name for model in (*others[:1], *data.of_model(published.BASELINE))} - {best.name}
    for pair in data.comparisons:
        if set(pair["models"]) - rivals == {best.name}:
            yield f"{pair['conclusion']}."
    yield (
        f"{best.name} is the best of {len(data.models)} on the same images that its accuracy is of, which flatters it: "
        "judge by the comparisons, not by the rank."
    )


def _faults(data: ReportData) -> str:
    kinds = sorted({source.group_by for source in data.sources})
    splits = "splits here are" if len(data.sources) > 1 else "split here is"
    consequence = (
        "A report on a split that follows it shares them."
        if kinds == ["image"]
        else f"The {splits} by {' and '.join(kinds)}; the summary says how much of the first fault is left then."
    )
    return f"Known faults of the published protocol. {consequence}"


def _comparison_blocks(data: ReportData) -> list[Block]:
    pairs, best = data.comparisons, data.best.name
    if not pairs:
        apart = Text(("No two models of this report were tested on the same images.",))
        return [] if len(data.models) == 1 else [apart]
    chosen = [f"{pair['conclusion']}." for pair in pairs if len(pairs) <= _SENTENCES or best in pair["models"]]
    rest = len(pairs) - len(chosen)
    more = [f"The other {rest} pairs are in the table."] if rest else []
    return [Text((*chosen, *more), "list"), tables.comparison_table(data)]


def _misclassified_blocks(data: ReportData, *, images: bool) -> list[Block]:
    """The images that the best model was wrong about and most sure of."""
    model = data.best
    if not model.wrong.size:
        return [Text((f"{model.name} made no mistake on its test images.",))]
    root = Path(str(model.source.manifest.get("dataset", "")))
    gone = images and not root.is_dir()
    # By path where equally sure, so that the order is the same each time.
    ranked = sorted(model.wrong.tolist(), key=lambda i: (-model.probabilities[i].max(), model.paths[i]))[:_SHOWN]
    shown_from = root if images and not gone else None
    known = read_fingerprints(model.runs[0].run.images_file) if shown_from else {}
    paths = {model.paths[i] for i in ranked}
    changed = changed_images({path: was for path, was in known.items() if path in paths}, root)
    shown = tuple(_misclassified(data, i, number, shown_from, changed) for number, i in enumerate(ranked, start=1))
    caption = f"The {len(shown)} of {model.wrong.size:,} misclassified images of {model.name} that it was most sure of"
    note = Text((f"The dataset is no longer at {root}, so its images are not shown.",))
    return [*([note] if gone else []), Gallery("misclassified", caption, shown, (_MISTAKES,), enlarged=True)]


def _misclassified(data: ReportData, i: int, number: int, root: Path | None, changed: Collection[str]) -> GalleryImage:
    model = data.best
    path, classes = model.paths[i], model.source.manifest["classes"]
    order = np.argsort(-model.probabilities[i], kind="stable")
    probabilities = {classes[j]: float(model.probabilities[i, j]) for j in order}
    label, prediction = classes[model.labels[i]], next(iter(probabilities))
    jpeg, problem = thumbnail(root, path, _SIDE) if root else (None, "")
    if path in changed:
        jpeg, problem = None, problem or "not shown: the file is no longer the image that was tested"
    shares = ", ".join(f"{name} {100 * p:.1f} %" for name, p in probabilities.items())
    peers = [peer for peer in data.models if peer.source.dataset_digest == model.source.dataset_digest]
    wrong = sum(path in {peer.paths[j] for j in peer.wrong} for peer in peers)
    others = f"wrong in {wrong} of {len(peers)} models" if len(peers) > 1 else ""
    return GalleryImage(
        f"misclassified-{number}",
        jpeg,
        f"Slice of class {label} that was predicted as {prediction}",
        tuple(filter(None, (f"{label}, predicted as {prediction}", shares, others, problem, path))),
        {"path": path, "label": label, "prediction": prediction, "probabilities": probabilities},
    )


def thumbnail(root: Path, path: str, side: int) -> tuple[bytes | None, str]:
    """A JPEG of a dataset's image, at most ``side`` pixels wide and high, or why there is none."""
    from PIL import Image

    # predictions.csv may have been edited; a report must not show what lies outside the dataset.
    if Path(path).is_absolute() or ".." in Path(path).parts:
        return None, "not shown: the path leaves the dataset"
    try:
        data, _ = to_png_or_jpeg((root / path).read_bytes(), path)
    except (OSError, ValueError, ImageError) as error:
        return None, f"not shown: {getattr(error, 'strerror', None) or error}"
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((side, side))
        image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue(), ""


def _robustness_blocks(data: ReportData) -> list[Block]:
    """A table and a panel for each run that was measured; nothing where none was."""
    found: list[tuple[str, str, Mapping[str, Any]]] = []
    for model in data.models:
        for run in model.runs:
            of_fold = (f", seed {run.seed}, fold {run.fold}", f"-{run.seed}-{run.fold}")
            title, suffix = of_fold if len(model.runs) > 1 else ("", "")
            if sheet := read_sheet(run.run):
                found.append((model.name + title, model.slug + suffix, sheet))
    return [*starmap(tables.robustness_table, found), figures.robustness_figure(found)] if found else []

"""A report on cross-validations and runs: its sections, its gallery of misclassified images, its provenance."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from btkeras.datasets.readers.images import to_png_or_jpeg
from btkeras.errors import ImageError
from btkeras.logging import duration
from btkeras.reporting import published
from btkeras.reporting.document import (
    Block,
    Column,
    Gallery,
    GalleryImage,
    Report,
    Section,
    Table,
    Text,
    columns_of,
    count,
    fact_table,
    make_table,
)
from btkeras.reporting.figures import curve_blocks, learning_blocks, matrix_blocks
from btkeras.reporting.report_data import ReportData, load_report_data
from btkeras.reporting.sources import Source
from btkeras.reporting.summary import summary_blocks
from btkeras.reporting.tables import comparison_table, paper_tables
from btkeras.reporting.trust import calibration_blocks, robustness_blocks

RESEARCH_ONLY = "Research use only: btkeras is no medical device."
# More sentences of comparisons than these nobody reads; the table has all pairs.
_SENTENCES = 12
_SHOWN = 12
_SIDE = 192
_QUALITY = 85


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
    sections: dict[str, Sequence[Block]] = {
        "Summary": summary_blocks(data),
        "Tables of the paper": paper_tables(data),
        "Comparisons": _comparison_blocks(data),
        "Learning curves": learning_blocks(data),
        "Confusion matrices": matrix_blocks(data),
        "ROC and precision-recall curves": curve_blocks(data),
        "Calibration": calibration_blocks(data),
        "Robustness": robustness_blocks(data),
        "Misclassified images": _misclassified_blocks(data, images=images),
        "Limits": [Text((_faults(data),)), Text((*published.FAULTS, RESEARCH_ONLY), "list")],
        "Provenance": _provenance_tables(data),
    }
    title = f"btkeras report: {', '.join(source.path.resolve().name for source in data.sources)}"
    return Report(title, tuple(Section(name, tuple(blocks)) for name, blocks in sections.items() if blocks))


def _faults(data: ReportData) -> str:
    kinds = sorted({str(source.summary["protocol"]["group_by"]) for source in data.sources})
    if kinds == ["image"]:
        return "Known faults of the published protocol. A report on a split that follows it shares them."
    whose = "The splits here are" if len(data.sources) > 1 else "The split here is"
    return (
        f"Known faults of the published protocol. {whose} by {' and '.join(kinds)}; the summary says how much of the "
        "first fault is left then."
    )


def _comparison_blocks(data: ReportData) -> list[Block]:
    pairs, best = data.comparisons, data.best.name
    if not pairs:
        alone = "There is one model in this report, so there is nothing to compare."
        apart = "No two models of this report were tested on the same images."
        return [Text((alone if len(data.models) == 1 else apart,))]
    chosen = [pair for pair in pairs if len(pairs) <= _SENTENCES or best in pair["models"]]
    rest = len(pairs) - len(chosen)
    more = (f"The other {rest} pairs are in the table.",) if rest else ()
    return [Text((*(f"{pair['conclusion']}." for pair in chosen), *more), "list"), comparison_table(data)]


def _misclassified_blocks(data: ReportData, *, images: bool) -> list[Block]:
    """The images that the best model was wrong about and most sure of."""
    model = data.best
    wrong = np.flatnonzero(model.probabilities.argmax(axis=1) != model.labels)
    if not wrong.size:
        return [Text((f"{model.name} made no mistake on its test images.",))]
    root = Path(str(model.source.manifest.get("dataset", "")))
    gone = images and not root.is_dir()
    # By path where equally sure, so that the order is the same each time.
    ranked = sorted(wrong.tolist(), key=lambda i: (-float(model.probabilities[i].max()), model.paths[i]))[:_SHOWN]
    shown_from = root if images and not gone else None
    shown = tuple(_misclassified(data, i, number, shown_from) for number, i in enumerate(ranked, start=1))
    caption = f"The {len(shown)} of {wrong.size:,} misclassified images of {model.name} that it was most sure of"
    note = Text((f"The dataset is no longer at {root}, so its images are not shown.",))
    return [*([note] if gone else []), Gallery("misclassified", caption, shown, ("Some labels may be wrong.",))]


def _misclassified(data: ReportData, i: int, number: int, root: Path | None) -> GalleryImage:
    model = data.best
    path, classes = model.paths[i], model.source.summary["classes"]
    order = np.argsort(-model.probabilities[i], kind="stable")
    probabilities = {classes[j]: float(model.probabilities[i, j]) for j in order}
    label, prediction = classes[model.labels[i]], next(iter(probabilities))
    jpeg, problem = thumbnail(root, path) if root else (None, "")
    shares = ", ".join(f"{name} {100 * p:.1f} %" for name, p in probabilities.items())
    lines = (path, f"{label}, predicted as {prediction}", shares, _others(data, path), problem)
    return GalleryImage(
        f"misclassified-{number}",
        jpeg,
        f"Slice of class {label} that was predicted as {prediction}",
        tuple(filter(None, lines)),
        {"path": path, "label": label, "prediction": prediction, "probabilities": probabilities},
    )


def _others(data: ReportData, path: str) -> str:
    """How many models of the same dataset have the image wrong at least once."""
    models = [model for model in data.models if model.source.dataset_digest == data.best.source.dataset_digest]
    wrong = sum(path in model.misclassified for model in models)
    return f"wrong in {wrong} of {len(models)} models" if len(models) > 1 else ""


def thumbnail(root: Path, path: str) -> tuple[bytes | None, str]:
    """A small JPEG of a dataset's image, or why there is none."""
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
        image.thumbnail((_SIDE, _SIDE))
        image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue(), ""


def _provenance_tables(data: ReportData) -> list[Table]:
    """A table of each source, one of the software, one of the trainings."""
    several = len(data.sources) > 1
    sources = [
        fact_table(
            f"source-{number}",
            f"Where the figures come from: {source.path}" if several else "Where the figures come from",
            _source_facts(source),
        )
        for number, source in enumerate(data.sources, start=1)
    ]
    return [*sources, _software_table(data), _training_table(data)]


def _source_facts(source: Source) -> dict[str, Any]:
    protocol, dataset, bootstrap = (source.summary[key] for key in ("protocol", "dataset", "bootstrap"))
    folds = "one" if source.is_single else f"{protocol['folds']} folds, {protocol['test']} test subset"
    config, command = source.config, source.manifest.get("command")
    return {
        "folder": str(source.path),
        "started": source.manifest.get("started"),
        "command": command and shlex.join(["btkeras", *map(str, command)]),
        "dataset": source.manifest.get("dataset"),
        "images": ", ".join(f"{label} {images:,}" for label, images in dataset["images"].items()),
        "patients": dataset["patients"] or "not named by the dataset",
        "digest of the dataset's list of files": dataset["digest"],
        "split": f"by {protocol['group_by']}, {folds}, seed {protocol['split_seed']}",
        "seeds of the trainings": ", ".join(map(str, protocol["seeds"])),
        "input": f"{config.data.image_size} x {config.data.image_size} x {config.data.channels}",
        "training of the networks": _training(source),
        "intervals": f"bootstrap of {bootstrap['samples']:,} resamples of {bootstrap['groups']:,} groups of "
        f"{bootstrap['images']:,} images, by {source.regrouped_by or protocol['group_by']}, seed {bootstrap['seed']}",
    }


def _training(source: Source) -> str | None:
    """How networks were trained; None where there are only classical models, to which none of it applies."""
    if all("classifier" in run.manifest for run in source.runs):
        return None
    train, optimizer = source.config.train, source.config.optimizer
    return (
        f"{train.epochs} epochs, batch {train.batch_size}, {optimizer.name}, learning rate "
        f"{optimizer.learning_rate:g}, {source.config.schedule.name} schedule; the checkpoint by {train.monitor}"
    )


def _software_table(data: ReportData) -> Table:
    manifests = [run.manifest for source in data.sources for run in source.runs]
    versions = [manifest.get("versions", {}) for manifest in manifests]
    titles = {
        "btkeras' git revision": "git_revision",
        "platform": "platform",
        "device": "device",
        "precision": "precision",
        "why that precision": "precision_reason",
        "classical classifier": "classifier",
    }
    facts = {
        "Python": _distinct(manifests, "python"),
        **{name: _distinct(versions, name) for found in versions for name in found},
        **{title: _distinct(manifests, key) for title, key in titles.items()},
    }
    return fact_table(
        "software", "Software and machine", facts, "Of all trainings; several values where they differed."
    )


def _distinct(manifests: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(manifest[key]) for manifest in manifests if manifest.get(key) is not None))


def _training_table(data: ReportData) -> Table:
    runs = [(model.name, run) for model in data.models for run in model.runs]
    known = [float(run.manifest["training_seconds"]) for _, run in runs if run.manifest.get("training_seconds")]
    columns = (
        Column("model"),
        *columns_of(("seed", "fold", "epochs", "best epoch"), count),
        Column("duration", duration),
        *columns_of(("started", "folder")),
    )
    keys = ("epochs", "best_epoch", "training_seconds", "started")
    rows = [
        (name, run.seed, run.fold, *(run.manifest.get(key) for key in keys), str(run.run.path)) for name, run in runs
    ]
    total = [f"Together {duration(sum(known))} of training."] if len(known) == len(runs) > 1 else []
    return make_table("trainings", "The trainings", columns, rows, *total)

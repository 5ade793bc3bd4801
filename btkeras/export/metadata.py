"""Which images a network was trained, chosen and tested on, so that its test figure can be measured again.

Images are known by digests of their files and not by their names: a name may be a patient's, and means nothing where
the files lie elsewhere. Whoever has a file can tell whether it was among them, and nobody else can.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import btkeras
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import FILE as CALIBRATION
from btkeras.decisions.calibration import Calibration
from btkeras.decisions.ood import OOD_PERCENTILE, CalibrationScores
from btkeras.errors import DataError, RunError
from btkeras.export.network import ExportNetwork
from btkeras.files import sha256, write_json, write_text
from btkeras.inference.model_folder import EXTRA, FILES, IMAGE_DIGESTS, LABELS, MANIFEST, METADATA, OOD_CALIBRATION
from btkeras.metrics.intervals import wilson
from btkeras.models.build import count_macs
from btkeras.models.head import temperature_of
from btkeras.preprocessing.image_file import read_bytes
from btkeras.reporting.card import FILE as CARD
from btkeras.reporting.card import card_text
from btkeras.runs import Run, read_json
from btkeras.splitting.splits import SUBSETS

_HEAD = (
    f"{'format':<16}{'signature':<20}{'slices':>6}{'same label':>12}{'probability':>13}{'outlier score':>15}{'map':>10}"
)


def format_export(manifest: Mapping[str, Any]) -> list[str]:
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
    differences = (_difference(row.get(name)) for name in ("probabilities", "ood_score", "map"))
    cells = "".join(f"{text:>{width}}" for text, width in zip(differences, (13, 15, 10), strict=True))
    return f"{row['format']:<16}{row['signature']:<20}{row['images']:>6,}{labels:>12}{cells}".rstrip()


def _difference(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _trust(cost: Mapping[str, Any]) -> str:
    """How prediction sets and outliers compare, each network's by what it carries."""
    subsets = []
    if cost["sets_differ"] is not None:
        subsets.append(f"another prediction set for {cost['sets_differ']}")
    if cost["ood"]:
        before, after = cost["ood"]
        subsets.append(f"outliers {after}, float32 {before}, {cost['ood_differ']} not the same")
    return "".join(f"; {subset}" for subset in subsets)


def _cost(cost: Mapping[str, Any]) -> list[str]:
    (before, after), (low, high) = cost["accuracy"], cost["accuracy_interval"][1]
    sizes, times = ([*cost["bytes"]], [*cost["milliseconds"]])
    lines = [
        f"{cost['format']} in {cost['quantization']}, {cost['images']:,} slices of the {cost['split']} part:",
        f"  accuracy {100 * after:.2f} % (95 % interval {100 * low:.2f}..{100 * high:.2f}), "
        f"float32 {100 * before:.2f} %: {100 * (after - before):+.2f} points",
        f"  only float32 right {cost['only_float32']}, only {cost['quantization']} right {cost['only_quantized']} "
        f"(McNemar p {cost['p']:.2g}); difference of a probability {cost['difference']:.2g} at most, "
        f"{cost['mean_difference']:.1g} on average",
        f"  another decision for {cost['decisions_differ']}{_trust(cost)}",
        f"  test part: accuracy {100 * cost['test']['accuracy']:.2f} % of {cost['test']['images']:,}",
    ]
    return [
        *lines,
        f"  {sizes[1] / 1e6:.1f} MB, float32 {sizes[0] / 1e6:.1f} MB; "
        f"{times[1]:.1f} ms a slice here, float32 {times[0]:.1f} ms",
    ]


_Json = Mapping[str, Any]


def export_section(manifest: _Json, selftest: _Json, digests: Mapping[str, str]) -> str:
    """Markdown.

    Args:
        manifest: What is known of the export, and what was measured.
        selftest: What ``selftest.json`` holds.
        digests: SHA-256 by file, as a path in the version.
    """
    weights = {name: digest for name, digest in digests.items() if name in FILES.values() or "variables" in name}
    lines = ["## This export", "", "| file | SHA-256 |", "| --- | --- |"]
    lines += [f"| {name} | `{digest}` |" for name, digest in weights.items()]
    lines += ["", "What an answer is withheld by:", "", *_threshold_lines(manifest, selftest)]
    lines += ["", "Made, checked where it is installed, and tested again by:", ""]
    lines += ["```bash", *_commands(manifest), "```"]
    return "\n".join([*lines, "", "```", *format_export(manifest), "```", ""])


def _threshold_lines(manifest: _Json, selftest: _Json) -> list[str]:
    lines = [f"- Temperature: {manifest['temperature']:.3f}, in the weights."]
    for found in selftest["formats"].values():
        limits = found["thresholds"]
        if limits["ood_score"] is not None:
            lines.append(
                f"- {found['file']}: uncertain beyond an outlier score of {limits['ood_score']:.1f} "
                f"({100 * OOD_PERCENTILE:.0f} % of the validation slices are below)."
            )
        if limits["probability"] is not None:
            lines.append(
                f"- {found['file']}: a class is in the prediction set of {100 * selftest['coverage']:.0f} % coverage "
                f"from a probability of {limits['probability']:.4f}; uncertain unless there is one such class."
            )
    return lines


def _commands(manifest: _Json) -> list[str]:
    options = [f"--format {form}" for form in manifest["formats"]]
    options += [f"--quantize {kind}" for kind in sorted({cost["quantization"] for cost in manifest["quantization"]})]
    return [
        f"btkeras export RUN --out MODEL {' '.join(options)}",
        "btkeras selftest --model MODEL",
        "btkeras evaluate MODEL --data DATASET",
    ]


_UNKNOWN_CARD = """# {name}

A network of {classes} for {size} x {size} x {channels} images, made with btkeras {version}. **It was never evaluated:
nothing is known of how often it is right.** `btkeras evaluate` its run, and export it again.
"""


def model_metadata(deployed: ExportNetwork) -> dict[str, Any]:
    """What is known of a model before it is written, for ``manifest.json``."""
    run = deployed.run
    manifest = run.manifest()
    size, _, channels = deployed.shape
    return {
        "model": deployed.model.name,
        "classes": list(deployed.classes),
        "image_size": size,
        "channels": channels,
        "harmonize": deployed.harmonize,
        "temperature": temperature_of(deployed.model),
        # Multiply-accumulates an image.
        "macs": count_macs(deployed.fused),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "btkeras": btkeras.__version__,
        "run": run.path.resolve().name,
        "checkpoint": {"file": run.best_model.name, "sha256": sha256(run.best_model)},
        "trained_with": manifest["versions"],
        "dataset_images": manifest["images"],
        "dataset": PurePath(str(manifest["dataset"])).name,
        "split": _split(run),
        "test": _test_figures(run),
    }


def texts(
    known: Mapping[str, Any], calibration: Calibration | None, reference: CalibrationScores | None
) -> dict[str, str]:
    """The texts of ``exported.TEXTS``, as far as there is something to say."""
    found = {METADATA: _json(known), LABELS: "".join(f"{name}\n" for name in known["classes"])}
    if calibration:
        found[CALIBRATION] = _json(calibration.to_json())
    if reference:
        found[OOD_CALIBRATION] = _json({"scores": reference.scores.tolist()})
    return found


def write_texts(version: Path, written: Mapping[str, str]) -> None:
    """Writes texts by their names."""
    for name, text in written.items():
        write_text(version / EXTRA / name, text)


def write_measured(
    version: Path, deployed: ExportNetwork, manifest: Mapping[str, Any], selftest: Mapping[str, Any]
) -> None:
    """Writes the model card and, last, ``manifest.json`` with the digests of all other files of the version.

    Args:
        version: Its folder, with all else in it.
        deployed: What was exported.
        manifest: What is known of it, and what was measured.
        selftest: As ``export_selftest.write_selftest`` returns it.
    """
    section = export_section(manifest, selftest, _digests(version))
    write_text(version / EXTRA / CARD, f"{_card(deployed)}\n{section}")
    write_json(version / MANIFEST, {**manifest, "files": _digests(version)})


def _digests(version: Path) -> dict[str, str]:
    """Of each file, by its path in the version; the manifest's cannot stand in the manifest."""
    files = sorted(path for path in version.rglob("*") if path.is_file() and path != version / MANIFEST)
    return {file.relative_to(version).as_posix(): sha256(file) for file in files}


def _card(deployed: ExportNetwork) -> str:
    """The run's model card; of a run without figures, one that says so."""
    run = deployed.run
    if run.metrics_file.is_file():
        return card_text(run)
    size, _, channels = deployed.shape
    return _UNKNOWN_CARD.format(
        name=run.path.resolve().name,
        classes=", ".join(deployed.classes),
        size=size,
        channels=channels,
        version=btkeras.__version__,
    )


def _split(run: Run) -> dict[str, Any]:
    """What was split by what into how many images."""
    split = read_json(run.splits_file)
    counts = {subset: sum(split["counts"][subset].values()) for subset in SUBSETS}
    return {"group_by": split.get("group_by", "image"), "seed": split["seed"], "digest": split["digest"], **counts}


def _test_figures(run: Run) -> dict[str, Any] | None:
    """Accuracy on the run's test part; None if it was not evaluated."""
    if not run.metrics_file.is_file():
        return None
    metrics = run.metrics()
    try:
        images, accuracy = int(metrics["images"]), float(metrics["accuracy"])
        macro = {name: float(value) for name, value in metrics["macro"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.metrics_file} must be as btkeras writes it", received=error, remedy="Evaluate the run again"
        ) from error
    interval = wilson(accuracy * images, images)
    return {"images": images, "accuracy": accuracy, "accuracy_interval": interval, "macro": macro}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


# Hexadecimal digits of SHA-256: two of a million images share 16 of them by chance once in 37 million such sets.
DIGITS = 16
_WHAT = f"SHA-256 of the images' files, first {DIGITS} hexadecimal digits, sorted"


def image_digest(dataset: Dataset, record: Record) -> str:
    """What an image is known by; ImageError if its file cannot be read."""
    return hashlib.sha256(read_bytes(dataset.root / record.path)).hexdigest()[:DIGITS]


def write_image_digests(version: Path, run: Run) -> None:
    """Writes ``assets.extra/image_digests.json``, by subset and class, if the run still has its dataset."""
    try:
        dataset = run.dataset()
        split = run.split(dataset)
    except DataError:
        return
    document: dict[str, object] = {"digests": _WHAT}
    for subset in SUBSETS:
        found: dict[str, list[str]] = defaultdict(list)
        for record in split.subset(subset):
            found[record.label].append(image_digest(dataset, record))
        document[subset] = {label: sorted(found[label]) for label in run.classes()}
    write_text(version / IMAGE_DIGESTS, json.dumps(document, separators=(",", ":")) + "\n")

"""What is exported beside the network, in ``assets.extra/``: metadata, what its images were, self-test, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import numpy as np

import btkeras
from btkeras.decisions.abstention import VALIDATION
from btkeras.decisions.calibration import COVERAGE
from btkeras.decisions.ood import OOD_PERCENTILE
from btkeras.errors import DataError, RunError
from btkeras.evaluation.known_slices import known_slices
from btkeras.export.network import ExportNetwork
from btkeras.export.parity import format_parity, phantom_image
from btkeras.export.quantize import format_comparison, with_interval
from btkeras.files import sha256, write_json, write_text
from btkeras.inference import model_folder
from btkeras.inference.backends import InferenceBackend
from btkeras.inference.predictor import FilePrediction, Predictor
from btkeras.models.build import count_macs
from btkeras.models.head import temperature_of
from btkeras.reporting.card import card_text
from btkeras.runs import Run
from btkeras.splitting.splits import SUBSETS

_Json = Mapping[str, Any]
# Of the self-test's probabilities and OOD percentile, by quantization. Another processor rounds otherwise: LiteRT's
# three sets of kernels differ by 1.3e-6 with float32 weights, by 6e-7 with float16 and by 0.017 in int8, whose
# activations change by whole steps (12 phantom slices, configs/robust.yaml); processors with 16-bit arithmetic may use
# it.
_TOLERANCES: Mapping[str | None, tuple[float, float]] = {
    None: (1e-3, 1.0),
    "float16": (5e-3, 1.0),
    "int8": (0.05, 5.0),
}
_UNEVALUATED_CARD = """# {}

A network of {} for {} x {} x {} images, made with btkeras {}. **It was never evaluated: nothing is known about its
accuracy.** `btkeras evaluate` its run, and export it again.
"""


def model_metadata(network: ExportNetwork) -> dict[str, Any]:
    """The part of ``manifest.json`` that is known before the export; embedded in files of one format."""
    run = network.run
    manifest, split = run.manifest(), run.split_document()
    size, _, channels = network.shape
    split_keys = [name for name in ("group_by", "seed", "digest") if name in split]
    counts = {subset: sum(split["counts"][subset].values()) for subset in SUBSETS}
    state = run.unfinished()
    return {
        "model": network.model.name,
        "classes": list(network.checkpoint.classes),
        "image_size": size,
        "channels": channels,
        "harmonize": network.checkpoint.harmonize,
        "temperature": temperature_of(network.model),
        # Multiply-accumulates an image.
        "macs": count_macs(network.reparameterized),
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "btkeras": btkeras.__version__,
        "run": run.path.resolve().name,
        **({"unfinished": state} if state else {}),
        "checkpoint": {"file": run.best_model.name, "sha256": sha256(run.best_model)},
        "trained_with": manifest["versions"],
        "dataset_images": manifest["images"],
        "dataset": PurePath(str(manifest["dataset"])).name,
        "split": {"group_by": "image"} | {name: split[name] for name in split_keys} | counts,
        "test": _run_metrics(run),
    }


def _run_metrics(run: Run) -> dict[str, Any] | None:
    """Metrics on the run's test subset; None if it was not evaluated."""
    if not run.metrics_file.is_file():
        return None
    try:
        return with_interval(run.metrics())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"{run.metrics_file} must be as btkeras writes it", received=error, remedy="Evaluate the run again"
        ) from error


def metadata_files(manifest: _Json, backend: InferenceBackend) -> dict[str, str]:
    """Texts by the names of ``model_folder.METADATA_FILES``, without what the backend does not have."""
    documents: dict[str, _Json] = {model_folder.METADATA: manifest}
    if backend.calibration:
        documents[model_folder.CALIBRATION] = backend.calibration.to_json()
    if backend.ood_calibration:
        documents[model_folder.OOD_CALIBRATION] = {"scores": backend.ood_calibration.scores.tolist()}
    labels = "".join(f"{name}\n" for name in manifest["classes"])
    texts = {name: json.dumps(value, indent=2, allow_nan=False) + "\n" for name, value in documents.items()}
    return {**texts, model_folder.LABELS: labels}


def write_image_digests(version: Path, run: Run) -> None:
    """Writes ``assets.extra/image_digests.json``, by subset and class, unless the run's dataset is gone or changed.

    Images are known by digests and not by names, which may be patients': whoever has a file can tell whether it was in
    the split, and nobody else can.
    """
    try:
        dataset = run.dataset()
        split = run.split(dataset)
    except DataError:
        return
    what = f"SHA-256 of the images' files, first {model_folder.DIGEST_DIGITS} hexadecimal digits, sorted"
    document: dict[str, object] = {"digests": what}
    for subset in SUBSETS:
        digests = [
            (record.label, model_folder.image_digest(dataset.root / record.path)) for record in split.subset(subset)
        ]
        document[subset] = {label: sorted(d for own, d in digests if own == label) for label in run.classes()}
    write_text(version / model_folder.IMAGE_DIGESTS, json.dumps(document, separators=(",", ":")) + "\n")


def write_image_hashes(version: Path, run: Run) -> None:
    """Writes ``assets.extra/image_hashes.npz``, by which training and validation slices are known in other files too,
    unless the run has no such file and its dataset is gone or changed.
    """
    if known := known_slices(run):
        known.write(version / model_folder.IMAGE_HASHES)


def write_selftest(version: Path, formats: Sequence[str], quantization: str | None) -> dict[str, Any]:
    """Writes ``selftest.png``, a synthetic slice, and ``selftest.json``, which it returns: the expected predictions."""
    (version / model_folder.SELFTEST_IMAGE).write_bytes(phantom_image())
    kinds = {name: None if name == "savedmodel" else quantization for name in formats}
    expected = {name: _expected(version, model_folder.FILES[name], kind) for name, kind in kinds.items()}
    document = {"image": model_folder.SELFTEST_IMAGE.name, "coverage": COVERAGE, "formats": expected}
    write_json(version / model_folder.SELFTEST, document)
    return document


def _expected(version: Path, file: str, quantization: str | None) -> dict[str, Any]:
    predictor = Predictor(version / file)
    (prediction,) = predictor.predict_files([version / model_folder.SELFTEST_IMAGE])
    probability, ood_percentile = _TOLERANCES[quantization]
    calibration, ood_calibration = predictor.backend.calibration, predictor.backend.ood_calibration
    # The largest score in distribution, and the least probabilities of a class in a prediction set and of a decision.
    thresholds = {
        "ood_score": ood_calibration.threshold if ood_calibration else None,
        "probability": 1 - calibration.threshold(COVERAGE) if calibration else None,
        "decision": calibration.abstention.threshold if calibration and calibration.abstention else None,
    }
    return {
        "file": file,
        "quantization": quantization,
        "decision": prediction.decision,
        "set": prediction.set,
        "ood_percentile": prediction.ood_percentile,
        "probabilities": prediction.probabilities,
        "tolerance": {"probability": probability, "ood_percentile": ood_percentile},
        # Whether all predictions within the tolerance have the same decision.
        "decided": _decided(prediction, thresholds, probability, ood_percentile),
        "thresholds": thresholds,
    }


def _decided(
    prediction: FilePrediction, thresholds: Mapping[str, float | None], probability: float, ood_percentile: float
) -> bool:
    values, percentile = np.array([*prediction.probabilities.values()]), prediction.ood_percentile
    first, second = np.sort(values)[[-1, -2]]
    tested = {"probability": values, "decision": first}
    limits = {name: limit for name in tested if (limit := thresholds[name]) is not None}
    near = any(bool((np.abs(tested[name] - limit) <= probability).any()) for name, limit in limits.items())
    near_ood = percentile is not None and abs(percentile - 100 * OOD_PERCENTILE) <= ood_percentile
    return not near and not near_ood and bool(first - second > 2 * probability)


def write_manifest(version: Path, network: ExportNetwork, manifest: _Json, selftest: _Json) -> None:
    """Writes the model card and, last, ``manifest.json`` with the digests of all other files of the version."""
    run = network.run
    if run.metrics_file.is_file():
        card = card_text(run)
    else:
        classes = ", ".join(network.checkpoint.classes)
        card = _UNEVALUATED_CARD.format(run.path.resolve().name, classes, *network.shape, btkeras.__version__)
        if "unfinished" in manifest:
            card += f"\nIts training: {manifest['unfinished']}.\n"
    card += f"\n{_export_section(manifest, selftest, _digests(version))}"
    write_text(version / model_folder.EXTRA / model_folder.CARD, card)
    write_json(version / model_folder.MANIFEST, {**manifest, "files": _digests(version)})


def _digests(version: Path) -> dict[str, str]:
    """SHA-256 of each file but the manifest, by its path in the version."""
    files = sorted(path for path in version.rglob("*") if path.is_file() and path != version / model_folder.MANIFEST)
    return {file.relative_to(version).as_posix(): sha256(file) for file in files}


def _export_section(manifest: _Json, selftest: _Json, digests: Mapping[str, str]) -> str:
    """The card's section on the export, Markdown."""
    files = model_folder.FILES.values()
    weights = {name: digest for name, digest in digests.items() if name in files or "variables" in name}
    options = [f"--format {name}" for name in manifest["formats"]]
    options += [f"--quantize {kind}" for kind in sorted({row["quantization"] for row in manifest["quantization"]})]
    lines = ["## This export", "", "| file | SHA-256 |", "| --- | --- |"]
    lines += [f"| {name} | `{digest}` |" for name, digest in weights.items()]
    lines += ["", "Thresholds of the decisions:", "", f"- Temperature: {manifest['temperature']:.3f}, in the weights."]
    for row in selftest["formats"].values():
        score, probability, least = (row["thresholds"][name] for name in ("ood_score", "probability", "decision"))
        if score is not None:
            lines.append(
                f"- {row['file']}: uncertain beyond an OOD score of {score:.1f} "
                f"({100 * OOD_PERCENTILE:.0f} % of the {VALIDATION} are below)."
            )
        if least is not None:
            lines.append(f"- {row['file']}: uncertain below a highest probability of {least:.4f}.")
        if probability is not None:
            lines.append(
                f"- {row['file']}: a class is in the prediction set of {100 * selftest['coverage']:.0f} % coverage "
                f"from a probability of {probability:.4f}."
            )
    commands = [f"btkeras export RUN --out MODEL {' '.join(options)}", "btkeras selftest --model MODEL"]
    commands += ["btkeras evaluate MODEL --data DATASET"]
    lines += ["", "Made, checked where it is installed, and evaluated again by:", "", "```bash", *commands, "```"]
    return "\n".join([*lines, "", "```", *format_export(manifest), "```", ""])


def format_export(manifest: _Json) -> list[str]:
    """A manifest's ``parity`` and ``quantization`` as lines of text."""
    compared = [line for row in manifest["quantization"] for line in ("", *format_comparison(row))]
    return format_parity(manifest["parity"]) + compared

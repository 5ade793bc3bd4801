"""Whether an exported model predicts as its checkpoint does, on real slices and through each signature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import Record
from btkeras.datasets.phantom import draw_patient
from btkeras.datasets.readers.images import encode_png
from btkeras.errors import BTKerasError, ModelError
from btkeras.inference.backends import BATCH, InferenceBackend, ModelOutputs, load_backend
from btkeras.inference.model_folder import BYTES, EXPLAINED, OOD_SCORE, PIXELS, PREPARED, PROBABILITIES
from btkeras.logging import logger
from btkeras.preprocessing.decode import decode
from btkeras.preprocessing.image_file import read_image_bytes
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run

# Largest allowed differences, per slice: of a probability (all of it rounding, since re-parameterised weights are
# rounded anew), of the OOD score as a share of it, and of a map's pixel in 0..1 (where a rectifier's input is 0 up to
# rounding, its gradient is all or nothing).
_LIMITS = {"probabilities": 1e-4, "ood_score": 1e-4, "map": 0.02}
_SLICES = 200
_EXPLAINED = 16
_PHANTOM = PhantomConfig(patients=8, slices=3)

_Floats = NDArray[np.float32]
Row = dict[str, Any]


@dataclass(frozen=True)
class ParitySlices:
    """Where the slices come from, their names, PNG or JPEG files, and network inputs ``[n, size, size, channels]``."""

    origin: str
    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    prepared: NDArray[np.uint8]


def parity_slices(run: Run, preprocessor: Preprocessor) -> ParitySlices:
    """Up to 200 slices of the run's validation subset, spread over it; synthetic ones where they are gone."""
    try:
        dataset = run.dataset()
        records = spread(run.split(dataset).validation)
        files = [(record.path, read_image_bytes(dataset.root / record.path)) for record in records]
        origin = "slices of the validation subset"
    except (BTKerasError, OSError) as error:
        logger.warning(f"Compared on synthetic slices. {error}")
        slices = [s for patient in range(_PHANTOM.patients) for s in draw_patient(_PHANTOM, patient)]
        files = [(f"{one.patient}, {i}", encode_png(one.image)) for i, one in enumerate(slices)]
        origin = "synthetic slices, as the run's own are gone"
    names, encoded = zip(*files, strict=True)
    prepared = np.stack([preprocessor.bytes(data, name) for name, data in files])
    return ParitySlices(f"{len(files)} {origin}", names, encoded, prepared)


def spread(records: Sequence[Record], most: int = _SLICES) -> list[Record]:
    """At most so many records, evenly from first to last, so that every class is among them."""
    chosen = np.linspace(0, len(records) - 1, min(most, len(records))).round().astype(int)
    return [records[i] for i in chosen]


def phantom_image() -> bytes:
    """A synthetic slice with a meningioma, as PNG, for requests that must show no patient."""
    # One that the pretrained model, made for real slices, classifies correctly.
    return encode_png(draw_patient(_PHANTOM, 1)[1].image)


def check_parity(
    model_format: str, file: Path, checkpoint: InferenceBackend, slices: ParitySlices, quantization: str = ""
) -> list[Row]:
    """Compares an export, of a key of ``model_folder.FILES``, with its checkpoint.

    Returns:
        A row for each signature; ``labels`` is on how many images both have the same most probable class, and
        ``probabilities``, ``ood_score`` (relative) and ``map`` are the largest differences.

    Raises:
        ModelError: If a difference is beyond its limit; a quantized file has none.
    """
    expected = checkpoint.predict_all(slices.prepared)
    rows: list[Row] = []
    for signature, found in _outputs(model_format, file, slices):
        differences = _differences(found, expected, checkpoint)
        labels = found.probabilities.argmax(axis=1) == expected.probabilities.argmax(axis=1)
        row: Row = {"format": f"{model_format} {quantization}".strip(), "signature": signature}
        row |= {"images": len(labels), "labels": int(labels.sum())}
        rows.append(row | {name: float(values.max()) for name, values in differences.items()})
        if not quantization:
            _check(row, slices.names, differences)
    return rows


def _differences(found: ModelOutputs, expected: ModelOutputs, checkpoint: InferenceBackend) -> dict[str, _Floats]:
    """Largest differences of each slice."""
    differences = {"probabilities": np.abs(found.probabilities - expected.probabilities).max(axis=1)}
    if found.ood_scores is not None and expected.ood_scores is not None:
        # Relative to the threshold where the score is smaller.
        least = checkpoint.ood_calibration.threshold if checkpoint.ood_calibration else 1.0
        relative = np.abs(found.ood_scores - expected.ood_scores) / np.maximum(expected.ood_scores, least)
        differences["ood_score"] = relative
    return differences


def _check(row: Row, names: Sequence[str], differences: Mapping[str, _Floats]) -> None:
    for what, values in differences.items():
        # NaN is within no limit.
        if not (values <= _LIMITS[what]).all():
            worst = int(np.argmax(np.where(np.isnan(values), np.inf, values)))
            raise ModelError(
                f"An exported model must agree with its checkpoint within {_LIMITS[what]:g}",
                received=f"a difference of {values[worst]:.3g} in {what.replace('_', ' ')} of {names[worst]} through "
                f"{row['format']}'s {row['signature']}; nothing was published",
            )


def _outputs(model_format: str, file: Path, slices: ParitySlices) -> Iterator[tuple[str, ModelOutputs]]:
    """The outputs through each signature."""
    if model_format != "savedmodel":
        yield PREPARED, load_backend(file).predict_all(slices.prepared)
        return
    # Kept alive, since signatures hold their variables weakly.
    loaded = tf.saved_model.load(str(file.parent))
    chunks = [slice(start, start + BATCH) for start in range(0, len(slices.names), BATCH)]
    # Pixels one by one, since they have several sizes.
    images = (decode(data, name) for name, data in zip(slices.names, slices.encoded, strict=True))
    inputs: dict[str, Iterable[dict[str, Any]]] = {
        BYTES: ({"image_bytes": slices.encoded[chunk]} for chunk in chunks),
        PIXELS: ({"images": image[None]} for image in images),
        PREPARED: ({"images": slices.prepared[chunk]} for chunk in chunks),
    }
    for name, calls in inputs.items():
        found = [loaded.signatures[name](**{key: tf.constant(value) for key, value in call.items()}) for call in calls]
        yield name, _joined(found)


def _joined(batches: Sequence[Mapping[str, tf.Tensor]]) -> ModelOutputs:
    outputs = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    best = outputs[PROBABILITIES].argmax(axis=1)
    if not (outputs["label"] == outputs["classes"][np.arange(len(best)), best]).all():
        raise ModelError("An exported model's label must be its most probable class", received=outputs["label"])
    return ModelOutputs(outputs[PROBABILITIES], outputs.get(OOD_SCORE))


def check_maps(
    model_format: str, file: Path, checkpoint: InferenceBackend, slices: ParitySlices, quantization: str = ""
) -> list[Row]:
    """Compares maps of some slices' most probable classes; no row if there are none. Otherwise as ``check_parity``."""
    explain = load_backend(file).explain
    if explain is None or checkpoint.explain is None:
        return []
    chosen = np.linspace(0, len(slices.names) - 1, min(_EXPLAINED, len(slices.names))).astype(int)
    images = slices.prepared[chosen]
    indices = checkpoint.predict(images).probabilities.argmax(axis=1)
    differences = np.abs(explain(images, indices) - checkpoint.explain(images, indices)).max(axis=(1, 2))
    row: Row = {"format": f"{model_format} {quantization}".strip(), "signature": EXPLAINED}
    row |= {"images": len(chosen), "map": float(differences.max())}
    if not quantization:
        _check(row, [slices.names[i] for i in chosen], {"map": differences})
    return [row]


def format_parity(parity: Mapping[str, Any]) -> list[str]:
    """A manifest's ``parity`` as lines of a table; ``-`` is what a signature does not give."""
    line = "{:<16}{:<20}{:>6}{:>12}{:>15}{:>11}{:>10}".format
    names = ("probabilities", "ood_score", "map")
    lines = [
        f"Largest differences from the checkpoint, {parity['inputs']}:",
        line("format", "signature", "slices", "same label", *names),
    ]
    for row in parity["rows"]:
        labels = f"{row['labels']}/{row['images']}" if "labels" in row else "-"
        values = ("-" if row.get(name) is None else f"{row[name]:.1e}" for name in names)
        lines.append(line(row["format"], row["signature"], f"{row['images']:,}", labels, *values))
    return lines

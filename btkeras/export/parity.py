"""Whether an exported model answers as its checkpoint does, on real inputs and through each way in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.export.slices import Slices
from btkeras.inference.backends import InferenceBackend, ModelOutputs, load_backend
from btkeras.inference.model_folder import BYTES, EXPLAINED, OOD_SCORE, PIXELS, PREPARED, PROBABILITIES
from btkeras.preprocessing.preprocessor import decode_checked

# Of the largest difference of a probability; all of it is rounding of float32, since the deploy form's weights are
# rounded anew.
_LIMIT = 1e-4
# Of the outlier score, as a part of it (of the threshold where it is smaller).
_SCORE_LIMIT = 1e-4
# Of a map's pixel, in 0..1. Where a rectifier's input is 0 up to rounding, its gradient is all or nothing, so that
# single pixels differ more than probabilities do.
_MAP_LIMIT = 0.01
_BATCH = 32
_EXPLAINED = 16

_Floats = NDArray[np.float32]
_Observed = ModelOutputs


@dataclass(frozen=True)
class Agreement:
    """How an exported model's answers through one signature differ from the checkpoint's.

    Attributes:
        format: A key of ``exported.FILES``.
        signature: Name of the signature.
        images: Number of slices.
        labels: On how many both have the same most probable class; None for maps.
        probabilities: Largest difference of a probability; None for maps.
        ood_score: Largest difference of an outlier score, as a part of it; None if there are none.
        map: Largest difference of a map's pixel; None for answers.
    """

    format: str
    signature: str
    images: int
    labels: int | None = None
    probabilities: float | None = None
    ood_score: float | None = None
    map: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As an object, without what it does not have."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def agreements(form: str, file: Path, expected: InferenceBackend, slices: Slices) -> list[Agreement]:
    """Compares a float32 export with its checkpoint.

    Args:
        form: A key of ``exported.FILES``.
        file: What the model is loaded from.
        expected: The checkpoint.
        slices: What both are shown.

    Raises:
        ModelError: If they disagree; it says where.
    """
    own = expected.predict_all(slices.prepared)
    found = []
    for signature, observed in _answers(form, file, slices):
        scores = _score_differences(observed[1], own[1], expected)
        agreement = _compare(form, signature, observed, own, scores)
        _check(agreement, _LIMIT, "probabilities", slices.names, _by_slice(observed[0], own[0]))
        if scores is not None:
            _check(agreement, _SCORE_LIMIT, "ood_score", slices.names, scores)
        found.append(agreement)
    return found + _map_agreements(form, file, expected, slices, own[0])


def quantized_agreement(form: str, network: InferenceBackend, expected: InferenceBackend, slices: Slices) -> Agreement:
    """The same of a quantised export, which may differ."""
    own, observed = expected.predict_all(slices.prepared), network.predict_all(slices.prepared)
    return _compare(form, PREPARED, observed, own, _score_differences(observed[1], own[1], expected))


def _answers(form: str, file: Path, slices: Slices) -> Iterator[tuple[str, _Observed]]:
    if form != "savedmodel":
        yield PREPARED, load_backend(file).predict_all(slices.prepared)
        return
    # Kept alive, since signatures hold their variables weakly.
    loaded = tf.saved_model.load(str(file.parent))
    ask = loaded.signatures
    chunks = [slice(start, start + _BATCH) for start in range(0, len(slices.names), _BATCH)]
    yield BYTES, _joined([ask[BYTES](image_bytes=tf.constant(slices.encoded[chunk])) for chunk in chunks])
    yield PIXELS, _by_pixels(lambda images: ask[PIXELS](images=tf.constant(images)), slices)
    yield PREPARED, _joined([ask[PREPARED](images=tf.constant(slices.prepared[chunk])) for chunk in chunks])


def _by_pixels(ask: Callable[[NDArray[np.uint8]], Any], slices: Slices) -> _Observed:
    """Through images as they are stored: those of one shape go together."""
    images = [decode_checked(data, name) for name, data in zip(slices.names, slices.encoded, strict=True)]
    shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        shapes[image.shape].append(i)
    places = [where[start : start + _BATCH] for where in shapes.values() for start in range(0, len(where), _BATCH)]
    probabilities, scores = _joined([ask(np.stack([images[i] for i in where])) for where in places])
    order = np.argsort(np.concatenate(places))
    return ModelOutputs(probabilities[order], None if scores is None else scores[order])


def _joined(answers: Sequence[Mapping[str, tf.Tensor]]) -> _Observed:
    for answer in answers:
        _check_names(answer)
    scores = np.concatenate([answer[OOD_SCORE] for answer in answers]) if OOD_SCORE in answers[0] else None
    return ModelOutputs(np.concatenate([answer[PROBABILITIES] for answer in answers]), scores)


def _check_names(answer: Mapping[str, tf.Tensor]) -> None:
    best = np.asarray(answer[PROBABILITIES]).argmax(axis=1)
    if not (np.asarray(answer["label"]) == np.asarray(answer["classes"])[np.arange(len(best)), best]).all():
        raise ModelError("An exported model's label must be its most probable class", received=answer["label"])


def _map_agreements(
    form: str, file: Path, expected: InferenceBackend, slices: Slices, probabilities: _Floats
) -> list[Agreement]:
    """Of the maps of some slices' most probable classes, where the export has maps."""
    explain = load_backend(file).explain if form == "savedmodel" else None
    if explain is None or expected.explain is None:
        return []
    chosen = np.linspace(0, len(slices.names) - 1, min(_EXPLAINED, len(slices.names))).astype(int)
    images, indices = slices.prepared[chosen], probabilities[chosen].argmax(axis=1)
    differences = np.abs(explain(images, indices) - expected.explain(images, indices)).max(axis=(1, 2))
    agreement = Agreement(form, EXPLAINED, len(chosen), map=float(differences.max()))
    _check(agreement, _MAP_LIMIT, "map", [slices.names[i] for i in chosen], differences)
    return [agreement]


def _compare(form: str, signature: str, observed: _Observed, own: _Observed, scores: _Floats | None) -> Agreement:
    return Agreement(
        form,
        signature,
        len(own[0]),
        labels=int((observed[0].argmax(axis=1) == own[0].argmax(axis=1)).sum()),
        probabilities=float(_by_slice(observed[0], own[0]).max()),
        ood_score=None if scores is None else float(scores.max()),
    )


def _by_slice(observed: _Floats, own: _Floats) -> _Floats:
    return np.asarray(np.abs(observed - own).max(axis=1))


def _score_differences(observed: _Floats | None, own: _Floats | None, expected: InferenceBackend) -> _Floats | None:
    if observed is None or own is None:
        return None
    least = expected.ood_calibration.threshold if expected.ood_calibration else 1.0
    return np.asarray(np.abs(observed - own) / np.maximum(own, least))


def _check(agreement: Agreement, limit: float, what: str, names: Sequence[str], differences: _Floats) -> None:
    # NaN is within no limit.
    if (differences <= limit).all():
        return
    worst = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
    raise ModelError(
        f"An exported model must agree with its checkpoint within {limit:g}",
        received=f"a difference of {differences[worst]:.3g} in {what.replace('_', ' ')} of {names[worst]} through "
        f"{agreement.format}'s {agreement.signature}; nothing was published",
    )

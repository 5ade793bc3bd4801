"""The robustness sheet: a network's metrics on images as they are, and under every corruption at five levels."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from btkeras.checksums import read_document, recorded_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import load_calibration
from btkeras.decisions.finite import require_finite
from btkeras.errors import ConfigError, RunError
from btkeras.evaluation.corruptions import CORRUPTIONS, LEVELS, contact_sheet, corrupt
from btkeras.files import atomic_file, write_json
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.machine import map_in_threads
from btkeras.metrics import class_metrics, confusion_matrix, wilson
from btkeras.metrics.calibration import ESTIMATOR, expected_calibration_error
from btkeras.preprocessing.decode import decode_file
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run

if TYPE_CHECKING:
    import keras

MEANS = ("accuracy", "balanced_accuracy", "confidence", "ece")

# Name and level of each corruption of an image, first of the image as it is.
SETTINGS = (("noise", 0), *((name, level) for name in CORRUPTIONS for level in LEVELS))


@only_writer
def measure_robustness(
    run: Run, dataset: Dataset | None = None, images: int | None = 200, seed: int = 0
) -> dict[str, Any]:
    """Writes ``robustness.json``, and ``robustness.png``, one of the images under all corruptions.

    They are of ``images`` (see ``draw``) from the run's test subset, and go to its folder, or from all of another
    ``dataset``, and go to ``evaluations/NAME/`` in it.

    Returns:
        The content of ``robustness.json``. Its metrics are ``accuracy`` with Wilson's ``accuracy_interval``,
        ``balanced_accuracy`` (mean recall), ``confidence`` (mean highest probability) and ``ece``.

    Raises:
        DataError: If an image cannot be read, or its class is not one of the network's.
        RunError: If the run is unfinished and its own test subset would be looked at.
        ConfigError: If fewer images are wanted than there are classes.
    """
    # Imported here because it loads Keras, which reading a sheet does without.
    from btkeras.evaluation.evaluate import load_best
    from btkeras.evaluation.tumor_or_none import dataset_of_model

    start, model = time.perf_counter(), load_best(run)
    calibration = load_calibration(run, model)
    if dataset is not None:
        dataset = dataset_of_model(dataset, run.classes())
    else:
        run.require_finished()
    own = dataset or run.dataset()
    records = dataset.records if dataset else run.split(own).test
    drawn = draw(records, images, seed)
    logger.info(f"{len(drawn):,} of {len(records):,} images, each as it is and with {len(SETTINGS) - 1} corruptions")
    labels = np.array([run.classes().index(record.label) for record in drawn])
    probabilities = _predict_corrupted(run, model, [own.root / record.path for record in drawn])
    document = {
        "dataset": str(own.root),
        "split": "all" if dataset else "test",
        "images": len(drawn),
        "of": len(records),
        "seed": seed,
        "per_class": dict(sorted(Counter(record.label for record in drawn).items())),
        "temperature": calibration.temperature if calibration else 1.0,
        **_sheet(labels, probabilities),
        "sampling_error": _sampling_errors(labels, probabilities[:, 0], len(records)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    results = run.create_results("test", dataset)
    with atomic_file(results.robustness_image) as temporary:
        Image.fromarray(contact_sheet(decode_file(own.root / drawn[0].path))).save(temporary)
    write_json(results.robustness_file, document, recorded_file)
    return document


def draw(records: Sequence[Record], wanted: int | None, seed: int = 0) -> tuple[Record, ...]:
    """A random sample of images, stratified by class, with at least one image of each, in the order of ``records``.

    None wants all. Raises ``ConfigError`` if fewer are wanted than there are classes.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        members[record.label].append(i)
    if wanted is None or wanted >= len(records):
        return tuple(records)
    if wanted < len(members):
        raise ConfigError("A sample must hold an image of each class", received=f"{wanted} of {len(members)} classes")
    shares = {label: wanted * len(found) / len(records) for label, found in members.items()}
    counts = {label: max(1, math.floor(share)) for label, share in shares.items()}
    while (rest := wanted - sum(counts.values())) != 0:
        # Largest remainders; where single images of rare classes took too many, the class furthest above its share.
        choose, step = (max, 1) if rest > 0 else (min, -1)
        label = choose(
            (one for one in counts if step > 0 or counts[one] > 1), key=lambda one: shares[one] - counts[one]
        )
        counts[label] += step
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(members[label], counts[label], replace=False) for label in sorted(members)]
    return tuple(records[i] for i in sorted(np.concatenate(chosen).tolist()))


def _predict_corrupted(run: Run, model: keras.Model, paths: Sequence[Path]) -> NDArray[np.float32]:
    """Probabilities of images in every one of ``SETTINGS``: ``[images, settings, classes]``."""
    data = run.config().data
    preprocessor = Preprocessor(data.image_size, data.channels, data.harmonize)

    def corrupted(path: Path) -> NDArray[np.float32]:
        image = decode_file(path)
        return np.stack([preprocessor.array(corrupt(image, *setting)) for setting in SETTINGS]).astype(np.float32)

    bar = tqdm(paths, "robustness", unit=" images", file=sys.stderr, leave=False, disable=None)
    # One image in all settings is one batch, so that the shape is constant and few are in memory.
    found = np.stack([np.asarray(model.predict_on_batch(batch)) for batch in map_in_threads(corrupted, bar)])
    require_finite("outputs", [found], run.best_model)
    return found


def _sheet(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    """``estimator``, ``clean``, ``corruptions`` and ``mean``, from ``[images, settings, classes]``."""
    clean, *corrupted = (_metrics(labels, probabilities[:, i]) for i in range(len(SETTINGS)))
    corruptions = []
    for number, (name, corruption) in enumerate(CORRUPTIONS.items()):
        found = corrupted[number * len(LEVELS) :][: len(LEVELS)]
        levels = [
            {"level": level, "strength": strength} | row
            for level, strength, row in zip(LEVELS, corruption.strengths, found, strict=True)
        ]
        head = {"name": name, "title": corruption.title, "unit": corruption.unit}
        corruptions.append(head | {"levels": levels, "mean": _mean(found)})
    return {"estimator": ESTIMATOR, "clean": clean, "corruptions": corruptions, "mean": _mean(corrupted)}


def _metrics(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> dict[str, Any]:
    predictions = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predictions, probabilities.shape[1])
    correct = int(np.trace(matrix))
    present = matrix.sum(axis=1) > 0
    return {
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson(correct, len(labels))),
        "balanced_accuracy": float(class_metrics(matrix)["recall"][present].mean()),
        "confidence": float(probabilities.max(axis=1).mean(dtype=np.float64)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in MEANS}


def _sampling_errors(labels: NDArray[np.int64], probabilities: NDArray[np.float32], of: int) -> dict[str, float]:
    """Half of the 95 % intervals of a sample's accuracy: ``clean``, and ``largest``, of an accuracy of a half."""
    n = len(labels)
    # The finite population correction, 0 if all images were taken.
    correction = math.sqrt((of - n) / max(of - 1, 1))
    correct = {"largest": n / 2, "clean": float((probabilities.argmax(axis=1) == labels).sum())}
    widths = {key: np.diff(wilson(value, n))[0] for key, value in correct.items()}
    return {key: float(correction * width / 2) for key, width in widths.items()}


def read_sheet(run: Run) -> dict[str, Any] | None:
    """Reads a run's ``robustness.json``; None if it has none. Raises ``RunError`` if it is not as it was written."""
    file = run.robustness_file
    if not file.is_file():
        return None
    document = read_document(file)
    try:
        robustness_table(document)
        levels = [level for row in document["corruptions"] for level in row["levels"]]
        for number in (document["seed"], *(level[name] for level in levels for name in MEANS)):
            float(number)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{file} must be as `btkeras robustness` writes it",
            received=f"{type(error).__name__}: {error}",
            remedy=f"Make it again: btkeras robustness {run.path}",
        ) from error
    return document


def robustness_table(document: Mapping[str, Any]) -> str:
    """The sheet as text: accuracy and mean confidence, in percent, by corruption and level."""
    clean, mean, width = document["clean"], document["mean"], max(map(len, CORRUPTIONS)) + 2
    blocks = (("accuracy", "balanced_accuracy", "balanced"), ("confidence", "ece", "ECE"))
    lines = []
    for key, second, title in blocks:
        levels = "".join(f"{level:8}" for level in LEVELS)
        lines.append(f"{key + ', %':{width + 6}}{levels}{'mean':>8}{title:>10}")
        for row in document["corruptions"]:
            cells = "".join(f"{100 * level[key]:8.1f}" for level in row["levels"])
            lines.append(
                f"{row['name']:{width + 6}}{cells}{100 * row['mean'][key]:8.1f}{100 * row['mean'][second]:10.1f}"
            )
        for name, figures in (("all of them", mean), ("as they are", clean)):
            lines.append(f"{name:{width + 6 + 8 * len(LEVELS)}}{100 * figures[key]:8.1f}{100 * figures[second]:10.1f}")
        lines.append("")
    for row in document["corruptions"]:
        strengths = ", ".join(f"{level['strength']:g}" for level in row["levels"])
        lines.append(f"{row['name']:{width}}{row['title']}; {row['unit']}: {strengths}")
    return "\n".join([*lines, "", *_summary(document)])


def _summary(document: Mapping[str, Any]) -> list[str]:
    clean, mean, errors = document["clean"], document["mean"], document["sampling_error"]
    lines = [
        f"accuracy {100 * clean['accuracy']:.2f} % as they are, {100 * mean['accuracy']:.2f} % over all corruptions; "
        f"confidence {100 * clean['confidence']:.2f} % and {100 * mean['confidence']:.2f} %"
    ]
    if document["images"] < document["of"]:
        lines.append(
            f"{document['images']:,} of {document['of']:,} images: with 95 % confidence an accuracy is off by at most "
            f"{100 * errors['clean']:.1f} points where it is as high as without corruption, and by "
            f"{100 * errors['largest']:.1f} near 50 %; --images all takes all"
        )
    return lines

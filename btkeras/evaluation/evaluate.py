"""Evaluates a run's best checkpoint on its own split or on another dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import check_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import load_calibration
from btkeras.decisions.finite import require_finite
from btkeras.decisions.ood import load_ood
from btkeras.decisions.selective_classifier import SelectiveClassifier, check_files
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.known_slices import save_known_slices
from btkeras.evaluation.new_patients import require_scans
from btkeras.evaluation.results import EvaluationResult
from btkeras.evaluation.tumor_or_none import as_tumor_or_none, dataset_of_model
from btkeras.locks import only_writer
from btkeras.machine import cache_folder
from btkeras.models.head import with_features
from btkeras.models.keras_file import load_network
from btkeras.runs import Run
from btkeras.splitting.near_duplicates import duplicated_in_training
from btkeras.splitting.splits import SUBSETS, Split
from btkeras.training.pipeline import broken_images, evaluation_batches, load_images

# No gradients are kept, but the batch of a large GPU may be too large for the machine that evaluates.
_LARGEST_BATCH = 32


class LoadedRun:
    """A run with its best checkpoint, dataset and split, loaded once for several steps; errors as ``load_best``."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def model(self) -> keras.Model:
        return load_best(self.run)

    @cached_property
    def dataset(self) -> Dataset:
        return self.run.dataset()

    @cached_property
    def split(self) -> Split:
        return self.run.split(self.dataset)


def loaded(run: Run | LoadedRun) -> LoadedRun:
    """A run's checkpoint, loaded if it is not yet."""
    return run if isinstance(run, LoadedRun) else LoadedRun(run)


def load_best(run: Run) -> keras.Model:
    """Loads a run's best checkpoint, for inference in float32.

    Raises:
        RunError: If there is none yet.
        ModelError: If it cannot be read, is another network than the run's configuration says, or is not finite.
    """
    config = run.config()
    if "classifier" in run.manifest():
        raise ModelError(
            "A model must be a network to be used again",
            received=f"{run.path}, a run of {config.model.name}, which keeps its predictions only",
            remedy="Its metrics are in metrics.json; train a network for anything else",
        )
    if not run.best_model.is_file():
        raise RunError(
            "A run must have finished an epoch before its model can be used",
            received=f"{run.path} without {run.best_model.name}",
            remedy=f"Train on with: btkeras train --resume --out {run.path}",
        )
    check_file(run.best_model)
    model = load_network(run.best_model)
    expected = (config.data.image_size, config.data.image_size, config.data.channels, len(run.classes()))
    found = (*model.input_shape[1:], model.output_shape[-1])
    if model.name != config.model.name or found != expected:
        raise ModelError(
            f"{run.best_model} must be the network of its run: {config.model.name} {expected}",
            received=f"{model.name} {found}",
            remedy="Put the run's own checkpoint back",
        )
    require_finite("weights", model.variables, run.best_model)
    return model


def evaluate_split(
    run: Run | LoadedRun, subset: str = "test", *, unfinished: bool = False, group_by: str | None = None
) -> dict[str, Any]:
    """Evaluates on a subset of the run's own dataset.

    Results for ``test`` go to the run folder, those for ``train`` and ``validation`` to ``evaluations/SUBSET/``.
    ``unfinished`` allows the test subset of an unfinished run; the metrics then say how far it was. ``group_by`` asks
    for metrics per ``patient`` or ``series``, which else are there only if images name theirs.

    Returns:
        As ``EvaluationResult.metrics``.

    Raises:
        DataError: If no image names what ``group_by`` asks for.
        RunError: If there is no checkpoint yet, it does not match the calibration, or the run is unfinished.
    """
    opened = loaded(run)
    if subset == "test" and not unfinished:
        opened.run.require_finished(otherwise="or look now: --unfinished")
    records = opened.split.subset(subset)
    require_scans(records, group_by)
    return _evaluate(opened, opened.dataset, records, subset, skip_broken=False)


def evaluate_dataset(
    run: Run | LoadedRun, dataset: Dataset, *, skip_broken: bool = False, group_by: str | None = None
) -> dict[str, Any]:
    """Evaluates on every image of another dataset; results go to ``evaluations/NAME/`` in the run.

    ``group_by`` is as of ``evaluate_split``.

    Raises:
        DataError: If it has a class that the network does not know, an image is broken, or none names what ``group_by``
            asks for.
    """
    opened = loaded(run)
    require_scans(dataset.records, group_by)
    dataset = dataset_of_model(dataset, opened.run.classes(), merged=True)
    return _evaluate(opened, dataset, dataset.records, "all", skip_broken=skip_broken)


@only_writer
def _evaluate(
    opened: LoadedRun, dataset: Dataset, records: Sequence[Record], subset: str, *, skip_broken: bool
) -> dict[str, Any]:
    run, classes = opened.run, opened.run.classes()
    calibration, ood = load_calibration(run, opened.model), load_ood(run)
    if calibration and subset == "all":
        calibration.warn_if_fitted_on(dataset.root)
    found = predict_records(run, with_features(opened.model), dataset, records, subset, skip_broken=skip_broken)
    if subset == "test":
        run.update_manifest(evaluation_images_per_second=found.images_per_second)
    probabilities, features = np.split(found.outputs, [len(classes)], axis=1)
    selective = SelectiveClassifier(classes, calibration, ood.reference if ood else None)
    rejections = check_files([dataset.root / record.path for record in found.records])
    decisions = selective.decisions(probabilities, ood.score(features) if ood else None, rejections)
    known = _near_duplicates(opened, dataset, [record.path for record in found.records], subset)
    # Of another dataset, the split's groups are other images'.
    groups = opened.split.groups if subset in SUBSETS else {}
    result = EvaluationResult(found.records, classes, probabilities, calibration, decisions, known, groups)
    result = as_tumor_or_none(result)
    metrics = result.metrics(dataset, subset, broken=len(records) - len(found.records))
    if state := run.unfinished():
        metrics["unfinished"] = state
    result.write(run.create_results(subset, dataset if subset == "all" else None).path, metrics)
    return metrics


def _near_duplicates(
    opened: LoadedRun, dataset: Dataset, paths: Sequence[str], subset: str
) -> Mapping[str, str] | None:
    """What near-duplicates of training images are of: those of a test subset, or of another dataset."""
    if subset == "test":
        return duplicated_in_training(dataset, opened.split, cache_folder())
    known = save_known_slices(opened.run) if subset == "all" else None
    return known.find_in(dataset.root, paths) if known else None


@dataclass(frozen=True)
class PredictedRecords:
    """A network's outputs for images."""

    records: tuple[Record, ...]  # the images, without those that could not be read
    outputs: NDArray[np.float32]  # ``[len(records), outputs]``
    images_per_second: float | None  # after the first batch, in which the graph is traced; None for a single batch


def predict_records(
    run: Run, model: keras.Model, dataset: Dataset, records: Sequence[Record], name: str, *, skip_broken: bool = False
) -> PredictedRecords:
    """Preprocesses a dataset's images as the run's configuration says, and predicts them.

    ``model`` is the run's network, or one with its layers; ``name`` is the images', for the progress bar. Images that
    cannot be read are left out with ``skip_broken``, and raise ``DataError`` without. Raises ``ModelError`` if outputs
    are not finite.
    """
    classes, config = run.classes(), run.config()
    images = load_images(dataset, records, config.data.image_size, config, name=name)
    if name in SUBSETS:
        run.check_pixels(dataset, dict(zip((record.path for record in records), images.pixels, strict=True)))
    broken = {records[i].path: str(error) for i, error in images.broken.items()}
    if broken and not skip_broken:
        raise broken_images(broken)
    usable = tuple(records[i] for i in images.usable)
    # The labels that go with the images are not asked for; a dataset may have others than the network.
    batches = evaluation_batches(images, [0] * len(usable), len(classes), min(config.train.batch_size, _LARGEST_BATCH))
    outputs, speed = _outputs(model, batches)
    require_finite("outputs", [outputs], run.best_model)
    return PredictedRecords(usable, outputs, speed)


def _outputs(model: keras.Model, batches: Any) -> tuple[NDArray[np.float32], float | None]:
    outputs: list[NDArray[np.float32]] = []
    start = time.perf_counter()
    for images, _ in batches:
        # As NumPy arrays, since JAX does not take TensorFlow's tensors here.
        outputs.append(np.asarray(model.predict_on_batch(np.asarray(images))))
        start = time.perf_counter() if len(outputs) == 1 else start
    timed = sum(map(len, outputs[1:]))
    return np.concatenate(outputs), round(timed / (time.perf_counter() - start), 1) if timed else None

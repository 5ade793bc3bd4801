"""The figures of a run's best checkpoint, on its own split or on another dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import load_calibration
from btkeras.decisions.ood import load_ood
from btkeras.decisions.selective_classifier import Decision, SelectiveClassifier, check_files
from btkeras.errors import DataError, ModelError, RunError
from btkeras.evaluation.results import EvaluationResult, metrics_table
from btkeras.models.head import with_features
from btkeras.runs import Run
from btkeras.training.pipeline import broken_images, evaluation_batches, load_images

__all__ = [
    "PredictedRecords",
    "evaluate_dataset",
    "evaluate_split",
    "load_best",
    "metrics_table",
    "predict_records",
    "require_known_classes",
    "write_evaluation",
]


def load_best(run: Run) -> keras.Model:
    """Loads a run's best checkpoint, for inference in float32.

    Raises:
        RunError: If there is none yet.
        ModelError: If it cannot be read, or is another network than the run's configuration says.
    """
    if "classifier" in run.manifest():
        raise ModelError(
            "A model must be a network to be used again",
            received=f"{run.path}, a run of {run.config().model.name}, which keeps its answers only",
            remedy="Its figures are in metrics.json; train a network for anything else",
        )
    if not run.best_model.is_file():
        raise RunError(
            "A run must have finished an epoch before its model can be used",
            received=f"{run.path} without {run.best_model.name}",
            remedy=f"Train on with: btkeras train --resume --out {run.path}",
        )
    try:
        model = keras.models.load_model(run.best_model, compile=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("A checkpoint must be a whole .keras file", received=f"{run.best_model} ({reason})") from error
    config = run.config()
    expected = (config.data.image_size, config.data.image_size, config.data.channels, len(run.classes()))
    found = (*model.input_shape[1:], model.output_shape[-1])
    if model.name != config.model.name or found != expected:
        raise ModelError(
            f"{run.best_model} must be the network of its run: {config.model.name} {expected}",
            received=f"{model.name} {found}",
            remedy="Put the run's own checkpoint back",
        )
    return model


def evaluate_split(run: Run, subset: str = "test") -> dict[str, Any]:
    """Evaluates on a part of the run's own split.

    The test part's figures are the run's ``metrics.json`` and ``predictions.csv``; those of another part go to
    ``evaluations/PART/``.

    Returns:
        What ``btkeras.metrics.summarize`` gives, and ``dataset``, ``split``, ``chance`` (the accuracy of always
        answering the most frequent class) ``calibration`` (``evaluation.calibration_figures.calibration_figures``) and
        ``selective`` (``evaluation.selective.selective_figures``).
    """
    dataset = run.dataset()
    records = run.split(dataset).subset(subset)
    folder = run.path if subset == "test" else run.path / "evaluations" / subset
    return _evaluate(run, dataset, records, subset, folder, skip_broken=False)


def evaluate_dataset(run: Run, dataset: Dataset, *, skip_broken: bool = False) -> dict[str, Any]:
    """Evaluates on every image of another dataset; results go to ``evaluations/NAME/`` in the run.

    Raises:
        DataError: If it has a class that the network does not know, or an image is broken.
    """
    require_known_classes(run, dataset)
    folder = run.path / "evaluations" / dataset.root.resolve().name
    return _evaluate(run, dataset, dataset.records, "all", folder, skip_broken=skip_broken)


def require_known_classes(run: Run, dataset: Dataset) -> None:
    """Checks that a network can be right about a dataset.

    Raises:
        DataError: If it has a class that the network does not know.
    """
    unknown = set(dataset.classes) - set(run.classes())
    if unknown:
        raise DataError(
            f"The dataset's classes must be among the network's ({', '.join(run.classes())})",
            received=", ".join(sorted(unknown)),
        )


def _evaluate(
    run: Run, dataset: Dataset, records: Sequence[Record], subset: str, folder: Path, *, skip_broken: bool
) -> dict[str, Any]:
    model = load_best(run)
    # Figures of the calibration are only true of the network that it belongs to.
    calibration, ood = load_calibration(run, model), load_ood(run)
    answers = predict_records(run, with_features(model), dataset, records, subset, skip_broken=skip_broken)
    if subset == "test":
        run.update_manifest(evaluation_images_per_second=answers.images_per_second)
    facts = {"dataset": str(dataset.root), "split": subset, "broken": len(records) - len(answers.records)}
    probabilities, features = np.split(answers.outputs, [len(run.classes())], axis=1)
    selective = SelectiveClassifier(run.classes(), calibration, ood.reference if ood else None)
    refusals = check_files([dataset.root / record.path for record in answers.records])
    decisions = selective.decisions(probabilities, ood.score(features) if ood else None, refusals)
    return write_evaluation(run, answers.records, probabilities, folder=folder, facts=facts, decisions=decisions)


@dataclass(frozen=True)
class PredictedRecords:
    """A network's answers to images.

    Attributes:
        records: The images, less those that could not be read.
        outputs: ``[len(records), outputs]`` float32.
        images_per_second: Behind the first batch, in which the graph is traced; None for a single batch.
    """

    records: tuple[Record, ...]
    outputs: NDArray[np.float32]
    images_per_second: float | None


def predict_records(
    run: Run, model: keras.Model, dataset: Dataset, records: Sequence[Record], name: str, *, skip_broken: bool = False
) -> PredictedRecords:
    """Shows a network images as the run's configuration says.

    Args:
        run: Says size, channels and batches.
        model: Its network, or a part of it.
        dataset: Where the images are.
        records: The images.
        name: Of them, for the progress bar.
        skip_broken: Leave out what cannot be read.

    Raises:
        DataError: If an image cannot be read.
    """
    classes, config = run.classes(), run.config()
    store = load_images(dataset, records, config.data.image_size, config, name=name)
    broken = {records[i].path: str(error) for i, error in store.broken.items()}
    if broken and not skip_broken:
        raise broken_images(broken)
    usable = tuple(records[i] for i in store.usable)
    targets = [classes.index(record.label) for record in usable]
    batches = evaluation_batches(store, targets, len(classes), _batch_size(config))
    return PredictedRecords(usable, *_outputs(model, batches))


def write_evaluation(
    run: Run,
    records: Sequence[Record],
    probabilities: NDArray[np.floating],
    *,
    folder: Path,
    facts: Mapping[str, Any],
    decisions: Sequence[Decision] | None = None,
) -> dict[str, Any]:
    """Writes ``predictions.csv``, with verdicts ``decisions.csv``, and, last, ``metrics.json``.

    Args:
        run: Says the classes.
        records: The images.
        probabilities: ``[len(records), classes]``.
        folder: Where the files go.
        facts: What was evaluated: ``dataset``, ``split`` and ``broken`` (images left out).
        decisions: Of the images; their figures are ``selective``.

    Returns:
        The metrics, as ``evaluate_split``.
    """
    result = EvaluationResult(tuple(records), run.classes(), probabilities, load_calibration(run), decisions)
    metrics = {**facts, **result.figures()}
    result.write(folder, metrics)
    return metrics


def _outputs(model: keras.Model, batches: Any) -> tuple[NDArray[np.float32], float | None]:
    """The answers, and the images a second behind the first batch, in which the graph is traced."""
    answers: list[NDArray[np.float32]] = []
    start = time.perf_counter()
    for images, _ in batches:
        # As NumPy arrays, since JAX does not take TensorFlow's tensors here.
        answers.append(np.asarray(model.predict_on_batch(np.asarray(images))))
        start = time.perf_counter() if len(answers) == 1 else start
    counted = sum(map(len, answers[1:]))
    return np.concatenate(answers), round(counted / (time.perf_counter() - start), 1) if counted else None


def _batch_size(config: ExperimentConfig) -> int:
    # No gradients are kept, but a batch for a big GPU may still be too much for the machine that evaluates.
    return min(config.train.batch_size, 32)

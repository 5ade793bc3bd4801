"""Training one run: from a configuration to a run folder with a tested model."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys
from btkeras.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from btkeras.data.records import Dataset
from btkeras.data.splits import make_split
from btkeras.errors import RunError
from btkeras.models import build_model
from btkeras.models.build import check_name
from btkeras.runs import Run, create_run, open_run, require_new
from btkeras.training.callbacks import BestModel, EpochEnd
from btkeras.training.console import ProgressLine, duration
from btkeras.training.inputs import Inputs, build_inputs
from btkeras.training.metric import MacroRecall
from btkeras.training.optimizers import make_optimizer
from btkeras.training.precision import dtype_policy, resolve_precision
from btkeras.training.runtime import describe_device, seed_everything, strategy_scope
from btkeras.training.schedules import Schedule
from btkeras.training.state import Progress, load_progress, restore_state
from btkeras.training.tensorboard import TensorBoard


class Interrupted(RunError):
    """The user stopped a training; it can be resumed."""


@dataclass(frozen=True)
class Training:
    """Everything that a training consists of, ready to run."""

    config: ExperimentConfig
    run: Run
    inputs: Inputs
    classes: tuple[str, ...]
    model: keras.Model
    portable: keras.Model
    schedule: Schedule
    progress: Progress

    @property
    def steps(self) -> int:
        """Training steps per epoch."""
        return steps_per_epoch(len(self.inputs.stores["train"]), self.config.train.batch_size)

    def learning_rate(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return float(np.asarray(self.schedule(step)))


def notice(text: str) -> None:
    """Says something to the user, on standard error."""
    print(text, file=sys.stderr, flush=True)


def train(config: ExperimentConfig, dataset: Dataset, out: Path, *, skip_broken: bool = False) -> Run:
    """Starts a run: splits the dataset, trains, and keeps the best checkpoint.

    Args:
        config: All settings.
        dataset: The pictures.
        out: The run folder, which must not exist.
        skip_broken: Leave out pictures that cannot be read, and record them, instead of stopping.

    Raises:
        DataError: If the dataset cannot be split or read.
        RunError: If ``out`` exists, or the loss stops being finite.
        Interrupted: If the user stops it.
    """
    require_new(out)
    check_name(config.model.name)
    split = make_split(dataset, config.data)
    # Before the run's folder appears, so that a broken picture leaves nothing behind.
    inputs = build_inputs(dataset, split, config, skip_broken=skip_broken)
    run = create_run(out, config, dataset, split)
    run.update_manifest(broken=[{"path": path, "reason": reason} for path, reason in inputs.broken.items()])
    return _run(config, run, dataset, inputs)


def resume(run_folder: Path, config: ExperimentConfig | None = None) -> Run:
    """Goes on with an unfinished run after its last finished epoch, to the result of an uninterrupted one.

    Args:
        run_folder: The run.
        config: If given, must equal the run's own.

    Raises:
        RunError: If there is no such run, or the configuration differs.
    """
    run = open_run(run_folder)
    own = run.config()
    different = changed_keys(own, config) if config else []
    if different:
        raise RunError(
            "A resumed run must keep its configuration",
            received=f"another {', '.join(different)}",
            remedy=f"Leave --config and --set away, or start a new run (its own is in {run.config_file})",
        )
    dataset = run.dataset()
    split = run.split(dataset)
    return _run(own, run, dataset, build_inputs(dataset, split, own))


def _run(config: ExperimentConfig, run: Run, dataset: Dataset, inputs: Inputs) -> Run:
    training = _prepare(config, run, dataset, inputs)
    if training.progress.finished:
        notice(f"{run.path} is finished already")
        return run
    _announce(training)
    try:
        _fit(training)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Stopped; {training.progress.epochs} of {config.train.epochs} epochs of {run.path} are kept",
            remedy=f"Go on with: btkeras train --resume --out {run.path}",
        ) from interrupt
    run.update_manifest(
        best_epoch=training.progress.best_epoch,
        epochs=training.progress.epochs,
        training_seconds=round(training.progress.seconds, 1),
    )
    return run


def _prepare(config: ExperimentConfig, run: Run, dataset: Dataset, inputs: Inputs) -> Training:
    manifest = run.manifest()
    if "precision" not in manifest:
        # Resolved once: a resumed run must not measure again and decide otherwise.
        precision = resolve_precision(config.train.precision)
        run.update_manifest(precision=precision.policy, precision_reason=precision.reason, device=describe_device())
        manifest = run.manifest()
    notice(f"precision {manifest['precision']}: {manifest['precision_reason']}")
    progress = load_progress(run.state_file) if run.state_file.is_file() else Progress()
    steps = steps_per_epoch(len(inputs.stores["train"]), config.train.batch_size)
    schedule = Schedule(config.optimizer, config.schedule, config.train.epochs, steps)
    # After the precision was measured, which draws random weights of its own.
    seed_everything(config.train)
    with strategy_scope():
        with dtype_policy(manifest["precision"]):
            model = _network(config, dataset, inputs)
        _compile(model, config, schedule, len(dataset.classes))
    if progress.epochs:
        restore_state(run.state_file, model)
        notice(f"resuming {run.path} after epoch {progress.epochs}")
    with dtype_policy("float32"):
        portable = _network(config, dataset, inputs)
    return Training(config, run, inputs, dataset.classes, model, portable, schedule, progress)


def _network(config: ExperimentConfig, dataset: Dataset, inputs: Inputs) -> keras.Model:
    size, channels = config.data.image_size, config.data.channels
    mean, variance = inputs.stores["train"].statistics()
    return build_model(
        config.model.name,
        input_shape=(size, size, channels),
        classes=len(dataset.classes),
        mean=mean,
        variance=variance,
    )


def _compile(model: keras.Model, config: ExperimentConfig, schedule: Schedule, classes: int) -> None:
    model.compile(
        optimizer=make_optimizer(config.optimizer, schedule, model),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.train.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), MacroRecall(classes)],
        jit_compile=config.train.jit_compile,
    )
    model.optimizer.build(model.trainable_variables)


def _announce(training: Training) -> None:
    counts = {part: len(store) for part, store in training.inputs.stores.items()}
    notice(
        f"{training.config.model.name}: {training.model.count_params():,} parameters; "
        f"pictures {', '.join(f'{part} {count:,}' for part, count in counts.items())}; "
        f"training pictures kept: {training.inputs.kept}"
    )
    notice(f"watch it with: tensorboard --logdir {training.run.path / 'tensorboard'}")


def _fit(training: Training) -> None:
    config, progress = training.config, training.progress
    store, validation = training.inputs.stores["train"], training.inputs.stores["validation"]
    batches = training_batches(
        store,
        training.inputs.labels["train"],
        len(training.classes),
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        augmentation=config.augment,
        seed=config.train.seed,
        epochs=range(progress.epochs, config.train.epochs),
    )
    checks = evaluation_batches(
        validation, training.inputs.labels["validation"], len(training.classes), config.train.batch_size
    )
    start = time.perf_counter()
    training.model.fit(
        batches,
        validation_data=checks,
        initial_epoch=progress.epochs,
        epochs=config.train.epochs,
        steps_per_epoch=training.steps,
        callbacks=_callbacks(training, np.asarray(next(iter(batches))[0])),
        shuffle=False,
        verbose=0,
    )
    notice(
        f"trained in {duration(time.perf_counter() - start)}; best checkpoint: epoch {progress.best_epoch} with "
        f"val_accuracy {progress.best['accuracy']:.4f}, val_loss {progress.best['loss']:.4f}"
    )


def _callbacks(training: Training, images: np.ndarray) -> list[keras.callbacks.Callback]:
    config, run, progress = training.config, training.run, training.progress
    epochs, pictures = config.train.epochs, training.steps * config.train.batch_size
    best = BestModel(run, training.portable, progress, config.train.monitor)
    # Behind BestModel, which needs the averaged weights that this puts in place for the validation.
    averaging = [keras.callbacks.SwapEMAWeights()] if config.optimizer.ema else []
    return [
        best,
        *averaging,
        TensorBoard(run, config, training.classes, images, training.learning_rate, pictures),
        ProgressLine(epochs, training.steps, config.train.batch_size),
        EpochEnd(run, progress, training.learning_rate, epochs, config.train.early_stopping),
    ]

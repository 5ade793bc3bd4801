"""Training one run: from a configuration to a run folder with a tested model."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.errors import ModelError, RunError
from btkeras.logging import duration, logger
from btkeras.machine import cache_folder
from btkeras.models import build_model
from btkeras.models.build import check_name, count_macs
from btkeras.models.head import set_backbone_trainable
from btkeras.models.imagenet import check_pretrained, load_pretrained, scaled_variance, weights_file
from btkeras.models.reparameterize import reparameterize
from btkeras.runs import Run, create_run, open_run, require_new, require_same_config
from btkeras.splitting.splits import Split, make_split
from btkeras.training.callbacks import BestModel, EpochEnd, MacroRecall, ProgressLine
from btkeras.training.checkpoint import Progress, load_progress, restore_state
from btkeras.training.optimizers import Schedule, make_optimizer
from btkeras.training.phases import cooldown_config, phases
from btkeras.training.pipeline import (
    Inputs,
    build_inputs,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from btkeras.training.precision import dtype_policy, resolve_precision
from btkeras.training.runtime import describe_device, seed_everything, strategy_scope
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


def train(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Starts a run: splits the dataset, trains, and keeps the best checkpoint.

    Args:
        config: All settings.
        dataset: The images.
        out: The run folder, which must not exist.
        split: Which image is used for what; by default made from ``config.data``.
        skip_broken: Leave out images that cannot be read, and record them, instead of stopping.
        facts: What else the manifest says; a ``precision`` (with ``precision_reason``) there is not decided again.

    Raises:
        DataError: If the dataset cannot be split or read.
        RunError: If ``out`` exists, or the loss stops being finite.
        Interrupted: If the user stops it.
    """
    require_new(out)
    check_network(config)
    split = split or make_split(dataset, config.data, cache_folder())
    # Before the run's folder appears, so that a broken image leaves nothing behind.
    inputs = build_inputs(dataset, split, config, skip_broken=skip_broken)
    broken = [{"path": path, "reason": reason} for path, reason in inputs.broken.items()]
    run = create_run(out, config, dataset, split, broken=broken, **facts)
    try:
        return _run(config, run, dataset, inputs, Progress())
    except ModelError:
        # Weights that do not fit are found when the network is there; nothing has been trained then.
        shutil.rmtree(out)
        raise


def check_network(config: ExperimentConfig) -> None:
    """Checks what can be checked before images are read, and downloads weights if that is asked for.

    Raises:
        ModelError: If the network is unknown, its weights cannot be had, or it cannot be fine-tuned here.
    """
    check_name(config.model.name)
    if config.model.weights != "random":
        check_pretrained(config.model.name, config.data.channels)
        weights_file(config.model.name, config.model.weights)
    if config.model.frozen_epochs and keras.backend.backend() != "tensorflow":
        # The other backends' optimizers take the gradients of all their variables or of none.
        raise ModelError(
            "model.frozen_epochs needs Keras' TensorFlow backend",
            received=keras.backend.backend(),
            remedy="Leave KERAS_BACKEND away, or set model.frozen_epochs=0",
        )


def resume(run_folder: Path, config: ExperimentConfig | None = None) -> Run:
    """Goes on with an unfinished run after its last finished epoch, to the result of an uninterrupted one.

    Args:
        run_folder: The run.
        config: If given, must equal the run's own.

    Raises:
        RunError: If there is no such run, or the configuration differs.
    """
    run = open_run(run_folder)
    require_same_config(run, config)
    dataset = run.dataset()
    split = run.split(dataset)
    progress = load_progress(run.state_file) if run.state_file.is_file() else Progress()
    if progress.finished:
        logger.info(f"{run.path} is finished already")
        # Perhaps it was killed between its last epoch and this.
        _record(run, progress)
        return run
    own = run.config()
    return _run(own, run, dataset, build_inputs(dataset, split, own), progress)


def _run(config: ExperimentConfig, run: Run, dataset: Dataset, inputs: Inputs, progress: Progress) -> Run:
    training = _prepare(config, run, dataset, inputs, progress)
    _announce(training)
    try:
        _fit(training)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"Stopped; {training.progress.epochs} of {config.train.epochs} epochs of {run.path} are kept",
            remedy=f"Go on with: btkeras train --resume --out {run.path}",
        ) from interrupt
    _record(run, progress)
    return run


def _record(run: Run, progress: Progress) -> None:
    """Says in the manifest what came of a training; its speed counts the validations' time too."""
    # A run of before it was recorded has no number of images, and so no speed.
    images = run.manifest().get("images_per_epoch")
    speed = round(images * progress.epochs / progress.seconds, 1) if images else None
    run.update_manifest(
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        training_seconds=round(progress.seconds, 1),
        training_images_per_second=speed,
    )


def _prepare(config: ExperimentConfig, run: Run, dataset: Dataset, inputs: Inputs, progress: Progress) -> Training:
    if "precision" not in run.manifest():
        # Resolved once: a resumed run must not measure again and decide otherwise.
        precision = resolve_precision(config.train.precision)
        run.update_manifest(precision=precision.policy, precision_reason=precision.reason)
    run.update_manifest(device=describe_device())
    manifest = run.manifest()
    logger.info(f"precision {manifest['precision']}: {manifest['precision_reason']}")
    steps = steps_per_epoch(len(inputs.stores["train"]), config.train.batch_size)
    schedule = Schedule(config.optimizer.learning_rate, config.schedule, config.train.epochs, steps)
    # After the precision was measured, which draws random weights of its own.
    seed_everything(config.train)
    with strategy_scope():
        with dtype_policy(manifest["precision"]):
            model = reparameterize(_network(config, dataset, inputs), grey=_stays_grey(inputs), trainable=True)
        _compile(model, config, make_optimizer(config.optimizer, schedule, model), len(dataset.classes))
        # Before anything is frozen: the state for resuming is that of all weights in every epoch.
        model.optimizer.build(model.trainable_variables)
    if progress.epochs:
        restore_state(run.state_file, model)
        logger.info(f"resuming {run.path} after epoch {progress.epochs}")
    elif config.model.weights != "random":
        load_pretrained(model, config.model.weights)
    with dtype_policy("float32"):
        portable = _network(config, dataset, inputs)
    run.update_manifest(**_sizes(portable), images_per_epoch=steps * config.train.batch_size)
    return Training(config, run, inputs, dataset.classes, model, portable, schedule, progress)


def _network(config: ExperimentConfig, dataset: Dataset, inputs: Inputs) -> keras.Model:
    size, channels = config.data.image_size, config.data.channels
    mean, own_variance = inputs.stores["train"].statistics()
    variance: float | list[float] = own_variance
    if config.model.weights != "random":
        variance = scaled_variance(config.model.name, variance)
    return build_model(
        config.model.name,
        input_shape=(size, size, channels),
        classes=len(dataset.classes),
        mean=mean,
        variance=variance,
    )


def _stays_grey(inputs: Inputs) -> bool:
    """Whether the network sees equal channels only: augmentation changes all channels of an image alike."""
    return all(inputs.stores[subset].grey for subset in ("train", "validation"))


def _sizes(model: keras.Model) -> dict[str, int]:
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    return {"parameters": model.count_params(), "trainable_parameters": trainable, "macs": count_macs(model)}


def _compile(model: keras.Model, config: ExperimentConfig, optimizer: keras.optimizers.Optimizer, classes: int) -> None:
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=config.train.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), MacroRecall(classes)],
        jit_compile=config.train.jit_compile,
    )


def _announce(training: Training) -> None:
    counts = {subset: len(store) for subset, store in training.inputs.stores.items()}
    logger.info(
        f"{training.config.model.name}: {training.model.count_params():,} parameters; "
        f"images {', '.join(f'{subset} {count:,}' for subset, count in counts.items())}; "
        f"training images: {training.inputs.location}"
    )
    logger.info(f"watch it with: tensorboard --logdir {training.run.path / 'tensorboard'}")


def _fit(training: Training) -> None:
    config, progress = training.config, training.progress
    start = time.perf_counter()
    for phase in phases(config):
        epochs = range(max(phase.epochs.start, progress.epochs), phase.epochs.stop)
        if not epochs or progress.finished:
            continue
        if config.model.frozen_epochs:
            _freeze(training, backbone_learns=phase.backbone_learns)
        if phase.is_cooldown:
            logger.info(f"refining from epoch {phase.epochs.start + 1}: images are changed less")
        _fit_epochs(training, epochs, cooldown_config(config) if phase.is_cooldown else config)
    logger.info(
        f"trained in {duration(time.perf_counter() - start)}; best checkpoint: epoch {progress.best_epoch} with "
        f"val_accuracy {progress.best['accuracy']:.4f}, val_loss {progress.best['loss']:.4f}"
    )


def _freeze(training: Training, *, backbone_learns: bool) -> None:
    set_backbone_trainable(training.model, backbone_learns)
    with strategy_scope():
        _compile(training.model, training.config, training.model.optimizer, len(training.classes))
    logger.info("all layers learn" if backbone_learns else "the head alone learns")


def _fit_epochs(training: Training, epochs: range, config: ExperimentConfig) -> None:
    store, validation = training.inputs.stores["train"], training.inputs.stores["validation"]
    batches = training_batches(
        store,
        training.inputs.labels["train"],
        len(training.classes),
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        augmentation=config.augment,
        intensity=config.intensity,
        tumors=training.inputs.tumors,
        seed=config.train.seed,
        epochs=epochs,
    )
    checks = evaluation_batches(
        validation, training.inputs.labels["validation"], len(training.classes), config.train.batch_size
    )
    training.model.fit(
        batches,
        validation_data=checks,
        initial_epoch=epochs.start,
        epochs=epochs.stop,
        steps_per_epoch=training.steps,
        callbacks=_callbacks(training, np.asarray(next(iter(batches))[0])),
        shuffle=False,
        verbose=0,
    )


def _callbacks(training: Training, images: np.ndarray) -> list[keras.callbacks.Callback]:
    config, run, progress = training.config, training.run, training.progress
    epochs, examples = config.train.epochs, training.steps * config.train.batch_size
    best = BestModel(run, training.portable, progress, config.train.monitor)
    # Behind BestModel, which needs the averaged weights that this puts in place for the validation.
    averaging = [keras.callbacks.SwapEMAWeights()] if config.optimizer.ema else []
    return [
        best,
        *averaging,
        TensorBoard(run, config, training.classes, images, training.learning_rate, examples),
        ProgressLine(epochs, training.steps, config.train.batch_size),
        EpochEnd(run, progress, training.learning_rate, epochs, config.train.early_stopping),
    ]

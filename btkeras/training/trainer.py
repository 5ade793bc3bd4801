"""Training one run: from a configuration to a run folder with a trained model."""

from __future__ import annotations

import math
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from btkeras.checksums import check_file
from btkeras.config import ExperimentConfig
from btkeras.datasets.dataset import Dataset
from btkeras.errors import ModelError, RunError
from btkeras.files import require_new
from btkeras.locks import only_writer
from btkeras.logging import duration, logger
from btkeras.machine import cache_folder
from btkeras.models import build_model
from btkeras.models.build import count_macs
from btkeras.models.head import set_backbone_trainable
from btkeras.models.reparameterize import reparameterize
from btkeras.models.weights import input_variance, load_weights
from btkeras.runs import Run, create_run, open_run, require_same_config
from btkeras.splitting.splits import Split, make_split
from btkeras.training import device
from btkeras.training.background import BackgroundWriter
from btkeras.training.callbacks import ProgressLine, ReplicaMean
from btkeras.training.checkpoint import Progress, load_progress, record_result, require_checkpoint, restore_state
from btkeras.training.checks import check_network, check_unseen
from btkeras.training.distillation import record_teacher, teacher_of, with_teacher
from btkeras.training.lengthen import lengthen
from btkeras.training.losses import make_loss
from btkeras.training.macro_recall import MacroRecall
from btkeras.training.optimizers import cooldown_config, make_optimizer, phases
from btkeras.training.pipeline import (
    SplitImages,
    evaluation_batches,
    load_split_images,
    steps_per_epoch,
    training_batches,
)
from btkeras.training.run_callbacks import BestModel, Divergence, EpochEnd
from btkeras.training.schedules import Schedule
from btkeras.training.tensorboard import TensorBoard
from btkeras.training.tracking import TrackedEpochs, Trackers

# Of an epoch, beside what chooses the checkpoint.
_SHOWN = ("loss", "accuracy", "val_loss", "val_accuracy")


class Interrupted(RunError):
    """The user stopped a training; it can be resumed."""


def train(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    manifest: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    """Starts a run as ``begin`` does, and trains it as ``fit`` does."""
    return fit(*begin(config, dataset, out, split=split, skip_broken=skip_broken, manifest=manifest))


def begin(
    config: ExperimentConfig,
    dataset: Dataset,
    out: Path,
    *,
    split: Split | None = None,
    skip_broken: bool = False,
    manifest: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Run, SplitImages]:
    """Makes a run in the new folder ``out``: splits the dataset, unless ``split`` is given, and reads its images.

    ``skip_broken`` leaves out images that cannot be read, and records them, instead of stopping. ``manifest`` holds
    further entries of the manifest; a ``precision`` (with its reason) there is not resolved again.

    Raises:
        DataError: If the dataset cannot be split or read, or first weights or a teacher were trained on test images.
        ModelError, RunError: If the network, its weights or its teacher cannot be had; if ``out`` exists.
    """
    require_new(out)
    check_network(config)
    teacher = teacher_of(config, dataset.classes)
    split = split or make_split(dataset, config.data, cache_folder())
    # Before the run's folder appears, so that a broken image leaves nothing behind.
    images = load_split_images(dataset, split, config, skip_broken=skip_broken)
    for weights in (config.model.weights, *([str(teacher.best_model)] if teacher else [])):
        check_unseen(weights, split, images.pixels)
    return create_run(out, config, dataset, split, images.pixels, broken=images.left_out, **manifest), images


@only_writer
def fit(run: Run, images: SplitImages, trackers: Trackers | None = None) -> Run:
    """Trains a run that has just begun, which ``trackers`` follow; errors as ``resume``."""
    try:
        return _Training(run.config(), run, images, Progress(), trackers).fit()
    except ModelError:
        # Weights that do not fit are found when the network is there; nothing has been trained then.
        shutil.rmtree(run.path)
        raise


def resume(run_folder: Path, config: ExperimentConfig | None = None, trackers: Trackers | None = None) -> Run:
    """Goes on with an unfinished run after its last finished epoch, to the result of an uninterrupted one.

    Raises:
        RunError: If there is no such run, another process trains it, its loss stops being finite, or ``config`` is
            given and not the run's own; more epochs may be given to a finished run, see ``lengthen``.
        Interrupted: If the user stops it.
    """
    run = open_run(run_folder)
    lengthen(run, config)
    return _resume(run, config, trackers)


@only_writer
def _resume(run: Run, config: ExperimentConfig | None, trackers: Trackers | None) -> Run:
    require_same_config(run, config)
    split, own = run.split(dataset := run.dataset()), run.config()
    # Gone, it would begin again, over a checkpoint of before.
    check_file(run.state_file)
    progress = load_progress(run.state_file) if run.state_file.is_file() else Progress()
    progress.finished = progress.finished and progress.wanted in (0, own.train.epochs)
    if progress.finished:
        logger.info(f"{run.path} is finished already")
        require_checkpoint(run, progress)
        # Perhaps it was killed between its last epoch and this.
        record_result(run, progress)
        return run
    images = load_split_images(dataset, split, own)
    run.check_pixels(dataset, images.pixels)
    return _Training(own, run, images, progress, trackers).fit()


class _Training:
    """A network that is ready to be trained, new or as it was saved; ``portable`` is the same under float32."""

    def __init__(
        self, config: ExperimentConfig, run: Run, images: SplitImages, progress: Progress, trackers: Trackers | None
    ) -> None:
        self.config, self.run, self.images, self.progress, self.trackers = config, run, images, progress, trackers
        steps = steps_per_epoch(len(images.caches["train"]), config.train.batch_size)
        self.schedule = Schedule(config.optimizer.learning_rate, config.schedule, config.train.epochs, steps)
        device.keep_compiled()
        precision = self._precision()
        # After the precision was measured, which draws random weights of its own.
        device.seed_everything(config.train)
        with device.strategy_scope():
            with device.dtype_policy(precision):
                # Augmentation changes all channels of an image alike.
                grey = images.caches["train"].grey and images.caches["validation"].grey
                self.model = reparameterize(self._network(), grey=grey, trainable=True)
            if teacher := teacher_of(config, images.classes):
                record_teacher(run, teacher)
                self.model = with_teacher(self.model, teacher, config.train.teacher_share, precision)
            self._compile(make_optimizer(config.optimizer, self.schedule, self.model))
            # Before anything is frozen: the state for resuming is that of all weights in every epoch.
            self.model.optimizer.build(self.model.trainable_variables)
        if progress.epochs:
            restore_state(run.state_file, self.model)
            logger.info(f"resuming {run.path} after epoch {progress.epochs}")
        else:
            load_weights(self.model, config.model.weights)
        with device.dtype_policy("float32"):
            self.portable = self._network()
        run.update_manifest(
            parameters=self.portable.count_params(),
            trainable_parameters=sum(math.prod(variable.shape) for variable in self.portable.trainable_variables),
            macs=count_macs(self.portable),
            images_per_epoch=steps * config.train.batch_size,
        )

    def fit(self) -> Run:
        """Trains all epochs that are left."""
        config, run, progress, caches = self.config, self.run, self.progress, self.images.caches
        if self.trackers:
            self.trackers.begin()
        counts = ", ".join(f"{subset} {len(cache):,}" for subset, cache in caches.items())
        logger.info(
            f"{config.model.name}: {self.model.count_params():,} parameters; images {counts}; "
            f"training images: {caches['train'].location}"
        )
        logger.info(f"watch it with: tensorboard --logdir {shlex.quote(str(run.path))}")
        logger.info("the first epoch takes longer, since its step is compiled")
        try:
            # End when all is written, whatever ends the training. What may be slow to draw or to send has a thread of
            # its own, so that the state never waits for it.
            with BackgroundWriter() as self.writer, BackgroundWriter() as self.logs:
                self._fit_phases()
        except KeyboardInterrupt as interrupt:
            raise Interrupted(
                f"Stopped; {progress.epochs} of {config.train.epochs} epochs of {run.path} are saved",
                remedy=f"Go on with: btkeras train --resume --out {run.path}",
            ) from interrupt
        record_result(run, progress)
        return run

    def _precision(self) -> str:
        if "precision" not in self.run.manifest():
            # Resolved once: a resumed run must not measure again and decide otherwise.
            self.run.update_manifest(**device.resolve_precision(self.config.train.precision))
        self.run.update_manifest(device=device.describe_device())
        manifest = self.run.manifest()
        logger.info(f"precision {manifest['precision']}: {manifest['precision_reason']}")
        return str(manifest["precision"])

    def _network(self) -> keras.Model:
        name, data = self.config.model.name, self.config.data
        mean, measured = self.images.caches["train"].statistics()
        return build_model(
            name,
            input_shape=(data.image_size, data.image_size, data.channels),
            classes=len(self.images.classes),
            mean=mean,
            variance=input_variance(name, data.channels, self.config.model.weights, measured),
        )

    def _compile(self, optimizer: keras.optimizers.Optimizer) -> None:
        train = self.config.train
        self.model.compile(
            optimizer=optimizer,
            loss=make_loss(train, self.images.labels["train"], len(self.images.classes)),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy"), MacroRecall(self.model.output_shape[-1])],
            jit_compile=train.jit_compile,
            steps_per_execution=device.steps_per_call(self.schedule.steps),
        )

    def _fit_phases(self) -> None:
        config, progress, start = self.config, self.progress, time.perf_counter()
        for phase in phases(config):
            epochs = range(max(phase.epochs.start, progress.epochs), phase.epochs.stop)
            if not epochs or progress.finished:
                continue
            if config.model.frozen_epochs:
                self._freeze(backbone_learns=phase.backbone_learns)
            if phase.is_cooldown:
                logger.info(f"augmentation cool-down from epoch {phase.epochs.start + 1}")
            self._fit_epochs(epochs, cooldown_config(config) if phase.is_cooldown else config)
        require_checkpoint(self.run, progress)
        shown = dict.fromkeys((config.train.monitor, "val_accuracy", "val_loss"))
        best = ", ".join(f"{name} {progress.best[name.removeprefix('val_')]:.4f}" for name in shown)
        taken = duration(time.perf_counter() - start)
        logger.info(f"trained in {taken}; best checkpoint: epoch {progress.best_epoch} with {best}")

    def _freeze(self, *, backbone_learns: bool) -> None:
        set_backbone_trainable(self.model, backbone_learns)
        with device.strategy_scope():
            self._compile(self.model.optimizer)
        logger.info("all layers learn" if backbone_learns else "the head alone learns")

    def _fit_epochs(self, epochs: range, config: ExperimentConfig) -> None:
        images, size = self.images, config.train.batch_size
        if keras.backend.backend() == "jax" and config.data.cache in ("auto", "device"):
            from btkeras.training.device_epochs import DeviceEpochs, fits

            if config.data.cache == "device" or fits(images):
                whole = DeviceEpochs(self.model, images, config)
                whole.fit(epochs, self._callbacks(whole.examples))
                return
        batches = training_batches(images, config, epochs)
        cache, labels = images.caches["validation"], images.labels["validation"]
        self.model.fit(
            batches,
            validation_data=evaluation_batches(cache, labels, len(images.classes), size),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=self.schedule.steps,
            callbacks=self._callbacks(np.asarray(next(iter(batches))[0])),
            shuffle=False,
            verbose=0,
        )

    def _callbacks(self, examples: np.ndarray) -> list[keras.callbacks.Callback]:
        config, run, progress, size = self.config, self.run, self.progress, self.config.train.batch_size
        # Behind BestModel, which needs the averaged weights that this puts in place for the validation.
        averaging = [keras.callbacks.SwapEMAWeights()] if config.optimizer.ema else []
        return [
            ReplicaMean(),
            BestModel(run, self.portable, progress, config.train.monitor, self.writer),
            *averaging,
            ProgressLine(size, config.train.epochs, list(dict.fromkeys((*_SHOWN, config.train.monitor)))),
            Divergence(run, progress, config),
            EpochEnd(run, progress, self.schedule, config.train, self.writer),
            # Behind EpochEnd, whose copies their threads would slow down.
            *([TrackedEpochs(self.trackers, self.logs)] if self.trackers else []),
            TensorBoard(run, size, self.schedule, self.images.classes, examples, self.logs),
        ]

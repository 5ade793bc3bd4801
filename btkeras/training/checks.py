"""What is checked before a training: that its network can be had, and that its first weights know no test image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import keras

from btkeras.config import ExperimentConfig
from btkeras.errors import DataError, ModelError
from btkeras.models.build import check_name
from btkeras.models.weights import check_weights, is_checkpoint
from btkeras.runs import Run
from btkeras.splitting.fingerprints import read_fingerprints
from btkeras.splitting.splits import Split


def check_network(config: ExperimentConfig) -> None:
    """Checks the network before images are read, and downloads weights if that is asked for.

    Raises:
        ModelError: If the network is unknown, its weights cannot be had, or it cannot be fine-tuned here.
    """
    check_name(config.model.name)
    check_weights(config.model.name, config.data.channels, config.model.weights)
    if config.data.cache == "device" and keras.backend.backend() != "jax":
        raise ModelError(
            "data.cache=device needs Keras' JAX backend",
            received=keras.backend.backend(),
            remedy="Set KERAS_BACKEND=jax (extra btkeras[jax]), or another data.cache",
        )
    if keras.backend.backend() == "jax":
        _check_devices(config)
    if config.model.frozen_epochs and keras.backend.backend() != "tensorflow":
        # The other backends' optimizers take the gradients of all their variables or of none.
        raise ModelError(
            "model.frozen_epochs needs Keras' TensorFlow backend",
            received=keras.backend.backend(),
            remedy="Leave KERAS_BACKEND away, or set model.frozen_epochs=0",
        )


def _check_devices(config: ExperimentConfig) -> None:
    import jax

    if config.train.batch_size % (count := jax.device_count()):
        raise ModelError(
            f"train.batch_size must be a multiple of the number of devices, {count}: each gets its part of a batch",
            received=str(config.train.batch_size),
            remedy="Choose another one, or show fewer devices (CUDA_VISIBLE_DEVICES)",
        )


def check_unseen(weights: str, split: Split, pixels: Mapping[str, str]) -> None:
    """Compares the test images with the training and validation images of the run that a checkpoint lies in.

    Args:
        weights: ``model.weights``, or a teacher's; other than a run's checkpoint tell nothing of their images.
        split: The new training's.
        pixels: Digest of each of its images as it was decoded, by path.

    Raises:
        DataError: If a test image has the pixels of one of those.
    """
    run = Run(Path(weights).parent)
    if not is_checkpoint(weights) or not run.splits_file.is_file():
        return
    known, document = read_fingerprints(run.images_file), run.split_document()
    seen = {known[path].pixels for name in ("train", "validation") for path in _known(document[name], known)}
    tested = [record.path for record in split.test if pixels[record.path]]
    if met := [path for path in tested if pixels[path] in seen]:
        raise DataError(
            f"A test image must be none that {weights} was trained or validated on",
            received=f"{len(met)} of {len(tested)}, {met[0]} among them",
            remedy=f"Split as {run.path} was split (its dataset, --group-by and seed), or do without it",
        )


def _known(paths: Iterable[str], known: Mapping[str, object]) -> list[str]:
    return [path for path in paths if path in known]

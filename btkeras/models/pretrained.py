"""The weights of the pretrained model, for networks that are trained further.

Their file lies beside the exported model (``saved_models/brain_tumour_mri``), whose own weights are merged for
prediction and cannot be trained. Kernels take 9 bits a number and one float32 an output channel, so that both files fit
a package of 60 MB; everything else is float32. ``scripts/pretrained_weights.py`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
from numpy.typing import NDArray

import btkeras
from btkeras.errors import ModelError
from btkeras.models.build import HEAD

WEIGHTS = "pretrained_weights.h5"
# In an installed package (setup.py puts it there), or in a clone beside it.
FILES = tuple(
    parent / "saved_models" / "brain_tumour_mri" / "1" / WEIGHTS for parent in Path(btkeras.__file__).parents[:2]
)
_FACTS, _STEP = "btkeras", "step"
_BITS = 9

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class PretrainedWeights:
    """What the pretrained weights belong to.

    Attributes:
        file: Where they are.
        network: The network's name, a key of ``MODELS``.
        classes: Names of its outputs, in their order.
        image_size: Side of the images that it was trained on, pixels.
        channels: Their channels.
        harmonize: Whether these were cropped to the head and normalized in intensity.
        mean: Mean of the training pixels (0..255).
        variance: Their variance.
    """

    file: Path
    network: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    harmonize: bool
    mean: float
    variance: float


def pretrained_weights() -> PretrainedWeights:
    """Finds the weights that are installed with btkeras.

    Raises:
        ModelError: If this installation has none, or the file is damaged.
    """
    file = next((file for file in FILES if file.is_file()), None)
    if file is None:
        raise ModelError(
            "Pretrained weights must be installed with btkeras",
            received=f"no {FILES[0]}",
            remedy="Install btkeras again, with all of saved_models/, or take weights=None",
        )
    try:
        with h5py.File(file) as content:
            facts = json.loads(content.attrs[_FACTS])
        return PretrainedWeights(file, **{**facts, "classes": tuple(facts["classes"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error


def load_pretrained_weights(model: keras.Model, file: Path) -> None:
    """Puts the pretrained weights into a network; a head of other classes stays as it is.

    Images of other than the trained number of channels are taken to have equal ones: each gets its share of the kernel.

    Args:
        model: The network, with or without its head.
        file: Of ``pretrained_weights``.

    Raises:
        ModelError: If the file is damaged.
    """
    owners = [layer for layer in model.layers if layer.weights]
    try:
        with h5py.File(file) as content:
            found = [[_read(content[layer.name][str(i)]) for i in range(len(layer.weights))] for layer in owners]
    except (OSError, KeyError) as error:
        raise _damaged(file, error) from error
    for layer, values in zip(owners, found, strict=True):
        shape = tuple(layer.weights[0].shape)
        if shape != values[0].shape and layer.name == HEAD:
            continue
        if shape != values[0].shape:
            values[0] = np.broadcast_to(values[0].sum(axis=2, keepdims=True) / shape[2], shape)
        layer.set_weights(values)


def write_pretrained_weights(weights: Mapping[str, Sequence[Weights]], known: PretrainedWeights) -> None:
    """Writes the file of ``known``, from the weights by layer name."""
    facts = {name: value for name, value in asdict(known).items() if name != "file"}
    with h5py.File(known.file, "w") as content:
        content.attrs[_FACTS] = json.dumps(facts)
        for layer, values in weights.items():
            for number, value in enumerate(values):
                _write(content, f"{layer}/{number}", value)


def _write(content: h5py.File, name: str, values: Weights) -> None:
    if values.ndim < 2:
        content[name] = values
        return
    most = np.abs(values).max(axis=tuple(range(values.ndim - 1)))
    step = np.maximum(most, np.finfo(np.float32).tiny) / (2 ** (_BITS - 1) - 1)
    packed = np.rint(values / step).astype(np.int16)
    # Keeps as many bits as the whole numbers need.
    content.create_dataset(name, data=packed, scaleoffset=0, chunks=values.shape).attrs[_STEP] = step


def _read(stored: h5py.Dataset) -> Weights:
    values = stored[()]
    return values * stored.attrs[_STEP] if _STEP in stored.attrs else values


def _damaged(file: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    remedy = "Install btkeras again"
    return ModelError("The pretrained weights must be whole", received=f"{file} ({reason})", remedy=remedy)

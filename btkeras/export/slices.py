"""The slices that an export is checked on, and calibrated on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import Record
from btkeras.datasets.phantom.patient import draw_patient
from btkeras.errors import BTKerasError, ImageError
from btkeras.preprocessing.image_file import read_image_bytes
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run
from btkeras.training.pipeline import load_images

_MOST = 200
_PHANTOM = PhantomConfig(patients=8, slices=3)


@dataclass(frozen=True)
class Slices:
    """Attributes:
    origin: Where they come from, in words.
    names: One for each.
    encoded: PNG or JPEG files.
    prepared: The same as the network takes them, uint8 ``[n, size, size, channels]``.
    """

    origin: str
    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    prepared: NDArray[np.uint8]


def parity_slices(run: Run, decoder: Preprocessor) -> Slices:
    """Up to 200 slices of the run's validation part, spread over it; synthetic ones where they are gone."""
    try:
        dataset = run.dataset()
        records = spread(run.split(dataset).validation)
        files = [(record.path, read_image_bytes(dataset.root / record.path)) for record in records]
        return _slices("slices of the validation part", files, decoder)
    except (BTKerasError, OSError):
        slices = [s for patient in range(_PHANTOM.patients) for s in draw_patient(_PHANTOM, patient)]
        drawn = [(f"{one.patient}, {i}", _png(one.image)) for i, one in enumerate(slices)]
        return _slices("synthetic slices, as the run's own are gone", drawn, decoder)


def _slices(origin: str, files: Sequence[tuple[str, bytes]], decoder: Preprocessor) -> Slices:
    names, encoded = zip(*files, strict=True)
    prepared = np.stack([decoder.bytes(data, name) for name, data in files])
    return Slices(f"{len(files)} {origin}", names, encoded, prepared)


def phantom_image() -> bytes:
    """A synthetic slice with a meningioma, as PNG, for requests that must not hold anybody's head.

    One of those that the installed model names rightly: of the phantom as a whole it gets half wrong, being made for
    real slices, and whoever tries it should not meet a missed tumour that means nothing.
    """
    return _png(draw_patient(_PHANTOM, 1)[1].image)


def training_slices(run: Run, decoder: Preprocessor) -> NDArray[np.uint8]:
    """Up to 200 prepared slices of the run's training part, spread over it.

    Raises:
        DataError: If the run's dataset is gone, or was changed.
    """
    dataset = run.dataset()
    found = decoder.files([dataset.root / record.path for record in spread(run.split(dataset).train)])
    return np.stack([image for image in found if not isinstance(image, ImageError)])


@dataclass(frozen=True)
class Labelled:
    """Attributes:
    images: Prepared slices, uint8 ``[n, size, size, channels]``.
    labels: Class indices ``[n]``.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def subset_slices(run: Run, subset: str) -> Labelled:
    """All slices of a part of the run's split.

    Args:
        run: The run.
        subset: One of ``data.splits.PARTS``.

    Raises:
        DataError: If the run's dataset is gone, or was changed.
    """
    dataset, config, classes = run.dataset(), run.config(), run.classes()
    records = run.split(dataset).subset(subset)
    store = load_images(dataset, records, config.data.image_size, config, name=subset)
    labels = np.array([classes.index(records[i].label) for i in store.usable])
    return Labelled(store.take(np.arange(len(store))), labels)


def spread(records: Sequence[Record], most: int = _MOST) -> list[Record]:
    """At most so many records, evenly from first to last, so that every class is among them."""
    chosen = np.linspace(0, len(records) - 1, min(most, len(records))).round().astype(int)
    return [records[i] for i in chosen]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

"""The built-in synthetic dataset: the synthetic patients as a dataset folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import MANIFEST, Dataset, Record, load_dataset, write_manifest
from btkeras.datasets.phantom.patient import Mask, PhantomSlice, draw_patient
from btkeras.errors import DataError
from btkeras.files import atomic_folder, digest

PHANTOM_VERSION = 1  # raised with every change of what is drawn, so that no cache holds the old images


def write_phantom(config: PhantomConfig, folder: Path) -> Dataset:
    """Draws all patients into a new folder, which appears whole or not at all.

    It holds ``images/<label>/<patient>_<slice>.png`` (8-bit grey), ``masks/...`` of the same names (0 or 255, only for
    slices with a tumour) and ``manifest.csv``, with the further columns ``view``, ``mask`` (the mask's path or "") and
    ``box`` (``x_center y_center width height`` of the tumour as fractions of the image, or "").

    Raises:
        DataError: If ``folder`` exists.
        OSError: If it cannot be written.
    """
    if folder.exists():
        raise DataError("The synthetic dataset needs a new folder", received=folder, remedy="Remove it or name another")
    with atomic_folder(folder) as temporary:
        records = [
            _write_slice(temporary, drawn, number)
            for patient in range(config.patients)
            for number, drawn in enumerate(draw_patient(config, patient))
        ]
        write_manifest(temporary, records)
    return load_dataset(folder)


def cached_phantom(config: PhantomConfig, cache: Path) -> Dataset:
    """Returns the synthetic dataset from a folder ``phantom-<digest>`` of the cache, drawing it if it is not there.

    Of processes that draw the same one at the same time, the first to finish is kept.

    Raises:
        DataError: If the dataset cannot be written.
    """
    settings = asdict(config) | {"difficulty": float(config.difficulty), "version": PHANTOM_VERSION}
    folder = cache / f"phantom-{digest([json.dumps(settings, sort_keys=True)])[:12]}"
    try:
        return load_dataset(folder) if (folder / MANIFEST).is_file() else write_phantom(config, folder)
    except (OSError, DataError) as error:
        # Another process may have been faster.
        if (folder / MANIFEST).is_file():
            return load_dataset(folder)
        raise DataError(
            "The synthetic dataset must be writable in the cache",
            received=f"{folder} ({getattr(error, 'strerror', None) or error})",
            remedy="Make room there, or let BTKERAS_CACHE name another folder",
        ) from error


def _write_slice(root: Path, drawn: PhantomSlice, number: int) -> Record:
    name = f"{drawn.label}/{drawn.patient}_{number:03d}.png"
    _write_png(drawn.image, root / "images" / name)
    extra = {"view": drawn.view, "mask": "", "box": ""}
    if drawn.mask.any():
        _write_png(drawn.mask * np.uint8(255), root / "masks" / name)
        extra |= {"mask": f"masks/{name}", "box": _box(drawn.mask)}
    return Record(f"images/{name}", drawn.label, drawn.patient, "phantom", extra)


def _write_png(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _box(mask: Mask) -> str:
    """The smallest box around a mask that is not empty: centre and size as fractions of the image."""
    low, high = (end(np.argwhere(mask), axis=0) for end in (np.min, np.max))
    (top, left), (bottom, right) = low / mask.shape, (high + 1) / mask.shape
    return f"{(left + right) / 2:.4f} {(top + bottom) / 2:.4f} {right - left:.4f} {bottom - top:.4f}"

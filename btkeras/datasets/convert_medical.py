"""DICOM files and NIfTI volumes to the images that a dataset stores."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.datasets.boxes import format_box, mask_box
from btkeras.datasets.layout import PreparedImage, SourceImage
from btkeras.datasets.naming import volume_stem
from btkeras.datasets.readers.dicom import read_dicom
from btkeras.datasets.readers.images import encode_png
from btkeras.datasets.readers.nifti import AXES, Volume, read_volume, slices_of
from btkeras.errors import ConfigError, DataError, ImageError

VARIABLE = "BTKERAS_PSEUDONYM_KEY"

_KEY_BYTES = 32
_DIGITS = 16


def key_file() -> Path:
    """Where the key lies: ``$BTKERAS_PSEUDONYM_KEY``, or below the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(os.environ.get(VARIABLE) or Path(data) / "btkeras/pseudonym.key")


def load_key() -> bytes:
    """Reads the key, or makes it, readable for the user alone.

    Raises:
        DataError: If that cannot be done.
    """
    file = key_file()
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes()
    except OSError as error:
        raise _unusable(file, error.strerror) from error
    if len(key) < _KEY_BYTES:
        raise _unusable(file, f"it has {len(key)} bytes, not {_KEY_BYTES}")
    return key


def pseudonym(text: str, key: bytes, kind: str = "P") -> str:
    """``kind`` and 16 hexadecimal digits for a text; "" for none. Texts of different kinds have nothing in common."""
    if not text:
        return ""
    return kind + hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written whole before it has its name, which another process may have taken meanwhile.
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()


def _unusable(file: Path, reason: object) -> DataError:
    return DataError(
        "The key that makes patients' ids unrecognisable must be readable",
        received=f"{file} ({reason})",
        remedy=f"Let {VARIABLE} name a file, which is made if it is not there",
    )


MIDDLE_THIRD, ALL = "middle-third", "all"

_EVERY = re.compile(r"every-([1-9][0-9]{0,3})")
# Spacings of a volume and its mask that differ by less are the same.
_ALIKE = 1e-3


@dataclass(frozen=True)
class SliceChoice:
    """Which slices of a volume become images; of one with a mask, only those that show the tumour.

    Attributes:
        text: ``middle-third``, ``all`` or ``every-N``.

    Raises:
        ConfigError: If it is something else.
    """

    text: str = MIDDLE_THIRD

    def __post_init__(self) -> None:
        if self.text not in (MIDDLE_THIRD, ALL) and not _EVERY.fullmatch(self.text):
            raise ConfigError(f"--slices must be {MIDDLE_THIRD}, {ALL} or every-N", received=repr(self.text))

    def of(self, count: int, tumor: NDArray[np.integer] | None = None) -> Sequence[int]:
        """The numbers of the slices.

        Args:
            count: How many the volume has.
            tumor: Those that show the tumour; None or empty where no mask says.
        """
        every = _EVERY.fullmatch(self.text)
        step = int(every.group(1)) if every else 1
        if tumor is not None and tumor.size:
            return [int(number) for number in tumor[::step]]
        if self.text == MIDDLE_THIRD:
            return range(count // 3, count - count // 3)
        return range(min(step // 2, count - 1), count, step)


DEFAULT_CHOICE = SliceChoice()


def dicom_images(job: SourceImage, data: bytes) -> tuple[PreparedImage, ...]:
    """Each frame of a DICOM file, with the patient's and the series' pseudonyms.

    Nothing in clear text is kept: no id, and no name of the file, which often is a person's.

    Raises:
        ImageError: As ``open_dicom``; and if it is no MR, or its pixels hold text about the patient.
    """
    name = job.entry.name
    slices, identity = read_dicom(data, name)
    if slices.rejection or identity.burned_in:
        found = slices.rejection or "the file says that text about the patient is burned into its pixels"
        raise ImageError("A DICOM file must be an MR slice without a name in it", received=f"{name} ({found})")
    key = load_key()
    patient, series = pseudonym(identity.patient, key), pseudonym(identity.series, key, "S")
    extra = {column: value for column, value in job.extra.items() if column != "original"}
    if series:
        extra["series"] = series
    # In a series' order, so that neighbours are found; a file without a number gets one from its own name.
    number = pseudonym(job.entry.path, key, "F") if identity.instance is None else f"{max(identity.instance, 0):04d}"
    stem = "-".join(part for part in (patient[:9], series[:9], number) if part)
    return tuple(
        PreparedImage(
            job.label,
            patient,
            _png(slices.image(index)),
            ".png",
            None,
            {**extra, "slice": str(index)} if slices.count > 1 else extra,
            f"{stem}-{index:04d}" if slices.count > 1 else stem,
        )
        for index in range(slices.count)
    )


def volume_images(job: SourceImage, data: bytes, mask: bytes | None, choice: SliceChoice) -> tuple[PreparedImage, ...]:
    """The chosen slices of a volume, with their parts of the mask.

    Raises:
        ImageError: As ``open_nifti``; and if the mask is of another scan.
    """
    name = job.entry.name
    volume = read_volume(data, name)
    slices = slices_of(volume, name)
    tumor = None if mask is None or job.mask is None else _mask(mask, job.mask.name, volume)
    axis = AXES[slices.axis]
    shown = None
    if tumor is not None:
        shown = np.flatnonzero((tumor.voxels > 0).any(axis=tuple(other for other in range(3) if other != axis)))
    size = volume.square(slices.axis)
    found = []
    for index in choice.of(slices.count, shown):
        extra = {**job.extra, "slice": str(index), "axis": slices.axis}
        drawn = None
        if tumor is not None:
            plane = np.ascontiguousarray(tumor.plane(slices.axis, index) > 0)
            drawn = np.asarray(Image.fromarray(plane.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
            box = mask_box(drawn > 0)
            extra |= {"box": format_box(box)} if box else {}
        found.append(
            PreparedImage(
                job.label,
                job.patient,
                _png(slices.image(index)),
                ".png",
                None if drawn is None else encode_png(drawn * np.uint8(255)),
                extra,
                f"{volume_stem(job.entry.path)}-{index:04d}",
            )
        )
    return tuple(found)


def _mask(data: bytes, name: str, volume: Volume) -> Volume:
    mask = read_volume(data, name)
    if mask.voxels.shape != volume.voxels.shape or not np.allclose(mask.spacing, volume.spacing, rtol=_ALIKE):
        raise ImageError(
            "A mask must have the voxels of its volume",
            received=f"{name} with {_words(mask)} for {_words(volume)}",
            remedy="Resample it to the volume, or remove it",
        )
    return mask


def _words(volume: Volume) -> str:
    sides = " x ".join(map(str, volume.voxels.shape))
    return f"{sides} of {' x '.join(f'{side:g}' for side in volume.spacing)}"


def _png(image: NDArray[np.uint8]) -> bytes:
    return encode_png(image[..., 0] if image.shape[-1] == 1 else image)

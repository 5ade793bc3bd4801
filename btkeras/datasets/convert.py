"""Source images to the bytes that a dataset stores, in threads, in order, a few at a time."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from btkeras.datasets.boxes import box_in_crop, clip_box, format_box, mask_box, parse_box
from btkeras.datasets.convert_medical import DEFAULT_CHOICE, SliceChoice, dicom_images, volume_images
from btkeras.datasets.layout import PreparedImage, SourceImage
from btkeras.datasets.readers import DICOM_SUFFIXES
from btkeras.datasets.readers.dicom import is_dicom
from btkeras.datasets.readers.figshare import read_slice
from btkeras.datasets.readers.images import encode_png, to_png_or_jpeg
from btkeras.datasets.readers.nifti import is_gzipped_nifti
from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.decode import to_uint8
from btkeras.preprocessing.harmonize import HeadBox, harmonize, head_box
from btkeras.preprocessing.image_file import check_image, sniff
from btkeras.preprocessing.resize import resize

# The manifest's column: the side, in pixels. An image that has it is not harmonized a second time.
COLUMN = "harmonized"


def harmonize_files(
    data: bytes, mask: bytes | None, extra: Mapping[str, str], size: int
) -> tuple[bytes, bytes | None, dict[str, str]]:
    """Crops to the head, puts the image on one scale of intensity and stretches it to a square.

    Args:
        data: Upright 8-bit PNG or JPEG.
        mask: PNG of the tumour, as large as the image.
        extra: The manifest's further columns; ``box`` is moved with the image.
        size: Side of the square, pixels.

    Returns:
        The image and its mask as grey PNG, and the columns with ``harmonized``.
    """
    grey = _grey(data)
    whole = HeadBox(0, 0, *grey.shape)
    known = bool(extra.get(COLUMN))
    head = whole if known else head_box(grey)
    image = grey[..., None] if known else harmonize(grey[..., None])
    columns = {**extra, COLUMN: str(size)}
    if box := parse_box(extra.get("box", "")):
        box = clip_box(box_in_crop(box, head, *grey.shape))
        columns["box"] = format_box(box) if box else ""
    return encode_png(resize(image, size)[..., 0]), _mask(mask, head, size), columns


def _mask(mask: bytes | None, head: HeadBox, size: int) -> bytes | None:
    if mask is None:
        return None
    crop = _grey(mask)[head.top : head.bottom, head.left : head.right, None]
    # As pixels of the tumour are those that it fills at least half of.
    return encode_png(np.where(resize(crop, size)[..., 0] >= 128, np.uint8(255), np.uint8(0)))


def _grey(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))


_THREADS = min(8, os.cpu_count() or 1)
_WINDOW = 2 * _THREADS


_Content = tuple[bytes, bytes | None]
_Answer = tuple[PreparedImage, ...] | DataError


def convert_all(
    jobs: Sequence[SourceImage], size: int = 0, choice: SliceChoice = DEFAULT_CHOICE
) -> Iterator[tuple[SourceImage, _Answer]]:
    """Yields each job with its images, or with the error that its file caused, in the jobs' order.

    Args:
        jobs: What to convert.
        size: Side of the squares to which images are harmonized, pixels; 0 keeps them as they are.
        choice: Which slices of volumes.
    """
    window: deque[tuple[SourceImage, Future[_Answer]]] = deque()
    # Matrix products that share the cores among themselves, in threads that share them already, wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(_THREADS) as pool:
        for job in jobs:
            # Files are read here, one after the other, because a zip can only be read forwards.
            window.append((job, pool.submit(_convert, job, _read(job), size, choice)))
            if len(window) >= _WINDOW:
                first, future = window.popleft()
                yield first, future.result()
        for job, future in window:
            yield job, future.result()


def _read(job: SourceImage) -> _Content | DataError:
    try:
        return job.entry.read(), job.mask.read() if job.mask else None
    except DataError as error:
        return error


def _convert(job: SourceImage, content: _Content | DataError, size: int, choice: SliceChoice) -> _Answer:
    if isinstance(content, DataError):
        return content
    try:
        found = _images(job, *content, choice)
        return tuple(_harmonized(stored, size) for stored in found) if size else found
    except DataError as error:
        return error


def _images(job: SourceImage, data: bytes, mask: bytes | None, choice: SliceChoice) -> tuple[PreparedImage, ...]:
    if not job.label:
        return (_slice(job, data),)
    kind = sniff(data)
    if kind == "NIfTI" or is_gzipped_nifti(data):
        return volume_images(job, data, mask, choice)
    if kind == "DICOM" or (job.entry.suffix in DICOM_SUFFIXES and is_dicom(data)):
        return dicom_images(job, data)
    return (_image(job, data, mask),)


def _harmonized(stored: PreparedImage, size: int) -> PreparedImage:
    data, mask, extra = harmonize_files(stored.data, stored.mask, stored.extra, size)
    return replace(stored, data=data, suffix=".png", mask=mask, extra=extra)


def _slice(job: SourceImage, data: bytes) -> PreparedImage:
    """A FigShare slice: its file holds everything."""
    found = read_slice(data, job.entry.name)
    box = mask_box(found.mask)
    extra = {**job.extra, "box": format_box(box)} if box else job.extra
    mask = encode_png(found.mask.astype("uint8") * 255)
    return PreparedImage(found.label, found.patient, encode_png(to_uint8(found.image)), ".png", mask, extra)


def _image(job: SourceImage, data: bytes, mask: bytes | None) -> PreparedImage:
    name = job.entry.name
    known = job.extra.get("sha256")
    if known and hashlib.sha256(data).hexdigest() != known:
        raise ImageError(
            "An image must be the one that its manifest describes",
            received=f"{name} with another sha256",
            remedy="Restore it, or empty its field sha256 if the change is meant",
        )
    stored, suffix = to_png_or_jpeg(data, name)
    if job.mask and mask is not None:
        _check_mask(mask, job.mask.name, check_image(stored, name))
    return PreparedImage(job.label, job.patient, stored, suffix, mask, job.extra)


def _check_mask(data: bytes, name: str, expected: tuple[int, int]) -> None:
    size = check_image(data, name)
    if size != expected or sniff(data) != "PNG":
        raise ImageError(
            "A mask must be a PNG as large as its image",
            received=f"{name}, {sniff(data)} of {size[0]} x {size[1]}, for {expected[0]} x {expected[1]}",
            remedy="Make it again, or empty the field mask",
        )

"""Source pictures to the bytes that a dataset stores, in threads, in order, a few at a time."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from threadpoolctl import threadpool_limits

from btkeras.data.dicom import is_dicom
from btkeras.data.figshare import box_of, read_slice
from btkeras.data.harmonised_files import harmonise_files
from btkeras.data.image_file import sniff
from btkeras.data.intensity import to_uint8
from btkeras.data.layouts import Job, box_text
from btkeras.data.medical_conversion import DEFAULT_CHOICE, SliceChoice, dicom_pictures, volume_pictures
from btkeras.data.nifti import is_gzipped_nifti
from btkeras.data.pictures import check_header, encode_png, store_picture
from btkeras.data.slices import DICOM_SUFFIXES
from btkeras.data.stored import Stored
from btkeras.errors import DataError, ImageError

_THREADS = min(8, os.cpu_count() or 1)
_WINDOW = 2 * _THREADS


_Content = tuple[bytes, bytes | None]
_Answer = tuple[Stored, ...] | DataError


def convert_all(
    jobs: Sequence[Job], size: int = 0, choice: SliceChoice = DEFAULT_CHOICE
) -> Iterator[tuple[Job, _Answer]]:
    """Yields each job with its pictures, or with the error that its file caused, in the jobs' order.

    Args:
        jobs: What to convert.
        size: Side of the squares to which pictures are harmonised, pixels; 0 keeps them as they are.
        choice: Which slices of volumes.
    """
    window: deque[tuple[Job, Future[_Answer]]] = deque()
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


def _read(job: Job) -> _Content | DataError:
    try:
        return job.entry.read(), job.mask.read() if job.mask else None
    except DataError as error:
        return error


def _convert(job: Job, content: _Content | DataError, size: int, choice: SliceChoice) -> _Answer:
    if isinstance(content, DataError):
        return content
    try:
        found = _pictures(job, *content, choice)
        return tuple(_harmonised(stored, size) for stored in found) if size else found
    except DataError as error:
        return error


def _pictures(job: Job, data: bytes, mask: bytes | None, choice: SliceChoice) -> tuple[Stored, ...]:
    if not job.label:
        return (_slice(job, data),)
    kind = sniff(data)
    if kind == "NIfTI" or is_gzipped_nifti(data):
        return volume_pictures(job, data, mask, choice)
    if kind == "DICOM" or (job.entry.suffix in DICOM_SUFFIXES and is_dicom(data)):
        return dicom_pictures(job, data)
    return (_picture(job, data, mask),)


def _harmonised(stored: Stored, size: int) -> Stored:
    data, mask, extra = harmonise_files(stored.data, stored.mask, stored.extra, size)
    return replace(stored, data=data, suffix=".png", mask=mask, extra=extra)


def _slice(job: Job, data: bytes) -> Stored:
    """A FigShare slice: its file holds everything."""
    found = read_slice(data, job.entry.name)
    box = box_of(found.mask)
    extra = {**job.extra, "box": box_text(box)} if box else job.extra
    mask = encode_png(found.mask.astype("uint8") * 255)
    return Stored(found.label, found.patient, encode_png(to_uint8(found.image)), ".png", mask, extra)


def _picture(job: Job, data: bytes, mask: bytes | None) -> Stored:
    name = job.entry.name
    known = job.extra.get("sha256")
    if known and hashlib.sha256(data).hexdigest() != known:
        raise ImageError(
            "A picture must be the one that its manifest describes",
            received=f"{name} with another sha256",
            remedy="Restore it, or empty its field sha256 if the change is meant",
        )
    stored, suffix = store_picture(data, name)
    if job.mask and mask is not None:
        _check_mask(mask, job.mask.name, check_header(stored, name))
    return Stored(job.label, job.patient, stored, suffix, mask, job.extra)


def _check_mask(data: bytes, name: str, expected: tuple[int, int]) -> None:
    size = check_header(data, name)
    if size != expected or sniff(data) != "PNG":
        raise ImageError(
            "A mask must be a PNG as large as its picture",
            received=f"{name}, {sniff(data)} of {size[0]} x {size[1]}, for {expected[0]} x {expected[1]}",
            remedy="Make it again, or empty the field mask",
        )

"""Source pictures to the bytes that a dataset stores, in threads, in order, a few at a time."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from btkeras.data.figshare import box_of, read_slice
from btkeras.data.harmonised_files import harmonise_files
from btkeras.data.image_file import sniff
from btkeras.data.intensity import to_uint8
from btkeras.data.layouts import Job, box_text
from btkeras.data.pictures import check_header, encode_png, store_picture
from btkeras.errors import DataError, ImageError

_THREADS = min(8, os.cpu_count() or 1)
_WINDOW = 2 * _THREADS


@dataclass(frozen=True)
class Stored:
    """A picture as it will be written.

    Attributes:
        label: Its class.
        patient: Its patient, "" where unknown.
        data: Encoded PNG or JPEG.
        suffix: ``.png`` or ``.jpg``.
        mask: Encoded PNG of the tumour (0 and 255), as large as the picture; None where there is none.
        extra: Further columns of the manifest.
    """

    label: str
    patient: str
    data: bytes
    suffix: str
    mask: bytes | None
    extra: Mapping[str, str]


_Content = tuple[bytes, bytes | None]
_Answer = Stored | DataError


def convert_all(jobs: Sequence[Job], size: int = 0) -> Iterator[tuple[Job, Stored | DataError]]:
    """Yields each job with its picture, or with the error that its file caused, in the jobs' order.

    Args:
        jobs: What to convert.
        size: Side of the squares to which pictures are harmonised, pixels; 0 keeps them as they are.
    """
    window: deque[tuple[Job, Future[_Answer]]] = deque()
    # Matrix products that share the cores among themselves, in threads that share them already, wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(_THREADS) as pool:
        for job in jobs:
            # Files are read here, one after the other, because a zip can only be read forwards.
            window.append((job, pool.submit(_convert, job, _read(job), size)))
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


def _convert(job: Job, content: _Content | DataError, size: int) -> _Answer:
    if isinstance(content, DataError):
        return content
    try:
        stored = _picture(job, *content) if job.label else _slice(job, content[0])
        return _harmonised(stored, size) if size else stored
    except DataError as error:
        return error


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

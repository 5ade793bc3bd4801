"""NIfTI volumes to slices as a radiologist sees them.

By its affine, a volume is turned to the nearest axes (right, anterior, superior), never resampled at an angle. Slices
are drawn in radiological convention: right on the left, anterior up (axial); right on the left, head up (coronal);
anterior on the left, head up (sagittal). They are counted from 0: from the feet, the back, or the left.

Grey levels span the 0.1 to the 99.9 percentile of the volume; per slice, noise of an empty one would be as bright as a
head. Voxels that are not square become so.
"""

from __future__ import annotations

import functools
import gzip
import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.datasets.readers import Slices, check, require
from btkeras.datasets.readers.label_maps import labels_text
from btkeras.datasets.readers.nifti_header import HEADER_BYTES, NiftiHeader, find_magic, read_header
from btkeras.errors import ImageError
from btkeras.preprocessing.decode import ImageArray
from btkeras.preprocessing.image_file import MAX_PIXELS, MIN_SIDE, damaged

# The views, with the axis of the turned volume that they run along.
AXES: Mapping[str, int] = MappingProxyType({"sagittal": 0, "coronal": 1, "axial": 2})
MAX_VOLUME_BYTES = 512 * 2**20

_PERCENTILES = (0.1, 99.9)
# Percentiles of more voxels are those of every second, third, ... of them.
_SAMPLE = 2**24
_THICK = 2.0
# Spacings that differ by less are square.
_SQUARE = 0.01
_DAMAGE = (EOFError, OSError, zlib.error, ValueError, TypeError, OverflowError, KeyError)


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan's voxels ``[right, anterior, superior]`` as stored, and what its header says of them.

    ``spacing`` is along these axes, of any unit, as is the ``affine`` from voxels' indices to places. A value is a
    voxel times ``slope`` plus ``intercept``. ``labels``: whether they are labels.
    """

    voxels: NDArray[Any]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    labels: bool = False

    @functools.cached_property
    @np.errstate(all="ignore")
    def labels_text(self) -> str:
        """Why it is a label map, by the header or by its values; "" if it is none."""
        return "the file says that it holds labels" if self.labels else labels_text(self.voxels)

    def axis(self, wanted: str | None) -> str:
        """The view to show: the wanted one, or else the one that was scanned."""
        if wanted is not None:
            return wanted
        single = [name for name, axis in AXES.items() if self.voxels.shape[axis] == 1]
        if len(single) == 1:
            return single[0]
        *_, second, across = sorted(self.spacing)
        return list(AXES)[self.spacing.index(across)] if across > _THICK * second else "axial"

    def plane(self, axis: str, index: int) -> NDArray[Any]:
        """A slice as a radiologist sees it: ``[h, w]``, one pixel a voxel."""
        return self.voxels.take(index, AXES[axis])[::-1, ::-1].T

    def square(self, axis: str) -> tuple[int, int]:
        """Width and height of a slice with square pixels, of the side of the shorter spacing."""
        across, down = (number for number in range(3) if number != AXES[axis])
        size = self.voxels.shape[across], self.voxels.shape[down]
        spacing = self.spacing[across], self.spacing[down]
        if max(spacing) <= min(spacing) * (1 + _SQUARE):
            return size
        width, height = (round(min(n * s / min(spacing), MAX_PIXELS)) for n, s in zip(size, spacing, strict=True))
        return max(width, 1), max(height, 1)


def open_nifti(data: bytes, name: str, axis: str | None = None, channel: int | None = None) -> Slices:
    """Opens the slices of a NIfTI-1 or 2 file's content, with or without gzip; messages call it ``name``.

    Without an axis, a key of ``AXES``, the view is the one that was scanned where voxels are more than twice as long
    across it, otherwise axial. ``channel`` is of ``read_volume``.

    Raises:
        ImageError: If it is no such file, broken, too large, not of real numbers, or of several volumes without a
            channel.
        MissingExtraError: If nibabel is not installed.
    """
    return slices_of(read_volume(data, name, channel), name, axis)


# Values that are no voxels, but bytes of something else, overflow.
@np.errstate(all="ignore")
def slices_of(volume: Volume, name: str, axis: str | None = None) -> Slices:
    """Returns a volume's slices; arguments and errors as ``open_nifti``."""
    view = volume.axis(axis)
    width, height = volume.square(view)
    rule = f"A volume's slices must have {MIN_SIDE} pixels a side and at most {MAX_PIXELS / 1e6:.0f} million"
    valid, found = min(width, height) >= MIN_SIDE and width * height <= MAX_PIXELS, f"{width} x {height}"
    check(valid, rule, f"{name} with {found} in the {view} view", "Choose another: --axis, or --plane of prepare")
    low, high = _range(volume.voxels, name)

    @np.errstate(all="ignore")
    def image(index: int) -> ImageArray:
        plane = volume.plane(view, index).astype(np.float64)
        grey = (np.clip(plane, low, high) - low) * (255 / (high - low) if high > low else 0.0)
        grey = np.where(np.isnan(plane), 0.0, 255 - grey if volume.slope < 0 else grey).astype(np.float32)
        if grey.shape != (height, width):
            # Bilinear, since nothing gets brighter or darker than the values around it.
            grey = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR))
        return np.floor(grey + 0.5).astype(np.uint8)[..., None]

    return Slices("NIfTI", volume.voxels.shape[AXES[view]], image, volume.labels_text or None, view)


@np.errstate(all="ignore")
def read_volume(data: bytes, name: str, channel: int | None = None) -> Volume:
    """Reads a volume of a file, of several the one of number ``channel`` from 0; errors as ``open_nifti``."""
    nibabel = require("nibabel", "NIfTI")
    try:
        header = read_header(_stream(data).read(HEADER_BYTES), name)
        # From the start again: gzip cannot go back, and volumes follow their header closely.
        voxels = _voxels(header, _stream(data), name, channel)
        turned = nibabel.as_closest_canonical(nibabel.spatialimages.SpatialImage(voxels, header.affine))
        x, y, z = map(float, nibabel.affines.voxel_sizes(turned.affine))
    except ImageError:
        raise
    except (*_DAMAGE, nibabel.spatialimages.HeaderDataError, nibabel.orientations.OrientationError) as error:
        raise damaged(name, str(error).splitlines()[0][:120] if str(error) else type(error).__name__) from error
    scaling = header.slope, header.intercept
    return Volume(np.asarray(turned.dataobj), (x, y, z), turned.affine, *scaling, header.labels)


def read_grid(head: bytes, name: str) -> NiftiHeader:
    """Reads the header in a file's first bytes, behind gzip too; errors as ``read_header``."""
    try:
        return read_header(_stream(head).read(HEADER_BYTES), name)
    except _DAMAGE as error:
        raise damaged(name, error) from error


def is_gzipped_nifti(data: bytes) -> bool:
    """Whether a gzip file holds a NIfTI volume."""
    if not data.startswith(b"\x1f\x8b"):
        return False
    try:
        # Of a file's first bytes too, which gzip's reader takes for damaged.
        head = zlib.decompressobj(zlib.MAX_WBITS + 16).decompress(data, HEADER_BYTES)
    except zlib.error:
        return False
    return find_magic(head) is not None


def _stream(data: bytes) -> io.BytesIO | gzip.GzipFile:
    file = io.BytesIO(data)
    return gzip.GzipFile(fileobj=file) if data.startswith(b"\x1f\x8b") else file


def _voxels(header: NiftiHeader, stream: io.BytesIO | gzip.GzipFile, name: str, channel: int | None) -> NDArray[Any]:
    """The only volume, or that of a number, ``[x, y, z]``."""
    wanted = math.prod(header.shape) * header.dtype.itemsize
    sides = " x ".join(map(str, header.shape))
    rule, found = (
        f"A volume must have at most {MAX_VOLUME_BYTES // 2**20} MiB",
        f"{name} with {sides} of {header.dtype}",
    )
    check(wanted <= MAX_VOLUME_BYTES, rule, found)
    # One after the other, the channels before are read and forgotten.
    for skipped in (header.offset, *[wanted] * _channel(header.volumes, channel, name)):
        stream.read(skipped)
    # No more than this, whatever a gzip file would unpack to.
    content = stream.read(wanted)
    if len(content) < wanted:
        raise damaged(name, "it ends within its volume")
    return np.frombuffer(content, header.dtype).reshape(header.shape, order="F")


def _channel(count: int, channel: int | None, name: str) -> int:
    """The number of the volume to read, of ``count`` volumes."""
    rule = "One volume of a file must be chosen" if channel is None else "A channel must be a volume of its file"
    found = f"{name} with {count} volumes" if channel is None else f"channel {channel} of {name}, which has {count}"
    valid = count == 1 if channel is None else 0 <= channel < count
    single = "Leave --channel away for it; prepare can choose by name, too: --sequence"
    check(valid, rule, found, f"Choose one with --channel 0 to {count - 1}" if count > 1 else single)
    return channel or 0


def _range(voxels: NDArray[Any], name: str) -> tuple[float, float]:
    """The values that become black and white."""
    sample = voxels.ravel(order="K")
    sample = sample[:: -(-sample.size // _SAMPLE)]
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    if not finite.size:
        raise damaged(name, "none of its voxels is a number")
    low, high = np.percentile(finite.astype(np.float64), _PERCENTILES)
    return cast(float, low), cast(float, high)

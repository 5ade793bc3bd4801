"""What the values of a file say of masks: whether it is one, and whether it can be a tumour's."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.datasets.readers import check
from btkeras.datasets.readers.images import decode_image
from btkeras.datasets.readers.nifti import Volume
from btkeras.preprocessing.image_file import sniff

# Voxels of which a mask's share of the head is measured.
_SAMPLE = 2**20
_FEW_COLORS, _TWO_LEVELS = 5, "only black and white"
# JPEG blurs the two levels of a mask at its edge.
_NEAR, _MOST_PIXELS, _HALF = 16, 0.99, 127
# Resizing blurs wider, at most as wide as the tumour is.
_RESIZED, _WIDEST_EDGE = 0.9, 4
# The largest tumours with their edema are a third of the brain, which is 0.42 of a head with its neck.
_LARGEST_IN_VOLUME, _LARGEST_IN_SLICE = 0.4, 0.5


def check_no_labels(volume: Volume, name: str) -> None:
    """Raises ImageError if a volume is a label map (``Volume.labels_text``)."""
    remedy = "If it is the tumour's mask, name it as its scan and _seg; else remove it, or correct its intent_code"
    check(not volume.labels_text, "A volume must be a scan, not a mask", f"{name}: {volume.labels_text}", remedy)


def check_no_mask_image(pixels: NDArray[np.uint8], name: str) -> None:
    """Raises ImageError if a decoded image has two to five colors, or is black and white as JPEG blurs it."""
    found = _mask_image_text(pixels)
    remedy = "If it is the tumour's mask, name it as its image and _mask; else remove it"
    check(not found, "An image must not be a mask", f"{name} with {found}", remedy)


def is_mask_image(data: bytes, name: str) -> bool:
    """Whether an image's file can hold a mask: as of ``check_no_mask_image``, or one color; ImageError if broken."""
    return bool(_mask_image_text(decode_image(data, name), fewest=1))


def _mask_image_text(pixels: NDArray[np.uint8], fewest: int = 2) -> str:
    # Pillow counts colors and levels in a tenth of NumPy's time.
    counts = np.array(Image.fromarray(_brightest(pixels)).histogram())
    levels = np.flatnonzero(counts)
    extreme = np.minimum(levels, 255 - levels) < _NEAR
    both = levels[0] < _NEAR and levels[-1] > 255 - _NEAR
    between = counts.sum() - counts[levels[extreme]].sum()
    edge = _RESIZED if between < _WIDEST_EDGE * counts[-_NEAR:].sum() else _MOST_PIXELS
    if both and between <= (1 - edge) * counts.sum():
        return _TWO_LEVELS
    # None if there are more.
    colors = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).getcolors(_FEW_COLORS) or ()
    return f"only {len(colors)} colors" if len(colors) >= fewest else ""


def _brightest(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest of an image's colors: ``[h, w]``. NumPy's max along a short axis takes twenty times as long."""
    return functools.reduce(np.maximum, np.moveaxis(pixels, -1, 0))


def read_mask_image(data: bytes, name: str, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Reads the mask of a decoded image: ``[h, w]``, True where a color is above 0.

    In a JPEG file, or where resizing blurred black and white, above 127. Raises ImageError if it cannot be read, has
    another size than the image, or covers half of the head.
    """
    decoded, image = decode_image(data, name), _brightest(image)
    pixels = _brightest(decoded)
    found = f"{name} of {pixels.shape[1]} x {pixels.shape[0]} for {image.shape[1]} x {image.shape[0]}"
    check(pixels.shape == image.shape, "A mask must be as large as its image", found, "Make it again, or remove it")
    blurred = sniff(data) == "JPEG" or (
        len(np.unique(pixels)) > _FEW_COLORS and _mask_image_text(decoded) == _TWO_LEVELS
    )
    tumor = pixels > (_HALF if blurred else 0)
    _check_share(tumor, image, name, _LARGEST_IN_SLICE)
    return tumor


def check_tumor(tumor: NDArray[np.bool_], voxels: NDArray[Any], name: str) -> None:
    """Raises ImageError if a volume's mask covers so much of the head that it is rather the brain's."""
    _check_share(tumor, voxels, name, _LARGEST_IN_VOLUME)


@np.errstate(all="ignore")
def _check_share(tumor: NDArray[np.bool_], values: NDArray[Any], name: str, largest: float) -> None:
    step = math.ceil((values.size / _SAMPLE) ** (1 / values.ndim))
    every = (slice(None, None, step),) * values.ndim
    sample = values[every]
    # What is brighter than the mean is tissue, whatever lies around the head.
    head = sample > np.nanmean(sample, dtype=np.float64)
    share = float(tumor[every][head].mean()) if head.any() else 0.0
    remedy = "Name a mask of the brain so (NAME_brain_mask), or remove it"
    check(
        share <= largest, "A tumour's mask must not cover the head", f"{name}, which covers {share:.0%} of it", remedy
    )

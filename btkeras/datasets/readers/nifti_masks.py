"""Masks of NIfTI volumes: labels on the grid of the volume."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import check
from btkeras.datasets.readers.nifti import Volume, read_grid, read_volume

# How far a mask's voxels may lie from their volume's, as a fraction of a voxel: affines are stored rounded, and below
# half a voxel every voxel still lies nearest to its own.
GRID_TOLERANCE = 0.25
# What rounding leaves of 0 where a mask was stored with a scale.
_NOTHING = 0.01
_ONE = 1.5
# Small lesions that are numbered each are no large areas of labels.
_MOST_LESIONS = 64


def read_mask(data: bytes, name: str, volume: Volume) -> Volume:
    """Reads the mask of a volume: bool ``[right, anterior, superior]``, on the volume's grid.

    Values pass slope and intercept and are rounded to labels; those above 0 are the tumour. Axes that are stored in
    another order or direction than the volume's are exchanged and turned back, which moves no voxel.

    Raises:
        ImageError: If it cannot be read, or its voxels lie elsewhere than the volume's.
    """
    count = read_grid(data, name).volumes
    rule, remedy = "A mask must be one volume of labels", "Join them to one label map, or remove it"
    check(count == 1, rule, f"{name} with {count} volumes", remedy)
    mask = read_volume(data, name)
    rule, found = "A mask must have the voxels of its volume", f"{_format_grid(mask)} for {_format_grid(volume)}"
    check(_same_grid(mask, volume), rule, f"{name} with {found}", "Resample it to the volume, or remove it")
    return Volume(_tumor(mask, name), volume.spacing, volume.affine)


@np.errstate(all="ignore")
def _tumor(mask: Volume, name: str) -> NDArray[np.bool_]:
    tumor, highest = np.empty(mask.voxels.shape, np.bool_), 0.0
    # Plane by plane, since floats take up to eight times the memory.
    for place, plane in enumerate(mask.voxels):
        values = plane.astype(np.float64) * mask.slope + mask.intercept
        tumor[place] = np.rint(values) > 0
        highest = max(highest, float(np.nan_to_num(values).max()))
    rule, remedy = "A mask must hold labels: whole numbers, 0 outside", "Make it again, or remove it"
    check(tumor.any() or highest < _NOTHING, rule, f"{name} with values up to {highest:g}", remedy)
    # Probabilities up to 1 are rounded; those up to 100 or 255 would be the tumour from the lowest on.
    whole = mask.voxels.dtype.kind in "iu" and highest > _ONE
    graded = whole and not mask.labels_text and len(np.unique(mask.voxels[tumor])) > _MOST_LESIONS
    check(not graded, rule, f"{name} with more values than labels, up to {highest:g}", remedy)
    return tumor


def _same_grid(mask: Volume, volume: Volume) -> bool:
    """Whether each corner voxel of one is that of the other."""
    if mask.voxels.shape != volume.voxels.shape:
        return False
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, side - 1) for side in mask.voxels.shape))])
    # In voxels of the volume.
    moved = corners @ np.linalg.solve(volume.affine, mask.affine).T - corners
    return bool(np.abs(moved).max() <= GRID_TOLERANCE)


def _format_grid(volume: Volume) -> str:
    sides = " x ".join(map(str, volume.voxels.shape))
    first = ", ".join(f"{place:g}" for place in volume.affine[:3, 3].round(3).tolist())
    return f"{sides} of {' x '.join(f'{side:g}' for side in volume.spacing)} from ({first})"

"""Files whose content and name differ: masks that are not called so, and images that are called masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from btkeras.datasets.mask_content import is_mask_image
from btkeras.datasets.mask_names import TUMOR, MaskName
from btkeras.datasets.masks import case_of, name_beginnings
from btkeras.datasets.naming import ScanName, is_volume_path
from btkeras.datasets.readers.archives import SourceFile
from btkeras.datasets.readers.nifti import read_grid, read_volume
from btkeras.errors import DataError, ImageError

# Voxels' places that differ by less, in mm, are the same.
_SAME_PLACE = 0.01


def name_unnamed_masks(names: Mapping[str, ScanName], files: Mapping[str, SourceFile]) -> dict[str, ScanName]:
    """The names of a source, with volumes as masks whose names say no sequence and whose content is a label map's.

    Only such are read as have a scan of their case with the same grid beside them. Files that cannot be read stay as
    they are.
    """
    found = dict(names)
    for path, sibling in _pairs(names):
        with suppress(ImageError):
            if _same_grid(files[path], files[sibling]) and read_volume(files[path].read(), path).labels_text:
                found[path] = replace(names[path], mask=MaskName(TUMOR, "", 2), stem=names[sibling].stem)
    return found


def check_masks_without_image(files: Iterable[SourceFile]) -> None:
    """Raises DataError if files that are called masks, and have no image, are images by their content.

    Files that cannot be read, and images of one color, pass.
    """
    if images := [file.name for file in files if _is_image(file)]:
        more = f" and {len(images) - 1} more" if images[1:] else ""
        rule, remedy = "A file that is called a mask must hold one", "Rename it if it is an image, or remove it"
        raise DataError(rule, received=f"{images[0]}{more}, of many grey levels and without an image", remedy=remedy)


def _is_image(file: SourceFile) -> bool:
    try:
        if is_volume_path(file.path):
            return not read_volume(file.read(), file.name).labels_text
        return not is_mask_image(file.read(), file.name)
    except ImageError:
        return False


def _pairs(names: Mapping[str, ScanName]) -> Iterator[tuple[str, str]]:
    """Volumes of unknown sequence, each with another volume of its case: of one patient, or of a shorter name."""
    scans = {path: name for path, name in names.items() if is_volume_path(path) and not name.mask}
    by_stem = {(name.place, name.stem): path for path, name in scans.items()}
    by_case: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for path, name in scans.items():
        by_case[case_of(path, name)].append(path)
    for path, name in scans.items():
        if not name.sequence and name.channel is None:
            shorter = (by_stem.get((name.place, stem)) for stem in name_beginnings(name.stem))
            others = [other for other in (*by_case[case_of(path, name)], *shorter) if other not in (path, None)]
            if others:
                yield path, str(others[0])


def _same_grid(first: SourceFile, second: SourceFile) -> bool:
    one, other = (read_grid(file.head(), file.name) for file in (first, second))
    return one.shape == other.shape and np.allclose(one.affine, other.affine, rtol=0, atol=_SAME_PLACE)

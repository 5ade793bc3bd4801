"""Volumes that are masks by their content alone, beside a scan of their case on the same grid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from btkeras.datasets.mask_content import has_labels
from btkeras.datasets.mask_names import TUMOR, MaskName
from btkeras.datasets.masks import case_of, name_beginnings
from btkeras.datasets.naming import ScanName, is_volume_path
from btkeras.datasets.readers.archives import SourceFile
from btkeras.datasets.readers.nifti import read_grid, read_volume
from btkeras.errors import ImageError

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
            if _same_grid(files[path], files[sibling]) and has_labels(read_volume(files[path].read(), path).voxels):
                found[path] = replace(names[path], mask=MaskName(TUMOR, "", 1), stem=names[sibling].stem)
    return found


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

"""What the files of a source mean: class, patient, subset and box, read from folders' names, manifests and tables."""

from __future__ import annotations

import difflib
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from btkeras.datasets.boxes import BOXES, read_boxes
from btkeras.datasets.dataset import CLASSES, MANIFEST, Record, class_name, load_dataset
from btkeras.datasets.naming import is_mask, is_medical, is_volume, masks_of, patient_of
from btkeras.datasets.readers.archives import SourceFile, file_entry, walk
from btkeras.datasets.readers.figshare import CVIND, read_cvind
from btkeras.datasets.readers.images import READABLE_SUFFIXES
from btkeras.errors import DataError

FIGSHARE = "figshare"
PARTS = {
    "training": "train",
    "train": "train",
    "testing": "test",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}


@dataclass(frozen=True)
class PreparedImage:
    """An image as it will be written.

    Attributes:
        label: Its class.
        patient: Its patient, "" where unknown.
        data: Encoded PNG or JPEG.
        suffix: ``.png`` or ``.jpg``.
        mask: Encoded PNG of the tumour (0 and 255), as large as the image; None where there is none.
        extra: Further columns of the manifest.
        name: Of its file, without ending; "" for that of the source's file.
    """

    label: str
    patient: str
    data: bytes
    suffix: str
    mask: bytes | None
    extra: Mapping[str, str]
    name: str = ""


@dataclass(frozen=True)
class SourceImage:
    """One image to prepare.

    Attributes:
        entry: Its file.
        source: The collection it comes from.
        label: Its class; "" for a FigShare slice, whose file tells class and patient.
        patient: Its patient, "" where unknown.
        extra: Further columns of the manifest.
        mask: The file of its tumour mask, if a manifest names one.
    """

    entry: SourceFile
    source: str
    label: str = ""
    patient: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    mask: SourceFile | None = None


@dataclass(frozen=True)
class PreparePlan:
    """All images of all sources, in their order.

    Attributes:
        jobs: One for each image.
        ignored: How many files of other kinds lie beside them, by their ending.
    """

    jobs: tuple[SourceImage, ...]
    ignored: Mapping[str, int]


def plan_dataset(sources: Sequence[Path], stack: ExitStack) -> PreparePlan:
    """Finds the images of all sources; only names and tables are read, no image.

    Args:
        sources: Folders, zips and ``.mat`` files.
        stack: Keeps zips open until the images have been read.

    Raises:
        DataError: If a source is missing, given twice, holds no image, or its folders or tables are not valid.
    """
    jobs: list[SourceImage] = []
    rest: list[SourceFile] = []
    for source, name in zip(sources, _source_names(sources), strict=True):
        if (source / MANIFEST).is_file():
            jobs += [_record_job(source, record, name) for record in load_dataset(source).records]
        else:
            found, others = _file_jobs(source, name, walk(source, stack))
            jobs += found
            rest += others
    cvind = [entry for entry in rest if entry.basename.lower() == CVIND]
    jobs = _with_folds(jobs, cvind) if cvind else jobs
    if not jobs:
        raise DataError("The sources must hold images", received=f"only {CVIND}", remedy="Add the slices")
    used = (CVIND, BOXES)
    return PreparePlan(tuple(jobs), Counter(e.suffix or e.basename for e in rest if e.basename.lower() not in used))


def _source_names(sources: Sequence[Path]) -> list[str]:
    """Names the sources by their folder or zip; different ones of one name get a number."""
    repeated = [path for path, count in Counter(path.resolve() for path in sources).items() if count > 1]
    if repeated or not sources:
        found = f"{repeated[0]} twice" if repeated else "none"
        raise DataError("Sources must be given, each of them once", received=found)
    names: dict[Path, str] = {}
    for source in sources:
        anchor = _absolute(source).parent if _named_by_parent(source) else _absolute(source)
        if anchor not in names:
            names[anchor] = _unique(anchor.stem if anchor.is_file() else anchor.name, set(names.values()))
    return [names[_absolute(source).parent if _named_by_parent(source) else _absolute(source)] for source in sources]


def _unique(name: str, taken: Iterable[str]) -> str:
    number = 1
    unique = name = name or "source"
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _absolute(source: Path) -> Path:
    # Not resolve(): the name that the user sees counts, not the one that a link leads to.
    return Path(os.path.abspath(source))


def _named_by_parent(source: Path) -> bool:
    """Whether a source is one part (``Training``) or one class (``glioma``) of the collection it lies in."""
    path = _absolute(source)
    if not path.is_dir():
        return False
    return path.name.lower() in PARTS or (_is_class(path.name) and not any(child.is_dir() for child in path.iterdir()))


def _is_class(spelling: str) -> bool:
    try:
        class_name(spelling)
    except DataError:
        return False
    return True


def _record_job(root: Path, record: Record, name: str) -> SourceImage:
    extra = {"original": record.path, **{key: value for key, value in record.extra.items() if value}}
    mask = extra.get("mask", "")
    if ".." in PurePosixPath(mask).parts or mask.startswith("/"):
        raise DataError(f"A mask in {root / MANIFEST} must lie inside the dataset's folder", received=repr(mask))
    return SourceImage(
        file_entry(root / record.path, record.path),
        record.source or name,
        record.label,
        record.patient,
        extra,
        file_entry(root / mask, mask) if mask else None,
    )


def _file_jobs(source: Path, name: str, entries: list[SourceFile]) -> tuple[list[SourceImage], list[SourceFile]]:
    """Returns a source's images, and its other files."""
    slices = [entry for entry in entries if entry.suffix == ".mat" and entry.basename.lower() != CVIND]
    masks = [entry for entry in entries if is_mask(entry)]
    images = [e for e in entries if not is_mask(e) and (e.suffix in READABLE_SUFFIXES or is_medical(e))]
    used = {entry.path for entry in (*slices, *images)}
    others = [entry for entry in entries if entry.path not in used]
    for entry in others:
        if entry.basename == MANIFEST:
            raise DataError(
                f"A dataset with {MANIFEST} must be given as a source of its own",
                received=entry.name,
                remedy="Give its folder; unzip it first if it lies in a zip",
            )
    if not used and not any(entry.basename.lower() == CVIND for entry in others):
        raise DataError(
            "A source must hold FigShare slices (.mat) or class folders of images, DICOM or NIfTI",
            received=f"{source} with {len(others)} other files" if others else f"{source}, which is empty",
            remedy="Check that it was downloaded and unpacked completely",
        )
    jobs = [SourceImage(entry, FIGSHARE, extra={"original": entry.path}) for entry in slices]
    found = masks_of([entry for entry in images if is_volume(entry)], masks)
    matched = {mask.path for mask in found.values()}
    jobs += [_volume_job(job, found) for job in _image_jobs(source, name, images, others)]
    return jobs, [entry for entry in others if entry.path not in matched]


def _image_jobs(source: Path, name: str, images: list[SourceFile], others: list[SourceFile]) -> list[SourceImage]:
    prefix = [_absolute(source).name] if _named_by_parent(source) else []
    folders = [prefix + _folders(entry) for entry in images]
    subsets = [next((PARTS[folder.lower()] for folder in above if folder.lower() in PARTS), "") for above in folders]
    labels = _labels(images, [[folder for folder in above if folder.lower() not in PARTS] for above in folders])
    boxes = _boxes(others, {entry.path for entry in images})
    jobs = []
    for entry, label, subset in zip(images, labels, subsets, strict=True):
        extra = {"original": entry.path, "subset": subset, "box": boxes.get(entry.path, "")}
        jobs.append(SourceImage(entry, name, label, extra={key: value for key, value in extra.items() if value}))
    return jobs


def _volume_job(job: SourceImage, masks: Mapping[str, SourceFile]) -> SourceImage:
    if not is_volume(job.entry):
        return job
    mask = masks.get(job.entry.path)
    return replace(job, patient=patient_of(job.entry, mask), mask=mask)


def _folders(entry: SourceFile) -> list[str]:
    """The folders above a file. A zip counts as one only if its name says something (``Training.zip``)."""
    names = []
    for subset in PurePosixPath(entry.path).parts[:-1]:
        name = subset[:-4] if subset.lower().endswith(".zip") else subset
        if name == subset or name.lower() in PARTS or _is_class(name):
            names.append(name)
    return names


def _labels(images: list[SourceFile], folders: list[list[str]]) -> list[str]:
    # A download often has all its class folders in one more folder, or several.
    while folders and all(len(above) > 1 for above in folders) and len({above[0] for above in folders}) == 1:
        if _is_class(folders[0][0]):
            break
        folders = [above[1:] for above in folders]
    return [_label(entry, above) for entry, above in zip(images, folders, strict=True)]


def _label(entry: SourceFile, folders: list[str]) -> str:
    if not folders:
        raise DataError(
            f"Each image must lie in a folder named after its class ({', '.join(CLASSES)})",
            received=entry.name,
            remedy="Move it into such a folder, or remove it",
        )
    if not _is_class(folders[0]):
        near = difflib.get_close_matches(folders[0].lower(), CLASSES, n=1)
        raise DataError(
            f"Class folders must be named {', '.join(CLASSES)}",
            received=f"{folders[0]!r}, where {entry.name} lies",
            remedy=f"Did you mean {near[0]!r}" if near else "Rename or remove the folder",
        )
    meant = {class_name(folder) for folder in folders if _is_class(folder)}
    if len(meant) > 1:
        raise DataError("Class folders must not lie in each other", received=entry.name, remedy="Move the inner one")
    return meant.pop()


def _boxes(entries: list[SourceFile], images: set[str]) -> dict[str, str]:
    """Reads each ``boxes.csv``: path of the image -> "x_center y_center width height"."""
    boxes: dict[str, str] = {}
    for entry in entries:
        if entry.basename.lower() == BOXES:
            boxes |= read_boxes(entry.read(), posixpath.dirname(entry.path), entry.name, images)
    return boxes


def _with_folds(jobs: list[SourceImage], entries: list[SourceFile]) -> list[SourceImage]:
    """Adds the column ``official_fold`` to FigShare slices, by the number that their file's name is."""
    found = {read_cvind(entry.read(), entry.name) for entry in entries}
    if len(found) > 1:
        raise DataError(
            f"There must be one {CVIND}", received=" and ".join(entry.name for entry in entries), remedy="Remove one"
        )
    folds = dict(enumerate(found.pop(), start=1))
    return [_with_fold(job, folds) if job.entry.suffix == ".mat" else job for job in jobs]


def _with_fold(job: SourceImage, folds: Mapping[int, int]) -> SourceImage:
    stem = job.entry.stem
    number = int(stem) if stem.isascii() and stem.isdecimal() and len(stem) < 9 else 0
    if number not in folds:
        raise DataError(
            f"{CVIND} must have a fold for each slice, which it finds by the number in the file's name",
            received=f"{job.entry.name} beside a {CVIND} of {len(folds)} folds",
            remedy=f"Give the slice its number back, or leave {CVIND} out",
        )
    return replace(job, extra={**job.extra, "official_fold": str(folds[number])})

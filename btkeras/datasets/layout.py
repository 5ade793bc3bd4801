"""What the files of a source mean: class, patient, subset and box, from folders' names, manifests and tables."""

from __future__ import annotations

import itertools
import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from btkeras.datasets.boxes import BOXES, read_boxes
from btkeras.datasets.choice import ChosenImages, SequenceChoice, choose_sequence
from btkeras.datasets.classes import check_classes, find_class
from btkeras.datasets.collections import PublishedName, merge_copies, published_names
from btkeras.datasets.dataset import (
    MANIFEST,
    Record,
    find_subset,
    has_own_manifest,
    is_own_manifest,
    load_dataset,
)
from btkeras.datasets.dicom_places import place_images
from btkeras.datasets.folder_classes import FolderClasses
from btkeras.datasets.mask_siblings import check_masks_without_image, name_unnamed_masks
from btkeras.datasets.masks import NO_IMAGE, pair_masks
from btkeras.datasets.names_together import parse_names
from btkeras.datasets.patients import PATIENTS, PatientTable, read_patients
from btkeras.datasets.readers.archives import SourceFile, file_on_disk, walk
from btkeras.datasets.readers.figshare import CVIND, read_cvind
from btkeras.datasets.readers.folders import files_below
from btkeras.datasets.readers.selection import LeftOut, holds_slices, left_out_text, why_left_out
from btkeras.datasets.source_image import DATASET_JSON, SourceImage, channel_names, named_image
from btkeras.datasets.versions import name_versions
from btkeras.errors import DataError
from btkeras.logging import logger

FIGSHARE = "figshare"


class FoundImages(NamedTuple):
    """The images of sources, in their order, the files that are left out, and the classes of both."""

    images: list[SourceImage]
    left_out: list[LeftOut]
    classes: frozenset[str] = frozenset()


def find_images(
    sources: Sequence[Path],
    stack: ExitStack,
    choice: SequenceChoice,
    patients: PatientTable | None = None,
    own: frozenset[str] = frozenset(),
) -> FoundImages:
    """Finds the images of all sources; only names and tables are read, no image. ``stack`` keeps their zips open.

    ``patients`` is a table for all sources; what it says counts more than tables in them. ``own`` are names of classes
    beside the usual ones.

    Raises:
        DataError: If a source is missing, given twice, holds no image, or its folders or tables are not valid; if
            classes exclude each other; or if a case has several sequences, of which ``choice`` takes none.
    """
    images: list[SourceImage] = []
    left_out: list[LeftOut] = []
    classes: set[str] = set()
    folds: list[SourceFile] = []
    for source, name in zip(sources, _source_names(sources, own), strict=True):
        if has_own_manifest(source):
            found = _listed_images(source, name)
            # Several sequences in a dataset were joined on purpose.
            chosen = choose_sequence(found.images, choice) if choice.name else ChosenImages(found.images, [])
        else:
            files = walk(source, stack)
            folds += [file for file in files if file.basename.lower() == CVIND]
            found = _folder_images(source, name, files, own)
            chosen = choose_sequence(found.images, choice)
        classes |= {image.label for image in found.images} - {""}
        images += chosen.images
        left_out += [*found.left_out, *chosen.left_out]
    check_classes(classes, "the sources")
    images, copies = merge_copies(images)
    left_out += copies
    images = _with_patients(images, patients) if patients else images
    images = _with_folds(images, folds) if folds else images
    images, unplaced = place_images(images)
    left_out += unplaced
    if not images:
        found_files = left_out_text(left_out) if left_out else f"only {CVIND}"
        remedy = "Choose another sequence" if choice.name and classes else "Add the slices"
        raise DataError("The sources must hold images", received=found_files, remedy=remedy)
    return FoundImages(images, left_out, frozenset(classes))


def _source_names(sources: Sequence[Path], own: frozenset[str]) -> list[str]:
    """Names the sources by their folder or zip; different ones of one name get a number."""
    repeated = [path for path, count in Counter(path.resolve() for path in sources).items() if count > 1]
    if repeated or not sources:
        found = f"{repeated[0]} twice" if repeated else "none"
        raise DataError("Sources must be given, each of them once", received=found)
    names: dict[Path, str] = {}
    anchors = [_absolute(source).parent if _named_by_parent(source, own) else _absolute(source) for source in sources]
    for anchor in dict.fromkeys(anchors):
        name = (anchor.stem if anchor.is_file() else anchor.name) or "source"
        numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names[anchor] = next(unique for unique in numbered if unique not in names.values())
    return [names[anchor] for anchor in anchors]


def _absolute(source: Path) -> Path:
    # Not resolve(): the name as given counts, not the one that a link leads to.
    return Path(os.path.abspath(source))


def _named_by_parent(source: Path, own: frozenset[str]) -> bool:
    """Whether a source is a subset (``Training``) or a class (``glioma``) of the collection it lies in."""
    path = _absolute(source)
    if not path.is_dir() or find_subset(path.name):
        return path.is_dir()
    return find_class(path.name, own) is not None and not any(child.is_dir() for child in path.iterdir())


def _listed_images(root: Path, name: str) -> FoundImages:
    """The images of a dataset's manifest; images in its folder that are not in it are left out, masks aside."""
    records = load_dataset(root).records
    listed = {record.path for record in records} | {record.extra.get("mask", "") for record in records}
    below = {file.relative_to(root).as_posix(): file for file in files_below(root)}
    unlisted = [path for path, file in below.items() if path not in listed and not why_left_out(file, path)]
    images = [_manifest_image(root, record, name) for record in records]
    return FoundImages(images, [LeftOut(f"{root.name}/{path}", f"not in {MANIFEST}") for path in unlisted])


def _manifest_image(root: Path, record: Record, name: str) -> SourceImage:
    extra = {"original": record.path, **{key: value for key, value in record.extra.items() if value}}
    mask = extra.get("mask", "")
    if ".." in PurePosixPath(mask).parts or mask.startswith("/"):
        raise DataError(f"A mask in {root / MANIFEST} must lie inside the dataset's folder", received=repr(mask))
    file, mask_file = file_on_disk(root / record.path, record.path), file_on_disk(root / mask, mask) if mask else None
    case = record.source, record.label, record.patient or record.path, extra.get("session", "")
    known = extra.keys() & {"sequence", "channel"}
    return SourceImage(
        *(file, record.source or name, record.label, record.patient, extra, mask_file), case if known else None
    )


def _folder_images(source: Path, name: str, files: list[SourceFile], own: frozenset[str]) -> FoundImages:
    """A source's images, with what their names say, and its other files."""
    slices = [file for file in files if file.suffix == ".mat" and file.basename.lower() != CVIND]
    readable = {file.path: file for file in files if file.suffix != ".mat" and holds_slices(file.path, file.head)}
    others = [file for file in files if file.suffix != ".mat" and file.path not in readable]
    names = name_versions(name_unnamed_masks(parse_names(readable, own), readable))
    pairs = pair_masks(names)
    check_masks_without_image(readable[path] for path, why in pairs.left_out.items() if why == NO_IMAGE)
    images = [file for path, file in readable.items() if names[path].mask is None]
    _check_others(source, others, len(files) > len(others))
    found = [SourceImage(file, FIGSHARE, extra={"original": file.path}) for file in slices]
    channels = channel_names(others)
    labels = FolderClasses([_absolute(source).name] if _named_by_parent(source, own) else [], own)
    for image in _labelled_images(name, images, others, labels):
        path = image.file.path
        mask = readable.get(pairs.mask_of.get(path, ""))
        found.append(named_image(image, names[path], mask, channels))
    for table in (file for file in others if file.basename.lower() == PATIENTS):
        folder = posixpath.dirname(table.path)
        found = _with_patients(found, read_patients(table.read(), table.name, folder), folder)
    left_out = [LeftOut(readable[path].name, why) for path, why in pairs.left_out.items()]
    read = {BOXES, PATIENTS, CVIND, *([DATASET_JSON] if channels else [])}
    unread = [file for file in others if file.basename.lower() not in read]
    return FoundImages(found, left_out + [LeftOut(file.name, file.suffix or "without ending") for file in unread])


def _with_patients(images: Sequence[SourceImage], table: PatientTable, folder: str = "") -> list[SourceImage]:
    """Adds what a table says of the images below its folder; errors as ``PatientTable.columns``."""
    below = [image for image in images if not folder or image.file.path.startswith(f"{folder}/")]
    said = dict(zip((image.file.name for image in below), table.columns([i.file.path for i in below]), strict=True))
    return [replace(image, listed=said.get(image.file.name) or image.listed) for image in images]


def _check_others(source: Path, others: Sequence[SourceFile], readable: bool) -> None:
    if manifests := [file.name for file in others if file.basename == MANIFEST and is_own_manifest(file.read())]:
        rule = f"A dataset with {MANIFEST} must be given as a source of its own"
        remedy = "Give its folder; unzip it first if it lies in a zip"
        raise DataError(rule, received=manifests[0], remedy=remedy)
    if not readable:
        raise DataError(
            "A source must hold FigShare slices (.mat) or class folders of images, DICOM or NIfTI",
            received=f"{source} with {len(others)} other files" if others else f"{source}, which is empty",
            remedy="Check that it was downloaded and unpacked completely",
        )


def _labelled_images(
    name: str, images: Sequence[SourceFile], others: Sequence[SourceFile], classes: FolderClasses
) -> list[SourceImage]:
    """Images with the classes and subsets of the folders above them, and the boxes of tables beside them."""
    folders = [classes.folders(file) for file in images]
    said = _published(images, folders)
    labels = classes.labels(images, folders, [name.label for name in said])
    paths, boxes = {file.path for file in images}, dict[str, str]()
    for table in (file for file in others if file.basename.lower() == BOXES):
        boxes |= read_boxes(table.read(), posixpath.dirname(table.path), table.name, paths)
    found = []
    for file, label, above, published in zip(images, labels, folders, said, strict=True):
        subset = next(filter(None, map(find_subset, above)), published.subset)
        extra = {"original": file.path, "subset": subset, "box": boxes.get(file.path, "")}
        extra |= {"plane": published.plane, "sequence": published.sequence}
        kept = {key: value for key, value in extra.items() if value}
        found.append(SourceImage(file, published.collection or name, label, extra=kept))
    _log_other_classes(found, said)
    return found


def _log_other_classes(images: Sequence[SourceImage], said: Sequence[PublishedName]) -> None:
    other = [image for image, name in zip(images, said, strict=True) if name.label not in ("", image.label)]
    if other:
        logger.warning(
            f"{len(other):,} images lie in another class's folder than their names say: the folder counts; "
            f"{other[0].file.name}, a {other[0].label} here, is the first"
        )


def _published(images: Sequence[SourceFile], folders: Sequence[Sequence[str]]) -> list[PublishedName]:
    """What each image's name says if it is one of a published collection."""
    paths = ["/".join([*above, file.basename]) for file, above in zip(images, folders, strict=True)]
    names = published_names(paths)
    return [names.get(path, PublishedName("")) for path in paths]


def _with_folds(images: list[SourceImage], files: list[SourceFile]) -> list[SourceImage]:
    """Adds the column ``official_fold`` to FigShare slices, by the number that their file's name is."""
    tables = {read_cvind(file.read(), file.name) for file in files}
    if len(tables) > 1:
        found = " and ".join(file.name for file in files)
        raise DataError(f"There must be one {CVIND}", received=found, remedy="Remove one")
    folds = {str(number): str(fold) for number, fold in enumerate(tables.pop(), start=1)}
    return [_with_fold(image, folds) if image.file.suffix == ".mat" else image for image in images]


def _with_fold(image: SourceImage, folds: Mapping[str, str]) -> SourceImage:
    fold = folds.get(image.file.stem.lstrip("0"))
    if fold is None:
        rule = f"{CVIND} must have a fold for each slice, which it finds by the number in the file's name"
        found = f"{image.file.name} beside a {CVIND} of {len(folds)} folds"
        raise DataError(rule, received=found, remedy=f"Give the slice its number back, or leave {CVIND} out")
    return replace(image, extra={**image.extra, "official_fold": fold})

"""A folder of labelled images, read into records."""

from __future__ import annotations

import csv
import functools
import io
import logging
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from btkeras.datasets.boxes import BOXES, Box, parse_box, read_boxes
from btkeras.datasets.classes import TUMOR, check_classes, class_name, find_class, own_names
from btkeras.datasets.mask_names import layout_of
from btkeras.datasets.patients import PATIENTS, load_patients, patient_columns
from btkeras.datasets.readers import IMAGE_SUFFIXES
from btkeras.datasets.readers.folders import files_below, is_hidden
from btkeras.datasets.readers.selection import MASK, LeftOut, left_out_text, why_left_out
from btkeras.errors import DataError
from btkeras.files import atomic_file
from btkeras.logging import logger

MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("path", "label", "patient", "source")
# How public collections name the folders of a split, and the subset that each is.
_SUBSETS = {
    **dict.fromkeys(("training", "train"), "train"),
    **dict.fromkeys(("testing", "test"), "test"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
}
# In tables and names also these, which as a folder's name may be a person's initials.
_SHORT_SUBSETS = {"trn": "train", "tr": "train", "tst": "test", "te": "test", "ts": "test", "dev": "validation"}
_CACHED = 4096  # names of folders, which occur for each file below them
_SUBSET_ENDINGS = re.compile(r"_?(set|data|dataset|images|split)$")

# Without a usual name, more folders than this are rather patients.
_MOST_OWN = 20


@dataclass(frozen=True, slots=True)
class Record:
    """One slice; ``path`` is relative to the dataset's folder, ``extra`` has the manifest's further columns."""

    path: str
    label: str
    patient: str = ""
    source: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def box(self) -> Box | None:
        """The tumour's box, of the column ``box``; None without one. Raises DataError if it is not valid."""
        return parse_box(self.extra.get("box", ""), self.path)


@dataclass(frozen=True)
class Dataset:
    """The records of the folder ``root``, sorted by path."""

    root: Path
    records: tuple[Record, ...]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names that occur, in alphabetical order: the order of the network's outputs."""
        return tuple(sorted({record.label for record in self.records}))

    def counts(self) -> dict[str, int]:
        """Number of slices per class, in class order."""
        counter = Counter(record.label for record in self.records)
        return {name: counter[name] for name in self.classes}

    def require_classes(self, known: Collection[str]) -> None:
        """Raises ``DataError`` if it has a class that is none of those that a model knows."""
        if unknown := sorted(set(self.classes) - set(known)):
            raise DataError(
                f"A dataset's classes must be among the model's: {', '.join(known)}",
                received=f"{', '.join(unknown)} in {self.root}",
                remedy="Leave out their images, or use a model that was trained on these classes",
            )


@functools.lru_cache(_CACHED)
def find_subset(spelling: str, *, short: bool = False) -> str:
    """The subset, ``train``, ``test`` or ``validation``, that a folder's name means, or if ``short`` a field; or ""."""
    name = re.sub("[- ]", "_", spelling.strip().lower())
    known = _SUBSETS | _SHORT_SUBSETS if short else _SUBSETS
    return known.get(name) or known.get(_SUBSET_ENDINGS.sub("", name), "")


def load_dataset(folder: str | Path) -> Dataset:
    """Reads a dataset: class folders of PNG/JPEG images, or a folder with ``manifest.csv``.

    Usual spellings of the usual classes become one name (``classes.find_class``); any other folder or label is a class
    as it is called.
    Only names are read, and the first bytes of files whose name does not say what they are. What class folders hold
    besides images is logged; hidden files do not count. Of class folders, ``boxes.csv`` beside them (``file,x_center,
    y_center,width,height``, fractions) becomes the column ``box``, and ``patients.csv`` what ``read_patients`` says.
    Ids that mean one patient (``patients.EXAMINATIONS``) become one.

    Raises:
        DataError: If the folder is missing or empty, holds fewer than two classes, or its manifest is not valid; if a
            class is misspelt, or excludes another.
    """
    root = Path(folder)
    if not root.is_dir():
        remedy = "Give a folder made by `btkeras prepare`, a folder of class folders, or `phantom`"
        raise DataError("A dataset must be a folder", received=root, remedy=remedy)
    named = (root / MANIFEST).is_file() and (has_own_manifest(root) or not _has_class_folders(root))
    records = _from_manifest(root) if named else _from_class_folders(root)
    dataset = Dataset(root, tuple(sorted(records, key=lambda record: record.path)))
    if len(dataset.classes) < 2:
        raise DataError(
            "A dataset must hold images of at least two classes",
            received=f"{dataset.counts() or 'no image'} in {root}",
            remedy="Put the images of each class into a folder that has its name",
        )
    check_classes(dataset.classes, root)
    return dataset


def _has_class_folders(root: Path) -> bool:
    return any(path.is_dir() and (find_class(path.name) or find_subset(path.name)) for path in root.iterdir())


def _from_class_folders(root: Path) -> list[Record]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden([path.name]))
    if any(find_subset(folder.name) for folder in folders):
        received = f"{root} with {', '.join(folder.name for folder in folders)}"
        remedy = f"Join the subsets first: btkeras prepare {' '.join(map(str, folders))} --out DATASET"
        raise DataError("A dataset's folders must be classes", received=received, remedy=remedy)
    label_of = _classes_of(folders, root)
    labels: dict[str, str] = {}
    beside = [file for file in sorted(root.iterdir()) if file not in folders and file.name not in (BOXES, PATIENTS)]
    left_out = [LeftOut(file.name, "outside class folders") for file in beside if not is_hidden([file.name])]
    for folder in folders:
        labels |= dict.fromkeys(_images(folder, root, left_out), label_of[folder])
    if left_out:
        _say(f"{root}: {left_out_text(left_out)}")
    file, boxes = root / BOXES, dict[str, str]()
    try:
        if file.is_file():
            # A file of that name may be anything, and images may have been taken away.
            boxes = read_boxes(file.read_bytes(), "", str(file), labels, strict=False)
    except OSError as error:
        raise DataError(f"{BOXES} must be readable", received=f"{file} ({error.strerror})") from error
    patients = _table_of_patients(root, list(labels))
    extras = {path: dict(patients.get(path, {})) | ({"box": boxes[path]} if path in boxes else {}) for path in labels}
    return [Record(path, label, extras[path].pop("patient", ""), extra=extras[path]) for path, label in labels.items()]


def _classes_of(folders: Sequence[Path], root: Path) -> dict[Path, str]:
    """The classes of folders; logs them where some are none of the usual ones."""
    rule = "A dataset's folders must be classes"
    for folder in folders:
        if layout_of(folder.name) is not None:
            remedy = (
                f"Rename it if it is a class; else remove it, or use its files: btkeras prepare {root} --out DATASET"
            )
            raise DataError(rule, received=f"{folder}, by its name a kind of file", remedy=remedy)
    found = {folder: class_name(folder.name, f" in {root}") for folder in folders}
    own = own_names(found.values())
    # Kinds of tumours may well lie in a folder called brain_tumor.
    in_class = find_class(root.resolve().name) not in (None, TUMOR) and len(own) == len(found)
    if in_class or len(own) > _MOST_OWN:
        raise DataError(
            rule,
            received=f"{len(own)} folders in {root} that look like patients: {', '.join(own[:3])}, ...",
            remedy=f"Name the folder above it, or the classes: btkeras prepare {root} --classes NAME,... --out DATASET",
        )
    if own:
        _say(f"{root}: classes {', '.join(sorted(set(found.values())))}", logging.INFO)
    return found


def _table_of_patients(root: Path, paths: Sequence[str]) -> dict[str, Mapping[str, str]]:
    """The columns that ``patients.csv`` beside class folders gives their images, by path."""
    file = root / PATIENTS
    return dict(zip(paths, load_patients(file).columns(paths), strict=True)) if file.is_file() else {}


def _images(folder: Path, root: Path, left_out: list[LeftOut]) -> list[str]:
    """Paths of a class folder's images, relative to ``root``; files of other kinds are added to ``left_out``."""
    files = {file.relative_to(root).as_posix(): file for file in files_below(folder)}
    kinds = {path: why_left_out(file, path.partition("/")[2]) for path, file in files.items()}
    images = [path for path, kind in kinds.items() if not kind and path.lower().endswith(IMAGE_SUFFIXES)]
    # What `btkeras prepare` converts or uses; leaving it out would lose data.
    others = sorted({path for path, kind in kinds.items() if kind in ("", MASK, ".mat")} - {*images})
    if others:
        raise DataError(
            "A class folder's images must be PNG or JPEG, without masks beside them",
            received=f"{others[0]!r} in {root}" + (f" (and {len(others) - 1} more)" if others[1:] else ""),
            remedy=f"Convert them: btkeras prepare {root} --out DATASET",
        )
    if not images:
        raise DataError(
            "A class folder must hold PNG or JPEG images", received=f"{folder} without any", remedy="Remove it"
        )
    # Bytes of a file name that are no UTF-8 reach Python as lone surrogates.
    if odd := next((path for path in images if path.encode(errors="replace") != path.encode(errors="ignore")), None):
        raise DataError("An image's name must be UTF-8", received=repr(odd), remedy="Rename it")
    left_out += [LeftOut(path, kind) for path, kind in kinds.items() if kind]
    return images


@functools.cache
def _say(text: str, level: int = logging.WARNING) -> None:
    """Logs a text once, however often a dataset is read."""
    logger.log(level, text)


def is_own_manifest(data: bytes) -> bool:
    """Whether the content of a ``manifest.csv`` is as ``load_dataset`` reads it: a line has a label and a path in its
    folder.

    Other projects, BRISC among them, have files of that name with columns of their own.
    """
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline=""))
    try:
        return any((path := row.get("path")) and not Path(path).is_absolute() and row.get("label") for row in rows)
    except csv.Error:
        return True


def has_own_manifest(root: Path) -> bool:
    """Whether a folder has a ``manifest.csv`` that says what its images are; logs it where it is another project's."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        return False
    try:
        if is_own_manifest(manifest.read_bytes()):
            return True
    except OSError:
        # Its message comes where it is read.
        return True
    _say(f"{manifest} is another project's: it has no lines with a label and a path in its folder; folders are read")
    return False


def _from_manifest(root: Path) -> list[Record]:
    manifest = root / MANIFEST
    try:
        # Excel begins UTF-8 with a byte order mark.
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_columns(list(reader.fieldnames or ()), manifest)
            records = [_record_of(row, manifest, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest} must be a CSV file in UTF-8", received=error, remedy="Save it again so") from error
    repeated = [path for path, count in Counter(record.path for record in records).items() if count > 1]
    if repeated:
        raise DataError(f"{manifest} must name each image once", received=repeated[0], remedy="Remove the repetition")
    return records


def _check_columns(names: list[str], manifest: Path) -> None:
    found = ", ".join(names) or "an empty file"
    if missing := ", ".join(name for name in ("path", "label") if name not in names):
        rule = f"{manifest} must have the columns path and label (patient and source are optional)"
        remedy = f"Add {missing}; if it is another project's: btkeras prepare {manifest.parent} --out DATASET"
        raise DataError(rule, received=found, remedy=remedy)
    if len(set(names)) < len(names):
        raise DataError(f"{manifest} must have each column once", received=found)


def _record_of(row: dict[str, str], manifest: Path, line: int) -> Record:
    if None in row or None in row.values():
        rule = f"{manifest} must have as many fields in each line as in its header"
        raise DataError(rule, received=f"line {line}: {row}")
    text = row.pop("path")
    path = Path(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in text:
        rule = f"A path in {manifest} must lie inside the dataset's folder"
        raise DataError(rule, received=f"line {line}: {text!r}")
    label = class_name(row.pop("label"), f" in line {line} of {manifest}")
    columns = patient_columns(row.pop("patient", ""))
    # One string for all records of a patient or source: there may be hundreds of thousands.
    patient, source = sys.intern(columns.pop("patient", "")), sys.intern(row.pop("source", ""))
    return Record(path.as_posix(), label, patient, source, row | columns)


def write_manifest(root: Path, records: list[Record]) -> None:
    """Writes ``manifest.csv`` into ``root``, sorted by path, with all records' extra columns."""
    extra = sorted({name for record in records for name in record.extra})
    rows = [[*MANIFEST_COLUMNS, *extra]]
    for record in sorted(records, key=lambda record: record.path):
        fixed = (getattr(record, name) for name in MANIFEST_COLUMNS)
        rows.append([*fixed, *(record.extra.get(name, "") for name in extra)])
    # Python before 3.13 leaves a carriage return unquoted and takes it for a line's end when it reads.
    odd = any("\r" in value for row in rows for value in row)
    with atomic_file(root / MANIFEST) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerows(rows)

"""What a dataset is: a folder of labelled pictures, read into records."""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from btkeras.errors import DataError

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
MANIFEST = "manifest.csv"
MANIFEST_COLUMNS = ("path", "label", "patient", "source")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

# How public collections spell the four classes, after lower-casing and "-", " " -> "_".
_SPELLINGS = {
    "glioma": ("glioma", "gliomas", "glioma_tumor", "glioma_tumour", "gl"),
    "meningioma": ("meningioma", "meningiomas", "meningioma_tumor", "meningioma_tumour", "meninigioma", "me"),
    "no_tumor": ("no_tumor", "no_tumour", "notumor", "notumour", "no", "none", "normal", "healthy"),
    "pituitary": ("pituitary", "pituitary_tumor", "pituitary_tumour", "pituitary_adenoma", "pi"),
}
_CLASS_OF = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


@dataclass(frozen=True)
class Record:
    """One slice.

    Attributes:
        path: Relative to the dataset's folder, with forward slashes.
        label: One of ``CLASSES``.
        patient: Identifier of the patient, "" where unknown.
        source: The collection the slice comes from, "" where unknown.
        extra: Further columns of the manifest, as text.
    """

    path: str
    label: str
    patient: str = ""
    source: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """The records of one folder, sorted by path.

    Attributes:
        root: The folder.
        records: All slices, sorted by path.
    """

    root: Path
    records: tuple[Record, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names that occur, in alphabetical order: the order of the network's outputs."""
        return tuple(sorted({record.label for record in self.records}))

    def counts(self) -> dict[str, int]:
        """Number of slices per class, in class order."""
        counter = Counter(record.label for record in self.records)
        return {name: counter[name] for name in self.classes}


def class_name(spelling: str) -> str:
    """Returns the class that a folder name or label means.

    Raises:
        DataError: If it means none of the four.
    """
    key = spelling.strip().lower().replace("-", "_").replace(" ", "_")
    if key in _CLASS_OF:
        return _CLASS_OF[key]
    near = difflib.get_close_matches(key, _CLASS_OF, n=1)
    hint = f"Did you mean {near[0]!r}" if near else "Rename or remove it"
    raise DataError(f"A class must be one of {', '.join(CLASSES)}", received=repr(spelling), remedy=hint)


def load_dataset(folder: str | Path) -> Dataset:
    """Reads a dataset: class folders of PNG/JPEG pictures, or a folder with ``manifest.csv``.

    Only names are read here, no picture is opened.

    Raises:
        DataError: If the folder is missing or empty, holds fewer than two classes, or its manifest is not valid.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            "A dataset must be a folder",
            received=root,
            remedy="Give a folder made by `btkeras prepare`, a folder of class folders, or `phantom`",
        )
    records = _from_manifest(root) if (root / MANIFEST).is_file() else _from_class_folders(root)
    dataset = Dataset(root, tuple(sorted(records, key=lambda record: record.path)))
    if len(dataset.classes) < 2:
        raise DataError(
            "A dataset must hold pictures of at least two classes",
            received=f"{dataset.counts() or 'no picture'} in {root}",
            remedy=f"Name the class folders {', '.join(CLASSES)}",
        )
    return dataset


def _from_class_folders(root: Path) -> list[Record]:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if any(folder.name.lower() in ("training", "testing", "train", "test") for folder in folders):
        names = " ".join(str(folder) for folder in folders)
        raise DataError(
            "A dataset's folders must be classes",
            received=f"{root} with {', '.join(folder.name for folder in folders)}",
            remedy=f"Join the parts first: btkeras prepare {names} --out DATASET",
        )
    records = []
    for folder in folders:
        label = class_name(folder.name)
        pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not pictures:
            raise DataError(
                "A class folder must hold PNG or JPEG pictures", received=f"{folder} without any", remedy="Remove it"
            )
        records += [Record(picture.relative_to(root).as_posix(), label) for picture in pictures]
    return records


def _from_manifest(root: Path) -> list[Record]:
    manifest = root / MANIFEST
    with manifest.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("path", "label") if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{manifest} must have the columns path and label (patient and source are optional)",
                received=", ".join(reader.fieldnames or ()) or "an empty file",
                remedy=f"Add {', '.join(missing)}",
            )
        records = [_record_of(row, manifest, number) for number, row in enumerate(reader, start=2)]
    repeated = [path for path, count in Counter(record.path for record in records).items() if count > 1]
    if repeated:
        raise DataError(f"{manifest} must name each picture once", received=repeated[0], remedy="Remove the repetition")
    return records


def _record_of(row: dict[str, str], manifest: Path, line: int) -> Record:
    if None in row or None in row.values():
        raise DataError(
            f"{manifest} must have as many fields in each line as in its header", received=f"line {line}: {row}"
        )
    path = Path(row["path"])
    if path.is_absolute() or ".." in path.parts or not row["path"]:
        raise DataError(
            f"A path in {manifest} must lie inside the dataset's folder", received=f"line {line}: {row['path']!r}"
        )
    extra = {name: value for name, value in row.items() if name not in MANIFEST_COLUMNS}
    return Record(path.as_posix(), class_name(row["label"]), row.get("patient", ""), row.get("source", ""), extra)


def write_manifest(root: Path, records: list[Record]) -> None:
    """Writes ``manifest.csv`` into ``root``, sorted by path; every record's extra columns are kept."""
    extra = sorted({name for record in records for name in record.extra})
    with (root / MANIFEST).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*MANIFEST_COLUMNS, *extra])
        for record in sorted(records, key=lambda record: record.path):
            values = [record.extra.get(name, "") for name in extra]
            writer.writerow([record.path, record.label, record.patient, record.source, *values])

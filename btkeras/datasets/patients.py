"""Whose slices: tables of patients (``patients.csv``), and ids that mean the same patient."""

from __future__ import annotations

import csv
import hashlib
import io
import posixpath
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from btkeras.datasets.mask_names import stem_of
from btkeras.errors import DataError
from btkeras.logging import logger

PATIENTS = "patients.csv"
PUBLISHED_PATIENT, FOLD = "published_patient", "official_fold"
# By published collection, the form of ids of which several are one patient, called as the group ``patient`` says.
# FigShare's MR040240, MR040240B, -C and -D are examinations of one head (``docs/collections.md``).
EXAMINATIONS: Mapping[str, re.Pattern[str]] = MappingProxyType({"figshare": re.compile(r"(?P<patient>MR\d+)[A-Z]")})

_COLUMNS = "image (or path), patient and, if known, series and fold"
# Of a name that was written with its ending; what else follows a dot is part of the name.
_ENDING = re.compile(
    r"\.(nii\.gz|nii|mat|png|jpe?g|jpe|jfif|bmp|dib|tiff?|webp|gif|apng|dcm|dicom|ima)\Z", re.IGNORECASE
)
_FOLD = re.compile(r"[1-9]\d{0,2}")
# A shorter number in a name may count slices.
_SHORTEST_NUMBER = 5


class PatientRow(NamedTuple):
    """What a line says of an image: its columns of the manifest, and the line's number."""

    columns: Mapping[str, str]
    line: int


class PatientTable(NamedTuple):
    """A table of patients: by path, and by image (a name without ending, or a number); messages call it ``name``."""

    name: str
    by_path: dict[str, PatientRow]
    by_image: dict[str, PatientRow]

    def columns(self, paths: Sequence[str]) -> list[Mapping[str, str]]:
        """The columns of images by their paths, relative to the table or its source; none where it does not name one.

        Lines of other images are logged.

        Raises:
            DataError: If a line names several images, two lines one image with different columns, or none any image.
        """
        found: list[dict[str, str]] = [{} for _ in paths]
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, path in enumerate(paths):
            # What lies in a zip may be named from there on, too.
            for known in {path, path.rpartition(".zip/")[2]}:
                places["path", known].append(place)
            places["image", _image_key(stem_of(path))].append(place)
        rows = [("path", key, row) for key, row in self.by_path.items()]
        rows += [("image", key, row) for key, row in self.by_image.items()]
        for column, key, row in rows:
            named = places.get((column, key), [])
            if len(named) > 1:
                received = f"{key} for {paths[named[0]]} and {paths[named[1]]}"
                self._fail(f"A line must name one image by its {column}", row, received, "Give paths: column path")
            for place in named:
                self._check_same(found[place], row, paths[place])
                found[place].update(row.columns)
        self._check_present([key for column, key, _ in rows if (column, key) not in places], len(rows))
        return [MappingProxyType(columns) for columns in found]

    def _check_same(self, known: Mapping[str, str], row: PatientRow, path: str) -> None:
        if known and known != row.columns:
            self._fail("An image must have one patient", row, f"{path} with another before", "Correct a line")

    def _check_present(self, missing: Sequence[str], total: int) -> None:
        if total and len(missing) == total:
            found = f"{self.name}, where none of {total:,} lines does, {missing[0]!r} the first"
            remedy = "Write names without ending (column image), or paths in the source (column path)"
            raise DataError("A table of patients must name images of the sources", received=found, remedy=remedy)
        if missing:
            logger.warning(f"{self.name}: {len(missing):,} of {total:,} lines name no image, {missing[0]!r} the first")

    def _fail(self, rule: str, row: PatientRow, received: str, remedy: str) -> None:
        raise DataError(rule, received=f"{self.name}, line {row.line}: {received}", remedy=remedy)


def load_patients(file: str | Path) -> PatientTable:
    """Reads the table in a file; errors as ``read_patients``, and if it cannot be read."""
    try:
        return read_patients(Path(file).read_bytes(), str(file))
    except OSError as error:
        raise DataError("A table of patients must be readable", received=f"{file} ({error.strerror})") from error


def read_patients(data: bytes, name: str, folder: str = "") -> PatientTable:
    """Reads the content of a table: columns ``image`` or ``path``, ``patient``, ``series`` and ``fold`` (from 1 on).

    Other columns are ignored, and lines without patient, series and fold. Paths are relative to ``folder``; messages
    call the table ``name``.

    Raises:
        DataError: If columns or a line are not valid, or two lines of an image differ.
    """
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline=""), restval="")
    table = PatientTable(name, {}, {})
    try:
        header = [column.strip().lower() for column in reader.fieldnames or ()]
        if "patient" not in header or not {"image", "path"} & {*header}:
            received = f"{name} with {','.join(header) or 'an empty file'}"
            rule = f"A table of patients must have the columns {_COLUMNS}"
            raise DataError(rule, received=received, remedy="Rename its columns, or the file if it is none")
        reader.fieldnames = header
        for row in reader:
            _add_row(table, {key: (value or "").strip() for key, value in row.items() if key}, reader.line_num, folder)
    except csv.Error as error:
        raise DataError("A table of patients must be a CSV file in UTF-8", received=f"{name} ({error})") from error
    return table


def _add_row(table: PatientTable, row: Mapping[str, str], line: int, folder: str) -> None:
    path, image, fold = (row.get(column, "") for column in ("path", "image", "fold"))
    others = {"series": row.get("series", ""), FOLD: fold}
    found = PatientRow(patient_columns(row["patient"]) | {key: value for key, value in others.items() if value}, line)
    if not found.columns:
        return
    if not (path or image) or (fold and not _FOLD.fullmatch(fold)):
        rule, remedy = "A line must name an image, and a fold by a number from 1 on", "Correct or remove the line"
        raise DataError(rule, received=f"{table.name}, line {line}: {','.join(row.values())}", remedy=remedy)
    rows = table.by_path if path else table.by_image
    key = posixpath.normpath(posixpath.join(folder, path)) if path else _image_key(_ENDING.sub("", image))
    if rows.get(key, found).columns != found.columns:
        rule, remedy = "An image must have one patient, one series and one fold", "Correct or remove a line"
        raise DataError(
            rule, received=f"{table.name}, lines {rows[key].line} and {line}: {path or image}", remedy=remedy
        )
    rows[key] = found


def _image_key(stem: str) -> str:
    """A name as it is compared, a number without leading zeros."""
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdecimal() else stem.casefold()


def patient_columns(published: str) -> dict[str, str]:
    """The columns of a published id: ``patient``, and ``published_patient`` where the patient has several ids.

    Ids are grouped by ``EXAMINATIONS``. An empty id has no columns.
    """
    matches = (form.fullmatch(published) for form in EXAMINATIONS.values())
    if found := next(filter(None, matches), None):
        return {"patient": found["patient"], PUBLISHED_PATIENT: published}
    return {"patient": published} if published else {}


def without_ids(name: str, columns: Mapping[str, str]) -> str:
    """A file's name in which a patient's ids are replaced by a digest, since an id may give the class away.

    Numbers of fewer than 5 digits stay.
    """
    patient = columns.get("patient", "")
    for known in (columns.get(PUBLISHED_PATIENT, ""), patient):
        if known and not (known.isdecimal() and len(known) < _SHORTEST_NUMBER):
            digest = f"P{hashlib.sha256(patient.encode()).hexdigest()[:8]}"
            name = re.sub(rf"(?<![^\W_]){re.escape(known)}(?![^\W_])", digest, name, flags=re.IGNORECASE)
    return name

"""One decision per patient or series: which slices belong together, and what they say together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from btkeras.datasets.dataset import has_own_manifest, load_dataset
from btkeras.datasets.patients import PATIENTS, load_patients
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers import VOLUME_SUFFIXES
from btkeras.datasets.readers.dicom_series import in_series_order, left_out_of_series, place_slices
from btkeras.datasets.readers.selection import LeftOut
from btkeras.datasets.scans import scan_name
from btkeras.decisions.scan_decision import decide_scan
from btkeras.decisions.selective_classifier import REJECTED
from btkeras.errors import DataError
from btkeras.inference.dicom_columns import dicom_columns
from btkeras.inference.inputs import ChosenFiles, SliceRef
from btkeras.inference.predictor import FilePrediction
from btkeras.logging import logger

_REMEDY = (
    "Give DICOM or NIfTI, or name the images in patients.csv in their folder: columns image (or path), patient{}; "
    "without --group-by each image is classified alone"
)
_COLUMNS = {"patient": "", "series": ", series"}


@dataclass(frozen=True)
class ScanPrediction:
    """The prediction for the slices of a patient or of a series, or an error.

    Attributes:
        group: The patient, or patient and series; of DICOM their pseudonyms; of a volume its path.
        slices: The predictions of its slices, in their order.
        label: The most probable class, whatever the decision; "" with an error.
        probabilities: By class name, of ``metrics.groups.tumor_evidence``; empty with an error.
        decision: A class, ``uncertain`` or ``rejected``; "" with an error, and where slices have no decision.
        reasons: Why the decision is no class.
        error: Why there is none, or None.
    """

    group: str
    slices: tuple[FilePrediction, ...]
    label: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    decision: str = ""
    reasons: tuple[str, ...] = ()
    error: str | None = None

    @property
    def supporting(self) -> list[int]:
        """Places in ``slices`` of those that speak for ``label``: their most probable class is the same."""
        return [i for i, each in enumerate(self.slices) if _counts(each) and each.label == self.label]


def whole_scans(files: ChosenFiles) -> ChosenFiles:
    """Files in the order of their series; localizers, scouts and repeats are left out also where they are named."""
    unwanted = left_out_of_series(files.identities)
    identities = {path: identity for path, identity in files.identities.items() if path not in unwanted}
    paths = [path for path in files.paths if path not in unwanted]
    # The table that names the patients is read, though it is no image.
    unread = [file for file in files.left_out if PurePath(file.path).name != PATIENTS]
    left_out = [*unread, *(LeftOut(path, why) for path, why in unwanted.items())]
    return ChosenFiles(in_series_order(paths, place_slices(identities)), left_out, identities)


def scan_names(files: ChosenFiles, refs: Iterable[SliceRef], group_by: str) -> dict[str, str]:
    """The patient (``patient``), or patient and series (``series``), of each file by path.

    Known are, the first that says it: ``patients.csv``, or a dataset's ``manifest.csv``, in the nearest folder above
    the file that has one; the header of a DICOM file; and a volume's file, which is a scan of its own.

    Raises:
        DataError: If a file's is not known, or a table is not valid.
    """
    volumes = {ref.path for ref in refs if ref.index is not None or ref.path.lower().endswith(VOLUME_SUFFIXES)}
    known: dict[str, dict[str, str]] = {path: {} for path in files.paths}
    for path, columns in dicom_columns(files.identities).items():
        known[path] = {key: str(columns[key]) for key in ("patient", "series") if columns[key]}
    for path, named in _from_tables(files.paths).items():
        # Whatever a table calls them, ids of DICOM leave this machine as pseudonyms only.
        known[path] |= _pseudonyms(named) if path in files.identities else named
    alone = [path for path in volumes - files.identities.keys() if "patient" not in known[path]]
    for path in volumes - files.identities.keys():
        known[path] = {"patient": path, "series": ""} if path in alone else {"series": path} | known[path]
    if alone and group_by == "patient":
        logger.info(f"{len(alone):,} volumes name no patient, and count as one each: {PATIENTS} can name them")
    names = {path: _name(columns, group_by) for path, columns in known.items()}
    if missing := [path for path, name in names.items() if not name]:
        rule = f"For one decision per {group_by}, slices must name their {group_by}"
        received = f"{missing[0]}, which does not" + (f" (and {len(missing) - 1:,} more)" if missing[1:] else "")
        raise DataError(rule, received=received, remedy=_REMEDY.format(_COLUMNS[group_by]))
    return names


def _pseudonyms(named: Mapping[str, str]) -> dict[str, str]:
    key = load_key()
    return {column: pseudonym(text, key, "S" if column == "series" else "P") for column, text in named.items()}


def _name(columns: Mapping[str, str], group_by: str) -> str:
    if group_by == "series" and "series" not in columns:
        return ""
    return "/".join(filter(None, (columns.get(key, "") for key in ("patient", "series")[: 1 + (group_by == "series")])))


def _from_tables(paths: Sequence[str]) -> dict[str, dict[str, str]]:
    """What tables of patients and manifests say of files: ``patient`` and ``series``, as far as they are named."""
    above = {folder: _table_folder(folder) for folder in {Path(path).parent for path in paths}}
    below: dict[Path, list[str]] = defaultdict(list)
    for path in paths:
        if folder := above[Path(path).parent]:
            below[folder].append(path)
    found: dict[str, dict[str, str]] = {}
    for folder, members in below.items():
        inside = [Path(os.path.relpath(path, folder)).as_posix() for path in members]
        rows = _rows(folder, inside)
        found |= {path: {key: row[key] for key in row if row[key]} for path, row in zip(members, rows, strict=True)}
    return found


def _rows(folder: Path, paths: Sequence[str]) -> list[dict[str, str]]:
    if (folder / PATIENTS).is_file():
        columns = load_patients(folder / PATIENTS).columns(paths)
        return [{key: row.get(key, "") for key in ("patient", "series")} for row in columns]
    records = {record.path: record for record in load_dataset(folder).records}
    return [
        {key: scan_name(records[path], key) for key in ("patient", "series")} if path in records else {}
        for path in paths
    ]


def _table_folder(folder: Path) -> Path | None:
    """The nearest of a folder and those above it that has a table of patients, or a dataset's manifest."""
    above = (folder, *folder.parents)
    return next((each for each in above if (each / PATIENTS).is_file() or has_own_manifest(each)), None)


def decide_scans(
    predictions: Iterable[FilePrediction], names: Mapping[str, str], classes: Sequence[str]
) -> list[ScanPrediction]:
    """Decides on scans by their slices' predictions, in the order in which the scans come.

    Slices that are rejected or cannot be read do not count; the rule is ``decisions.scan_decision.decide_scan``.

    Args:
        predictions: Of slices.
        names: The scan's name by file, of ``scan_names``.
        classes: The model's, in the order of its outputs.
    """
    members: dict[str, list[FilePrediction]] = defaultdict(list)
    for prediction in predictions:
        members[names[prediction.file]].append(prediction)
    return [_decide(name, tuple(slices), classes) for name, slices in members.items()]


def _counts(slice_: FilePrediction) -> bool:
    return not slice_.error and slice_.decision != REJECTED


def _decide(name: str, slices: tuple[FilePrediction, ...], classes: Sequence[str]) -> ScanPrediction:
    readable = [each for each in slices if not each.error]
    if not readable:
        return ScanPrediction(name, slices, error=f"none of its {len(slices):,} slices can be read")
    rows = np.array([[each.probabilities[label] for label in classes] for each in readable])
    found = decide_scan(rows, [each.decision for each in readable], classes)
    probabilities = dict(zip(classes, found.probabilities.tolist(), strict=True))
    if not all(each.decision for each in readable):
        return ScanPrediction(name, slices, found.label, probabilities)
    return ScanPrediction(name, slices, found.label, probabilities, found.decision, found.reasons)

"""Whose slice a prediction is for, and which: what rows of DICOM files say besides the prediction."""

from __future__ import annotations

from collections.abc import Mapping

from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers.dicom_identity import DicomIdentity
from btkeras.datasets.readers.dicom_series import place_slices

COLUMNS = ("patient", "series", "instance", "position")


def dicom_columns(identities: Mapping[str, DicomIdentity]) -> dict[str, dict[str, str | int | None]]:
    """``COLUMNS`` by file: the pseudonyms that ``prepare`` gives, the slice's number, its place in its series from 0.

    DataError if there are files, and the pseudonyms' key cannot be read or made.
    """
    if not identities:
        return {}
    key, places = load_key(), place_slices(identities)
    columns = {}
    for path, identity in identities.items():
        patient, series = pseudonym(identity.patient, key), pseudonym(identity.series, key, "S")
        columns[path] = dict(zip(COLUMNS, (patient, series, identity.instance, places[path].number), strict=True))
    return columns

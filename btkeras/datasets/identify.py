"""The patient of an image that `prepare` stores: from its file or name, and from a table of patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from btkeras.datasets.choice import is_dicom_image
from btkeras.datasets.patients import FOLD, PUBLISHED_PATIENT, patient_columns, without_ids
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers import check
from btkeras.datasets.source_image import SourceImage


class Identified(NamedTuple):
    """An image's patient (one for all ids of a patient), its name without published ids, its further columns."""

    patient: str
    name: str
    extra: Mapping[str, str]


def identify(item: SourceImage, patient: str, name: str, extra: Mapping[str, str]) -> Identified:
    """Adds what a table of patients says of an image; a table counts more than names of files.

    Raises:
        ImageError: If a FigShare file names another patient than the table, or ``cvind.mat`` another fold.
        DataError: If an id of DICOM needs a pseudonym whose key cannot be read.
    """
    own, listed, extra, figshare = patient_columns(patient), dict(item.listed), dict(extra), not item.label
    if listed and is_dicom_image(extra):
        # Of DICOM no id is stored in clear text, wherever it comes from; its series is known.
        hidden = {"patient": pseudonym(listed.get("patient", ""), load_key()), FOLD: listed.get(FOLD, "")}
        listed = {key: value for key, value in hidden.items() if value}
    _check(item, listed, (own if figshare else {}) | {key: value for key, value in extra.items() if key == FOLD})
    if "patient" in listed:
        own = {}
        extra.pop(PUBLISHED_PATIENT, None)
    columns = own | listed
    # Names of other collections hold ids too, by schemes that are read again; those say nothing of a class.
    name = without_ids(name, columns) if listed or figshare else name
    return Identified(columns.pop("patient", ""), name, extra | columns)


def _check(item: SourceImage, listed: Mapping[str, str], known: Mapping[str, str]) -> None:
    for column in listed.keys() & known:
        rule, remedy = "A table of patients must say what the files say", "Check that it is the table of these images"
        found = f"{column} {listed[column]!r} for {item.file.name}, which has {known[column]!r}"
        check(listed[column] == known[column], rule, found, remedy)

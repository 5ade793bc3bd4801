"""Whose slice a DICOM file is, which one of its series, and what was measured: the header, never the pixels."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

IDENTITY_TAGS = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber", "BurnedInAnnotation",
    "SeriesDescription", "ContrastBolusAgent", "ImageType", "ImagePositionPatient", "ImageOrientationPatient",
    "NumberOfFrames",
)  # fmt: skip

# What a description says of the sequence, the first that fits. They are written in lower case, with one space for all
# that is no letter, digit, + or *.
_OTHERS = (
    ("localizer", r"\b(loc|locali[sz]ers?|scout|survey|pilot|(3|three) ?(plane|pl))\b"),
    ("subtraction", r"\bsubtr\w*|\bsubs?\b(?! ?\d)"),
    ("adc", r"\badc\b|apparent diff"),
    ("dti", r"\bdti\b|tensor|\bfa map\b"),
    ("dwi", r"\bdwi\b|diff(usion)?\b|\btrace\w?\b|\bb ?(0|500|800|1000)\b"),
    ("swi", r"\bswi\b|\bswan\b|\bsusc\w*"),
    ("mra", r"\bmra\b|\btof\b|angio"),
    ("asl", r"\basl\b|spin label"),
    ("perfusion", r"perf\w*|\bdsc\b|\bdce\b|\brcb[vf]\b|\bcb[vf]\b"),
    ("t1map", r"\bt1 ?(rho|map\w*)\b"),
    ("t2star", r"\bt2 ?(\*|star|gre|ffe|hemo\w*)|\bhemo\w*"),
)
_T1 = r"\bt1(?!\d)|\bmp2?rage|\bbravo\b|\b(ir )?f?spgr\b"
_FLAIR = r"flair|dark ?fluid|\btirm\b"
_T2, _PD = r"\bt2(?!\d)", r"\bpd(w|wi)?\b|proton dens"
# An operation is no contrast agent.
_OPERATION = r"\b(pre|post) ?op\w*"
_AGENT = r"(gd|gad\w*|contrast|inj\w*|ce|km|c)?"
_BEFORE = rf"\b(pre{_AGENT}|w ?o|without|non?|ohne|nativ\w*|unenhanced)\b"
_AFTER = (
    rf"\b(gd\w*|gad\w*|post{_AGENT}|ce|km|contrast|kontrast\w*|enhanced|with c|t1(w|wi)?(gd|gad|ce|c|post|km))\b|\+"
)
_NO_AGENT = ("", "none", "no", "n", "0", "no contrast")


class DicomIdentity(NamedTuple):
    """Whose file it is, in clear text, never to be written anywhere: "" and None where unknown.

    Attributes:
        patient: The patient's id.
        series: The series' unique id.
        instance: The slice's number in it.
        burned_in: Whether the header says that the pixels hold text about the patient.
        sequence: ``t1``, ``t1c`` (with a contrast agent), ``t2``, ``flair``, or another name of this module's table.
        uid: The file's own unique id.
        localizer: Whether the header says that it was made to plan other series.
        normal: The slice's normal, rounded, in the patient's directions (left, posterior, superior).
        position: Where the slice lies along the normal, mm.
        frames: How many images the file holds.
        study: The examination's unique id.
    """

    patient: str = ""
    series: str = ""
    instance: int | None = None
    burned_in: bool = False
    sequence: str = ""
    uid: str = ""
    localizer: bool = False
    normal: tuple[float, ...] = ()
    position: float | None = None
    frames: int = 1
    study: str = ""


def identity_of(dataset: Any) -> DicomIdentity:
    """Reads what a parsed header says; what it says wrongly counts as unknown."""
    patient, series, uid, burned_in, description, agent, study = (
        str(dataset.get(tag) or "").strip()
        for tag in (
            *("PatientID", "SeriesInstanceUID", "SOPInstanceUID", "BurnedInAnnotation"),
            *("SeriesDescription", "ContrastBolusAgent", "StudyInstanceUID"),
        )
    )
    sequence = sequence_of(description, agent)
    kinds = dataset.get("ImageType") or ()
    kinds = [kinds] if isinstance(kinds, str) else kinds
    localizer = sequence == "localizer" or any(str(kind).strip().upper() == "LOCALIZER" for kind in kinds)
    normal, position = _place(dataset)
    instance, frames = _integer(dataset.get("InstanceNumber")), _integer(dataset.get("NumberOfFrames"))
    burned = burned_in.upper() == "YES"
    return DicomIdentity(
        patient, series, instance, burned, sequence, uid, localizer, normal, position, max(frames or 1, 1), study
    )


def sequence_of(description: str, agent: str = "") -> str:
    """What was measured, by a series' description and the contrast agent: a name as of ``DicomIdentity.sequence``."""
    text = re.sub(r"[^a-z0-9+*]+", " ", description.lower())
    text = re.sub(_OPERATION, " ", text)
    for name, pattern in _OTHERS:
        if re.search(pattern, text):
            return name
    if re.search(_T1, text):
        return _with_contrast(text, agent)
    # T1 weighted images with inversion recovery are called FLAIR too, T2 weighted ones mostly without the T2.
    weightings = (("flair", _FLAIR), ("t2", _T2), ("pd", _PD))
    return next((name for name, pattern in weightings if re.search(pattern, text)), "")


def _with_contrast(text: str, agent: str) -> str:
    """``t1`` or ``t1c``; "" where the description says both."""
    before = re.search(_BEFORE, text)
    if before and re.search(r"\bpost\b", text):
        return ""
    after = re.search(_AFTER, text) or agent.lower() not in _NO_AGENT
    return "t1c" if after and not before else "t1"


def _place(dataset: Any) -> tuple[tuple[float, ...], float | None]:
    """The slice's normal and its place along it (DICOM PS3.3 C.7.6.2.1.1); nothing where they are not given."""
    try:
        origin = np.array([float(value) for value in dataset.ImagePositionPatient])
        directions = np.array([float(value) for value in dataset.ImageOrientationPatient]).reshape(2, 3)
        normal = np.cross(*directions)
        place = float(origin @ normal)
    except (AttributeError, TypeError, ValueError):
        return (), None
    if not (np.isfinite(place) and 0.5 < np.linalg.norm(normal) < 2):
        return (), None
    return tuple(np.round(normal, 2).tolist()), place


def _integer(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None

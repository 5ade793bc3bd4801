"""Whose a DICOM slice is and what was measured. Descriptions are such as scanners and public collections write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btkeras.datasets.readers.dicom import read_dicom, read_identity
from btkeras.datasets.readers.dicom_identity import sequence_of
from btkeras.errors import ImageError
from tests.dicom_files import dicom

GREY = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)


@pytest.mark.parametrize(
    ("description", "sequence"),
    [
        ("AX T1 POST GD", "t1c"),
        ("t1_mprage_sag_p2_iso_Gd", "t1c"),
        ("Ax T1 +C", "t1c"),
        ("T1 C+ 3D", "t1c"),
        ("T1CE", "t1c"),
        ("t1wpost", "t1c"),
        ("T1 tse tra KM", "t1c"),
        ("SAG T1 FLAIR POST", "t1c"),
        ("AX T1 PRE GD", "t1"),
        ("T1 without contrast", "t1"),
        ("postop T1", "t1"),
        ("AX T1 pre and post", ""),
        ("t1_fl3d_cor", "t1"),
        ("MPRAGE", "t1"),
        ("3D IR FSPGR", "t1"),
        ("T1 FLAIR", "t1"),
        ("AX T2 FLAIR FS", "flair"),
        ("t2_tirm_tra_dark-fluid", "flair"),
        ("FLAIR post", "flair"),
        ("T2W_TSE", "t2"),
        ("AX T2 FSE", "t2"),
        ("T2* GRE", "t2star"),
        ("PD TSE", "pd"),
        ("ep2d_diff_3scan_trace_ADC", "adc"),
        ("DTI 32 dir", "dti"),
        ("Ax DWI b1000", "dwi"),
        ("SWI_Images", "swi"),
        ("3-pl T2* FGRE", "localizer"),
        ("Loc", "localizer"),
        ("TOF_3D", "mra"),
        ("Ax Dynamic perfusion", "perfusion"),
        ("t1space_sag", "t1"),
        ("T1 posterior fossa", "t1"),
        ("sub 01 T1", "t1"),
        ("AX T1 PRECONTRAST", "t1"),
        ("T1_POSTCONTRAST", "t1c"),
        ("SUB T1 +C", "subtraction"),
        ("T10 spine", ""),
        ("brain", ""),
        ("", ""),
    ],
)
def test_a_description_says_the_sequence(description: str, sequence: str) -> None:
    assert sequence_of(description) == sequence


def test_a_contrast_agent_makes_t1_another_sequence_and_no_other() -> None:
    for description, agent, sequence in (
        ("AX T1", "Magnevist", "t1c"),
        ("AX T1", "NONE", "t1"),
        ("AX T1 pre", "Magnevist", "t1"),
        ("AX T2", "Magnevist", "t2"),
        ("", "Magnevist", ""),
    ):
        assert sequence_of(description, agent) == sequence
        _, identity = read_dicom(dicom(GREY, SeriesDescription=description, ContrastBolusAgent=agent), "x")
        assert identity.sequence == sequence


@given(st.text(max_size=64))
def test_a_sequence_is_of_the_table_whatever_a_description_holds(description: str) -> None:
    assert len(sequence_of(description)) <= 11


def test_headers_of_other_types_of_values_are_read_or_are_an_image_error() -> None:
    data = dicom(
        GREY,
        ImageType=["ORIGINAL", "PRIMARY"],
        ImagePositionPatient=[1, 2, 3],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        SeriesDescription="T1",
        InstanceNumber="7",
    )
    rng = np.random.default_rng(2)
    types = (b"US", b"SS", b"DS", b"IS", b"FD", b"UL", b"CS", b"LO", b"PN", b"UI", b"AT", b"TM", b"UN")
    places = [at for at in range(132, 900) if data[at : at + 2] in types]
    outcomes = {True: 0, False: 0}
    for _ in range(400):
        at, changed = int(rng.choice(places)), bytearray(data)
        changed[at : at + 2] = types[rng.integers(len(types))]
        try:
            _, identity = read_dicom(bytes(changed), "x")
            assert isinstance(identity.patient, str)
        except ImageError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
        read_identity(bytes(changed))
    assert outcomes[True] > 50


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"InstanceNumber": "7"}, {"instance": 7}),
        ({"InstanceNumber": ""}, {"instance": None}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"localizer": True}),
        ({"ImageType": "DERIVED"}, {"localizer": False}),
        ({"SeriesDescription": "Survey"}, {"localizer": True}),
        (
            {"ImagePositionPatient": [1, 2, 30], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            {"normal": (0, 0, 1), "position": 30},
        ),
        # Sagittal: rows run to the back, columns to the feet; the normal points to the right.
        (
            {"ImagePositionPatient": [-4, 2, 3], "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
            {"normal": (-1, 0, 0), "position": 4},
        ),
        ({"ImagePositionPatient": [1, 2], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, {"position": None}),
        ({"ImagePositionPatient": [1, 2, 3], "ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, {"position": None}),
        ({"ImagePositionPatient": [1, 2, 3]}, {"position": None, "normal": ()}),
    ],
)
def test_what_a_header_says_of_a_slice_s_place(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    _, identity = read_dicom(dicom(GREY, **attributes), "x")
    assert {key: getattr(identity, key) for key in expected} == expected

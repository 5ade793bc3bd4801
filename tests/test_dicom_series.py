"""Which DICOM files belong together, and in which order: in ``predict`` and ``prepare``, whatever the files' names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from btkeras.datasets.readers.dicom import read_identity
from btkeras.datasets.readers.dicom_identity import DicomIdentity
from btkeras.datasets.readers.dicom_series import (
    LOCALIZER,
    TWICE,
    identity_in,
    in_series_order,
    left_out_of_series,
    place_slices,
)
from tests.dicom_files import dicom
from tests.images import encode, scene

AXIAL, CORONAL, SAGITTAL = (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0)
GREY = np.random.default_rng(0).integers(0, 256, (20, 24), np.uint8)


def slice_of(series: str = "1.2", patient: str = "A", **values: Any) -> DicomIdentity:
    return DicomIdentity(patient, series, **({"study": "1"} | values))


def along(normal: tuple[float, ...], *positions: float, **values: Any) -> list[DicomIdentity]:
    return [slice_of(normal=normal, position=place, instance=n, **values) for n, place in enumerate(positions, start=1)]


def order(identities: dict[str, DicomIdentity]) -> list[str]:
    return in_series_order(list(identities), place_slices(identities))


def test_slices_come_by_their_position_and_not_by_name_or_number() -> None:
    found = along(AXIAL, 30, -10, 10, 0)
    assert order(dict(zip("abcd", found, strict=True))) == ["b", "d", "c", "a"]
    places = place_slices(dict(zip("abcd", found, strict=True)))
    assert [(places[name].number, places[name].of) for name in "abcd"] == [(3, 4), (0, 4), (2, 4), (1, 4)]


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        # Without a position of each, or in several directions, by number.
        ({"a": slice_of(instance=12), "b": slice_of(instance=2), "c": slice_of(instance=7)}, ["b", "c", "a"]),
        ({"a": slice_of(instance=2, normal=AXIAL, position=1.0), "b": slice_of(instance=1)}, ["b", "a"]),
        (
            {
                "a": slice_of(instance=2, normal=AXIAL, position=1.0),
                "b": slice_of(instance=1, normal=CORONAL, position=9.0),
            },
            ["b", "a"],
        ),
        # At one position by number: echoes, or time points.
        (
            {
                "a": slice_of(instance=4, normal=AXIAL, position=5.0),
                "b": slice_of(instance=3, normal=AXIAL, position=5.0),
            },
            ["b", "a"],
        ),
        # Without both as they come.
        ({"b": slice_of(), "a": slice_of()}, ["b", "a"]),
        # Patients and their series as they first come.
        (
            {
                "a": slice_of("9", "Z", instance=2),
                "b": slice_of("1", "A", instance=1),
                "c": slice_of("3", "Z", instance=1),
                "d": slice_of("9", "Z", instance=1),
            },
            ["d", "a", "c", "b"],
        ),
    ],
)
def test_the_order_of_what_says_less(identities: dict[str, DicomIdentity], expected: list[str]) -> None:
    assert order(identities) == expected


def test_other_files_keep_their_places() -> None:
    identities = dict(zip("db", along(AXIAL, 2, 1), strict=True))
    assert in_series_order(["a.png", "d", "c.nii", "b"], place_slices(identities)) == ["a.png", "b", "c.nii", "d"]


def left_out(*series: list[DicomIdentity]) -> list[str]:
    """The reasons, by series and slice."""
    identities = {f"{n}-{m}": one for n, many in enumerate(series) for m, one in enumerate(many)}
    found = left_out_of_series(identities)
    return [found.get(path, "") for path in identities]


def test_localizers_are_left_out() -> None:
    scan = along(AXIAL, *range(20))
    flagged = [slice_of("3", localizer=True), slice_of("3")]
    planes = [slice_of("4", normal=normal, position=0.0) for normal in (AXIAL, CORONAL, SAGITTAL)]
    short = [slice_of("5", normal=SAGITTAL, position=float(n)) for n in range(3)]
    for scout, reasons in ((flagged, [LOCALIZER, ""]), (planes, [LOCALIZER] * 3), (short, [LOCALIZER] * 3)):
        assert left_out(scan, scout)[20:] == reasons or left_out(scan, scout)[20:] == [LOCALIZER] * len(scout)
        assert left_out(scan, scout)[:20] == [""] * 20
    # Alone, three slices may be all that there is.
    assert left_out(short) == [""] * 3 and left_out(planes) == [LOCALIZER] * 3
    for other in ({"patient": "B"}, {"study": "2"}):
        assert left_out(short, [one._replace(**other) for one in scan])[:3] == [""] * 3
    # Nothing says that they are of one examination.
    assert left_out([one._replace(study="") for one in short], [one._replace(study="") for one in scan])[:3] == [""] * 3


def test_reconstructions_around_an_axis_and_tilted_slices_are_no_scouts() -> None:
    angles = np.linspace(0, np.pi, 40)
    radial = [slice_of(normal=(float(np.cos(a)), float(np.sin(a)), 0.0)) for a in angles]
    assert left_out(radial) == [""] * 40
    tilted = [slice_of(normal=(0.0, 0.3 if n % 2 else 0.29, -0.95), position=float(n)) for n in range(12)]
    assert left_out(tilted) == [""] * 12


def test_an_instance_that_comes_twice_is_named_unless_all_have_one_id() -> None:
    one, other = (one._replace(uid=str(one.instance)) for one in along(AXIAL, 0, 5))
    assert left_out([one, other, one]) == ["", "", TWICE]
    careless = [slice_of(instance=n, uid="7") for n in range(3)]
    assert left_out(careless) == [""] * 3 and left_out([slice_of(uid="7")] * 3) == [""] * 3
    # Pictures of a screen, perhaps, of which nothing says that they are one.
    assert left_out([slice_of(uid="7", instance=1)] * 2) == [""] * 2


def test_an_identity_is_read_from_the_first_bytes_alone() -> None:
    data = dicom(np.zeros((600, 600), np.uint8), SeriesInstanceUID="1.2", InstanceNumber="5")
    found = identity_in("IM1", lambda most: data[:most])
    assert found and (found.patient, found.series, found.instance) == ("12345", "1.2", 5)
    assert read_identity(data[:1500]) == found and read_identity(b"nonsense" * 99) != found
    assert identity_in("a.dcm", lambda _: b"nonsense") is None and identity_in("b", lambda _: encode(scene())) is None
    assert identity_in("c.png", lambda _: data) is None

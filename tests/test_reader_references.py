"""Every test file of pydicom and nibabel, in their wheels, through the readers, ``predict`` and ``prepare``.

References: pydicom's own LUT and window functions, nibabel's ``get_fdata``, NumPy's percentiles and interpolation.
``python -m tests.test_reader_references`` prints what was compared.
"""

from __future__ import annotations

import collections
import json
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from btkeras.cli import main
from btkeras.datasets.classes import CLASSES
from btkeras.datasets.readers.formats import open_slices
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import MIN_SIDE
from tests.images import encode, head
from tests.prepare_files import rows

_WHEELS = {
    "pydicom": Path(pydicom.__file__).parent / "data/test_files",
    "nibabel": Path(nib.__file__).parent / "tests/data",
    "nibabel.nicom": Path(nib.__file__).parent / "nicom/tests/data",
}
# How many of their files hold images.
_IMAGES = {"pydicom": 70, "nibabel": 7, "nibabel.nicom": 4}
# Of which one must be chosen.
_SEVERAL_VOLUMES = 3
NIFTI = (".nii", ".nii.gz")
VIEWS = {"sagittal": 0, "coronal": 1, "axial": 2}
# Half a grey level from rounding; the rest is the single precision in which slices are enlarged.
TOLERANCE = 0.5 + 1e-4
# Of a volume or a multi-frame file, how many slices are compared in the scanned view.
SLICES = 3


class Outcome(NamedTuple):
    """What the readers made of a file.

    ``result`` is ``image``, ``rejected`` or ``error``; ``detail`` the format or the message.
    """

    result: str
    detail: str
    difference: float = 0.0


def files() -> Iterator[tuple[str, Path]]:
    """Names that say where the files come from, and the files; programs and hidden files are none of them."""
    for wheel, folder in _WHEELS.items():
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith("."):
                yield f"{wheel}/{path.relative_to(folder).as_posix()}", path


FILES = dict(files())


def dicom_reference(path: Path, index: int) -> Any:
    """Grey levels 0 to 255 of a frame, not rounded, ``[h, w]``, or RGB ``[h, w, 3]``, by pydicom."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        pixels = dataset.pixel_array
        frame = pixels[index] if int(dataset.get("NumberOfFrames") or 1) > 1 else pixels
        if frame.ndim == 3:
            return frame.astype(np.float64)
        values = apply_modality_lut(frame, dataset)
        if dataset.get("VOILUTSequence"):
            depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
            grey = apply_voi(values, dataset) * (255 / (2**depth - 1))
        elif "WindowCenter" in dataset:
            # Its output range is that of the rescaled values.
            low, high = (float(apply_windowing(np.array([end]), dataset)[0]) for end in (-1e9, 1e9))
            grey = (apply_windowing(values, dataset) - low) / (high - low) * 255
        elif dataset.BitsStored <= 8 and not dataset.PixelRepresentation:
            grey = frame.astype(np.float64)
        else:
            low, high = np.percentile(values, 0.1, method="higher"), np.percentile(values, 99.9, method="lower")
            grey = (np.clip(values, low, high) - low) / max(float(high - low), 1e-9) * 255
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def enlarged(plane: Any, size: int) -> Any:
    """Rows of a plane interpolated linearly to ``size``, from pixel center to pixel center."""
    places = (np.arange(size) + 0.5) * plane.shape[0] / size - 0.5
    return np.stack([np.interp(places, np.arange(len(column)), column) for column in plane.T], axis=1)


def last_channel(path: Path) -> int | None:
    """The number of a NIfTI file's last volume."""
    return math.prod(nib.load(path).shape[3:]) - 1 if path.name.endswith(NIFTI) else None


def volumes(path: Path) -> Any:
    """The volumes of a NIfTI file by nibabel, turned to the nearest axes, ``[x, y, z, volume]``, and their spacing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = nib.load(path)
        turned = nib.as_closest_canonical(nib.Nifti1Image(image.get_fdata(), image.affine))
    values = turned.get_fdata()
    return values.reshape(*values.shape[:3], -1), nib.affines.voxel_sizes(turned.affine)


def nifti_reference(values: Any, spacing: Any, view: str) -> Any:
    """Grey levels 0 to 255 of a volume, not rounded, as slices ``[h, w]``: right on the left, front or head up."""
    low, high = np.percentile(values, (0.1, 99.9))
    grey = (np.clip(values, low, high) - low) / (high - low) * 255
    across, down = (axis for axis in range(3) if axis != VIEWS[view])
    planes = np.moveaxis(grey, (VIEWS[view], down, across), (0, 1, 2))[:, ::-1, ::-1]
    shortest = min(spacing[across], spacing[down])
    height, width = (round(grey.shape[axis] * spacing[axis] / shortest) for axis in (down, across))
    return [enlarged(enlarged(plane, height).T, width).T for plane in planes]


def outcome(path: Path) -> Outcome:
    """Reads some slices of a file, all of a volume's last channel in each view, and compares them."""
    try:
        slices = open_slices(path, channel=last_channel(path))
        images = [slices.image(index) for index in range(min(slices.count, SLICES))]
    except ImageError as error:
        return Outcome("error", str(error))
    if slices.kind == "NIfTI":
        return Outcome("image", slices.kind, max(_volume_difference(path, view) for view in VIEWS))
    differences = [_difference(image, dicom_reference(path, index)) for index, image in enumerate(images)]
    return Outcome("rejected" if slices.rejection else "image", slices.kind, max(differences))


def _volume_difference(path: Path, view: str) -> float:
    values, spacing = volumes(path)
    channel = values.shape[3] - 1
    reference = nifti_reference(values[..., channel], spacing, view)
    if min(reference[0].shape) < MIN_SIDE:
        with pytest.raises(ImageError, match="16 pixels a side"):
            open_slices(path, axis=view, channel=channel)
        return 0.0
    slices = open_slices(path, axis=view, channel=channel)
    assert len(reference) == slices.count
    return max(_difference(slices.image(index), plane) for index, plane in enumerate(reference))


def _difference(image: Any, reference: Any) -> float:
    shown = image[..., 0] if reference.ndim == 2 else image
    assert image.dtype == np.uint8 and shown.shape == reference.shape
    return float(np.abs(shown - reference).max())


def table(outcomes: dict[str, Outcome]) -> str:
    """What was compared, as Markdown."""
    groups: dict[tuple[str, str, str], list[float]] = collections.defaultdict(list)
    for name, (result, detail, difference) in outcomes.items():
        groups[name.partition("/")[0], result, detail.partition(". ")[0]].append(difference)
    lines = [
        "| files of | result | format or message | files | largest difference |",
        "| --- | --- | --- | --: | --: |",
    ]
    for (wheel, result, detail), differences in sorted(groups.items()):
        worst = "" if result == "error" else f"{max(differences):.4f}"
        lines.append(f"| {wheel} | {result} | {detail} | {len(differences)} | {worst} |")
    return "\n".join(lines)


@pytest.mark.parametrize("wheel", _WHEELS)
def test_a_file_is_shown_as_its_library_shows_it_or_one_message_says_why_not(wheel: str) -> None:
    found = {name: outcome(path) for name, path in FILES.items() if name.startswith(f"{wheel}/")}
    read = {name for name, made in found.items() if made.result != "error"}
    assert len(read) >= _IMAGES[wheel], table(found)
    assert not {name: made for name, made in found.items() if made.difference > TOLERANCE}
    assert not {name: made for name, made in found.items() if len(made.detail.splitlines()) != 1}


def test_predict_gives_each_file_a_decision_or_one_message(trained_run: Path) -> None:
    paths = [str(path) for path in FILES.values()]
    done = CliRunner().invoke(main, ["predict", *paths, "--model", str(trained_run), "--json"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    answers = json.loads(done.stdout)
    assert len(answers) == len(paths)
    for answer, path in zip(answers, paths, strict=True):
        assert path in (answer["path"].partition("#")[0], answer.get("file")), answer
        assert len(answer["error"].splitlines()) == 1 if "error" in answer else answer["decision"], answer
    assert sum("decision" in answer for answer in answers) >= sum(_IMAGES.values()) - _SEVERAL_VOLUMES


def test_prepare_stores_or_names_each_file(tmp_path: Path) -> None:
    folders = list(dict.fromkeys(path.parent for path in FILES.values()))
    for number, path in enumerate(FILES.values()):
        # A patient's series of different sequences lie in classes of their own, and each file in a folder, so that none
        # is taken for another's mask.
        place = tmp_path / "study" / CLASSES[folders.index(path.parent) % len(CLASSES)] / f"p{number:03d}"
        place.mkdir(parents=True)
        shutil.copy(path, place / path.name)
    for number, label in enumerate(CLASSES):
        # A class of which nothing is left would be an error.
        (tmp_path / "study" / label / "own.png").write_bytes(encode(head(number)))
    arguments = ["prepare", str(tmp_path / "study"), "--out", str(tmp_path / "out"), "--skip-broken", "--no-mri-check"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    stored, left_out = rows(tmp_path / "out/manifest.csv"), rows(tmp_path / "out/left_out.csv")
    # Of DICOM files the manifest has no names; here they have one frame each, or their first one is an image.
    volumes = {row["original"] for row in stored if row["original"]}
    frames = [row for row in stored if not row["original"] and row["slice"] in ("", "0")]
    assert len(volumes) + len(frames) + len(left_out) == len(FILES) + len(CLASSES), done.output
    assert all(row["reason"] and len(row["reason"].splitlines()) == 1 for row in left_out)


if __name__ == "__main__":
    print(table({name: outcome(path) for name, path in FILES.items()}))

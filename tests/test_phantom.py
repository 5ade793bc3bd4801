"""The synthetic dataset: reproducible, anatomically right, and not to be solved by brightness or single pixels."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from btkeras.config import PhantomConfig
from btkeras.datasets import CLASSES, load_dataset, phantom
from btkeras.datasets.dataset import Record, write_manifest
from btkeras.datasets.phantom import PhantomSlice, cached_phantom, draw_patient, write_phantom
from btkeras.errors import DataError

SMALL = PhantomConfig(patients=12, slices=2, image_size=48)


@pytest.fixture(scope="module")
def drawn() -> list[PhantomSlice]:
    """The default patients, three slices of each."""
    config = PhantomConfig(slices=3, image_size=72)
    return [one for patient in range(config.patients) for one in draw_patient(config, patient)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(SMALL, tmp_path_factory.mktemp("phantom") / "dataset").root


def _digest(config: PhantomConfig, patient: int) -> str:
    slices = draw_patient(config, patient)
    return hashlib.sha256(b"".join(one.image.tobytes() + one.mask.tobytes() for one in slices)).hexdigest()


def _of(drawn: list[PhantomSlice], label: str) -> list[PhantomSlice]:
    return [one for one in drawn if one.label == label]


def _position(one: PhantomSlice) -> tuple[float, float]:
    """The mask's centre in the brain's bounding box: from the top and from the left, in [0, 1]."""
    brain, tumor = np.argwhere(one.brain), np.argwhere(one.mask)
    low, high = brain.min(axis=0), brain.max(axis=0)
    top, left = (tumor.mean(axis=0) - low) / (high - low)
    return float(top), float(left)


def _depth(one: PhantomSlice) -> float:
    """Distance in pixels from the mask to the nearest pixel outside the dura; 1 is beside it."""
    return float(ndimage.distance_transform_edt(one.brain)[one.mask].min())


# === Reproducible ===


def test_same_bytes_in_another_process() -> None:
    script = (
        "import sys; from btkeras.config import PhantomConfig; "
        "from btkeras.datasets.phantom import draw_patient;"
        "one = draw_patient(PhantomConfig(patients=12, slices=2, image_size=48), 5)[1];"
        "sys.stdout.buffer.write(one.image.tobytes() + one.mask.tobytes())"
    )
    written = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    here = draw_patient(SMALL, 5)[1]
    assert written == here.image.tobytes() + here.mask.tobytes()


@pytest.mark.parametrize("patient", [0, 1, 2, 3])
def test_same_bytes_again_whatever_the_number_of_patients(patient: int) -> None:
    assert _digest(SMALL, patient) == _digest(SMALL, patient) == _digest(replace(SMALL, patients=1000), patient)


def test_seed_and_patient_change_the_image() -> None:
    digests = {_digest(replace(SMALL, seed=seed), patient) for seed in (0, 1) for patient in (0, 12 - 1)}
    assert len(digests) == 4


def test_unknown_patient() -> None:
    with pytest.raises(DataError, match=r"between 0 and 11\. Received: 12"):
        draw_patient(SMALL, 12)


# === What is drawn ===


def test_shapes(drawn: list[PhantomSlice]) -> None:
    for one in drawn:
        assert one.image.shape == one.mask.shape == one.brain.shape == (72, 72)
        assert [array.dtype.name for array in (one.image, one.mask, one.brain)] == ["uint8", "bool", "bool"]


def test_every_class_has_as_many_patients_and_slices_of_every_view(drawn: list[PhantomSlice]) -> None:
    counts = {(label, view): 0 for label in CLASSES for view in ("axial", "coronal", "sagittal")}
    for one in drawn:
        counts[one.label, one.view] += 1
    assert set(counts.values()) == {30}
    assert len({one.patient for one in drawn}) == 120


def test_only_tumors_have_a_mask(drawn: list[PhantomSlice]) -> None:
    assert not any(one.mask.any() for one in _of(drawn, "no_tumor"))
    assert all(one.mask.sum() >= 30 and ndimage.label(one.mask)[1] == 1 for one in drawn if one.label != "no_tumor")


def test_pituitary_tumor_is_at_the_midline_above_the_skull_base(drawn: list[PhantomSlice]) -> None:
    for one in _of(drawn, "pituitary"):
        top, left = _position(one)
        if one.view == "axial":
            assert abs(left - 0.5) < 0.12 and 0.05 < top < 0.5
        elif one.view == "coronal":
            assert abs(left - 0.5) < 0.12 and top > 0.6
        else:
            assert 0.3 < left < 0.47 and top > 0.5


def test_meningioma_lies_on_the_dura_and_inside_it(drawn: list[PhantomSlice]) -> None:
    for one in _of(drawn, "meningioma"):
        assert _depth(one) == 1
        assert not (one.mask & ~one.brain).any()


def test_glioma_keeps_away_from_the_dura_and_has_a_dark_core() -> None:
    config = PhantomConfig(slices=3)
    for one in (one for patient in range(0, 48, 4) for one in draw_patient(config, patient)):
        assert one.label == "glioma" and _depth(one) > 1
        inside = ndimage.distance_transform_edt(one.mask)
        wall, core = (inside > 0) & (inside <= 2), inside >= 0.9 * inside.max()
        assert one.image[core].mean() < 0.6 * one.image[wall].mean()


def test_tumor_moves_little_from_slice_to_slice(drawn: list[PhantomSlice]) -> None:
    for first, second in itertools.pairwise(drawn):
        if first.patient == second.patient and first.mask.any():
            overlap = (first.mask & second.mask).sum() / min(first.mask.sum(), second.mask.sum())
            assert overlap > 0.6


def test_difficulty_hides_the_tumor() -> None:
    def contrast(difficulty: float) -> float:
        config = replace(SMALL, difficulty=difficulty)
        slices = [draw_patient(config, patient)[0] for patient in (1, 5, 9)]  # meningiomas: as bright all over
        beside = [ndimage.binary_dilation(one.mask, iterations=4) & one.brain & ~one.mask for one in slices]
        pairs = zip(slices, beside, strict=True)
        return float(np.mean([one.image[one.mask].mean() / one.image[ring].mean() for one, ring in pairs]))

    assert contrast(0) > contrast(1) > contrast(2) > 1


# === Not to be solved without looking ===


def _accuracy(features: np.ndarray, drawn: list[PhantomSlice], model: object, *, by_patient: bool = True) -> float:
    groups = [one.patient if by_patient else str(number) for number, one in enumerate(drawn)]
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model)
    return float(cross_val_score(pipeline, features, [one.label for one in drawn], groups=groups, cv=folds).mean())


def _thumbnails(drawn: list[PhantomSlice]) -> np.ndarray:
    small = [Image.fromarray(one.image).resize((24, 24), Image.Resampling.BOX) for one in drawn]
    return np.array([np.asarray(image).ravel() / 255 for image in small])


def test_linear_classifier_fails_between_patients(drawn: list[PhantomSlice]) -> None:
    assert _accuracy(_thumbnails(drawn), drawn, RidgeClassifier(100)) <= 0.6


def test_split_by_image_leaks(drawn: list[PhantomSlice]) -> None:
    assert _accuracy(_thumbnails(drawn), drawn, RidgeClassifier(100), by_patient=False) >= 0.85


def test_brightness_does_not_tell_the_class(drawn: list[PhantomSlice]) -> None:
    images = np.array([one.image.ravel() for one in drawn], float)
    percentiles = np.percentile(images, [5, 25, 50, 75, 90, 95, 99], axis=1)
    statistics = np.column_stack([images.mean(axis=1), images.std(axis=1), *percentiles])
    assert _accuracy(statistics, drawn, LinearDiscriminantAnalysis()) <= 0.45


def test_outline_does_not_tell_the_class(drawn: list[PhantomSlice]) -> None:
    def outline(one: PhantomSlice) -> list[float]:
        places = np.argwhere(one.brain)
        sides = np.concatenate([one.image[0], one.image[-1], one.image[:, 0], one.image[:, -1]])
        return [float(one.brain.sum()), *places.min(axis=0), *places.max(axis=0), float(sides.mean())]

    features = np.array([outline(one) for one in drawn])
    assert _accuracy(features, drawn, LinearDiscriminantAnalysis()) <= 0.4


# === As a folder ===


def test_manifest_and_files(folder: Path) -> None:
    dataset = load_dataset(folder)
    assert dataset.counts() == dict.fromkeys(CLASSES, 6)
    expected = {one.path for one in dataset.records} | {one.extra["mask"] for one in dataset.records} - {""}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == expected
    first = dataset.records[0]
    assert (first.path, first.patient, first.source) == (
        "images/glioma/phantom-0000_000.png",
        "phantom-0000",
        "phantom",
    )
    assert np.array_equal(np.asarray(Image.open(folder / first.path)), draw_patient(SMALL, 0)[0].image)


def test_box_surrounds_the_mask(folder: Path) -> None:
    for record in load_dataset(folder).records:
        if record.label == "no_tumor":
            assert record.extra["mask"] == record.extra["box"] == ""
            continue
        mask = np.asarray(Image.open(folder / record.extra["mask"]))
        assert set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        x, y, width, height = (float(value) * 48 for value in record.extra["box"].split())
        assert [x - width / 2, x + width / 2] == pytest.approx([columns.min(), columns.max() + 1], abs=0.01)
        assert [y - height / 2, y + height / 2] == pytest.approx([rows.min(), rows.max() + 1], abs=0.01)


def test_existing_folder_is_rejected(folder: Path) -> None:
    with pytest.raises(DataError, match="needs a new folder"):
        write_phantom(SMALL, folder)


def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_late(config: PhantomConfig, patient: int) -> list[PhantomSlice]:
        if patient == 2:
            raise KeyboardInterrupt
        return draw_patient(config, patient)

    monkeypatch.setattr(phantom, "draw_patient", fail_late)
    with pytest.raises(KeyboardInterrupt):
        cached_phantom(SMALL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cache_is_used_again(tmp_path: Path) -> None:
    first = cached_phantom(SMALL, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.root.rglob("*")}
    second = cached_phantom(replace(SMALL, difficulty=1), tmp_path)
    assert second == first
    assert {path: path.stat().st_mtime_ns for path in first.root.rglob("*")} == before
    assert cached_phantom(replace(SMALL, patients=4), tmp_path).root != first.root


def test_two_at_once_both_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_drawn = threading.Barrier(2, timeout=30)

    def wait(root: Path, records: list[Record]) -> None:
        write_manifest(root, records)
        both_have_drawn.wait()

    monkeypatch.setattr(phantom, "write_manifest", wait)
    got = []
    config = replace(SMALL, patients=4)
    threads = [threading.Thread(target=lambda: got.append(cached_phantom(config, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2 and got[0] == got[1]
    assert list(tmp_path.iterdir()) == [got[0].root]


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"writable in the cache.*BTKERAS_CACHE"):
        cached_phantom(SMALL, tmp_path / "file")

"""Training and validation slices are recognized in other files: re-encoded, resized, turned, and with new borders."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from btkeras.datasets import load_dataset
from btkeras.experiments.near_duplicates import format_pooled, pooled_without_near_duplicates
from btkeras.runs import open_run
from btkeras.splitting.duplicate_hashes import least_distances
from btkeras.splitting.known_slices import KnownSlices, slice_hashes
from btkeras.splitting.split_file import load_split
from tests.conftest import copied_run, write_images
from tests.planted import slices
from tests.test_cli import btkeras, fails

pytest.importorskip("ai_edge_litert")

SUBSETS = ("train", "validation", "none")
COPIES = {
    "png": lambda image: image,
    "jpeg 95": lambda image: encoded(image, 95),
    "jpeg 75": lambda image: encoded(image, 75),
    "resized": lambda image: image.resize((131, 117)),
    "mirrored": ImageOps.mirror,
    "rotated": lambda image: image.rotate(90, expand=True),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "padded": lambda image: ImageOps.expand(image, image.width // 20),
    "color": lambda image: image.convert("RGB"),
}


def encoded(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def pixels(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Image.Image], KnownSlices]:
    """Twelve slices, of which four were trained on and four validated on."""
    folder, images = tmp_path_factory.mktemp("known"), slices(12)
    files = [folder / f"{number}.png" for number in range(12)]
    for file, image in zip(files, images, strict=True):
        image.save(file)
    (folder / "broken.png").write_text("no image")
    known = KnownSlices.of({"train": [*files[:4], folder / "broken.png"], "validation": files[4:8]})
    known.write(folder / "hashes.npz")
    assert (folder / "hashes.npz").stat().st_size < 1000 + 8 * 144
    return images, KnownSlices.read(folder / "hashes.npz")


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_known_and_other_slices_are_not(planted: tuple[list[Image.Image], KnownSlices], change: str) -> None:
    images, known = planted
    found = known.find([slice_hashes(pixels(COPIES[change](image))) for image in images])
    assert found == [subset for subset in SUBSETS for _ in range(4)]


@given(
    orientations=arrays(np.uint8, st.tuples(st.integers(0, 3), st.just(8), st.just(18))),
    stored=arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(18))),
)
def test_distances_are_the_bits_in_which_the_nearest_differs(
    orientations: NDArray[np.uint8], stored: NDArray[np.uint8]
) -> None:
    bits = np.unpackbits(orientations, axis=-1)[:, :, None] != np.unpackbits(stored, axis=-1)
    found = least_distances(orientations, stored)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, bits.sum(axis=-1).min(axis=2).T)


def test_blank_images_are_nobody_s_and_nothing_is_known_of_no_slices(
    planted: tuple[list[Image.Image], KnownSlices],
) -> None:
    blank, image = np.zeros((64, 64, 1), np.uint8), pixels(planted[0][0])
    assert planted[1].find([slice_hashes(blank), slice_hashes(image), None]) == ["none", "train", "none"]
    assert KnownSlices.of({"train": [], "validation": []}).find([slice_hashes(image)]) == ["none"]
    assert planted[1].find([]) == []


@pytest.fixture(scope="module")
def stored_anew(exported_formats: Path, calibrated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training images of the exported run as JPEG, beside a slice that is new to it."""
    run, folder = open_run(calibrated_run), tmp_path_factory.mktemp("anew")
    dataset = run.dataset()
    for record in load_split(run.splits_file, dataset).train:
        target = folder / "images" / Path(record.path).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(dataset.root / record.path) as image:
            image.save(target, quality=95)
    return folder / "images"


def test_an_exported_model_s_evaluation_says_that_all_of_it_is_training(
    exported_formats: Path, stored_anew: Path, tmp_path: Path
) -> None:
    options = ("evaluate", exported_formats, "--data", stored_anew, "--out", tmp_path / "out")
    result = btkeras(*options)
    count = len(list(stored_anew.rglob("*.jpg")))
    text = f"{count} of {count} images have a near-duplicate among the training and validation slices: nothing here is"
    assert text in result.stdout
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["without_near_duplicates"] == {"near_duplicates": count, "images": 0}
    with (tmp_path / "out/near_duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count and {row["near_duplicate_of"] for row in rows} == {"train"}


def test_its_results_go_into_no_run(exported_formats: Path, calibrated_run: Path, stored_anew: Path) -> None:
    before = (calibrated_run / "metrics.json").read_bytes()
    result = btkeras("evaluate", exported_formats, "--data", stored_anew, "--out", calibrated_run)
    fails(result, "--out must be a folder of its own", code=2)
    assert (calibrated_run / "metrics.json").read_bytes() == before
    fails(btkeras("evaluate", calibrated_run, "--data", stored_anew, "--split", "train"), "own dataset", code=2)
    fails(btkeras("evaluate", calibrated_run, "--data", ""), "A dataset must be a folder")


def test_predict_names_them(exported_formats: Path, stored_anew: Path, tmp_path: Path) -> None:
    new = write_images(tmp_path / "new", per_class=1, seed=99) / "glioma/000.png"
    known = sorted(stored_anew.rglob("*.jpg"))[:2]
    arguments = ("predict", *known, new, "--model", exported_formats)
    result = btkeras(*arguments, "--json")
    assert [each["near_duplicate"] for each in json.loads(result.stdout)] == ["train", "train", "none"]
    assert "2 of 3 slices are near-duplicates of training or validation slices of the model" in result.stderr
    rows = list(csv.DictReader(io.StringIO(btkeras(*arguments, "--csv").stdout)))
    assert [row["near_duplicate"] for row in rows] == ["train", "train", "none"]
    assert "2 of 3 slices are near-duplicates" in btkeras(*arguments).stderr
    assert "near-duplicates" not in btkeras("predict", new, "--model", exported_formats).stderr


def test_a_run_knows_them_once_it_was_evaluated_on_another_dataset(
    calibrated_run: Path, stored_anew: Path, tmp_path: Path
) -> None:
    run = copied_run(calibrated_run, open_run(calibrated_run).dataset().root, tmp_path / "run")
    image = next(stored_anew.rglob("*.jpg"))
    before = btkeras("predict", image, "--model", run.path, "--json")
    assert json.loads(before.stdout)[0]["near_duplicate"] is None
    assert "has no hashes of its training slices" in before.stderr
    metrics = json.loads(btkeras("evaluate", run.path, "--data", stored_anew, "--json").stdout)
    assert metrics["without_near_duplicates"] == {"near_duplicates": metrics["images"], "images": 0}
    (answer,) = json.loads(btkeras("predict", image, "--model", run.path, "--json").stdout)
    assert answer["near_duplicate"] == "train"
    # It is one of the files that the run's manifest records.
    run.hashes_file.write_bytes(run.hashes_file.read_bytes()[:-200])
    fails(btkeras("predict", image, "--model", run.path), "must be as it was written", "Remove it")
    run.hashes_file.unlink()
    assert btkeras("evaluate", run.path, "--data", stored_anew).exit_code == 0 and run.hashes_file.is_file()


def test_a_model_exported_before_says_that_it_cannot_tell(
    exported_formats: Path, stored_anew: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(exported_formats, tmp_path / "old")
    (old / "assets.extra/image_hashes.npz").unlink()
    image = next(stored_anew.rglob("*.jpg"))
    result = btkeras("predict", image, "--model", old, "--json")
    assert json.loads(result.stdout)[0]["near_duplicate"] is None
    said = "has no hashes of its training slices, so near-duplicates of them are not recognized"
    assert said in result.stderr
    evaluated = btkeras("evaluate", old, "--data", stored_anew, "--json")
    assert said in evaluated.stderr and "without_near_duplicates" not in json.loads(evaluated.stdout)
    (old / "assets.extra/image_hashes.npz").write_bytes(b"PK\x03\x04 nothing")
    fails(btkeras("predict", image, "--model", old), "An exported model must be whole", "image_hashes.npz")


def test_hashes_are_all_that_travels(exported_formats: Path, calibrated_run: Path) -> None:
    """Sorted, so that they have no order, and without names."""
    with np.load(exported_formats / "assets.extra/image_hashes.npz") as stored:
        arrays = dict(stored)
    counts = json.loads((calibrated_run / "splits.json").read_text())["counts"]
    for subset, rows in arrays.items():
        assert rows.dtype == np.uint8 and rows.shape == (sum(counts[subset].values()), 2, 72)
        flat = [row.tobytes() for row in rows]
        assert flat == sorted(flat)


def test_folds_are_pooled_and_old_ones_say_nothing() -> None:
    folds = [
        {"near_duplicates": 3, "images": 7, "accuracy": 6 / 7},
        {"near_duplicates": 2, "images": 0},
        {"near_duplicates": 0, "images": 3, "accuracy": 1.0},
    ]
    found = pooled_without_near_duplicates(folds)
    assert found == {"near_duplicates": 5, "images": 10, "accuracy": pytest.approx(0.9)}
    text = "- tiny: 5 of 15 predictions are of images with a near-duplicate in training; accuracy of the others 90.00 %"
    assert format_pooled("tiny", found) == [text]
    assert pooled_without_near_duplicates([*folds, None]) is None
    (nothing,) = format_pooled("tiny", pooled_without_near_duplicates(folds[1:2]))
    assert nothing.endswith("nothing here is measured on new images")
    assert format_pooled("tiny", None) == format_pooled("tiny", pooled_without_near_duplicates(folds[2:])) == []


@pytest.mark.data
def test_neighbouring_slices_of_real_heads_are_not_copies() -> None:
    """Of docs/collections.md: FigShare's tumours, every tenth slice known, those beside them asked."""
    data = load_dataset(os.environ["BTKERAS_DATA"])
    files = [data.root / record.path for record in data.records if record.label != "no_tumor"]
    known = KnownSlices.of({"train": files[::10], "validation": []})
    assert known.find_in(data.root, [str(file) for file in files[1::10]]) == {}

"""Prediction from Python, from a run and from an exported model."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras import Predictor
from btkeras.errors import DataError, ImageError, ModelError
from btkeras.serving.network import newest_model
from btkeras.serving.paths import expand


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run)


@pytest.fixture(scope="module")
def slices(shared_pictures: Path) -> list[Path]:
    return sorted(shared_pictures.glob("*/000.png"))


def test_files_and_their_pixels_get_the_same_answer(predictor: Predictor, slices: list[Path]) -> None:
    by_file = predictor.predict(slices)
    by_array = predictor.predict([np.asarray(Image.open(path)) for path in slices])
    np.testing.assert_array_equal(by_file.probabilities, by_array.probabilities)
    assert by_file.labels == by_array.labels


def test_a_trained_network_knows_its_training_pictures(predictor: Predictor, slices: list[Path]) -> None:
    assert predictor.predict(slices).labels == [path.parent.name for path in slices]


def test_grey_as_rgb_is_the_same_picture(predictor: Predictor, slices: list[Path]) -> None:
    grey = np.asarray(Image.open(slices[0]))
    rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(*(predictor.predict([image]).probabilities for image in (grey, rgb)))


def test_the_answer_does_not_depend_on_the_batch(predictor: Predictor, shared_pictures: Path) -> None:
    paths = sorted(shared_pictures.glob("*/*.png"))[:40]
    together = predictor.predict(paths).probabilities
    alone = np.concatenate([predictor.predict([path]).probabilities for path in paths[:5]])
    np.testing.assert_allclose(together[:5], alone, atol=1e-6)


def test_probabilities_equal_those_of_the_evaluation(predictor: Predictor, trained_run: Path) -> None:
    import csv

    from btkeras.runs import open_run

    with (trained_run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    root = open_run(trained_run).dataset().root
    found = predictor.predict([root / row["path"] for row in rows]).probabilities
    written = np.array([[float(row[name]) for name in predictor.classes] for row in rows])
    np.testing.assert_allclose(found, written, atol=1e-6)


def test_unreadable_files_are_answered_with_an_error_and_the_others_as_ever(
    predictor: Predictor, slices: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(slices[0].read_bytes()[:80])
    answers = list(predictor.predict_files([slices[0], broken, tmp_path / "gone.png", slices[1]]))
    assert [bool(answer.error) for answer in answers] == [False, True, True, False]
    assert "broken.png" in str(answers[1].error) and "No such file" in str(answers[2].error)
    assert answers[3].label == slices[1].parent.name
    with pytest.raises(ImageError, match=r"broken\.png"):
        predictor.predict([broken])


@pytest.mark.parametrize(
    "array", [np.zeros((40, 40), np.float32), np.zeros((40, 40, 4), np.uint8), np.zeros((2, 40, 40, 3), np.uint8)]
)
def test_arrays_of_another_kind_are_refused(predictor: Predictor, array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"uint8 \[height, width\]"):
        predictor.predict([array])


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    labels, probabilities = predictor.predict([])
    assert labels == [] and probabilities.shape == (0, 4)


def test_the_newest_model_is_found(tmp_path: Path) -> None:
    for age, name in ((100, "runs/old/best.keras"), (50, "saved_models/brain/2/saved_model.pb"), (10, "runs/b/none")):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    assert newest_model(tmp_path) == tmp_path / "saved_models/brain"
    os.utime(tmp_path / "runs/old/best.keras")
    assert newest_model(tmp_path) == tmp_path / "runs/old"


def test_no_model_anywhere_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="btkeras train"):
        newest_model(tmp_path)
    with pytest.raises(ModelError, match="run folder or an exported model"):
        Predictor(tmp_path)


def test_a_folders_hidden_files_are_no_pictures(pictures: Path) -> None:
    (pictures / "glioma/._000.png").write_bytes(b"a trace of another system")
    (pictures / "glioma/.thumbnails").mkdir()
    (pictures / "glioma/.thumbnails/000.png").write_bytes(b"a thumbnail")
    assert len(expand([str(pictures / "glioma")], [])) == 12


def test_files_folders_patterns_and_lists_are_expanded(shared_pictures: Path) -> None:
    folder = str(shared_pictures / "glioma")
    assert expand([folder], []) == expand([f"{folder}/*.png"], []) and len(expand([folder], [])) == 12
    assert expand(["a.png", "-"], ["b.png\n", "\n", "c d.png\n"]) == ["a.png", "b.png", "c d.png"]


@pytest.mark.parametrize("argument", ["-", "nowhere/*.png", "."])
def test_an_empty_choice_is_an_error(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="at least one PNG or JPEG"):
        expand([argument], [])

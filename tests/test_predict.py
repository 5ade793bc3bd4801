"""Prediction from Python, from a run and from an exported model."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.decisions.abstention import Abstention
from btkeras.errors import ConfigError, DataError, ImageError, ModelError
from btkeras.inference.backends import load_backend, newest_model
from btkeras.inference.inputs import choose_files


@pytest.fixture(scope="module")
def predictor(trained_run: Path) -> Predictor:
    return Predictor(trained_run)


@pytest.fixture(scope="module")
def slices(shared_images: Path) -> list[Path]:
    return sorted(shared_images.glob("*/000.png"))


def test_files_and_their_pixels_get_the_same_answer(predictor: Predictor, slices: list[Path]) -> None:
    by_file = predictor.predict(slices)
    by_array = predictor.predict([np.asarray(Image.open(path)) for path in slices])
    np.testing.assert_array_equal(by_file.probabilities, by_array.probabilities)
    assert by_file.labels == by_array.labels


def test_a_trained_network_knows_its_training_images(predictor: Predictor, slices: list[Path]) -> None:
    assert predictor.predict(slices).labels == [path.parent.name for path in slices]


def test_grey_as_rgb_is_the_same_image(predictor: Predictor, slices: list[Path]) -> None:
    grey = np.asarray(Image.open(slices[0]))
    rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(*(predictor.predict([image]).probabilities for image in (grey, rgb)))


def test_the_answer_does_not_depend_on_the_batch(predictor: Predictor, shared_images: Path) -> None:
    paths = sorted(shared_images.glob("*/*.png"))[:40]
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


@pytest.fixture(scope="module")
def judged_run(calibrated_run: Path) -> Path:
    return calibrated_run


@pytest.fixture(scope="module")
def mixed(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of the dataset, which the MRI check takes for noise, a synthetic slice, which passes it, and a photo."""
    folder = tmp_path_factory.mktemp("mixed")
    drawn = draw_patient(PhantomConfig(image_size=96), 0)[0].image
    Image.fromarray(drawn).save(folder / "phantom.png")
    colors = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    Image.fromarray(colors).save(folder / "photo.png")
    return [*sorted(shared_images.glob("*/002.png")), folder / "phantom.png", folder / "photo.png"]


def test_answers_say_refused_or_uncertain_and_why(judged_run: Path, mixed: list[Path]) -> None:
    *_, phantom, photo = Predictor(judged_run).predict_files(mixed)
    assert photo.decision == "rejected" and photo.reasons == ("no brain MRI slice: it is in colour",)
    assert photo.label in photo.probabilities
    assert phantom.decision == "uncertain" and "no probability is high enough for a risk of 20 %" in phantom.reasons
    assert phantom.ood_percentile is not None and phantom.set is not None


def test_a_slice_like_the_training_slices_is_answered(
    judged_run: Path, mixed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btkeras.inference.predictor.rejection_reason", lambda image: None)
    backend = load_backend(judged_run)
    found = Abstention(0.6, 0.1, 0.9, 200, 150, 8, 0.09, "elsewhere")
    backend = replace(backend, calibration=replace(backend.calibration, abstention=found))
    answers = list(Predictor(backend).predict_files(mixed[:4]))
    for answer in answers:
        assert answer.set is not None and answer.ood_percentile is not None
        usual = answer.ood_percentile < 99 and max(answer.probabilities.values()) >= 0.6
        assert answer.decision == (answer.label if usual else "uncertain")
        assert bool(answer.reasons) == (answer.decision == "uncertain")
    assert any(answer.decision == answer.label for answer in answers)


def test_an_exported_model_answers_as_its_run(judged_run: Path, mixed: list[Path], exported_formats: Path) -> None:
    exported = Predictor(exported_formats / "saved_model.pb")
    assert exported.backend.missing() is None
    run = Predictor(judged_run)
    for ours, theirs in zip(run.predict_files(mixed), exported.predict_files(mixed), strict=True):
        assert (ours.decision, ours.set, ours.label, ours.reasons) == (
            theirs.decision,
            theirs.set,
            theirs.label,
            theirs.reasons,
        )
        assert ours.ood_percentile == theirs.ood_percentile


def test_the_exported_score_is_that_of_the_features(judged_run: Path, exported_formats: Path) -> None:
    import keras
    import tensorflow as tf

    from btkeras.decisions.ood import load_ood
    from btkeras.evaluation.evaluate import load_best
    from btkeras.runs import open_run

    run = open_run(judged_run)
    model, ood = load_best(run), load_ood(run)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 1), np.uint8)
    features = keras.Model(model.input, model.get_layer("features").output).predict_on_batch(images.astype(np.float32))
    loaded = tf.saved_model.load(str(exported_formats))
    found = loaded.signatures["serving_prepared"](images=tf.constant(images))["ood_score"]
    assert ood is not None and found.dtype == tf.float32
    np.testing.assert_allclose(found, ood.score(np.asarray(features)), rtol=1e-3)


def test_a_run_of_before_calibration_answers_and_says_what_it_lacks(predictor: Predictor, slices: list[Path]) -> None:
    answer = next(predictor.predict_files(slices))
    assert answer.set is None and answer.ood_percentile is None and answer.decision == "rejected"
    assert "btkeras calibrate" in str(predictor.backend.missing())


def test_a_coverage_out_of_range_is_an_error(trained_run: Path) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        Predictor(trained_run, coverage=1.0)


def test_a_path_is_no_list(predictor: Predictor, slices: list[Path]) -> None:
    for image in (slices[0], str(slices[0])):
        with pytest.raises(ImageError, match=r"must be a list.*predict\(\[PATH\]\)"):
            predictor.predict(image)  # type: ignore[arg-type]


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


def test_a_folders_hidden_files_are_no_images(image_folder: Path) -> None:
    (image_folder / "glioma/._000.png").write_bytes(b"a trace of another system")
    (image_folder / "glioma/.thumbnails").mkdir()
    (image_folder / "glioma/.thumbnails/000.png").write_bytes(b"a thumbnail")
    assert len(choose_files([str(image_folder / "glioma")], []).paths) == 12


def test_files_folders_patterns_and_lists_are_expanded(shared_images: Path) -> None:
    folder = str(shared_images / "glioma")
    assert (
        choose_files([folder], []) == choose_files([f"{folder}/*.png"], [])
        and len(choose_files([folder], []).paths) == 12
    )
    assert choose_files(["a.png", "-"], ["b.png\n", "\n", "c d.png\n"]).paths == ["a.png", "b.png", "c d.png"]


@pytest.mark.parametrize("argument", ["-", "nowhere/*.png", "."])
def test_an_empty_choice_is_an_error(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="at least one image"):
        choose_files([argument], [])

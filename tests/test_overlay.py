"""Overlays: what is drawn where, what they may replace, and `btkeras predict --explain`."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from btkeras import Predictor
from btkeras.cli import main
from btkeras.errors import ConfigError, ModelError
from btkeras.inference import explanations
from btkeras.inference.explanations import Explainer, format_prediction, map_doubt, overlay_files
from btkeras.inference.overlay import Caption, Window, draw_overlay
from btkeras.inference.predictor import FilePrediction

CAPTION = Caption("slice.png", "glioma, probability 0.900", "Grad-CAM")


def drawn(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["Software"].startswith("btkeras")
        return np.asarray(image.convert("RGB")).astype(int)


def colored(image: np.ndarray) -> np.ndarray:
    """Where the right slice is not grey: rows and columns as fractions of it."""
    height, width = image.shape[:2]
    right = image[round(0.15 * height) : round(0.86 * height), round(0.45 * width) : round(0.87 * width)]
    rows, columns = np.nonzero(np.ptp(right, axis=2) > 40)
    return np.array([rows.mean() / right.shape[0], columns.mean() / right.shape[1]])


@pytest.mark.parametrize("spot", [(0.25, 0.75), (0.7, 0.2)])
def test_the_map_lies_over_its_place(spot: tuple[float, float]) -> None:
    heat = np.zeros((28, 28), np.float32)
    row, column = (round(28 * part) for part in spot)
    heat[row - 2 : row + 3, column - 2 : column + 3] = 1
    image = np.full((200, 200, 1), 60, np.uint8)
    np.testing.assert_allclose(colored(drawn(draw_overlay(image, heat, CAPTION))), spot, atol=0.04)


def test_the_map_of_a_crop_lies_in_the_crop() -> None:
    heat = np.ones((10, 10), np.float32)
    image = np.full((200, 200, 3), 60, np.uint8)
    found = colored(drawn(draw_overlay(image, heat, CAPTION, Window(0, 100, 100, 200))))
    np.testing.assert_allclose(found, (0.25, 0.75), atol=0.04)


def test_a_map_of_zeros_is_drawn_too() -> None:
    image = drawn(draw_overlay(np.zeros((40, 30, 1), np.uint8), np.zeros((8, 8), np.float32), CAPTION))
    assert image.shape[2] == 3


@pytest.mark.parametrize("title", ["$x^2$.png", "шар 脳.png", "\udcff\n.png", "a" * 400])
def test_any_name_can_be_drawn(title: str) -> None:
    data = draw_overlay(
        np.zeros((20, 20, 1), np.uint8), np.eye(4, dtype=np.float32), Caption(title, "glioma", "Grad-CAM")
    )
    assert drawn(data).any()


def test_a_prediction_is_formatted() -> None:
    sure = FilePrediction("a.png", "glioma", {"glioma": 0.9}, decision="glioma")
    assert format_prediction(sure) == "glioma, probability 0.900"
    unsure = FilePrediction("a.png", "glioma", {"glioma": 0.4}, decision="uncertain")
    assert format_prediction(unsure) == "uncertain (most probable: glioma, probability 0.400)"


def test_overlays_get_names_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = overlay_files(["a/x.png", "b/x.jpg", "x-2.png", "y.jpg"], out)
    assert [path.name for path in found] == ["x.png", "x-2.png", "x-2-2.png", "y.png"]
    assert overlay_files(["a/x.jpg"], tmp_path / "one.png") == [tmp_path / "one.png"]


@pytest.mark.parametrize(
    ("paths", "out", "words"),
    [
        (["a.png", "b.png"], "one.png", "2 images"),
        (["a.png"], "one.jpg", "End the name in .png"),
        (["a.png"], "file", "which is a file"),
        (["slices/a.png"], "slices", "must not replace another image"),
        (["other.png"], "slices/a.png", "must not replace another image"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, paths: list[str], out: str, words: str) -> None:
    (tmp_path / "slices").mkdir()
    Image.new("L", (20, 20)).save(tmp_path / "slices" / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=words):
        overlay_files([str(tmp_path / path) for path in paths], tmp_path / out)


def test_an_overlay_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "one.png"
    target.write_bytes(draw_overlay(np.zeros((20, 20, 1), np.uint8), np.eye(4, dtype=np.float32), CAPTION))
    assert overlay_files(["a.png"], target) == [target]


@pytest.mark.parametrize("method", ["layercam", "gradcam", "occlusion"])
def test_a_runs_answer_is_explained(trained_run: Path, shared_images: Path, tmp_path: Path, method: str) -> None:
    (answer,) = Predictor(trained_run).predict_files([shared_images / "glioma" / "000.png"])
    assert drawn(Explainer(trained_run, method).draw(answer)).shape == (588, 1008, 3)


@pytest.fixture(scope="module")
def exported(exported_formats: Path) -> Path:
    return exported_formats / "saved_model.pb"


def test_an_exported_model_is_explained_as_its_run(exported: Path, trained_run: Path, shared_images: Path) -> None:
    (answer,) = Predictor(exported).predict_files([shared_images / "glioma" / "000.png"])
    assert drawn(Explainer(exported, "occlusion").draw(answer)).any()
    own, runs = (drawn(Explainer(model).draw(answer)).astype(int) for model in (exported, trained_run))
    # The captions name the model.
    assert np.abs(own - runs)[:480].max() <= 2
    with pytest.raises(ModelError, match="--method occlusion"):
        Explainer(exported, "gradcam")


def predict(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_predict_draws_one_and_several(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    slices = [shared_images / label / "001.png" for label in ("glioma", "no_tumor")]
    one = predict(slices[0], "--model", trained_run, "--explain", tmp_path / "one.png", "--json")
    assert one.exit_code == 0, one.output
    assert json.loads(one.stdout)[0]["label"] == "glioma"
    assert f"drawn: {tmp_path / 'one.png'}\n" in one.stderr
    assert drawn((tmp_path / "one.png").read_bytes()).any()
    broken = shutil.copy(slices[0], tmp_path / "broken.png")
    Path(broken).write_bytes(b"no image")
    several = predict(*slices, broken, "--model", trained_run, "--explain", tmp_path / "out", "--method", "gradcam")
    assert several.exit_code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["001-2.png", "001.png"]


def test_predict_refuses_before_it_answers(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    image = shared_images / "glioma" / "001.png"
    before = image.read_bytes()
    for arguments, words in (
        (("--explain", image), "must not replace another image"),
        (("--explain", tmp_path / "a.png", "--method", "gradcan"), "Did you mean 'gradcam'"),
        (("--method", "gradcam"), "--explain"),
    ):
        found = predict(image, "--model", trained_run, *arguments)
        assert (found.exit_code, found.stdout) == (2, "")
        assert words in found.stderr
    assert image.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_the_caption_names_file_and_model_without_their_folders(
    exported_formats: Path, shared_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[Caption] = []
    monkeypatch.setattr(explanations, "draw_overlay", lambda image, heat, caption, window: captions.append(caption))
    explainer = explanations.Explainer(exported_formats / "model.tflite", "occlusion")
    explainer.draw(FilePrediction(str(shared_images / "glioma/000.png"), "glioma", {"glioma": 0.9}, decision="glioma"))
    assert captions[0].title == "000.png"
    assert captions[0].method.startswith("Occlusion, model tiny, version 1, btkeras ")


@pytest.mark.parametrize(
    ("label", "decision", "top", "coarse", "words"),
    [
        ("glioma", "glioma", 1.0, False, ""),
        ("glioma", "uncertain", 1.0, False, "This map says little: the decision is uncertain."),
        ("no_tumor", "no_tumor", 1.0, False, "This map says little: that there is no tumour has no place."),
        ("glioma", "glioma", 0.0, False, "This map says little: no place speaks for the class."),
        ("glioma", "rejected", 1.0, True, "This map says little: the decision is rejected, and occlusion is coarse."),
    ],
)
def test_a_map_that_says_little_says_so(label: str, decision: str, top: float, coarse: bool, words: str) -> None:
    prediction = FilePrediction("a.png", label, {label: 0.6}, decision=decision)
    heat = np.full((8, 8), top, np.float32)
    assert map_doubt(prediction, heat, coarse=coarse) == words
    # And the picture has it: red letters between the decision and the slices.
    caption = Caption("a.png", format_prediction(prediction), "LayerCAM", words)
    band = drawn(draw_overlay(np.zeros((20, 20, 1), np.uint8), heat, caption))[65:85]
    assert bool((band[..., 0] - band[..., 1] > 60).any()) == bool(words)

"""The threshold below which a run abstains: fitted by the command, kept by decisions and exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

from btkeras.datasets import load_dataset
from btkeras.decisions.abstention import VALIDATION, Abstention
from btkeras.decisions.calibration import Calibration, load_calibration
from btkeras.errors import RunError
from btkeras.evaluation.calibrate import CalibrationImages, abstention_of, fit_decisions
from btkeras.evaluation.corruptions import corrupt_at_random
from btkeras.export.metadata import metadata_files
from btkeras.inference.backends import load_backend
from btkeras.inference.model_folder import parse_metadata
from btkeras.inference.predictor import Predictor
from btkeras.runs import open_run
from tests.conftest import write_images
from tests.test_cli import btkeras, fails

FOUND = Abstention(0.8, 0.1, 0.9, 200, 150, 8, 0.09, "elsewhere")


@pytest.fixture
def run(calibrated_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(calibrated_run, tmp_path / "run")


@pytest.fixture
def _slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the tests' images, which are noise and stripes, passed the MRI check."""
    for module in ("evaluation.calibrate", "inference.predictor"):
        monkeypatch.setattr(f"btkeras.{module}.rejection_reason", lambda image: None)


def abstention(run: Path) -> Abstention:
    found = load_calibration(open_run(run))
    assert found is not None and found.abstention is not None
    return found.abstention


@pytest.mark.usefixtures("_slices")
def test_a_threshold_is_fitted_on_another_hospitals_images_and_kept_by_the_decisions(run: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "elsewhere", per_class=30, seed=5)
    shown = btkeras("calibrate", run, "--data", other, "--risk", "0.15")
    assert shown.exit_code == 0, shown.output
    found = abstention(run)
    assert (found.data, found.risk, found.level) == ("elsewhere", 0.15, 0.9) and str(found) in shown.stdout
    assert binomtest(found.wrong, found.covered, 0.15, "less").pvalue <= 0.1 + 1e-9
    predictor, tested = Predictor(run), []
    for prediction in predictor.predict_files(sorted(other.glob("*/*.png"))):
        sure = max(prediction.probabilities.values()) >= found.threshold
        usual = prediction.ood_percentile is not None and prediction.ood_percentile < 99
        tested.append(usual)
        assert (prediction.decision == prediction.label) == (sure and usual)
        assert prediction.decision in (prediction.label, "uncertain")
    assert found.images == sum(tested)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["selective"]["abstention"] == found.to_json()
    assert metrics["calibration"]["conformal"]["data"] == "elsewhere"
    texts = metadata_files({"classes": ["a"], "image_size": 32, "channels": 1}, load_backend(run))
    assert parse_metadata(texts, tmp_path).calibration.abstention == found
    assert "the highest probability is below 0." in btkeras("card", run, "--out", "-").stdout


@pytest.mark.usefixtures("_slices")
def test_prediction_sets_are_fitted_on_them_too(run: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "elsewhere", per_class=30, seed=5)
    before = load_calibration(open_run(run))
    evaluated = btkeras("calibrate", run, "--data", other, "--risk", "0.15").stdout
    found = load_calibration(open_run(run))
    assert before is not None and found is not None and found.temperature == before.temperature
    predictions = list(Predictor(run, coverage=0.9).predict_files(sorted(other.glob("*/*.png"))))
    scores = sorted(1 - each.probabilities[Path(each.path).parent.name] for each in predictions)
    assert found.scores == pytest.approx(scores, abs=1e-5) and found.data == "elsewhere" != before.data
    # ceil(121 * 0.9) of 120.
    assert sum(Path(each.path).parent.name in (each.set or ()) for each in predictions) >= 109
    assert "sets are fitted on elsewhere, and promised for images like these" in evaluated
    assert "fitted on elsewhere: how they do on it is no test" in btkeras("evaluate", run, "--data", other).stderr
    # A finished run is left as it is.
    resumed = btkeras("train", "--resume", "--out", run)
    assert "is finished already" in resumed.stderr and resumed.exit_code == 0
    assert load_calibration(open_run(run)) == found and open_run(run).manifest()["calibrated"]
    fails(btkeras("calibrate", run, "--data", ""), "A dataset must be a folder")
    assert load_calibration(open_run(run)) == found
    card = ("card", run, "--out", "-")
    assert "| elsewhere " in btkeras(*card).stdout
    # Without data, on the validation slices again.
    assert "sets are fitted on" not in btkeras("calibrate", run).stdout
    again = load_calibration(open_run(run))
    # As if the command was stopped before it tested the run again.
    fit_decisions(open_run(run), load_dataset(other), risk=0.15)
    fails(btkeras(*card), r"metrics\.json must be of the run's calibration", "btkeras evaluate")
    assert btkeras("evaluate", run).exit_code == 0 and btkeras(*card).exit_code == 0
    btkeras("calibrate", run)
    assert again is not None and (again.data, again.scores) == (before.data, before.scores)
    # What was measured with the other threshold is no longer the run's.
    shown = btkeras(*card)
    assert "evaluations/elsewhere is left out" in shown.stderr and "| elsewhere " not in shown.stdout


@pytest.mark.usefixtures("_slices")
def test_copies_of_its_own_slices_are_left_out(
    run: Path, shared_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_images(tmp_path / "elsewhere", per_class=30, seed=5)
    options = ("calibrate", run, "--data", other, "--risk", "0.15")
    assert "left out" not in btkeras(*options).stderr
    before, split = abstention(run), open_run(run).split_document()
    for path in [*split["train"][:6], *split["validation"][:3]]:
        for folder in (other, tmp_path / "copies"):
            target = (folder / path).with_name(f"copy_{Path(path).stem}.jpg")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(shared_images / path) as image:
                image.resize((60, 72)).save(target)
    shown = btkeras(*options)
    assert f"9 of 129 images in {other} are near-duplicates of training or validation slices" in shown.stderr
    assert abstention(run) == before and set(open_run(run).manifest()["calibrated"]) == {"command", "git_revision"}
    fails(btkeras("calibrate", run, "--data", tmp_path / "copies"), "must be no near-duplicates", "9 of 9 images")
    assert abstention(run) == before
    opened = open_run(run)
    opened.hashes_file.unlink()
    opened.update_manifest(dataset=str(tmp_path / "gone"))
    assert fit_decisions(opened, load_dataset(other), risk=0.15).images > before.images
    assert "near-duplicates of them are not left out" in caplog.text


@pytest.mark.usefixtures("_slices")
def test_what_cannot_be_promised_is_an_error_and_leaves_the_run_as_it_was(
    run: Path, shared_images: Path, tmp_path: Path
) -> None:
    before = (run / "calibration.json").read_bytes()
    other = write_images(tmp_path / "elsewhere", per_class=8, seed=5)
    fails(btkeras("calibrate", run, "--data", other, "--risk", "0.01"), "must keep the risk of 1.0%")
    fails(btkeras("calibrate", run, "--data", shared_images), "must not have been trained on")
    fails(btkeras("calibrate", run, "--risk", "1.5"), "above 0 and below 1", code=2)
    fails(btkeras("calibrate", run, "--confidence-level", "0"), "above 0 and below 1", code=2)
    assert (run / "calibration.json").read_bytes() == before


def test_without_a_threshold_nothing_is_decided(run: Path) -> None:
    # Of its eight validation images, the MRI check takes all for noise.
    found = abstention(run)
    assert (found.threshold, found.images, found.data) == (None, 0, VALIDATION)
    assert "turns all validation slices" in btkeras("calibrate", run).output
    decided = Predictor(run).selective.decisions(np.array([[1.0, 0, 0, 0]]), None, [None])
    assert decided[0].decision == "uncertain" and "risk of 20 %" in decided[0].reasons[0]


@pytest.mark.parametrize("change", [{"threshold": 2.0}, {"risk": None}, {"covered": 500}, {"more": 1}])
def test_what_is_no_abstention_is_refused(change: dict[str, object]) -> None:
    whole = Calibration(1.0, (0.1, 0.2), 0.5, 0.4, abstention=FOUND)
    document = json.loads(json.dumps(whole.to_json()))
    assert Calibration.from_json(document) == whole
    with pytest.raises(RunError, match=r"calibration\.json must be as `btkeras calibrate` writes it"):
        Calibration.from_json({**document, "abstention": {**FOUND.to_json(), **change}})


def test_a_model_of_before_says_what_it_lacks_and_abstains_by_its_sets(run: Path) -> None:
    backend = load_backend(run)
    assert backend.missing() is None and backend.calibration is not None
    old = replace(backend, calibration=replace(backend.calibration, abstention=None))
    assert "no abstention threshold; get them with: btkeras calibrate" in str(old.missing())
    decided = Predictor(old).selective.decisions(np.array([[0.9, 0.1, 0, 0]]), None, [None])
    assert decided[0].decision == "uncertain" and "at 95 % coverage" in decided[0].reasons[0]


def test_images_are_corrupted_at_random_and_always_alike() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (24, 20, 1), np.uint8) for _ in range(200)]
    changed = [corrupt_at_random(image) for image in images]
    unchanged = sum(bool((image == found).all()) for image, found in zip(images, changed, strict=True))
    assert all((corrupt_at_random(image) == found).all() for image, found in zip(images[:9], changed, strict=False))
    assert all(found.shape == (24, 20, 1) and found.dtype == np.uint8 for found in changed)
    # One of four numbers of corruptions is none.
    assert binomtest(unchanged, 200, 0.25).pvalue > 0.01


def test_the_smallest_risk_that_can_be_kept_is_taken() -> None:
    # 10 of 300 equally sure predictions are wrong: at 96.7 % confidence, a third of 10 % each, at most 6.2 %.
    labels = np.r_[np.ones(10, int), np.zeros(290, int)]
    images = CalibrationImages(np.zeros((300, 1, 1, 1), np.uint8), labels, np.zeros(300, bool))
    probabilities, beyond = np.tile([0.9, 0.1], (300, 1)), np.zeros(300, bool)
    found = abstention_of(images, probabilities, beyond, "elsewhere", (0.05, 0.1, 0.2), 0.9)
    exact = binomtest(10, 300, alternative="less").proportion_ci(1 - 0.1 / 3, "exact")
    assert (found.threshold, found.risk, found.level, found.wrong) == (0.9, 0.1, 0.9, 10)
    assert found.bound == pytest.approx(exact.high) and 0.05 < found.bound < 0.1
    rejected = replace(images, rejected=labels == 1)
    assert abstention_of(rejected, probabilities, beyond, "elsewhere", (0.05, 0.1, 0.2), 0.9).risk == 0.05

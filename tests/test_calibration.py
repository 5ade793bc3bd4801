"""Calibration: metrics against independent implementations, and a run's calibration from its training to its report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from btkeras.checksums import record_files
from btkeras.config import ExperimentConfig
from btkeras.datasets import load_dataset
from btkeras.decisions.calibration import Calibration, load_calibration
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibrate import calibrate
from btkeras.evaluation.evaluate import evaluate_split, load_best
from btkeras.evaluation.results import calibration_metrics, read_predictions
from btkeras.experiments import single_run
from btkeras.inference.predictor import Predictor
from btkeras.metrics import calibration as metrics_of
from btkeras.models.head import temperature_of, with_temperature
from btkeras.runs import Run, open_run
from tests.test_cli import btkeras, fails

Config = Callable[..., ExperimentConfig]


def predictions(n: int = 500, seed: int = 0, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, drawn as often as the softmax of some logits says, and those logits times a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(logits, axis=1)])
    return labels, logits * temperature


@pytest.fixture
def finished(trained_run: Path, tmp_path: Path) -> Run:
    """A copy of a run that has not been calibrated."""
    shutil.copytree(trained_run, tmp_path / "run")
    return open_run(tmp_path / "run")


def looped_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """ECE as its definition says it, bin by bin; equal numbers in each, so no two confidences may be equal."""
    order, total = np.argsort(confidence), 0.0
    for members in np.array_split(order, bins):
        total += len(members) / len(order) * abs(np.mean(confidence[members]) - np.mean(right[members]))
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_a_plain_loop(bins: int) -> None:
    # So many that the bins divide them: else the loop's borders lie elsewhere.
    labels, logits = predictions(600, temperature=2)
    probabilities = softmax(logits, axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    found = metrics_of.expected_calibration_error(labels, probabilities, bins)
    assert found == pytest.approx(looped_error(confidence, right, bins), abs=1e-12)
    each = [looped_error(probabilities[:, i], labels == i, bins) for i in range(4)]
    assert metrics_of.classwise_calibration_error(labels, probabilities, bins) == pytest.approx(
        np.mean(each), abs=1e-12
    )


def test_the_reliability_diagram_is_scikit_learns() -> None:
    labels, logits = predictions(777)
    # Rounded, so that many are equal, and bins fall together.
    probabilities = np.round(softmax(2 * logits, axis=1), 2)
    confidence, right = metrics_of.top_label(labels, probabilities)
    frequency, mean = calibration_curve(right, confidence, n_bins=15, strategy="quantile")
    found = metrics_of.reliability(confidence, right)
    np.testing.assert_allclose(found.frequency, frequency)
    np.testing.assert_allclose(found.confidence, mean)
    assert found.images.sum() == 777 and len(found.images) < 15


def test_brier_score_and_log_loss_are_scikit_learns() -> None:
    labels, logits = predictions()
    probabilities = softmax(logits, axis=1)
    found = metrics_of.calibration_scores(labels, probabilities)
    expected = brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert found["brier"] == pytest.approx(expected, rel=1e-12)
    assert found["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_metrics_of_very_few_predictions_are_numbers(size: int) -> None:
    labels, logits = predictions(size)
    found = calibration_metrics(labels, softmax(logits, axis=1), None)
    json.dumps(found, allow_nan=False)
    assert found["before"] == pytest.approx(found["after"]) and found["conformal"] is None


def test_the_bias_of_the_error_is_what_calibrated_predictions_get() -> None:
    errors = []
    for seed in range(60):
        labels, logits = predictions(300, seed)
        probabilities = softmax(logits, axis=1)
        errors.append(metrics_of.expected_calibration_error(labels, probabilities))
    mean, high = metrics_of.calibrated_error(probabilities)
    assert mean == pytest.approx(np.mean(errors), rel=0.1)
    # 3 of 60 are expected above; 9 or more have a chance of 0.3 %.
    assert sum(error > high for error in errors) < 9
    overconfident = softmax(3 * logits, axis=1)
    assert metrics_of.expected_calibration_error(labels, overconfident) > metrics_of.calibrated_error(overconfident)[1]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_is_the_minimum_that_another_optimiser_finds(temperature: float) -> None:
    labels, logits = predictions(400, temperature=temperature)

    def loss(inverse: np.ndarray) -> float:
        return log_loss(labels, softmax(logits * inverse[0], axis=1))

    expected = 1 / minimize(loss, x0=[1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12}).x[0]
    found = metrics_of.fit_temperature(labels, logits)
    assert found == pytest.approx(expected, rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.3)


def test_correct_predictions_say_nothing_about_the_temperature() -> None:
    _, logits = predictions()
    assert metrics_of.fit_temperature(logits.argmax(axis=1), logits) == 1
    # All wrong: as unsure as it goes.
    assert metrics_of.fit_temperature((logits.argmax(axis=1) + 1) % 4, logits) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_temperature_can_be_undone(temperature: float) -> None:
    _, logits = predictions()
    logits *= 3
    after = softmax(logits / temperature, axis=1).astype(np.float32)
    found = metrics_of.without_temperature(after, temperature)
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-6)
    np.testing.assert_array_equal(metrics_of.without_temperature(np.array([[1.0, 0.0]]), 0.7), [[1, 0]])


def test_risk_and_coverage_are_those_of_a_plain_loop() -> None:
    labels, logits = predictions(200)
    probabilities = softmax(logits, axis=1)
    coverage, risk = metrics_of.risk_coverage(labels, probabilities)
    order = sorted(range(200), key=lambda i: -probabilities[i].max())
    wrong = [int(probabilities[i].argmax() != labels[i]) for i in order]
    np.testing.assert_allclose(risk, [np.mean(wrong[: k + 1]) for k in range(200)])
    np.testing.assert_allclose(coverage, np.arange(1, 201) / 200)
    assert metrics_of.risk_coverage_area(labels, probabilities) == pytest.approx(np.mean(risk))
    assert risk[-1] == pytest.approx(np.mean(probabilities.argmax(axis=1) != labels))


def test_equally_confident_predictions_count_with_their_mean_error() -> None:
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
    labels = np.array([0, 1, 1, 0])
    # Three of 0.9, one of them wrong, in whatever order.
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        _, risk = metrics_of.risk_coverage(labels[order], probabilities[order])
        np.testing.assert_allclose(risk, [1 / 3, 1 / 3, 1 / 3, 1 / 4])


def test_a_run_gets_the_temperature_of_its_validation_predictions(finished: Run) -> None:
    raw = evaluate_split(finished, "validation")
    assert raw["calibration"]["temperature"] == 1
    classes = finished.classes()
    _, labels, before = read_predictions(finished.path / "evaluations/validation/predictions.csv", classes)
    found = calibrate(finished)
    assert temperature_of(load_best(finished)) == pytest.approx(found.temperature, rel=1e-6)
    after = evaluate_split(finished, "validation")
    _, _, probabilities = read_predictions(finished.path / "evaluations/validation/predictions.csv", classes)
    expected = softmax(log_softmax(np.log(before), axis=1) / found.temperature, axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert after["confusion_matrix"] == raw["confusion_matrix"]
    assert after["negative_log_likelihood"] == pytest.approx(found.nll_after, abs=1e-6)
    assert raw["negative_log_likelihood"] == pytest.approx(found.nll_before, abs=1e-6)
    assert after["calibration"]["before"] == pytest.approx(raw["calibration"]["after"], abs=1e-5)
    true = probabilities[np.arange(len(labels)), labels]
    np.testing.assert_allclose(found.scores, np.sort(1 - true), atol=1e-6)


def test_calibrated_twice_it_stays_the_same(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its few predictions are all correct: a temperature comes from a wrong one.
    monkeypatch.setattr("btkeras.evaluation.calibrate.fit_temperature", lambda labels, logits: 0.8)
    first = calibrate(finished)
    files = {name: (finished.path / name).read_bytes() for name in ("best.keras", "calibration.json")}
    assert calibrate(finished) == first == load_calibration(finished, load_best(finished))
    assert files == {name: (finished.path / name).read_bytes() for name in files}


def test_a_predictor_and_an_export_have_the_temperature(finished: Run, shared_images: Path, tmp_path: Path) -> None:
    path = sorted(shared_images.glob("*/000.png"))
    raw = Predictor(finished.path).predict(path).probabilities
    model = load_best(finished)
    with_temperature(model, 2.0).save(finished.best_model)
    document = Calibration(2.0, (0.1, 0.2), 1.0, 0.9).to_json()
    (finished.path / "calibration.json").write_text(json.dumps(document))
    record_files(finished.path, [finished.best_model])
    expected = softmax(np.log(raw.astype(np.float64)) / 2, axis=1)
    found = Predictor(finished.path).predict(path)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    exported = btkeras("export", finished.path, "--out", tmp_path / "model", "--format", "litert")
    assert exported.exit_code == 0, exported.output
    np.testing.assert_allclose(Predictor(tmp_path / "model").predict(path).probabilities, expected, atol=1e-5)


def test_a_training_is_calibrated_and_resuming_it_changes_nothing(
    tmp_path: Path, shared_images: Path, tiny_config: Config
) -> None:
    config = tiny_config("train.epochs=2")
    metrics = single_run.start_run(config, load_dataset(shared_images), tmp_path / "run")
    names = ("best.keras", "calibration.json", "predictions.csv", "metrics.json")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    run = open_run(tmp_path / "run")
    found = load_calibration(run, load_best(run))
    assert found and metrics["calibration"]["temperature"] == found.temperature != 1
    # Killed between the two files of a calibration.
    (run.path / "calibration.json").unlink()
    with pytest.raises(RunError, match=r"calibration\.json must be as it was written.*gone.*btkeras calibrate"):
        evaluate_split(run)
    assert single_run.resume_run(run.path) == metrics
    assert before == {name: (run.path / name).read_bytes() for name in names}


def test_the_command_prints_and_writes_the_metrics(finished: Run) -> None:
    shown = btkeras("calibrate", finished.path)
    assert shown.exit_code == 0, shown.output
    assert "after, at temperature 1.000" in shown.stdout and "95 % wanted" in shown.stdout
    printed = json.loads(btkeras("calibrate", finished.path, "--json").stdout)
    written = json.loads(finished.metrics_file.read_text())["calibration"]
    assert printed == written
    assert [row["coverage"] for row in written["conformal"]["sets"]] == [0.9, 0.95, 0.99]
    # Seven validation images and a few more are not enough for 99 %: every class is in the set.
    assert written["conformal"]["sets"][2]["mean_size"] == 4 and written["conformal"]["sets"][2]["covered"] == 1


def blocks(run: Run, out: Path) -> dict[str, dict[str, object]]:
    """The report's tables and figures, as JSON, by name."""
    made = btkeras("report", run.path, "--no-images", "--out", out)
    assert made.exit_code == 0, made.output
    sections = json.loads(out.read_text())["sections"]
    return {block["name"]: block for section in sections for block in section["blocks"] if "name" in block}


def test_the_report_says_what_the_evaluation_found(finished: Run, tmp_path: Path) -> None:
    raw = blocks(finished, tmp_path / "raw.json")
    assert "prediction-sets" not in raw and raw["calibration-errors"]["rows"][0][1] is None
    assert list(raw["reliability"]["panels"][0]["data"]["stages"]) == ["before"]
    with_temperature(load_best(finished), 0.8).save(finished.best_model)
    document = Calibration(0.8, tuple(np.linspace(0, 0.5, 99)), 1.0, 0.9).to_json()
    (finished.path / "calibration.json").write_text(json.dumps(document))
    record_files(finished.path, [finished.best_model])
    metrics = evaluate_split(finished)
    test_metrics, aurc = metrics["calibration"], metrics["risk_coverage"]["aurc"]
    found = blocks(finished, tmp_path / "calibrated.json")
    before, after = test_metrics["before"], test_metrics["after"]
    expected = [before["ece"], after["ece"], test_metrics["ece_if_calibrated"]["mean"], before["brier"]]
    row = found["calibration-errors"]["rows"][0]
    assert row[1] == [0.8]
    assert row[2:6] == pytest.approx(expected, abs=1e-9)
    assert row[6:] == pytest.approx([after["brier"], before["nll"], after["nll"], aurc], abs=1e-9)
    sets = [(row[1], row[2], row[4]) for row in found["prediction-sets"]["rows"]]
    rows = test_metrics["conformal"]["sets"]
    assert sets == [(row["coverage"], row["covered"], row["mean_size"]) for row in rows]
    stages = found["reliability"]["panels"][0]["data"]["stages"]
    assert [stages[stage]["ece"] for stage in ("before", "after")] == pytest.approx(expected[:2], abs=1e-9)
    risk = found["risk-coverage"]["panels"][0]["data"]
    assert risk["risk"][-1] == pytest.approx(risk["least_risk"][-1])
    assert risk["coverage"][-1] == 1 and (np.array(risk["risk"]) >= np.array(risk["least_risk"]) - 1e-12).all()


def test_an_unfinished_run_is_not_calibrated(finished: Run, tmp_path: Path) -> None:
    manifest = {name: value for name, value in finished.manifest().items() if name != "epochs"}
    finished.manifest_file.write_text(json.dumps(manifest))
    before = finished.best_model.read_bytes()
    fails(btkeras("calibrate", finished.path), "must be finished", "btkeras train --resume")
    assert finished.best_model.read_bytes() == before
    fails(btkeras("calibrate", tmp_path), "must hold config.yaml")


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": float("inf")},
        {"scores": [0.2, 0.1]},
        {"scores": []},
        {"scores": [float("nan")]},
        {"scores": 1},
        {"negative_log_likelihood": None},
    ],
)
def test_a_calibration_file_of_something_else_is_refused(finished: Run, change: dict[str, object]) -> None:
    whole = Calibration(0.8, (0.1, 0.2), 0.5, 0.4)
    assert Calibration.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    (finished.path / "calibration.json").write_text(json.dumps(whole.to_json() | change))
    with pytest.raises(RunError, match=r"calibration\.json must be as `btkeras calibrate` writes it"):
        load_calibration(finished)


def test_a_network_with_another_temperature_is_noticed(finished: Run) -> None:
    (finished.path / "calibration.json").write_text(json.dumps(Calibration(0.8, (0.1,), 0.5, 0.4).to_json()))
    fails(btkeras("evaluate", finished.path), "must be of one calibration", "temperature 0.8 in one and 1 in the other")


def test_a_classifier_without_a_network_is_not_calibrated(tmp_path: Path, finished: Run) -> None:
    finished.update_manifest(classifier="k nearest neighbours")
    with pytest.raises(ModelError, match="keeps its predictions only"):
        calibrate(finished)

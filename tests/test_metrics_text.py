"""What `train` says at its end, and how `evaluate` explains its figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import Calibration
from btkeras.evaluation.metrics_text import metrics_summary, metrics_table
from btkeras.evaluation.results import EvaluationResult
from tests.conftest import CLASSES
from tests.test_cli import btkeras


def measured(temperature: float = 1.0, sharpness: float = 1.0) -> dict[str, Any]:
    """Metrics of 200 made-up predictions, their logits as sharp as that, with a calibration."""
    rng = np.random.default_rng(7)
    labels, logits = rng.integers(0, 4, 200), rng.normal(size=(200, 4))
    logits[np.arange(200), labels] += 2
    odds = np.exp(sharpness * logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    records = tuple(Record(f"{i}.png", CLASSES[label]) for i, label in enumerate(labels))
    scores = np.sort(1 - probabilities[np.arange(200), labels])
    calibration = Calibration(temperature, tuple(scores.tolist()), 1.0, 1.0)
    return EvaluationResult(records, CLASSES, probabilities, calibration).metrics(
        Dataset(Path("d"), records), "test", 0
    )


def columns(text: str, title: str) -> dict[str, list[str]]:
    """The rows of the table that begins with a title, by their first cell."""
    block = next(block for block in text.split("\n\n") if block.startswith(title))
    rows = ([cell.strip() for cell in line.split("   ") if cell.strip()] for line in block.splitlines())
    return {row[0]: row[1:] for row in rows}


def test_a_training_ends_with_its_classes_and_the_next_step(trained_run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(trained_run, tmp_path / "run")
    done = btkeras("train", "--resume", "--out", out)
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert len(done.stdout.splitlines()) <= 12 and not {"Brier", "AURC", "ECE"} & set(done.stdout.split())
    rows = columns(done.stdout, "percent")
    for label, row in metrics["per_class"].items():
        figures = [f"{100 * row[name]:.2f}" for name in ("precision", "recall", "f1")]
        assert rows[label] == [*figures, str(row["images"])]
    steps = [f"btkeras report {out}", f"btkeras predict IMAGE --model {out}", f"btkeras export {out} --out"]
    assert [done.stderr.index(step) for step in steps] == sorted(done.stderr.index(step) for step in steps)


def test_the_commonest_mistakes_are_named() -> None:
    metrics = measured()
    matrix = np.array(metrics["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    i, j = np.unravel_index(matrix.argmax(), matrix.shape)
    line = next(line for line in metrics_summary(metrics).splitlines() if line.startswith("wrong: "))
    assert line.startswith(f"wrong: {matrix.sum()} images; most often {matrix[i, j]} {CLASSES[i]} taken for")
    perfect = {**metrics, "confusion_matrix": np.diag([50] * 4).tolist()}
    assert "wrong: none" in metrics_summary(perfect)


@pytest.mark.parametrize(("sharpness", "temperature"), [(1.0, 1.0), (0.5, 2.0), (1.0, 0.5)])
def test_a_temperature_that_raised_the_error_says_so(sharpness: float, temperature: float) -> None:
    metrics = measured(temperature, sharpness)
    before, after = (metrics["calibration"][stage]["ece"] for stage in ("before", "after"))
    text = metrics_table(metrics)
    rows = columns(text, "calibration")
    assert rows["before"][0] == f"{100 * before:.2f} %"
    assert rows[f"after, at temperature {temperature:.3f}"][0] == f"{100 * after:.2f} %"
    assert ("the temperature raised the ECE of these images; it is kept" in text) == (after > before)


def test_intervals_say_what_they_draw() -> None:
    metrics = measured()
    text = metrics_table(metrics)
    assert text.startswith("test accuracy ") and "intervals over 200 images; none names its patient" in text
    grouped = {**metrics, "intervals": {**metrics["intervals"], "groups": 11}}
    assert "over 11 groups of images that belong together; none names its patient" in metrics_table(grouped)
    assert metrics_table({**metrics, "split": "all"}).startswith("accuracy ")


def test_prediction_sets_are_told_by_how_many_classes_they_name() -> None:
    metrics = measured()
    rows = columns(metrics_table(metrics), "prediction sets")
    for found in metrics["calibration"]["conformal"]["sets"]:
        covered, single, several, empty = (
            float(cell.removesuffix(" %")) for cell in rows[f"{100 * found['coverage']:g} % wanted"]
        )
        assert covered == pytest.approx(100 * found["covered"], abs=0.05)
        assert single + several + empty == pytest.approx(100, abs=0.2)
        assert single == pytest.approx(100 * found["single"], abs=0.05)


def test_a_coverage_that_takes_more_calibration_slices_says_how_many() -> None:
    metrics = measured()
    conformal = metrics["calibration"]["conformal"]
    few = {**metrics, "calibration": {**metrics["calibration"], "conformal": conformal | {"images": 18}}}
    said = "with 18 calibration slices, these sets have all classes: 95 % takes 19 or more, 99 % takes 99 or more"
    assert said in metrics_table(few)
    enough = {**metrics, "calibration": {**metrics["calibration"], "conformal": conformal | {"images": 99}}}
    assert "have all classes" not in metrics_table(enough)


def test_no_class_has_an_accuracy_of_its_own() -> None:
    text = metrics_table(measured())
    assert text.count("accuracy") == 3  # of the test, in the scores, of the tumours

"""The rules of a decision, and the metrics of selective classification."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from btkeras.datasets.dataset import Record
from btkeras.decisions.abstention import Abstention
from btkeras.decisions.calibration import Calibration, check_coverage
from btkeras.decisions.ood import CalibrationScores
from btkeras.decisions.selective_classifier import (
    Decision,
    SelectiveClassifier,
    selective_metrics,
    write_decisions,
)
from btkeras.errors import ConfigError
from btkeras.evaluation.metrics_text import format_coverage

CLASSES = ("glioma", "meningioma", "no_tumor")
# Scores 0.01 .. 0.99: at 90 % coverage a class of a probability of at least 0.1 is in the set.
CALIBRATION = Calibration(1.0, tuple((np.arange(1, 100) / 100).tolist()), 0.5, 0.5)
REFERENCE = CalibrationScores(np.arange(100.0))
ABSTENTION = Abstention(0.6, 0.1, 0.9, 200, 150, 8, 0.09, "elsewhere")
THRESHOLD = SelectiveClassifier(CLASSES, replace(CALIBRATION, abstention=ABSTENTION), REFERENCE, 0.9)
CLASSIFIER = SelectiveClassifier(CLASSES, CALIBRATION, REFERENCE, 0.9)


def decision(
    probabilities: list[float],
    score: float = 50.0,
    rejection: str | None = None,
    selective: SelectiveClassifier = CLASSIFIER,
) -> Decision:
    return selective.decisions(np.array([probabilities]), np.array([score]), [rejection])[0]


def test_the_most_probable_class_is_the_decision_from_the_threshold_on_whatever_the_set() -> None:
    found = decision([0.6, 0.35, 0.05], selective=THRESHOLD)
    assert found == Decision("glioma", ("glioma", "meningioma"), 51.0)
    below = decision([0.55, 0.4, 0.05], selective=THRESHOLD)
    assert below.decision == "uncertain" and below.reasons == ("the highest probability, 0.550, is below 0.600",)
    high = replace(CALIBRATION, abstention=replace(ABSTENTION, threshold=0.99964))
    for probability, said in ((0.998, "0.9980, is below 0.9996"), (0.99961, "0.99961, is below 0.99964")):
        near = decision([probability, 1 - probability, 0.0], selective=SelectiveClassifier(CLASSES, high, None, 0.9))
        assert near.reasons == (f"the highest probability, {said}",)
    both = decision([0.55, 0.4, 0.05], score=99.5, selective=THRESHOLD)
    assert both.reasons == ("unlike the training slices", *below.reasons)


def test_without_a_threshold_that_keeps_the_risk_every_image_is_uncertain() -> None:
    nothing = replace(CALIBRATION, abstention=replace(ABSTENTION, threshold=None))
    found = decision([1.0, 0.0, 0.0], selective=SelectiveClassifier(CLASSES, nothing, REFERENCE, 0.9))
    assert (found.decision, found.reasons) == ("uncertain", ("no probability is high enough for a risk of 10 %",))


# Of models of before there was a threshold: their prediction sets.


def test_one_class_in_the_set_is_the_decision() -> None:
    assert decision([0.95, 0.04, 0.01]) == Decision("glioma", ("glioma",), 51.0)


def test_several_classes_in_the_set_are_uncertain_and_named() -> None:
    found = decision([0.5, 0.45, 0.05])
    assert (found.decision, found.set) == ("uncertain", ("glioma", "meningioma"))
    assert found.reasons == ("glioma or meningioma at 90 % coverage",)


def test_an_empty_set_is_uncertain() -> None:
    sure = Calibration(1.0, (0.001,) * 99, 0.5, 0.5)
    found = decision([0.6, 0.4, 0.0], selective=SelectiveClassifier(CLASSES, sure, REFERENCE, 0.9))
    assert (found.decision, found.set) == ("uncertain", ()) and "no class" in found.reasons[0]


def test_an_image_out_of_distribution_is_uncertain_however_confident_the_network_is() -> None:
    found = decision([1.0, 0.0, 0.0], score=99.5)
    assert (found.decision, found.ood_percentile, found.reasons) == (
        "uncertain",
        100.0,
        ("unlike the training slices",),
    )


def test_what_the_mri_check_rejects_is_rejected_whatever_else_holds() -> None:
    found = decision([1.0, 0.0, 0.0], rejection="it is in colour")
    assert (found.decision, found.reasons) == ("rejected", ("no brain MRI slice: it is in colour",))


def test_what_is_not_known_is_left_out() -> None:
    selective = SelectiveClassifier(CLASSES, None, None)
    assert selective.decisions(np.array([[0.5, 0.3, 0.2]]), None, [None]) == [Decision("glioma", None, None)]
    assert decision([0.5, 0.3, 0.2], rejection="it is blank", selective=selective).decision == "rejected"


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, float("nan")])
def test_a_coverage_is_between_0_and_1(coverage: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        check_coverage(coverage)


def metrics() -> dict:
    outcomes = ["glioma", "glioma", "uncertain", "meningioma", "rejected", "uncertain"]
    decisions = [Decision(outcome, None, None) for outcome in outcomes]
    labels = np.array([0, 1, 0, 1, 1, 0])
    probabilities = np.eye(3)[[0, 0, 0, 1, 1, 1]]
    return selective_metrics(labels, probabilities, decisions, CLASSES)


def test_the_metrics_are_those_counted_by_hand() -> None:
    found = metrics()
    assert (found["coverage"], found["abstained"], found["rejected"]) == (3 / 6, 2 / 6, 1 / 6)
    assert (found["accuracy"], found["withheld_accuracy"]) == (2 / 3, 2 / 3)
    assert found["per_class"]["glioma"]["coverage"] == 1 / 3 and found["per_class"]["glioma"]["accuracy"] == 1
    assert found["per_class"]["meningioma"]["rejected"] == 1 / 3 and found["per_class"]["meningioma"]["accuracy"] == 0.5
    assert found["macro_recall"] == 0.75 and "no_tumor" not in found["per_class"]
    json.dumps(found, allow_nan=False)


def test_the_metrics_have_a_line_of_text_even_without_coverage() -> None:
    (line,) = format_coverage({"selective": metrics()})
    assert "50.0 % of the images get a class" in line and "for 66.7 % of these it is the right one" in line
    assert "33.3 % are uncertain and 16.7 % are rejected (their most probable class is right for 66.7 %)" in line
    nothing = selective_metrics(np.array([0]), np.eye(3)[[0]], [Decision("rejected", None, None)], CLASSES)
    (line,) = format_coverage({"selective": nothing})
    assert "0.0 % of the images get a class (coverage); 100.0 % are rejected" in line and nothing["accuracy"] is None
    assert format_coverage({}) == []


def test_decisions_are_written_a_line_each(tmp_path: Path) -> None:
    records = [Record("a.png", "glioma"), Record("b.png", "no_tumor")]
    decisions = [
        Decision("uncertain", ("glioma", "meningioma"), 99.5, ("unlike the training slices", "two")),
        Decision("no_tumor", None, None),
    ]
    write_decisions(tmp_path / "decisions.csv", records, decisions)
    with (tmp_path / "decisions.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["a.png", "glioma", "uncertain", "99.5", "glioma;meningioma", "unlike the training slices;two"]
    assert rows[2] == ["b.png", "no_tumor", "no_tumor", "", "", ""]


def test_an_evaluation_writes_metrics_and_decisions(trained_run: Path, tmp_path: Path) -> None:
    from btkeras.evaluation.calibrate import fit_ood
    from btkeras.evaluation.evaluate import evaluate_split
    from btkeras.evaluation.metrics_text import metrics_table
    from btkeras.inference.predictor import Predictor
    from btkeras.runs import open_run

    run = open_run(shutil.copytree(trained_run, tmp_path / "run"))
    fit_ood(run)
    metrics = evaluate_split(run)
    with (run.path / "decisions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert metrics["selective"]["images"] == metrics["images"] == len(rows)
    assert metrics["selective"]["rejected"] == np.mean([row["decision"] == "rejected" for row in rows])
    assert "coverage" in metrics_table(metrics)
    root = run.dataset().root
    found = Predictor(run.path).predict_files([root / row["path"] for row in rows])
    for row, prediction in zip(rows, found, strict=True):
        assert (row["decision"], float(row["ood_percentile"])) == (
            prediction.decision,
            pytest.approx(prediction.ood_percentile, abs=20.0),
        )

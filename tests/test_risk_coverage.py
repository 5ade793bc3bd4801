"""The risk-coverage curve of an evaluation: against a plain loop, as text, in the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from btkeras.evaluation.metrics_text import format_risk_coverage
from btkeras.evaluation.risk_coverage import risk_coverage_metrics
from tests.conftest import write_images
from tests.test_cli import btkeras


def sure(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities of two classes, and which are wrong, from the surest image to the least sure."""
    wrong = np.random.default_rng(3).random(count) < np.linspace(0, 0.6, count)
    confidence = np.linspace(0.99, 0.51, count)
    order = np.random.default_rng(4).permutation(count)
    return wrong.astype(int)[order], np.stack([confidence, 1 - confidence], axis=1)[order], wrong


@pytest.mark.parametrize("count", [1, 7, 250])
def test_the_points_are_those_of_a_plain_loop(count: int) -> None:
    labels, probabilities, wrong = sure(count)
    found = risk_coverage_metrics(labels, probabilities, None)
    risks = [wrong[: i + 1].sum() / (i + 1) for i in range(count)]
    assert found["aurc"] == pytest.approx(np.mean(risks)) and found["working_point"] is None
    assert len(found["risk"]) == min(count, 100) and found["coverage"][-1] == 1
    for coverage, risk in zip(found["coverage"], found["risk"], strict=True):
        assert risk == pytest.approx(risks[round(coverage * count) - 1])
    shares, shown, area = format_risk_coverage({"risk_coverage": found})
    expected = [100 * risks[int(np.ceil(share * count - 1e-9)) - 1] for share in (1, 0.8, 0.6, 0.5, 0.4)]
    assert "AURC" in area and shares.split()[2::2] == ["100", "80", "60", "50", "40"]
    assert [float(text) for text in shown.split()[4::2]] == pytest.approx(expected, abs=0.05)


def test_the_working_point_is_that_of_the_decisions_with_wilsons_interval() -> None:
    labels, probabilities, _ = sure(100)
    found = risk_coverage_metrics(labels, probabilities, {"images": 100, "coverage": 0.6, "accuracy": 0.9})
    point, interval = found["working_point"], binomtest(6, 60).proportion_ci(method="wilson")
    assert (point["coverage"], point["risk"]) == (0.6, 0.1) and point["interval"] == pytest.approx(tuple(interval))
    assert (
        "coverage 60.0 %, risk 10.0 % (95 % interval 4.7 to 20.1)" in format_risk_coverage({"risk_coverage": found})[3]
    )
    nothing = risk_coverage_metrics(labels, probabilities, {"images": 100, "coverage": 0.0, "accuracy": None})
    assert "no image gets a class" in format_risk_coverage({"risk_coverage": nothing})[3]
    assert format_risk_coverage({}) == []


def test_an_evaluation_of_another_dataset_prints_the_curve_and_the_report_draws_it(
    calibrated_run: Path, tmp_path: Path
) -> None:
    run, other = shutil.copytree(calibrated_run, tmp_path / "run"), write_images(tmp_path / "elsewhere", 4, seed=9)
    shown = btkeras("evaluate", run, "--data", other)
    assert shown.exit_code == 0 and "AURC" in shown.stdout and "working point" in shown.stdout
    written = json.loads((run / "evaluations/elsewhere/metrics.json").read_text())
    curve, selective = written["risk_coverage"], written["selective"]
    assert curve["risk"][-1] == pytest.approx(1 - written["accuracy"])
    assert curve["working_point"]["coverage"] == selective["coverage"]
    made = btkeras("report", run, "--no-images", "--out", tmp_path / "report.json")
    assert made.exit_code == 0, made.output
    sections = json.loads((tmp_path / "report.json").read_text())["sections"]
    found = next(
        block for each in sections for block in each["blocks"] if block.get("name") == "risk-coverage-elsewhere"
    )
    data = found["panels"][0]["data"]
    assert (data["dataset"], data["risk"], data["aurc"]) == ("elsewhere", curve["risk"], curve["aurc"])
    assert data["decisions"]["coverage"] == ([selective["coverage"]] if selective["coverage"] else [])
    (table,) = next(each["blocks"] for each in sections if each["title"] == "Other datasets")
    assert table["rows"][0][:2] == ["elsewhere", written["images"]]
    assert table["rows"][0][2]["value"] == written["accuracy"]
    assert "on another hospital's scanner" not in (tmp_path / "report.json").read_text()

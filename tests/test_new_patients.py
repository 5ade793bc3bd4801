"""``evaluate`` per patient and per scan, of a run and of an exported model: against sums over predictions.csv."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from btkeras.datasets import load_dataset
from btkeras.experiments.experiment import write_summary
from btkeras.experiments.summary_text import summary_table
from btkeras.reporting.report import build_report
from tests.conftest import CLASSES
from tests.fake_experiment import fake_experiment
from tests.test_cli import btkeras, fails

# What the manifest says of the images of each class: four of a patient, of two series.
PATIENTS = {f"{number:03d}.png": (f"P{number // 4}", f"S{number // 2}") for number in range(12)}


@pytest.fixture(scope="module")
def cohort(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared images with patients; those of the tumour-free class name none, as is usual."""
    folder = Path(shutil.copytree(shared_images, tmp_path_factory.mktemp("cohort") / "cohort"))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient", "source", "series"])
        for label in CLASSES:
            for name, (patient, series) in PATIENTS.items():
                known = label != "no_tumor"
                writer.writerow([f"{label}/{name}", label, f"{label[0]}{patient}" if known else "", "here", series])
    return folder


def test_a_run_is_evaluated_per_patient(calibrated_run: Path, cohort: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(calibrated_run, tmp_path / "run"))
    result = btkeras("evaluate", run, "--data", cohort, "--group-by", "patient")
    assert result.exit_code == 0, result.output
    metrics = json.loads((run / "evaluations/cohort/metrics.json").read_text())
    found = metrics["per_patient"]
    assert (found["groups"], found["slices"], metrics["per_series"]["groups"]) == (9, 36, 24)
    votes: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    with (run / "evaluations/cohort/predictions.csv").open() as file:
        for row in csv.DictReader(file):
            label, name = row["path"].split("/")
            votes[label, PATIENTS[name][0]].append([float(row[name]) for name in CLASSES])
    right = [CLASSES[np.mean(votes[key], axis=0).argmax()] == key[0] for key in votes if key[0] != "no_tumor"]
    mean = found["rules"]["mean_probability"]
    assert mean["accuracy"] == pytest.approx(np.mean(right))
    assert mean["intervals"]["accuracy_wilson"] == pytest.approx(proportion_confint(sum(right), 9, method="wilson"))
    assert mean["per_class"]["no_tumor"] == {"recall": None, "support": 0}
    assert metrics["intervals"]["groups"] == 9 + 12 and metrics["tumor_classes"]["images"] == 36
    assert metrics["intervals"].keys() == {"accuracy", "macro_recall", "auc", "ece", "brier", "groups"}
    assert re.search(r"per patient, by +accuracy .*\ntumor evidence \(as predict\) +[\d.]+ %", result.stdout)
    assert result.stdout.startswith("accuracy ")
    assert "intervals over 21 patients and, of images that name none, groups or single images\n" in result.stdout
    assert "9 patients with 36 slices\n" in result.stdout and "patient, true / predicted" in result.stdout
    selective = found["selective"]
    assert 0 <= selective["coverage"] <= 1 and selective.keys() == {
        "coverage", "accuracy", "interval", "withheld_accuracy",
    }  # fmt: skip


def test_an_exported_model_is_evaluated_per_series(exported_formats: Path, cohort: Path) -> None:
    result = btkeras("evaluate", exported_formats / "model.tflite", "--data", cohort, "--group-by", "series", "--json")
    metrics = json.loads(result.stdout)
    assert metrics["per_series"]["slices"] == metrics["images"]
    assert metrics["per_series"]["rules"].keys() == {"tumor_evidence", "mean_probability", "majority"}


def test_a_dataset_that_names_no_patient_is_refused(
    calibrated_run: Path, exported_formats: Path, shared_images: Path
) -> None:
    for model in (calibrated_run, exported_formats):
        result = btkeras("evaluate", model, "--data", shared_images, "--group-by", "patient")
        fails(result, "name their patient", "of which none does", "column `patient`")
    fails(btkeras("evaluate", calibrated_run, "--group-by", "series"), "`series`")


def test_a_finished_cross_validation_gets_figures_per_patient_from_its_dataset(
    shared_images: Path, cohort: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(shared_images, tmp_path / "images"))
    finished = fake_experiment(tmp_path / "cv", load_dataset(images), "cv.models=[vgg16]", "cv.folds=2")
    (before,) = json.loads(finished.summary_file.read_text())["models"].values()
    assert before["per_patient"] is None
    # The ids come later, for the same images.
    shutil.copy(cohort / "manifest.csv", images)
    report = build_report([finished.path], images=False)
    (rows,) = [block.rows for block in report.blocks if getattr(block, "name", "") == "patients"]
    summary = write_summary(finished)
    (entry,) = summary["models"].values()
    found = entry["per_patient"]
    assert [(row[1], row[4]["value"]) for row in rows] == [
        (rule.replace("_", " "), metrics["accuracy"]) for rule, metrics in found["rules"].items()
    ]
    assert (found["groups"], found["slices"]) == (9, 36) and summary["bootstrap"]["groups"] == 9 + 12
    assert re.search(r"%   of 9 \(", summary_table(summary))
    assert entry["pooled"] == before["pooled"]

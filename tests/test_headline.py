"""The table that docs/trust.md begins with: of kept files, and of made-up ones whose figures are known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from btkeras.experiments.summary import FoldResult, summarize_experiment
from btkeras.metrics import summarize
from scripts.results import headline
from scripts.results.__main__ import TRUST
from tests.conftest import CLASSES

EVERY, MISSING = len(headline.COLUMNS), "not measured yet"
IMAGES, SLICES = 60, 4  # tumours' slices, and slices of a patient


def _write(folder: Path, **files: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _rows(results: Path) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in headline.table(results).splitlines()[2:]]


def _interval(right: int, of: int) -> str:
    low, high = proportion_confint(right, of, method="wilson")
    return f"{100 * right / of:.1f} ({100 * low:.1f}\N{EN DASH}{100 * high:.1f})"


def test_the_table_of_the_page_is_what_the_files_say() -> None:
    text = TRUST.read_text(encoding="utf-8")
    assert text == headline.with_table(text), "run: python -m scripts.results"


def test_the_page_is_short() -> None:
    assert len(TRUST.read_text(encoding="utf-8").split()) <= 2500


def test_what_is_not_there_is_not_measured_yet(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    assert len(rows) == 5 * len(headline.RECIPES)
    assert all(row[2:] == [MISSING] * EVERY for row in rows)
    assert headline.command_lines(tmp_path) == "```bash\n```"


@pytest.fixture
def by_patient(tmp_path: Path) -> Path:
    """A cross-validation of one fold: the last patient's slices, and one of the tumour-free ones, are wrong."""
    labels = np.array([i // SLICES % 3 for i in range(IMAGES)] + [3] * 20)
    labels = np.array([CLASSES.index(name) for name in (*sorted({*CLASSES} - {"no_tumor"}), "no_tumor")])[labels]
    probabilities = np.full((len(labels), 4), 0.1)
    probabilities[np.arange(len(labels)), labels] = 0.7
    wrong = [*range(IMAGES - SLICES, IMAGES), len(labels) - 1]
    probabilities[wrong] = np.roll(probabilities[wrong], 1, axis=1)
    paths = [f"{i:02d}.png" for i in range(len(labels))]
    fold = (tuple(paths), labels, probabilities, {})
    results = [FoldResult(recipe, 0, 0, *fold) for recipe in ("improved_resnet34", "resnet34")]
    patients = {path: f"p{i // SLICES}" for i, path in enumerate(paths[:IMAGES])}
    summary = summarize_experiment(results, CLASSES, groups={}, test="rotating", patients=patients)
    command = {"command": ["cv", "--data", "cohort", "--out", "patient"], "git_revision": "abc"}
    _write(tmp_path / "patient", summary=summary, manifest=command)
    (tmp_path / "patient/config.yaml").write_text("data: {group_by: patient}\n")
    for fold_number, (coverage, accuracy) in enumerate([(0.5, 0.95), (0.75, 29 / 30)]):
        selective = {"images": 40, "coverage": coverage, "accuracy": accuracy, "abstention": {"risk": 0.05}}
        _write(tmp_path / f"patient/improved_resnet34/fold_{fold_number}", metrics={"selective": selective})
    return tmp_path


def test_a_cross_validation_by_patient(by_patient: Path) -> None:
    rows = _rows(by_patient)
    accuracy, _, tumors, patients, decided = [row[4] for row in rows[:5]]
    assert accuracy.startswith("93.8 (") and tumors.startswith("93.3 (")
    # Four slices of one patient are wrong together: wider than for independent slices.
    low, high = map(float, re.findall(r"[\d.]+", accuracy)[1:])
    assert low < 100 * proportion_confint(75, 80, method="wilson")[0] - 1 and high > 98
    assert patients == f"{_interval(14, 15)} of 15"
    assert decided == f"62.5; {_interval(48, 50)}"
    assert [row[2] for row in rows[:5]] == [MISSING] * 5
    assert "btkeras cv --data cohort --out patient    # at abc" in headline.command_lines(by_patient)


def test_a_cross_validation_without_the_network_is_none_of_its_recipe(by_patient: Path) -> None:
    summary = json.loads((by_patient / "patient/summary.json").read_text())
    del summary["models"]["resnet34"]
    _write(by_patient / "patient", summary=summary)
    rows = _rows(by_patient)
    assert rows[0][4] != MISSING and [row[4] for row in rows[5:10]] == [MISSING] * 5


def _metrics(matrix: list[list[int]]) -> dict[str, Any]:
    labels, predictions = (np.repeat(index.ravel(), np.ravel(matrix)) for index in np.indices((4, 4)))
    return summarize(labels, np.eye(4)[predictions], CLASSES)


def test_another_hospital_is_without_near_duplicates_of_training_slices(tmp_path: Path) -> None:
    rest = _metrics([[8, 2, 0, 0], [0, 10, 0, 0], [0, 0, 6, 4], [0, 0, 0, 10]])
    rest |= {"near_duplicates": 10, "selective": {"images": 40, "coverage": 0.5, "accuracy": 0.9}}
    every = _metrics([[18, 2, 0, 0], [0, 10, 0, 0], [0, 0, 6, 4], [0, 0, 0, 10]])
    every |= {"selective": {"images": 50, "coverage": 0.6, "accuracy": 0.8, "abstention": {"risk": 0.1}}}
    _write(tmp_path / "pretrained/evaluations/external_dev", metrics={**every, "without_near_duplicates": rest})
    accuracy, recall, tumors, patients, decided = [row[-1] for row in _rows(tmp_path)[10:15]]
    assert accuracy.startswith("85.0 (") and recall.startswith("85.0 (") and patients == ""
    free = CLASSES.index("no_tumor")
    expected = [right for i, right in enumerate([8, 10, 6, 10]) if i != free]
    assert tumors.startswith(f"{100 * sum(expected) / 30:.1f} (")
    assert decided == f"50.0; {_interval(18, 20)}"
    assert "btkeras evaluate pretrained --data external_dev" in headline.command_lines(tmp_path)


@pytest.mark.parametrize(("settings", "column"), [("{image_size: 112}", 0), ("{group_by: patient}", 2)])
def test_a_run_stands_below_its_split_and_decisions_by_prediction_sets_are_marked(
    tmp_path: Path, settings: str, column: int
) -> None:
    selective = {"images": 40, "coverage": 1.0, "accuracy": 0.9}
    _write(
        tmp_path / "pretrained",
        metrics=_metrics([[10, 0, 0, 0], [0, 10, 0, 0], [0, 0, 10, 0], [4, 0, 0, 6]]) | {"selective": selective},
        manifest={"command": ["train", "--out", "pretrained"], "git_revision": "abc"},
    )
    (tmp_path / "pretrained/config.yaml").write_text(f"data: {settings}\n")
    expected = [MISSING] * EVERY
    expected[column] = f"100.0; {_interval(36, 40)} †"
    assert _rows(tmp_path)[14][2:] == expected

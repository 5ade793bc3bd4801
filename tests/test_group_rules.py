"""Why a scan is decided by the tenth with most evidence: kept predictions of patients, in heads of many slices."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from btkeras.datasets.dataset import load_dataset
from btkeras.metrics.groups import group_probabilities

ROOT = Path(__file__).parents[1]
CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
FREE = 2
# Percent of patients, and of tumour-free scans, that are right: of docs/trust.md, by free slices to each of a tumour.
EXPECTED = {
    "tumor_evidence": {0: (96.2, 99.5), 1: (96.2, 99.7), 3: (96.3, 99.8), 6: (96.2, 100.0)},
    "mean_probability": {0: (96.2, 100.0), 1: (23.3, 100.0), 3: (0.0, 100.0), 6: (0.0, 100.0)},
    "majority": {0: (96.2, 100.0), 1: (23.3, 100.0), 3: (0.0, 100.0), 6: (0.0, 100.0)},
}


@pytest.mark.data
def test_the_rules_on_heads_with_slices_beside_the_tumor(real_slices: Path) -> None:
    patients = {record.path: record.patient for record in load_dataset(real_slices).records}
    rows = []
    for file in sorted((ROOT / "docs/results/five/improved_resnet34").glob("*/predictions.csv")):
        rows += list(csv.DictReader(file.read_text().splitlines()))
    labels = np.array([CLASSES.index(row["label"]) for row in rows])
    probabilities = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    names = np.array([patients[row["path"]] for row in rows])
    free, rng = np.flatnonzero(labels == FREE), np.random.default_rng(0)
    for ratio in (0, 1, 3, 6):
        right: dict[str, list[tuple[bool, bool]]] = {rule: [] for rule in EXPECTED}
        for _ in range(5 if ratio else 1):
            for name in sorted({*names} - {""}):
                own = np.flatnonzero(names == name)
                beside = rng.choice(free, ratio * len(own)) if ratio else own[:0]
                healthy = rng.choice(free, (1 + ratio) * len(own), replace=False)
                for rule, found in right.items():
                    scans = [np.concatenate([own, beside]), healthy]
                    decided = [_decision(probabilities[scan], rule) for scan in scans]
                    found.append((decided[0] == labels[own[0]], decided[1] == FREE))
        for rule, found in right.items():
            assert 100 * np.mean(found, axis=0) == pytest.approx(EXPECTED[rule][ratio], abs=1.5), (rule, ratio)


def _decision(probabilities: np.ndarray, rule: str) -> int:
    (row,) = group_probabilities(probabilities, np.zeros(len(probabilities), int), CLASSES, rule)
    return int(row.argmax())

"""Decisions on groups of slices, and intervals of AUC, ECE and Brier score, against scikit-learn and sums by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from btkeras.metrics import Resampling, bootstrap_weights
from btkeras.metrics.calibration import brier_score, expected_calibration_error
from btkeras.metrics.groups import GROUP_RULE, GROUP_RULES, group_labels, group_metrics, group_probabilities
from btkeras.metrics.scores import macro_auc, score_metrics
from btkeras.metrics.tumor_classes import tumor_class_metrics

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
TUMORS = ("glioma", "meningioma", "pituitary")
FEW = Resampling(samples=20, seed=5)
GLIOMA, FREE = [0.9, 0.05, 0.04, 0.01], [0.001, 0.002, 0.996, 0.001]


def predictions(seed: int, count: int, digits: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities that are right more often than not, and groups of about eight."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    raw = rng.dirichlet(np.ones(4), count) + 0.6 * np.eye(4)[labels]
    groups = np.unique(rng.integers(0, count // 8, count), return_inverse=True)[1]
    return labels, (raw / raw.sum(axis=1, keepdims=True)).round(digits), groups


def decide(rows: list[list[float]], rule: str = GROUP_RULE, classes: tuple[str, ...] = CLASSES) -> str:
    (row,) = group_probabilities(np.array(rows), np.zeros(len(rows), int), classes, rule)
    assert row.sum() == pytest.approx(1)
    return classes[int(row.argmax())]


@pytest.mark.parametrize(("free", "found"), [(0, {*GROUP_RULES}), (9, {"tumor_evidence"})])
def test_a_head_with_slices_beside_the_tumor(free: int, found: set[str]) -> None:
    rows = [GLIOMA] + [FREE] * free
    assert {rule for rule in GROUP_RULES if decide(rows, rule) == "glioma"} == found


def test_the_tenth_with_most_evidence_says_whether_and_all_slices_say_which() -> None:
    """Of 20 slices two decide, with 0.1 and 0.1; the tumours share 0.9 as all slices' sums, 0.65 and 1.85."""
    rows = np.zeros((20, 4))
    rows[:, 2] = 1
    rows[3], rows[8], rows[9] = [0.2, 0.7, 0.1, 0], [0.15, 0.55, 0.3, 0], [0.3, 0.6, 0.1, 0]
    (found,) = group_probabilities(rows, np.zeros(20, int), CLASSES)
    assert found == pytest.approx([0.9 * 0.65 / 2.5, 0.9 * 1.85 / 2.5, 0.1, 0])
    (found,) = group_probabilities(np.vstack([rows, rows[:1]]), np.zeros(21, int), CLASSES)
    assert found[2] == pytest.approx(0.5 / 3)


def test_rules_by_hand() -> None:
    tie = [[0.6, 0.4, 0, 0], [0.1, 0.9, 0, 0]]
    assert decide(tie, "majority") == decide(tie, "mean_probability") == "meningioma"
    outvoted = [[0.51, 0.49, 0, 0], [0.51, 0.49, 0, 0], [0, 1, 0, 0]]
    assert decide(outvoted, "majority") == "glioma" and decide(outvoted) == "meningioma"
    assert decide([[0, 0, 1, 0]]) == "no_tumor"
    assert decide([[0.2, 0.8, 0], [0.7, 0.3, 0]], classes=TUMORS) == "meningioma"


def test_a_group_shows_the_tumor_of_some_of_its_slices() -> None:
    labels, groups = np.array([2, 0, 2, 2, 1, 3, 3]), np.array([0, 0, 1, 1, 2, 2, 3])
    assert group_labels(labels, groups, CLASSES).tolist() == [0, 2, -1, 3]


def test_groups_count_once_and_unnamed_slices_not_at_all() -> None:
    names = ["a", "a", "b", "b", "c", "c", "", "d"]
    labels = np.array([0, 2, 2, 2, 1, 3, 0, 3])
    rows = np.array([GLIOMA, FREE, FREE, FREE, GLIOMA, GLIOMA, GLIOMA, GLIOMA])
    found = group_metrics(labels, rows, names, CLASSES, FEW)
    assert found is not None and json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["groups"], found["slices"], found["two_tumors"]) == (3, 5, 1)
    chosen = found["rules"][found["rule"]]
    assert chosen["accuracy"] == pytest.approx(2 / 3) and chosen["macro_recall"] == pytest.approx(2 / 3)
    assert chosen["intervals"]["accuracy_wilson"] == pytest.approx(proportion_confint(2, 3, method="wilson"))
    assert chosen["per_class"]["meningioma"] == {"recall": None, "support": 0}
    assert chosen["confusion_matrix"] == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]]
    assert group_metrics(labels, rows, [""] * 8, CLASSES, FEW) is None


def test_a_patient_of_several_trainings_counts_once_in_the_interval() -> None:
    names, repeats = ["a", "b"] * 3, [0, 0, 1, 1, 2, 2]
    rows = np.array([GLIOMA, GLIOMA, GLIOMA, FREE, GLIOMA, GLIOMA])
    found = group_metrics(np.zeros(6, int), rows, names, CLASSES, FEW, repeats)
    assert found is not None and found["groups"] == 2
    chosen = found["rules"]["majority"]
    assert chosen["accuracy"] == pytest.approx(5 / 6)
    assert chosen["intervals"]["accuracy_wilson"] == pytest.approx(proportion_confint(5 / 3, 2, method="wilson"))


@pytest.mark.parametrize("digits", [1, 9])
def test_auc_and_the_resampled_scores_equal_references(digits: int) -> None:
    labels, rows, groups = predictions(digits, 120, digits)
    values, intervals = score_metrics(labels, rows, groups, FEW)
    expected = np.mean([roc_auc_score(labels == i, rows[:, i]) for i in range(4)])
    assert values["auc"] == macro_auc(labels, rows) == pytest.approx(expected)
    assert values["ece"] == expected_calibration_error(labels, rows)
    assert values["brier"] == pytest.approx(brier_score(labels, rows))
    (drawn,) = bootstrap_weights(int(groups.max()) + 1, FEW.samples, FEW.seed)
    areas, briers = [], []
    for weights in drawn[:, groups]:
        areas.append([roc_auc_score(labels == i, rows[:, i], sample_weight=weights) for i in range(4)])
        repeated = np.repeat(np.arange(120), weights.astype(int))
        briers.append(brier_score(labels[repeated], rows[repeated]))
    assert intervals["auc"] == pytest.approx(np.percentile(np.mean(areas, axis=1), [2.5, 97.5]))
    assert intervals["brier"] == pytest.approx(np.percentile(briers, [2.5, 97.5]))


def test_the_interval_of_the_ece_is_not_shifted_by_its_bias() -> None:
    """Confidences that are 5 points too high: most intervals hold 0.05, though the ECE is above it."""
    rng, held, above = np.random.default_rng(0), 0, 0
    for _ in range(40):
        confidence = rng.uniform(0.6, 1, 500)
        right = rng.random(500) < confidence - 0.05
        values, intervals = score_metrics(
            np.where(right, 0, 1), np.stack([confidence, 1 - confidence], axis=1), np.arange(500), Resampling(100)
        )
        low, high = intervals["ece"] or (1, 0)
        held, above = held + (low <= 0.05 <= high), above + ((values["ece"] or 0) > 0.05)
    assert held >= 32 and above >= 30


def test_scores_of_one_class_have_no_auc() -> None:
    values, intervals = score_metrics(np.zeros(9, int), np.tile(GLIOMA, (9, 1)), np.arange(9), FEW)
    assert values["auc"] is intervals["auc"] is None and values["brier"] is not None


def test_tumor_classes_alone_equal_scikit_learn() -> None:
    labels, rows, groups = predictions(2, 200)
    found = tumor_class_metrics(labels, rows, groups, CLASSES, FEW)
    assert found is not None
    shown, tumors = labels != 2, np.array([0, 1, 3])
    assert found["images"] == shown.sum()
    predicted = rows.argmax(axis=1)[shown]
    assert found["accuracy"] == pytest.approx((predicted == labels[shown]).mean())
    best = tumors[rows[:, tumors].argmax(axis=1)][shown]
    assert found["between_tumors"]["accuracy"] == pytest.approx((best == labels[shown]).mean())
    assert found["between_tumors"]["macro_recall"] == pytest.approx(balanced_accuracy_score(labels[shown], best))
    assert found["per_class"]["no_tumor"]["support"] == 0
    low, high = found["between_tumors"]["intervals"]["macro_recall"]
    assert low < found["between_tumors"]["macro_recall"] < high
    assert tumor_class_metrics(labels, rows, groups, ("a", "b", "c", "d"), FEW) is None
    assert tumor_class_metrics(np.full(200, 2), rows, groups, CLASSES, FEW) is None

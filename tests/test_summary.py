"""summary.json against scikit-learn, SciPy and statsmodels on the same predictions.csv."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from btkeras.datasets.dataset import Record
from btkeras.errors import ConfigError, RunError
from btkeras.evaluation.results import read_predictions, write_predictions
from btkeras.experiments.summary import FoldResult, conclusion, summarize_experiment
from btkeras.metrics import Difference, Resampling, clustered_bootstrap
from btkeras.metrics.groups import group_metrics
from btkeras.metrics.scores import SCORES

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")
METRICS = ("accuracy", "precision", "recall", "specificity", "f1")
MODELS = {"resnet34": 0.9, "resnet34_se": 0.905, "improved_resnet34": 0.97}
SIZES = {"parameters": 21_300_000, "trainable_parameters": 21_284_672}


def fold(model: str, number: int, images: range, *, share: float = 0.9, seed: int = 0) -> FoldResult:
    """A model's predictions, correct about as often as ``share``; an image's label is fixed."""
    rng = np.random.default_rng((seed, number, *model.encode()))
    labels = np.array([i * 7 % 11 % 4 for i in images])
    predicted = np.where(rng.random(len(labels)) < share, labels, rng.integers(0, 4, len(labels)))
    probabilities = rng.dirichlet(np.ones(4), len(labels)) * 0.4 + 0.6 * np.eye(4)[predicted]
    return FoldResult(model, seed, number, tuple(f"{i:04d}.png" for i in images), labels, probabilities, SIZES)


def rotating(seeds: tuple[int, ...] = (0,), models: dict[str, float] = MODELS) -> list[FoldResult]:
    """Three folds of 100 images and one more in the last."""
    parts = [range(0, 100), range(100, 200), range(200, 301)]
    return [
        fold(model, number, part, share=share, seed=seed)
        for seed in seeds
        for number, part in enumerate(parts)
        for model, share in models.items()
    ]


def fixed(models: dict[str, float] = MODELS) -> list[FoldResult]:
    """Three folds that test the same 150 images."""
    return [fold(model, i, range(150), share=share) for i in range(3) for model, share in models.items()]


def summary(results: list[FoldResult], test: Any = "rotating", **groups: str) -> dict[str, Any]:
    return summarize_experiment(results, CLASSES, groups=groups, test=test)


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """The summary of three models on single images."""
    return summary(rotating())


def predictions_of(file: Path) -> tuple[list[str], list[str]]:
    """Labels and predictions of a predictions.csv, read without btkeras."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [row["label"] for row in rows], [row["prediction"] for row in rows]


def write(result: FoldResult, target: Path) -> Path:
    records = [Record(path, CLASSES[label]) for path, label in zip(result.paths, result.labels, strict=True)]
    write_predictions(target, records, CLASSES, result.probabilities.tolist())
    return target


def reference_metrics(labels: list[str], predictions: list[str]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """scikit-learn's overall and macro metrics, and those per class."""
    precision, recall, f1, _ = reference.precision_recall_fscore_support(labels, predictions, labels=CLASSES)
    true, found = np.array(labels), np.array(predictions)
    specificity = [reference.recall_score(true != label, found != label) for label in CLASSES]
    rows = {"precision": precision, "recall": recall, "specificity": specificity, "f1": f1}
    overall = {"accuracy": reference.accuracy_score(labels, predictions)}
    return overall | {name: float(np.mean(row)) for name, row in rows.items()}, rows


def test_a_fold_and_the_pooled_figures_equal_scikit_learn_on_the_csv(tmp_path: Path, plain: dict[str, Any]) -> None:
    folds = [result for result in rotating() if result.model == "resnet34"]
    files = [write(result, tmp_path / f"{result.fold}.csv") for result in folds]
    entry = plain["models"]["resnet34"]
    for file, row in zip(files, entry["folds"], strict=True):
        overall, per_class = reference_metrics(*predictions_of(file))
        assert row["accuracy"] == pytest.approx(overall["accuracy"])
        for name in METRICS[1:]:
            assert row["macro"][name] == pytest.approx(overall[name])
            assert [row["per_class"][label][name] for label in CLASSES] == pytest.approx(list(per_class[name]))
        matrix = reference.confusion_matrix(*predictions_of(file), labels=CLASSES)
        assert row["confusion_matrix"] == matrix.tolist()
    labels, predictions = (list(chain(*lists)) for lists in zip(*map(predictions_of, files), strict=True))
    pooled = reference_metrics(labels, predictions)[0]
    assert entry["pooled"]["accuracy"] == pytest.approx(pooled["accuracy"])
    assert entry["pooled"]["macro"]["f1"] == pytest.approx(pooled["f1"])
    assert entry["pooled"]["images"] == 301


def test_mean_and_deviation_are_those_over_the_folds(tmp_path: Path, plain: dict[str, Any]) -> None:
    folds = [result for result in rotating() if result.model == "resnet34_se"]
    rows = [reference_metrics(*predictions_of(write(result, tmp_path / "p.csv")))[0] for result in folds]
    entry = plain["models"]["resnet34_se"]
    for name in METRICS:
        values = [row[name] for row in rows]
        assert entry["mean"][name] == pytest.approx(np.mean(values))
        assert entry["std"][name] == pytest.approx(np.std(values, ddof=1))


def test_wilson_equals_statsmodels(plain: dict[str, Any]) -> None:
    entry = plain["models"]["improved_resnet34"]
    correct = round(entry["pooled"]["accuracy"] * 301)
    expected = proportion_confint(correct, 301, method="wilson")
    assert entry["intervals"]["accuracy_wilson"] == pytest.approx(expected)


def test_comparisons_equal_statsmodels_over_all_pairs(plain: dict[str, Any]) -> None:
    right = {
        model: np.concatenate([r.probabilities.argmax(axis=1) == r.labels for r in rotating() if r.model == model])
        for model in MODELS
    }
    rows = plain["comparisons"]
    names = list(MODELS)
    assert [row["models"] for row in rows] == [[names[0], names[1]], [names[0], names[2]], [names[1], names[2]]]
    for row in rows:
        a, b = (right[model] for model in row["models"])
        assert row["difference"] == pytest.approx(a.mean() - b.mean())
        assert row["discordant"] == [(a & ~b).sum(), (b & ~a).sum()]
        table = [[(a & b).sum(), row["discordant"][0]], [row["discordant"][1], (~a & ~b).sum()]]
        assert row["mcnemar_p"] == pytest.approx(mcnemar(table, exact=True).pvalue)
    for name in ("bootstrap_p", "mcnemar_p"):
        expected = multipletests([row[name] for row in rows], method="holm")[1]
        assert [row[f"{name}_adjusted"] for row in rows] == pytest.approx(list(expected))


def test_a_noisy_difference_is_called_noise_and_a_clear_one_is_not(plain: dict[str, Any]) -> None:
    noise, clear, _ = plain["comparisons"]
    assert noise["conclusion"].startswith("resnet34 and resnet34_se cannot be told apart on these images (difference ")
    assert noise["conclusion"].endswith("): it may be noise")
    assert clear["conclusion"].startswith(
        f"improved_resnet34 is better than resnet34 by {-100 * clear['difference']:.2f}"
    )
    assert clear["conclusion"].endswith("): more than noise")


def test_a_conclusion_reads_from_the_better_model() -> None:
    worse = Difference(0, 1, -0.011, [-0.018, -0.004], 0.001)
    assert conclusion(("a", "b"), worse, 0.003, 0.95) == (
        "b is better than a by 1.10 points "
        "(95 % interval 0.40 to 1.80, p adjusted for all pairs 0.003): more than noise"
    )
    better = Difference(0, 1, 0.011, [0.004, 0.018], 0.001)
    assert conclusion(("a", "b"), better, 0.05, 0.95).startswith(
        "a is better than b by 1.10 points (95 % interval 0.40 "
    )
    unclear = Difference(0, 1, -0.0022, [-0.0061, 0.0018], 0.31)
    assert conclusion(("a", "b"), unclear, 0.31, 0.95) == (
        "a and b cannot be told apart on these images "
        "(difference -0.22 points, 95 % interval -0.61 to 0.18, p adjusted for all pairs 0.31): it may be noise"
    )


def test_the_summary_has_exactly_its_keys_and_is_json(plain: dict[str, Any]) -> None:
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert list(plain) == ["classes", "models", "comparisons", "bootstrap"]
    entry = plain["models"]["resnet34"]
    sizes = {"parameters", "trainable_parameters", "macs"}
    assert entry.keys() == sizes | {"folds", "mean", "std", "pooled", "intervals", "tumor_classes", "per_patient"}
    assert (entry["parameters"], entry["macs"]) == (21_300_000, None)
    row = {"fold", "seed", "images", "accuracy", "macro", "per_class", "confusion_matrix"}
    assert entry["folds"][0].keys() == row
    assert entry["mean"].keys() == entry["std"].keys() == set(METRICS)
    assert entry["intervals"].keys() == {"accuracy_wilson", *METRICS, *SCORES, "per_class"}
    assert entry["intervals"]["per_class"]["glioma"].keys() == set(METRICS[1:])
    bootstrap = {"difference", "interval", "bootstrap_p", "bootstrap_p_adjusted"}
    exact = {"discordant", "mcnemar_p", "mcnemar_p_adjusted"}
    assert plain["comparisons"][0].keys() == bootstrap | exact | {"models", "conclusion"}
    assert plain["bootstrap"] == {"samples": 2000, "seed": 0, "level": 0.95, "groups": 301, "images": 301}


def test_the_order_of_the_folds_does_not_matter(plain: dict[str, Any]) -> None:
    by_model = sorted(rotating(), key=lambda result: (list(MODELS).index(result.model), -result.fold))
    assert summary(by_model) == plain


def test_intervals_draw_whole_groups(plain: dict[str, Any]) -> None:
    results = rotating()
    groups = {f"{i:04d}.png": f"patient {i // 10}" for i in range(300)}
    found = summary(results, **groups)
    assert found["bootstrap"]["groups"] == 31
    folds = [result for result in results if result.model == "resnet34"]
    labels, probabilities = (np.concatenate([getattr(r, part) for r in folds]) for part in ("labels", "probabilities"))
    expected = clustered_bootstrap(labels, probabilities.argmax(axis=1), np.arange(301) // 10, CLASSES, Resampling())
    intervals = found["models"]["resnet34"]["intervals"]
    assert {name: intervals[name] for name in expected} == expected
    assert intervals["accuracy_wilson"] == plain["models"]["resnet34"]["intervals"]["accuracy_wilson"]
    assert found["models"]["resnet34"]["pooled"] == plain["models"]["resnet34"]["pooled"]


def test_patients_have_one_decision_over_the_folds() -> None:
    """A patient's images lie in one fold or two; every seventh image names none."""
    results = rotating(models={"resnet34": 0.8})
    images = [pair for result in results for pair in zip(result.paths, result.labels.tolist(), strict=True)]
    patients = {path: f"P{label}-{i // 40}" for i, (path, label) in enumerate(images) if i % 7}
    found = summarize_experiment(results, CLASSES, groups={}, patients=patients, test="rotating")
    entry = found["models"]["resnet34"]
    labels, rows = (np.concatenate([getattr(r, part) for r in results]) for part in ("labels", "probabilities"))
    names = [patients.get(path, "") for path, _ in images]
    assert entry["per_patient"] == group_metrics(labels, rows, names, CLASSES, Resampling())
    assert entry["per_patient"]["groups"] == 32 and entry["per_patient"]["two_tumors"] == 0
    assert entry["tumor_classes"]["images"] == (labels != 2).sum()
    assert entry["pooled"]["brier"] == pytest.approx(((rows - np.eye(4)[labels]) ** 2).sum(axis=1).mean())
    assert summary(results)["models"]["resnet34"]["per_patient"] is None


def test_a_group_named_as_an_image_and_an_empty_one_are_no_group_of_that_image() -> None:
    found = summary(rotating(), **{"0001.png": "0000.png", "0002.png": "", "0003.png": ""})
    assert found["bootstrap"]["groups"] == 301


def test_a_single_fold_has_no_deviation_and_a_single_model_no_comparison() -> None:
    found = summary([fold("resnet34", 0, range(80))])
    assert found["models"]["resnet34"]["std"] == dict.fromkeys(METRICS)
    assert found["comparisons"] == []


def test_images_answered_in_every_fold_count_once() -> None:
    found = summary(fixed(), "fixed")
    entry = found["models"]["resnet34"]
    assert (found["bootstrap"]["images"], entry["pooled"]["images"]) == (150, 450)
    share = entry["pooled"]["accuracy"]
    expected = proportion_confint(share * 150, 150, method="wilson")
    assert entry["intervals"]["accuracy_wilson"] == pytest.approx(expected)
    for row in found["comparisons"]:
        first, second = (found["models"][model]["pooled"]["accuracy"] for model in row["models"])
        assert row["difference"] == pytest.approx(first - second)
        assert row["discordant"] is row["mcnemar_p"] is row["mcnemar_p_adjusted"] is None


def test_several_seeds_answer_the_same_images_again() -> None:
    """Three seeds of one model and one of another: no single prediction to compare, so no McNemar for that pair."""
    models = {"a": 0.9, "b": 0.9, "c": 0.9}
    results = [r for r in rotating((0, 1, 2), models) if r.model == "a" or r.seed == 0]
    found = summary(results)
    assert [row["seed"] for row in found["models"]["a"]["folds"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found["bootstrap"]["images"] == 301
    without, _, with_one = found["comparisons"]
    assert without["discordant"] is None
    assert with_one["models"] == ["b", "c"] and sum(with_one["discordant"]) > 0
    assert with_one["mcnemar_p_adjusted"] == with_one["mcnemar_p"]


def test_one_fold_of_a_fixed_test_part_has_single_answers() -> None:
    found = summary([result for result in fixed() if result.fold == 0], "fixed")
    assert all(row["mcnemar_p"] is not None for row in found["comparisons"])


def test_a_model_that_never_answers_a_class_has_figures_and_no_nan() -> None:
    result = fold("resnet34", 0, range(80))
    result.probabilities[:, 2] = 0
    found = summary([result])
    json.dumps(found, allow_nan=False)
    assert found["models"]["resnet34"]["intervals"]["per_class"]["no_tumor"]["precision"] is None


def test_so_many_pairs_get_resamples_enough_to_be_told_apart() -> None:
    models = {"best": 1.0} | {f"model_{i}": 0.6 for i in range(11)}
    found = summary([fold(model, 0, range(200), share=share) for model, share in models.items()])
    assert found["bootstrap"]["samples"] == 200 * 66
    decisions = [row["conclusion"] for row in found["comparisons"] if row["models"][0] == "best"]
    assert all(text.endswith("more than noise") for text in decisions)


def changed(index: int, **values: Any) -> list[FoldResult]:
    results = rotating()
    results[index] = replace(results[index], **values)
    return results


def relabelled() -> list[FoldResult]:
    labels = rotating()[0].labels.copy()
    labels[5] = (labels[5] + 1) % 4
    return changed(0, labels=labels)


@pytest.mark.parametrize(
    ("results", "test", "message"),
    [
        (list, "rotating", "must have a finished fold"),
        (lambda: [*rotating(), rotating()[0]], "rotating", "resnet34, seed 0, fold 0 twice"),
        (lambda: changed(3, paths=rotating()[0].paths, labels=rotating()[0].labels), "rotating", "0000.png twice in"),
        (lambda: rotating()[:-1], "rotating", r"0200.png not in improved_resnet34, seed 0 \(and 100 more\)"),
        (lambda: [*rotating(), *rotating((1,))[:-1]], "rotating", "not in improved_resnet34, seed 1"),
        (rotating, "fixed", r"0100.png not in resnet34, seed 0, fold 0 \(and 200 more\)"),
        (fixed, "rotating", "0000.png twice in resnet34, seed 0"),
        (relabelled, "rotating", "one label in all folds"),
    ],
)
def test_results_that_do_not_fit_are_refused(results: Callable[[], list[FoldResult]], test: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        summary(results(), test)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    result = fold("resnet34", 0, range(50))
    paths, labels, probabilities = read_predictions(write(result, tmp_path / "predictions.csv"), CLASSES)
    assert paths == result.paths
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(probabilities, result.probabilities)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a CSV file with a header"),
        ("path,label,prediction,glioma\n", "must have the columns path,label,prediction,glioma,meningioma"),
        ("HEADER", "and 0 lines"),
        ("HEADERa.png,glioma,glioma,1,0,0\n", "line 2"),
        ("HEADERa.png,glioma,glioma,1,0,0,0\nb.png,ependymoma,glioma,1,0,0,0\n", "line 3"),
        ("HEADERa.png,glioma,glioma,nan,0,0,0\n", "4 probabilities"),
        ("HEADERa.png,glioma,glioma,1.5,0,0,0\n", "4 probabilities"),
        ("HEADERa.png,glioma,glioma,much,0,0,0\n", "4 probabilities"),
        ("HEADERa.png,glioma,meningioma,1,0,0,0\n", "most probable class"),
        ("HEADERa.png\n", "line 2"),
        ("\xff", "must be a CSV file with a header"),
    ],
)
def test_predictions_of_another_form_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "predictions.csv"
    header = "path,label,prediction,glioma,meningioma,no_tumor,pituitary\n"
    file.write_text(text.replace("HEADER", header), encoding="latin-1")
    with pytest.raises(RunError, match=message):
        read_predictions(file, CLASSES)


def test_a_missing_file_of_predictions_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Evaluate the run again"):
        read_predictions(tmp_path / "predictions.csv", CLASSES)


def test_a_protocol_of_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"test must be one of rotating, fixed.*'once'"):
        summarize_experiment([], CLASSES, groups={}, test="once")

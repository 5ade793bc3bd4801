"""Test images of which the training subset has a near-duplicate: found, and metrics without them."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras.checksums import record_files
from btkeras.config import DataConfig
from btkeras.datasets import Dataset, Record, load_dataset
from btkeras.evaluation.evaluate import evaluate_split
from btkeras.evaluation.metrics_text import metrics_table
from btkeras.evaluation.results import EvaluationResult
from btkeras.metrics import summarize
from btkeras.reporting.card import card_text
from btkeras.reporting.render import render
from btkeras.reporting.report import build_report
from btkeras.runs import Run
from btkeras.splitting.near_duplicates import duplicated_in_training
from btkeras.splitting.splits import Split, make_split
from tests.conftest import copied_run
from tests.planted import COPIES, slices

CLASSES = ("glioma", "no_tumor")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Split]:
    """Slices of 12 heads: six train, two validate, four are tested, and so are changed copies of the first eight."""
    tmp_path, records, heads = tmp_path_factory.mktemp("planted"), [], slices(12)
    for number, image in enumerate(heads):
        image.save(tmp_path / f"{number:02d}.png")
        records.append(Record(f"{number:02d}.png", CLASSES[number % 2]))
    test = [*records[8:]]
    for number, (name, change) in enumerate(COPIES.items()):
        change(heads[number % 8]).save(tmp_path / f"{name}.png")
        test.append(Record(f"{name}.png", CLASSES[number % 2]))
    dataset = Dataset(tmp_path, tuple(sorted([*records[:8], *test], key=lambda record: record.path)))
    return dataset, Split(tuple(records[:6]), tuple(records[6:8]), tuple(test), group_by="official")


def test_changed_copies_of_training_images_are_found_and_others_are_not(planted: tuple[Dataset, Split]) -> None:
    dataset, split = planted
    # The copies of slices 6 and 7, which validate, are new to the training.
    expected = {f"{name}.png": f"{i % 8:02d}.png" for i, name in enumerate(COPIES) if i % 8 < 6}
    assert duplicated_in_training(dataset, split) == dict(sorted(expected.items()))
    assert duplicated_in_training(dataset, replace(split, group_by="image")) == dict(sorted(expected.items()))


@pytest.mark.parametrize("group_by", ["duplicate", "series"])
def test_a_split_that_keeps_them_together_has_none(planted: tuple[Dataset, Split], group_by: str) -> None:
    assert duplicated_in_training(planted[0], replace(planted[1], group_by=group_by)) is None


def result(near: dict[str, str] | None) -> EvaluationResult:
    """Six predictions, of which those for a, b and c are right."""
    records = tuple(Record(name, CLASSES[i % 2]) for i, name in enumerate("abcdef"))
    right = np.array([0, 1, 0, 0, 1, 0])
    return EvaluationResult(records, CLASSES, np.eye(2)[right] * 0.8 + 0.1, None, near_duplicates=near)


def test_metrics_without_them_are_those_of_the_other_images() -> None:
    found = result({"a": "x", "b": "y", "gone": "z"})
    metrics = found.metrics(Dataset(Path("d"), found.records), "test", 0)
    labels = np.array([0, 1, 0, 1])
    expected = summarize(labels, found.probabilities[2:], CLASSES)
    assert metrics["without_near_duplicates"] == {"near_duplicates": 2, **expected}
    assert metrics["accuracy"] == 0.5 and expected["accuracy"] == 0.25
    text = metrics_table(metrics)
    assert "2 of 6 test images have a near-duplicate in training; accuracy without them 25.00 % of 4 images" in text
    assert "(mean recall of their classes 25.00 %)" in text


def test_none_all_or_not_asked() -> None:
    dataset = Dataset(Path("d"), result(None).records)
    assert "without_near_duplicates" not in result(None).metrics(dataset, "test", 0)
    none = result({}).metrics(dataset, "test", 0)
    assert none["without_near_duplicates"]["images"] == 6
    assert "no test image has a near-duplicate in training" in metrics_table(none)
    every = result(dict.fromkeys("abcdef", "x")).metrics(dataset, "test", 0)
    assert every["without_near_duplicates"] == {"near_duplicates": 6, "images": 0}
    assert "6 of 6 test images have a near-duplicate in training: nothing here is measured on new images" in (
        metrics_table(every)
    )


def test_a_class_that_is_gone_does_not_count_in_the_mean_recall() -> None:
    metrics = result({"b": "x", "d": "x", "f": "x"}).metrics(Dataset(Path("d"), ()), "test", 0)
    assert "(mean recall of their classes 66.67 %)" in metrics_table(metrics)


@pytest.fixture
def known_run(tmp_path: Path, trained_run: Path, shared_images: Path) -> Run:
    """The tiny run on its dataset, of which two test images now are training images flipped and stored anew."""
    images = shutil.copytree(shared_images, tmp_path / "images")
    split = make_split(load_dataset(images), DataConfig())
    for tested, known in zip(split.test[:2], split.train[:2], strict=True):
        with Image.open(images / known.path) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / tested.path)
    return copied_run(trained_run, images, tmp_path / "run")


def test_a_run_s_evaluation_names_them_and_its_report_has_both_accuracies(known_run: Run) -> None:
    metrics = evaluate_split(known_run)
    found = metrics["without_near_duplicates"]
    assert (found["near_duplicates"], found["images"]) == (2, metrics["images"] - 2)
    assert known_run.metrics()["without_near_duplicates"] == found
    with known_run.near_duplicates_file.open() as file:
        rows = list(csv.DictReader(file))
    split = known_run.split(known_run.dataset())
    assert [row["path"] for row in rows] == sorted(record.path for record in split.test[:2])
    assert {row["near_duplicate_of"] for row in rows} <= {record.path for record in split.train}
    text = render(build_report([known_run.path], images=False), "markdown")
    assert "Near-duplicates in training" in text
    assert f"{100 * found['accuracy']:.2f}" in text
    assert f"{100 * found['accuracy']:.2f}" in card_text(known_run)


def test_the_report_of_a_published_split_says_so(known_run: Run) -> None:
    document = json.loads(known_run.splits_file.read_text())
    known_run.splits_file.write_text(json.dumps(document | {"group_by": "official", "column": "part"}))
    record_files(known_run.path, [known_run.splits_file])
    text = render(build_report([known_run.path], images=False), "markdown")
    assert "The test subset is the one that the collection's authors published, as it is." in text
    assert "Slices of one patient may be in several subsets." in text
    assert "by official (column part)" in text
    assert "FigShare's authors" not in text.partition("##")[0]

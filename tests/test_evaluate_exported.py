"""An exported model's figures, measured again from its files and the dataset alone."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from btkeras.export.export import export
from btkeras.runs import open_run
from tests.conftest import CLASSES, copied_run, write_images
from tests.test_cli import btkeras, fails
from tests.test_light import fresh

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def run(calibrated_run: Path) -> Path:
    return calibrated_run


@pytest.fixture(scope="module")
def model(exported_formats: Path) -> Path:
    return exported_formats.parent


@pytest.fixture
def moved(shared_images: Path, tmp_path: Path) -> Path:
    """The run's images, elsewhere and under other names."""
    for label in CLASSES:
        (tmp_path / "moved" / label).mkdir(parents=True)
        for i, file in enumerate(sorted((shared_images / label).iterdir(), reverse=True)):
            shutil.copy(file, tmp_path / "moved" / label / f"slice-{i:02d}.png")
    return tmp_path / "moved"


def test_the_runs_test_figures_come_out_again_without_tensorflow(
    run: Path, model: Path, moved: Path, tmp_path: Path
) -> None:
    result, loaded = fresh("evaluate", model, "--data", moved, "--out", tmp_path / "figures", "--json")
    assert result.returncode == 0, result.stderr
    assert not {"tensorflow", "keras"} & loaded
    expected, found = open_run(run).metrics(), json.loads(result.stdout)
    assert found == json.loads((tmp_path / "figures/metrics.json").read_text())
    assert found["split"] == "test" and found["dataset"] == str(moved)
    for key in ("images", "confusion_matrix", "per_class", "macro", "chance", "broken"):
        assert found[key] == expected[key], key
    assert found["negative_log_likelihood"] == pytest.approx(expected["negative_log_likelihood"], abs=1e-4)
    assert found["selective"] == expected["selective"]
    with (tmp_path / "figures/predictions.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "prediction", *CLASSES] and len(rows) == found["images"]
    assert (tmp_path / "figures/decisions.csv").is_file()


def test_other_parts_are_tested_by_name(run: Path, model: Path, moved: Path) -> None:
    counts = json.loads((run / "splits.json").read_text())["counts"]
    found = json.loads(btkeras("evaluate", model, "--data", moved, "--split", "validation", "--json").stdout)
    assert (found["split"], found["images"]) == ("validation", sum(counts["validation"].values()))
    table = btkeras("evaluate", model, "--data", moved).stdout
    assert f"test accuracy {100 * open_run(run).metrics()['accuracy']:.2f} %" in table


def test_of_another_dataset_all_is_tested(model: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", per_class=3, seed=7)
    found = json.loads(btkeras("evaluate", model, "--data", other, "--json").stdout)
    assert (found["split"], found["images"]) == ("all", 12)


def test_images_it_was_trained_on_are_no_test(model: Path, moved: Path, tmp_path: Path) -> None:
    """Whatever their names, and among whatever others."""
    other = write_images(tmp_path / "other", per_class=3, seed=7)
    shutil.copytree(moved / "glioma", other / "glioma", dirs_exist_ok=True)
    fails(btkeras("evaluate", model, "--data", other), "of training and validation", "whole test subset")
    # Nor is a part of the test part the test part.
    for file in sorted((moved / "pituitary").iterdir())[:8]:
        file.unlink()
    fails(btkeras("evaluate", model, "--data", moved), r"without \d+ of the \d+ images")


def test_a_image_that_was_changed_is_not_the_one_that_was_tested(model: Path, moved: Path) -> None:
    for file in moved.rglob("*.png"):
        with Image.open(file) as opened:
            opened.copy().save(file, compress_level=0)
    found = json.loads(btkeras("evaluate", model, "--data", moved, "--json").stdout)
    assert found["split"] == "all"


def test_of_equal_files_as_many_are_tested_as_the_test_part_had(trained_run: Path, tmp_path: Path) -> None:
    """A file in two parts: which of them is asked makes no difference, how often does."""
    from btkeras.inference.backends import load_backend
    from btkeras.inference.evaluate_exported import evaluate_exported

    run = open_run(trained_run)
    dataset = run.dataset()
    split = run.split(dataset)
    root = shutil.copytree(dataset.root, tmp_path / "images")
    train, test = (next(r for r in subset if r.label == "glioma") for subset in (split.train, split.test))
    shutil.copy(root / test.path, root / train.path)
    copied = copied_run(trained_run, root, tmp_path / "run")
    version = export(copied, tmp_path / "model", formats=("litert",))
    result, metrics = evaluate_exported(load_backend(version), copied.dataset())
    assert metrics["split"] == "test" and len(result.records) == len(split.test)


def test_names_of_images_do_not_travel(model: Path, run: Path) -> None:
    text = (model / "1/assets.extra/image_digests.json").read_text()
    assert ".png" not in text and "000" not in json.loads(text)["test"]
    document = json.loads(text)
    split = json.loads((run / "splits.json").read_text())
    for subset in ("train", "validation", "test"):
        assert {label: len(found) for label, found in document[subset].items()} == split["counts"][subset]


def test_what_cannot_be_evaluated_is_one_message(model: Path, run: Path, moved: Path, tmp_path: Path) -> None:
    fails(btkeras("evaluate", model), "--data DATASET", code=2)
    fails(btkeras("evaluate", model, "--data", moved, "--explain"), "scored on tumours with a box or mask")
    fails(btkeras("evaluate", run, "--out", tmp_path / "x"), "for exported models", code=2)
    old = shutil.copytree(model, tmp_path / "old")
    (old / "1/assets.extra/image_digests.json").unlink()
    fails(btkeras("evaluate", old, "--data", moved), r"without assets\.extra/image_digests\.json")
    other = write_images(tmp_path / "other", per_class=3, seed=7)
    (other / "glioma/000.png").write_text("no image")
    fails(btkeras("evaluate", model, "--data", other), r"1 broken, .*glioma/000\.png", "--skip-broken")
    found = json.loads(btkeras("evaluate", model, "--data", other, "--skip-broken", "--json").stdout)
    assert (found["images"], found["broken"]) == (11, 1)

"""Datasets of other classes than the paper's, from class folders to the page: tumour or none, and five classes."""

from __future__ import annotations

import csv
import json
import logging
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import write_phantom
from btkeras.inference.backends import load_backend
from tests.conftest import CLASSES, TINY
from tests.prepare_files import rows
from tests.serve_tools import b64, running
from tests.test_cli import btkeras, fails

FIVE = ("glioma", "meningioma", "metastasis of a carcinoma", "no_tumor", "pituitary")
SETTINGS = [word for setting in (*TINY, "train.epochs=2") for word in ("--set", setting)]


class Folders(NamedTuple):
    """The phantom's images in class folders of two kinds."""

    binary: Path
    five: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("classes")
    phantom = write_phantom(PhantomConfig(patients=20, slices=4, image_size=48), root / "phantom")
    found = Folders(root / "binary", root / "five")
    for number, record in enumerate(phantom.records):
        own = FIVE[2] if record.label == "glioma" and number % 2 else record.label
        for folder, label in ((found.binary, "no" if own == "no_tumor" else "yes"), (found.five, own)):
            (folder / label).mkdir(parents=True, exist_ok=True)
            shutil.copy(phantom.root / record.path, folder / label)
    return found


class Trained(NamedTuple):
    """A run of two epochs on the dataset that ``prepare`` made of the binary folders, and its export."""

    run: Path
    dataset: Path
    model: Path


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory, folders: Folders) -> Trained:
    root = tmp_path_factory.mktemp("binary")
    found = Trained(root / "run", root / "dataset", root / "tumor_or_not")
    for command in (
        ("prepare", folders.binary, "--out", found.dataset),
        ("audit", found.dataset),
        ("train", "--data", found.dataset, "--out", found.run, *SETTINGS, "--set", "train.class_weight=balanced"),
        ("export", found.run, "--out", found.model, "--format", "litert"),
    ):
        done = btkeras(*command)
        assert done.exit_code == 0, done.output
    return found


def test_yes_and_no_are_tumor_and_no_tumor_everywhere(binary: Trained, folders: Folders) -> None:
    metrics = json.loads((binary.run / "metrics.json").read_text())
    assert metrics["classes"] == ["no_tumor", "tumor"]
    assert metrics["images"] == 16 and metrics["tumor_classes"] is None
    with (binary.run / "predictions.csv").open() as file:
        assert next(csv.reader(file)) == ["path", "label", "prediction", "no_tumor", "tumor"]
    assert {file.name for file in (binary.dataset / "images").iterdir()} == {"no_tumor", "tumor"}
    image = next((folders.binary / "yes").iterdir())
    labels, probabilities = Predictor(binary.model / "1/model.tflite").predict([image])
    assert labels[0] in ("no_tumor", "tumor") and probabilities.shape == (1, 2)


def test_the_dataset_may_be_the_class_folders(folders: Folders, binary: Trained) -> None:
    metrics = btkeras("evaluate", binary.model, "--data", folders.binary, "--json")
    assert metrics.exit_code == 0, metrics.output
    # Known by their content: the run's test subset, under other names.
    assert json.loads(metrics.stdout)["split"] == "test" and json.loads(metrics.stdout)["images"] == 16


def test_a_report_and_a_card_have_the_classes_and_no_figure_of_the_paper(binary: Trained, tmp_path: Path) -> None:
    report, card = tmp_path / "report.md", tmp_path / "card.md"
    for command in (("report", binary.run, "--out", report), ("card", binary.run, "--out", card)):
        done = btkeras(*command)
        assert done.exit_code == 0, done.output
    text = report.read_text().replace("\\", "")
    assert not any(figure in text for figure in ("97.93", "99.44", "899", "misprint", "published protocol", "paper |"))
    assert "Size and speed" in text and "Research use only" in text
    assert "The paper's figures are left out: its classes are glioma, meningioma, no_tumor, pituitary" in text
    assert "Table 1." not in text and "Table 3." not in text and "| tumor |" in text
    assert re.search(r"one of no_tumor, tumor\.", card.read_text().replace("\\", ""))
    assert "pituitary" not in card.read_text()


def test_predictions_of_exports_have_the_classes(binary: Trained, folders: Folders) -> None:
    images = [next((folders.binary / name).iterdir()) for name in ("yes", "no")]
    done = btkeras("predict", *images, "--model", binary.model / "1/model.tflite", "--csv")
    assert done.stdout.startswith("path,label,no_tumor,tumor,error"), done.output
    done = btkeras("predict", *images, "--model", binary.model, "--group-by", "patient", "--json")
    fails(done, "patient")
    table = btkeras("predict", *images, "--model", binary.run).stdout.splitlines()
    assert table[0].split() == ["decision", "no_tumor", "tumor", "ood_percentile", "file"] and len(table) == 3


def test_the_server_and_its_page_have_the_classes(binary: Trained, folders: Folders) -> None:
    data = next((folders.binary / "yes").iterdir()).read_bytes()
    with running(load_backend(binary.model / "1/model.tflite")) as (client, _):
        reply = client.post("/v1/models/tumor_or_not:predict", json={"instances": [{"image_bytes": b64(data)}]})
        page = client.get("/api/model").json()
        shown = client.post("/api/slices", content=data).json()
    (found,) = reply.json()["predictions"]
    assert found["classes"] == page["classes"] == ["no_tumor", "tumor"] and len(found["probabilities"]) == 2
    assert set(shown["probabilities"]) == {"no_tumor", "tumor"}


def test_classes_that_a_model_does_not_know_are_one_error(binary: Trained, folders: Folders) -> None:
    for command in (("evaluate", binary.run), ("evaluate", binary.model), ("calibrate", binary.run)):
        done = btkeras(*command, "--data", folders.five)
        fails(done, "among the model's: no_tumor, tumor.*Received: metastasis of a carcinoma in .*five.*Leave out")


def test_kinds_of_tumours_are_tumours_to_a_model_of_tumour_or_none(binary: Trained, folders: Folders) -> None:
    four = folders.binary.parent / "phantom"
    done = btkeras("evaluate", binary.model, "--data", four, "--json")
    assert "glioma, meningioma, pituitary count as tumor: the model does not know kinds" in done.stderr
    found, own = (json.loads(text) for text in (done.stdout, (binary.run / "metrics.json").read_text()))
    # The same images as the run's own, whose test subset is known by its content.
    assert (found["split"], found["confusion_matrix"]) == ("test", own["confusion_matrix"])


def test_a_model_of_kinds_of_tumours_is_evaluated_on_tumour_or_none(
    trained_run: Path, exported_formats: Path, shared_images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for image in shared_images.glob("*/*.png"):
        target = tmp_path / "detection" / ("no" if image.parent.name == "no_tumor" else "yes")
        target.mkdir(parents=True, exist_ok=True)
        # Other bytes, so that an exported model does not know them as its split's.
        with Image.open(image) as opened:
            opened.save(target / f"{image.parent.name}-{image.name}", compress_level=0)
    run = shutil.copytree(trained_run, tmp_path / "run")
    with caplog.at_level(logging.INFO, "btkeras"):
        metrics = json.loads(btkeras("evaluate", run, "--data", tmp_path / "detection", "--json").stdout)
    assert "glioma, meningioma, pituitary count as tumor" in caplog.text
    refused = btkeras(
        "evaluate", exported_formats, "--data", tmp_path / "detection", "--out", tmp_path / "o", "--explain"
    )
    fails(refused, "tumours with a box or mask")
    assert not (tmp_path / "o").exists()
    boxes = (f"yes/{file.name},0.5,0.5,0.5,0.5" for file in (tmp_path / "detection/yes").iterdir())
    text = "\n".join(("file,x_center,y_center,width,height", *boxes))
    (tmp_path / "detection/boxes.csv").write_text(text)
    for command in ("robustness", "calibrate"):
        fails(btkeras(command, run, "--data", tmp_path / "detection"), "kind of each tumour.*Received: tumor in .*Name")
    for model in (run, exported_formats):
        done = btkeras("evaluate", model, "--data", tmp_path / "detection", "--explain", "--limit", 36, "--json")
        shown = json.loads(done.stdout)
        scores = shown["explanations"]
        assert scores["tumors"] == 36 and scores["images"] == shown["confusion_matrix"][1][1]
        assert all(row["per_class"].keys() == {"tumor"} for row in scores["rows"])
    btkeras("evaluate", run, "--data", shared_images)
    kinds = {
        row["path"].replace("/", "-"): row for row in rows(run / f"evaluations/{shared_images.name}/predictions.csv")
    }
    found = {row["path"].split("/")[1]: row for row in rows(run / "evaluations/detection/predictions.csv")}
    assert found.keys() == kinds.keys() and metrics["classes"] == ["no_tumor", "tumor"]
    right = 0
    for name, row in found.items():
        tumor = sum(float(kinds[name][label]) for label in ("glioma", "meningioma", "pituitary"))
        assert float(row["tumor"]) == pytest.approx(tumor, abs=1e-6)
        right += (tumor > float(kinds[name]["no_tumor"])) == (kinds[name]["label"] != "no_tumor")
    assert metrics["accuracy"] == pytest.approx(right / len(found))
    decisions = rows(run / "evaluations/detection/decisions.csv")
    assert {row["decision"] for row in decisions} == {"no_tumor", "tumor", "rejected"}
    labels = {row["path"]: row["prediction"] for row in rows(run / "evaluations/detection/predictions.csv")}
    assert all(row["decision"] in (labels[row["path"]], "rejected") for row in decisions)


def test_what_needs_the_papers_classes_says_so(folders: Folders, tmp_path: Path) -> None:
    settings = [*SETTINGS, "--set", "augment.lesion_cutmix=0.3"]
    done = btkeras("train", "--data", folders.binary, "--out", tmp_path / "run", *settings)
    fails(done, "augment.cutmix_classes must be classes of the dataset: no_tumor, tumor.*cutmix_classes=")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_saved_model_has_the_classes(binary: Trained, folders: Folders, tmp_path: Path) -> None:
    done = btkeras("export", binary.run, "--out", tmp_path / "saved")
    assert done.exit_code == 0, done.output
    images = [next((folders.binary / name).iterdir()) for name in ("yes", "no")]
    done = btkeras("predict", *images, "--model", tmp_path / "saved", "--json", "--explain", tmp_path / "maps")
    assert [{*each["probabilities"]} for each in json.loads(done.stdout)] == [{"no_tumor", "tumor"}] * 2, done.output
    assert len(list((tmp_path / "maps").iterdir())) == 2


@pytest.mark.slow
def test_five_classes_train_and_export(folders: Folders, tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "five"
    more = ("--set", "train.loss=focal", "--set", "train.class_weight=balanced")
    for command in (
        ("train", "--data", folders.five, "--out", run, *SETTINGS, *more),
        ("report", run),
        ("export", run, "--out", model, "--format", "litert"),
        ("selftest", "--model", model),
    ):
        done = btkeras(*command)
        assert done.exit_code == 0, done.output
    assert Predictor(model).classes == FIVE and set(CLASSES) < set(FIVE)
    head, row = btkeras("predict", next((folders.five / FIVE[2]).iterdir()), "--model", model).stdout.splitlines()
    ends = [head.index(name) + len(name) for name in FIVE]
    assert sum(float(row[end - 6 : end]) for end in ends) == pytest.approx(1, abs=3e-4)

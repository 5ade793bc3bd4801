"""Model cards: every number is the one of the file it comes from, and what was not measured is said."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from btkeras.checksums import record_files, recorded_file
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import RunError
from btkeras.evaluation.calibrate import calibrate
from btkeras.evaluation.evaluate import evaluate_dataset, evaluate_split
from btkeras.evaluation.robustness import measure_robustness
from btkeras.files import write_json
from btkeras.metrics import wilson
from btkeras.reporting.card import card_text
from btkeras.reporting.document import DASH, Text, slug
from btkeras.reporting.report import build_report
from btkeras.reporting.sources import read_source
from btkeras.runs import Run, open_run
from tests.conftest import write_images
from tests.test_cli import btkeras, fails

EXPLANATIONS = {
    "dataset": "/home/someone/data",
    "region": "box",
    "images": 17,
    "rows": [
        {
            "title": "LayerCAM",
            "network": "trained",
            "pointing": 0.7123,
            "pointing_interval": [0.61, 0.79],
            "energy": 0.2345,
            "iou": 0.1234,
        }
    ],
}
SHORTCUTS = {
    "dataset": "/home/someone/data",
    "group_by": "image",
    "rows": [
        {
            "name": "border",
            "shows": "outer 5 % of the image",
            "predicted_by": "random forest",
            "accuracy": 0.8123,
            "chance": 0.3289,
            "detection_accuracy": 0.9876,
            "detection_chance": None,
        }
    ],
}
AUDIT = {
    "dataset": "/home/someone/data",
    "groups": [{"conflicting": True}, {"conflicting": False}, {"conflicting": False}],
    "unreadable": {},
    "split": {
        "images": {"train": 32, "validation": 8, "test": 8},
        "groups_across": 2,
        "test_with_duplicate_in_training": 5,
        "patients_across": {"7": ["train", "test"]},
    },
}
SELECTIVE_ROW = {
    "images": 8,
    "coverage": 0.75,
    "abstained": 0.1875,
    "rejected": 0.0625,
    "accuracy": 0.9512,
    "withheld_accuracy": None,
}


def copied(trained_run: Path, folder: Path) -> Run:
    shutil.copytree(trained_run, folder)
    return open_run(folder)


@pytest.fixture(scope="module")
def measured(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of which everything was measured."""
    run = copied(trained_run, tmp_path_factory.mktemp("cards") / "a_run")
    calibrate(run)
    metrics = evaluate_split(run)
    selective = {**SELECTIVE_ROW, "per_class": {"glioma": {**SELECTIVE_ROW, "coverage": 0.4321}}}
    write_json(run.metrics_file, metrics | {"selective": selective}, recorded_file)
    measure_robustness(run)
    (run.path / "explanations.json").write_text(json.dumps(EXPLANATIONS))
    (run.path / "shortcuts.json").write_text(json.dumps(SHORTCUTS))
    (run.path / "audit.json").write_text(json.dumps(AUDIT))
    other = write_images(tmp_path_factory.mktemp("others") / "elsewhere", per_class=3, seed=5)
    evaluate_dataset(run, Dataset(other, tuple(Record(f"{c}/00{i}.png", c) for c in run.classes() for i in range(3))))
    weights = ["--set", "model.weights=/home/someone/w.h5", "--weights", "/home/someone/first/best.keras"]
    run.update_manifest(
        command=["train", "--data", "/data/mine", *weights, "--out=/runs/a_run"], git_revision="abc1234-dirty"
    )
    return run


@pytest.fixture(scope="module")
def card(measured: Run) -> str:
    return card_text(measured)


def all_rows(card: str, title: str) -> list[list[str]]:
    """The cells of the table under a bold title, without its first column."""
    section = card[card.index(f"**{title}") :]
    lines = section[section.index("\n| ") :].strip().split("\n\n")[0].splitlines()
    return [[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")][1:] for line in lines[2:]]


def rows(card: str, title: str) -> dict[str, list[str]]:
    """The same by the first cell."""
    section = card[card.index(f"**{title}") :]
    lines = section[section.index("\n| ") :].strip().split("\n\n")[0].splitlines()
    firsts = [line.strip("|").split(" | ")[0].strip().replace("\\", "") for line in lines[2:]]
    return dict(zip(firsts, all_rows(card, title), strict=True))


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}"


def with_interval(value: float, interval: Any) -> str:
    return f"{percent(value)} ({percent(interval[0], 1)}{DASH}{percent(interval[1], 1)})"


def test_the_metrics_are_those_of_the_run_with_the_reports_intervals(measured: Run, card: str) -> None:
    metrics = measured.metrics()
    intervals = read_source(measured.path).summary["models"]["tiny"]["intervals"]
    interval = DASH.join(percent(end, 1) for end in intervals["accuracy"])
    share = f"{percent(metrics['accuracy'])} % of {metrics['images']} images (95 % interval {interval})"
    assert rows(card, "At a glance")["test accuracy"] == [share]
    low, high = wilson(round(metrics["accuracy"] * metrics["images"]), metrics["images"])
    assert f"counts each image as independent, is {percent(low, 1)}{DASH}{percent(high, 1)} %" in card
    assert f"most frequent class would get {percent(metrics['chance'])} %" in card


def test_classes_have_intervals_and_none_is_without_width(measured: Run, card: str) -> None:
    metrics = measured.metrics()
    bootstrap = read_source(measured.path).summary["models"]["tiny"]["intervals"]
    table = rows(card, "Metrics per class")
    for name, column in (("precision", 0), ("recall", 1), ("f1", 3)):
        assert table["macro average"][column] == with_interval(metrics["macro"][name], bootstrap[name])
    for i, (label, row) in enumerate(metrics["per_class"].items()):
        assert table[label][4] == str(row["images"])
        for column, name in ((0, "precision"), (1, "recall")):
            found = bootstrap["per_class"][label][name]
            # A class that is never predicted has no precision, and so no interval of it.
            assert (found[0] < found[1]) if found else not any(line[i] for line in metrics["confusion_matrix"])
            assert table[label][column] == (with_interval(row[name], found) if found else percent(row[name]))
    assert rows(card, "Confusion matrix") == {
        label: [str(count) for count in line]
        for label, line in zip(metrics["classes"], metrics["confusion_matrix"], strict=True)
    }


def test_missed_tumors_and_false_alarms_are_counted(measured: Run, card: str) -> None:
    metrics = measured.metrics()
    no_tumor = metrics["classes"].index("no_tumor")
    missed = sum(row[no_tumor] for i, row in enumerate(metrics["confusion_matrix"]) if i != no_tumor)
    wrong = sum(metrics["confusion_matrix"][no_tumor]) - metrics["confusion_matrix"][no_tumor][no_tumor]
    found = rows(card, "At a glance")
    assert found["images of tumours predicted as no_tumor"] == [f"{missed} of 6"]
    assert found["images without a tumour predicted as one"] == [f"{wrong} of 2"]


def test_data_and_split_are_named_with_their_digests(measured: Run, card: str) -> None:
    split = json.loads(measured.splits_file.read_text())
    assert f"`{split['dataset_digest']}`" in card and f"`{split['digest']}`" in card
    counts = [split["counts"][subset]["glioma"] for subset in ("train", "validation", "test")]
    assert rows(card, "Images per class and subset")["glioma"] == [str(n) for n in (*counts, sum(counts))]
    assert "Dataset: images;" in card and "Split: by image, seed 0" in card
    assert "slices of one patient may be in both the training and the test subset" in card


def test_calibration_sets_and_selective_metrics_are_those_of_the_metrics(measured: Run, card: str) -> None:
    figures = measured.metrics()["calibration"]
    stages = (figures["before"], figures["after"])
    table = rows(card, "Calibration of")["tiny"]
    assert table[0] == f"{figures['temperature']:.3f}"
    assert table[1:3] == [percent(stage["ece"]) for stage in stages]
    assert table[4:6] == [f"{stage['brier']:.4f}" for stage in stages]
    assert table[6:8] == [f"{stage['nll']:.4f}" for stage in stages]
    sets = all_rows(card, "How often prediction sets")
    for cells, row in zip(sets, figures["conformal"]["sets"], strict=True):
        assert cells[:2] == [f"{100 * row['coverage']:g}", percent(row["covered"])]
        several = max(0.0, 1 - row["single"] - row["empty"])
        assert cells[3:6] == [percent(share) for share in (row["single"], several, row["empty"])]
    rejection = rows(card, "Selective classification of")
    assert rejection["all classes"] == ["8", "75.00", "18.75", "6.25", "95.12", "—"]
    assert rejection["glioma"][1] == "43.21"


def test_robustness_explanations_shortcuts_and_other_datasets_are_those_of_their_files(
    measured: Run, card: str
) -> None:
    sheet = json.loads((measured.path / "robustness.json").read_text())
    table = rows(card, "tiny: accuracy in percent")
    for row in sheet["corruptions"]:
        assert table[row["name"]][:5] == [percent(level["accuracy"], 1) for level in row["levels"]]
        assert table[row["name"]][7] == percent(row["mean"]["confidence"], 1)
    assert rows(card, "Explanations of 17")["LayerCAM"] == ["trained", f"71.23 (61.0{DASH}79.0)", "23.45", "12.34"]
    found = rows(card, "Prediction without")["border: outer 5 % of the image"]
    assert found == ["random forest", "81.23", "32.89", "98.76", "—"]
    assert rows(card, "Duplicates, also") == {
        "groups of duplicates": ["3"],
        "groups with different labels": ["1"],
        "unreadable images": ["0"],
        "groups in several subsets": ["2"],
        "of 8 test images, with a duplicate in the training subset": ["5"],
        "patients in several subsets": ["1"],
    }
    other = json.loads((measured.path / "evaluations/elsewhere/metrics.json").read_text())
    found = rows(card, "Other datasets")["elsewhere"]
    assert found[:2] == ["12", with_interval(other["accuracy"], wilson(round(12 * other["accuracy"]), 12))]
    assert found[2:4] == [percent(other["macro"]["recall"]), percent(other["chance"])]
    assert found[4] == percent(other["selective"]["coverage"])
    assert "not measured; run: `btkeras ro" not in card and "Nothing here says" not in card


def test_it_is_reproduced_without_the_machines_folders(measured: Run, card: str) -> None:
    assert "git checkout abc1234    # with changes that were not committed\n" in card
    weights = "--set model.weights=w.h5 --weights first/best.keras"
    assert f"\nbtkeras train --data mine {weights} --out=a_run\n" in card
    assert str(measured.path.parent) not in card and "/home" not in card and "/data" not in card
    # An absolute path: a slash after nothing that could be a name, and a name behind it.
    assert not re.search(r"(?<![\w.>\])])[/~]/?\w+", card.replace("\\", ""))


def test_a_fold_is_reproduced_by_its_cross_validations_command(measured: Run, tmp_path: Path) -> None:
    experiment = tmp_path / "cv"
    run = copied(measured.path, experiment / "tiny/fold_1")
    run.update_manifest(fold=1, command=["cv", "--out", "/runs/cv", "--task", "1"])
    (experiment / "splits").mkdir()
    shutil.copy(run.config_file, experiment / "config.yaml")
    (experiment / "manifest.json").write_text(json.dumps({"command": ["cv", "--data", "/data/mine", "--out", "cv"]}))
    card = card_text(run)
    assert "\nbtkeras cv --data mine --out cv\n" in card and "--task" not in card and "btkeras train" not in card
    assert "fold 1 of a cross-validation" in card
    with pytest.raises(RunError, match="one training"):
        card_text(Run(experiment))


def test_an_ensemble_is_reproduced_by_its_runs_commands_and_its_own(measured: Run, tmp_path: Path) -> None:
    run = copied(measured.path, tmp_path / "both")
    members = [
        {"run": name, "command": ["train", "--data", "/data/mine", "--out", name], "git_revision": "abc1234-dirty"}
        for name in ("first", "second")
    ]
    command = ["ensemble", "/runs/first", "second", "--out", "both"]
    calibrated = {"command": ["calibrate", "both", "--data", "/data/elsewhere"], "git_revision": "def5678"}
    began = [{"command": ["train", "--data", "/data/mine", "--out", "/runs/zero"], "git_revision": "aaa1111"}]
    run.update_manifest(
        ensemble={"runs": members, "views": []}, command=command, calibrated=calibrated, began_with=began
    )
    card = card_text(run)
    trained = "".join(f"btkeras train --data mine --out {name}    # at abc1234\n" for name in ("first", "second"))
    last = "btkeras calibrate both --data elsewhere    # at def5678"
    trained = f"btkeras train --data mine --out zero    # at aaa1111\n{trained}"
    assert f"\n{trained}btkeras ensemble first second --out both\n{last}\n```" in card
    assert "one average of trainings: how" in card and "RUN/config.yaml" not in card


def test_what_was_not_measured_is_said_with_the_command_for_it(trained_run: Path, tmp_path: Path) -> None:
    run = copied(trained_run, tmp_path / "bare")
    metrics = {key: value for key, value in run.metrics().items() if key not in ("calibration", "selective")}
    write_json(run.metrics_file, metrics, recorded_file)
    run.update_manifest(command=["-m", "pytest"], git_revision=None)
    card = card_text(run)
    for heading, command in (
        ("Duplicates", "btkeras audit DATASET --splits RUN/splits.json"),
        ("Other datasets", "btkeras evaluate RUN --data OTHER"),
        ("Calibration", "btkeras calibrate RUN"),
        ("Selective classification", "btkeras calibrate RUN"),
        ("Robustness", "btkeras robustness RUN"),
        ("Explanations", "btkeras evaluate RUN --explain"),
        ("Shortcuts", "btkeras shortcuts DATASET"),
    ):
        section = card[card.index(f"### {heading}\n") :].split("\n#")[0]
        assert f"not measured; run: `{command}" in section and "|" not in section
    assert "git checkout" not in card and "pytest" not in card
    assert "Nothing here says how the models do on another hospital's scanner" in card
    uncalibrated = card_text(copied(trained_run, tmp_path / "uncalibrated"))
    assert "The model was not calibrated; run: `btkeras calibrate RUN`" in uncalibrated


def test_what_its_maker_has_to_say_stands_at_its_end(measured: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(measured.path, tmp_path / "run"))
    assert "### Notes" not in card_text(run)
    (run.path / "notes.md").write_text("- Chosen among five by the test part.\n")
    assert "### Notes\n\n- Chosen among five by the test part.\n\n## How to reproduce" in card_text(run)


def test_a_class_of_a_collection_of_its_own_is_pointed_out(measured: Run, tmp_path: Path) -> None:
    run = copied(measured.path, tmp_path / "run")
    root = tmp_path / "sources"
    shutil.copytree(measured.dataset().root, root)
    lines = ["path,label,patient,source"]
    for record in measured.dataset().records:
        lines.append(f"{record.path},{record.label},,{'web' if record.label == 'no_tumor' else 'clinic'}")
    (root / "manifest.csv").write_text("\n".join(lines))
    run.update_manifest(dataset=str(root), sources=["clinic", "web"])
    card = card_text(run)
    assert "No other class comes from the collections of no\\_tumor" in card
    assert rows(card, "Images by collection and class")["web"] == ["0", "0", "12", "0"]
    # Gone, or another one: the card does without.
    shutil.rmtree(root)
    assert "No other class comes" not in card_text(run)


@pytest.mark.parametrize(
    "name", ["audit.json", "explanations.json", "shortcuts.json", "robustness.json", "metrics.json"]
)
def test_a_file_that_is_something_else_is_named(measured: Run, tmp_path: Path, name: str) -> None:
    run = copied(measured.path, tmp_path / "run")
    (run.path / name).write_text('{"rows": 1}')
    record_files(run.path, [run.path / name])
    with pytest.raises(RunError, match=name):
        card_text(run)


def test_the_command_writes_the_file_or_prints_it(measured: Run, card: str, tmp_path: Path) -> None:
    printed = btkeras("card", measured.path, "--out", "-")
    assert printed.stdout == card
    assert btkeras("card", measured.path, "--out", tmp_path / "x.md").stdout.strip() == str(tmp_path / "x.md")
    assert (tmp_path / "x.md").read_text() == card
    assert btkeras("card", measured.path).exit_code == 0
    assert (measured.path / "model_card.md").read_text() == card


def test_what_is_no_evaluated_run_is_one_message(trained_run: Path, tmp_path: Path) -> None:
    fails(btkeras("card", tmp_path), "neither")
    run = copied(trained_run, tmp_path / "run")
    run.metrics_file.unlink()
    fails(btkeras("card", run.path), "btkeras evaluate")


def test_a_report_has_what_was_measured_too_under_names_of_its_own(measured: Run, card: str) -> None:
    report = build_report([measured.path], images=False)
    sections = {title: blocks for title, blocks in report.sections.items() if blocks}
    assert {"Other datasets", "Robustness", "Explanations", "Shortcuts"} <= set(sections)
    (table,) = sections["Explanations"]
    assert [cells[1:] for cells in table.cells] == all_rows(card, "Explanations of")
    # A page has them all as its anchors.
    names = [*map(slug, sections), *(block.name for block in report.blocks if not isinstance(block, Text))]
    assert len(names) == len(set(names))

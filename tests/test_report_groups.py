"""What a report says of grouped splits, and intervals clustered by other groups than the split's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.datasets import Dataset, load_dataset
from btkeras.datasets.dataset import write_manifest
from btkeras.errors import DataError
from btkeras.experiments.experiment import open_experiment
from btkeras.reporting.build import build_report
from btkeras.reporting.document import Report, Table
from btkeras.reporting.sources import read_source, regroup
from tests.conftest import write_images
from tests.fake_experiment import fake_experiment, fake_run


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Class folders of 12 images of 6 patients each."""
    root = write_images(tmp_path_factory.mktemp("named") / "images")
    records = load_dataset(root).records
    write_manifest(root, [replace(r, patient=f"{r.label} {int(Path(r.path).stem) // 2}", source="s") for r in records])
    return load_dataset(root)


def said(report: Report) -> str:
    return "\n".join(line for section in report.sections for b in section.blocks for line in getattr(b, "lines", ()))


def facts(report: Report) -> dict[str, str]:
    tables = [block for section in report.sections for block in section.blocks if isinstance(block, Table)]
    rows = next(table.rows for table in tables if table.name == "source-1")
    return {key.text: value.text for key, value in rows}


def test_a_split_by_patient_is_not_called_inflated(named: Dataset, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2", "data.group_by=patient").path
    text = said(build_report([path], images=False))
    assert "All slices of a patient are on one side of the split" in text
    assert "Take the accuracy as the upper end" not in text and "test images (" not in text
    assert "The split here is by patient; how much of the first fault is left" in text


def test_a_split_by_image_counts_its_relatives_and_shares_the_faults(named: Dataset, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2").path
    text = said(build_report([path], images=False))
    assert "have a slice of the same patient, or an equal file, in the training part" in text
    assert "A report on a split that follows it shares them." in text


def test_intervals_by_other_groups_count_fewer_independent_images(shared_images: Path, tmp_path: Path) -> None:
    """The images with rows, columns or a chequerboard are a series per class by number; those of noise are none."""
    run = fake_run(tmp_path / "run", load_dataset(shared_images), "cv.folds=2")
    plain, other = (build_report([run.path], images=False, intervals_by=group_by) for group_by in (None, "series"))
    assert "24 groups of 24 images, by image" in facts(plain)["intervals"]
    assert "9 groups of 24 images, by series" in facts(other)["intervals"]
    assert "18 of 24 test images (75.00 %) have a near-copy, or a slice that was taken for one" in said(other)
    source = read_source(run.path)
    low, high = regroup(source, "series").summary["models"]["improved_resnet34"]["intervals"]["accuracy"]
    assert (
        source.summary["models"]["improved_resnet34"]["pooled"]
        == (regroup(source, "series").summary["models"]["improved_resnet34"]["pooled"])
    )
    assert low <= source.summary["models"]["improved_resnet34"]["pooled"]["accuracy"] <= high


def test_a_changed_dataset_cannot_be_regrouped(image_folder: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", load_dataset(image_folder), "cv.folds=2")
    (image_folder / "glioma/000.png").unlink()
    with pytest.raises(DataError, match=r"the one that was split.*leave --intervals-by away"):
        build_report([run.path], image_folder=False, intervals_by="series")


def test_the_command_line_splits_by_groups_and_says_what_it_needs(
    named: Dataset, tmp_path: Path, image_folder: Path
) -> None:
    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(main, ["cv", "--plan", "--folds", "3", *map(str, words)])

    done = run("--data", named.root, "--group-by", "patient", "--out", tmp_path / "cv")
    assert done.exit_code == 0, done.output
    split = json.loads((tmp_path / "cv/splits/fold_0.json").read_text())
    assert split["group_by"] == "patient" and open_experiment(tmp_path / "cv").config().data.group_by == "patient"
    groups = [{split["groups"][path] for path in split[part]} for part in ("train", "validation", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    rejected = run("--data", image_folder, "--group-by", "patient", "--out", tmp_path / "none")
    assert rejected.exit_code == 1 and "--group-by series" in rejected.output and not (tmp_path / "none").exists()
    wrong = run("--data", image_folder, "--group-by", "scanner", "--out", tmp_path / "none")
    assert wrong.exit_code == 2 and "series" in wrong.output
    assert (
        CliRunner().invoke(main, ["train", "--data", "x", "--out", "y", "--set", "data.group_by=scanner"]).exit_code
        == 2
    )

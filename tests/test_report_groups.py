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
from tests.conftest import write_pictures
from tests.fake_experiment import fake_experiment, fake_run


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Class folders of 12 pictures of 6 patients each."""
    root = write_pictures(tmp_path_factory.mktemp("named") / "pictures")
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
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2", "data.by=patient").path
    text = said(build_report([path], pictures=False))
    assert "All slices of a patient are on one side of the split" in text
    assert "Take the accuracy as the upper end" not in text and "test pictures (" not in text
    assert "The split here is by patient; how much of the first fault is left" in text


def test_a_split_by_image_counts_its_relatives_and_shares_the_faults(named: Dataset, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2").path
    text = said(build_report([path], pictures=False))
    assert "have a slice of the same patient, or an equal file, in the training part" in text
    assert "A report on a split that follows it shares them." in text


def test_intervals_by_other_groups_count_fewer_independent_pictures(shared_pictures: Path, tmp_path: Path) -> None:
    """The pictures with rows, columns or a chequerboard are a series per class by number; those of noise are none."""
    run = fake_run(tmp_path / "run", load_dataset(shared_pictures), "cv.folds=2")
    plain, other = (build_report([run.path], pictures=False, intervals_by=by) for by in (None, "neighbours"))
    assert "24 groups of 24 pictures, by image" in facts(plain)["intervals"]
    assert "9 groups of 24 pictures, by neighbours" in facts(other)["intervals"]
    assert "18 of 24 test pictures (75.00 %) have a near-copy, or a slice that was taken for one" in said(other)
    source = read_source(run.path)
    low, high = regroup(source, "neighbours").summary["models"]["improved_resnet34"]["intervals"]["accuracy"]
    assert (
        source.summary["models"]["improved_resnet34"]["pooled"]
        == (regroup(source, "neighbours").summary["models"]["improved_resnet34"]["pooled"])
    )
    assert low <= source.summary["models"]["improved_resnet34"]["pooled"]["accuracy"] <= high


def test_a_changed_dataset_cannot_be_regrouped(pictures: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", load_dataset(pictures), "cv.folds=2")
    (pictures / "glioma/000.png").unlink()
    with pytest.raises(DataError, match=r"the one that was split.*leave --intervals-by away"):
        build_report([run.path], pictures=False, intervals_by="neighbours")


def test_the_command_line_splits_by_groups_and_says_what_it_needs(
    named: Dataset, tmp_path: Path, pictures: Path
) -> None:
    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(main, ["cv", "--plan", "--folds", "3", *map(str, words)])

    done = run("--data", named.root, "--by", "patient", "--out", tmp_path / "cv")
    assert done.exit_code == 0, done.output
    split = json.loads((tmp_path / "cv/splits/fold_0.json").read_text())
    assert split["by"] == "patient" and open_experiment(tmp_path / "cv").config().data.by == "patient"
    groups = [{split["groups"][path] for path in split[part]} for part in ("train", "validation", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    refused = run("--data", pictures, "--by", "patient", "--out", tmp_path / "none")
    assert refused.exit_code == 1 and "--by neighbours" in refused.output and not (tmp_path / "none").exists()
    wrong = run("--data", pictures, "--by", "scanner", "--out", tmp_path / "none")
    assert wrong.exit_code == 2 and "neighbours" in wrong.output
    assert CliRunner().invoke(main, ["train", "--data", "x", "--out", "y", "--set", "data.by=scanner"]).exit_code == 2

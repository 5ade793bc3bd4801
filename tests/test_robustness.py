"""The robustness sheet: against images that were changed by hand, and as a command."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import hypergeom
from sklearn.metrics import balanced_accuracy_score

from btkeras.datasets import Record
from btkeras.errors import ConfigError
from btkeras.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt
from btkeras.evaluation.results import read_predictions
from btkeras.evaluation.robustness import MEANS, draw, measure_robustness
from btkeras.reporting.render import write_report
from btkeras.reporting.report import build_report
from btkeras.runs import Run, open_run
from tests.conftest import write_images
from tests.test_cli import btkeras, fails


@pytest.fixture(scope="module")
def run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of a run with its sheet."""
    folder = tmp_path_factory.mktemp("robustness") / "run"
    shutil.copytree(trained_run, folder)
    opened = open_run(folder)
    measure_robustness(opened)
    return opened


@pytest.fixture
def sheet(run: Run) -> dict:
    return json.loads((run.path / "robustness.json").read_text())


def cell(sheet: dict, name: str, level: int) -> dict:
    levels = next(row["levels"] for row in sheet["corruptions"] if row["name"] == name)
    return next(row for row in levels if row["level"] == level)


@pytest.mark.parametrize(("name", "level"), [("noise", 5), ("inversion", 2), ("rotation", 4)])
def test_a_cell_is_what_evaluate_says_of_files_changed_by_hand(
    run: Run, sheet: dict, name: str, level: int, tmp_path: Path
) -> None:
    dataset, changed = run.dataset(), tmp_path / f"changed-{name}"
    for record in run.split(dataset).test:
        file = changed / record.path
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(dataset.root / record.path))[..., None]
        Image.fromarray(corrupt(pixels, name, level)[..., 0]).save(file)
    metrics = json.loads(btkeras("evaluate", run.path, "--data", changed, "--json").stdout)
    _, labels, p = read_predictions(run.evaluations / changed.name / "predictions.csv", run.classes())
    found = cell(sheet, name, level)
    assert found["strength"] == CORRUPTIONS[name].strengths[level - 1]
    assert found["accuracy"] == metrics["accuracy"]
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, p.argmax(axis=1)))
    assert found["confidence"] == pytest.approx(p.max(axis=1).mean(), abs=1e-6)
    assert found["ece"] == pytest.approx(metrics["calibration"]["after"]["ece"], abs=1e-6)


def test_images_as_they_are_give_the_runs_own_figures(run: Run, sheet: dict) -> None:
    metrics = run.metrics()
    assert sheet["images"] == sheet["of"] == metrics["images"]
    assert sheet["clean"]["accuracy"] == metrics["accuracy"]
    assert sheet["clean"]["balanced_accuracy"] == pytest.approx(metrics["macro"]["recall"])
    assert sheet["per_class"] == {label: row["images"] for label, row in metrics["per_class"].items()}
    assert sheet["sampling_error"] == {"largest": 0, "clean": 0}


def test_the_sheet_has_every_corruption_at_every_strength_and_their_means(sheet: dict) -> None:
    assert [row["name"] for row in sheet["corruptions"]] == list(CORRUPTIONS)
    for row in sheet["corruptions"]:
        assert [level["level"] for level in row["levels"]] == list(LEVELS)
    for figure in MEANS:
        cells = [level[figure] for row in sheet["corruptions"] for level in row["levels"]]
        assert sheet["mean"][figure] == pytest.approx(np.mean(cells))
    # The tiny network cannot be right about negatives and noise: the changes do reach it.
    assert sheet["mean"]["accuracy"] < sheet["clean"]["accuracy"]


def test_done_again_it_is_the_same(run: Run, sheet: dict) -> None:
    again = measure_robustness(run)
    assert again | {"seconds": 0} == sheet | {"seconds": 0}


def test_the_image_beside_it_shows_them_all(run: Run) -> None:
    with Image.open(run.path / "robustness.png") as image:
        pixels = np.asarray(image)
    rows = np.array_split(pixels, len(CORRUPTIONS))
    assert len({row.tobytes() for row in rows}) == len(CORRUPTIONS)
    assert min(row.std() for row in rows) > 0


def test_a_sample_is_stratified_and_always_the_same() -> None:
    records = [Record(f"{label}/{i}", label) for label, n in (("a", 500), ("b", 290), ("c", 3)) for i in range(n)]
    drawn = draw(records, 100)
    # 63.05, 36.57 and 0.38, of which one each.
    assert Counter(record.label for record in drawn) == {"a": 63, "b": 36, "c": 1}
    places = [records.index(record) for record in drawn]
    assert len(set(places)) == 100 and places == sorted(places)
    assert draw(records, 100) == drawn != draw(records, 100, seed=1)
    assert draw(records, None) == draw(records, 793) == tuple(records)
    assert Counter(record.label for record in draw(records, 3)) == {"a": 1, "b": 1, "c": 1}
    with pytest.raises(ConfigError, match="image of each class"):
        draw(records, 2)


def test_the_command_takes_a_sample_and_says_how_far_it_may_be_off(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    printed = btkeras("robustness", tmp_path / "run", "--images", 4, "--json")
    document = json.loads(printed.stdout)
    assert document == json.loads((tmp_path / "run/robustness.json").read_text())
    assert document["images"] == 4 and document["of"] == 8 and set(document["per_class"].values()) == {1}
    assert "4 of 8 images" in printed.stderr
    # Wilson's interval is a little narrower than the normal one of this.
    normal = 1.96 * hypergeom(8, 4, 4).std() / 4
    assert 0.7 * normal < document["sampling_error"]["largest"] < normal


def test_another_dataset_gets_a_sheet_of_its_own_as_a_table(run: Run, tmp_path: Path) -> None:
    before = (run.path / "robustness.json").read_bytes()
    printed = btkeras("robustness", run.path, "--data", write_images(tmp_path / "other", per_class=2, seed=1))
    assert (run.path / "robustness.json").read_bytes() == before
    document = json.loads((run.path / "evaluations/other/robustness.json").read_text())
    assert document["split"] == "all" and document["images"] == document["of"] == 8
    for row in document["corruptions"]:
        cells = [f"{100 * level['accuracy']:.1f}" for level in row["levels"]]
        assert any(line.split()[-7:-2] == cells for line in printed.stdout.splitlines() if line.startswith(row["name"]))
    assert f"accuracy {100 * document['clean']['accuracy']:.2f} % as they are" in printed.stdout


def test_what_cannot_be_done_is_one_message(run: Run, tmp_path: Path) -> None:
    fails(btkeras("robustness", run.path, "--images", "some"), "neither a number", code=2)
    fails(btkeras("robustness", run.path, "--images", 1), "image of each class", code=2)
    fails(btkeras("robustness", tmp_path), "config.yaml, splits.json and manifest.json")
    broken = write_images(tmp_path / "broken", per_class=1)
    (broken / "glioma/000.png").write_bytes(b"no image")
    fails(btkeras("robustness", run.path, "--data", broken), "glioma/000.png")
    assert not (run.path / "evaluations/broken").exists()


def test_the_report_shows_the_sheet_of_a_run_that_has_one(
    run: Run, trained_run: Path, sheet: dict, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    write_report(build_report([run.path], images=False), report, "markdown")
    text = report.read_text()
    section = text[text.index("## Robustness") :]
    for row in sheet["corruptions"]:
        cells = " | ".join(f"{100 * level['accuracy']:.1f}" for level in row["levels"])
        assert f"| {row['name']} | {cells} |" in section
    assert len(list((tmp_path / "report_files").glob("robustness-*.svg"))) == 1
    write_report(build_report([trained_run], images=False), report, "markdown")
    assert "## Robustness" not in report.read_text()

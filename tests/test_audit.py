"""``btkeras audit``: planted faults are found, said, and answered with the exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from btkeras.cli import main
from btkeras.config import DataConfig
from btkeras.datasets.dataset import Record, load_dataset, write_manifest
from btkeras.splitting.split_file import save_split
from btkeras.splitting.splits import Split
from tests import planted
from tests.test_cli import btkeras

CLASSES = ("glioma", "no_tumor")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of five images, none like another."""
    root = tmp_path / "dataset"
    for number, label in enumerate(CLASSES):
        (root / label).mkdir(parents=True)
        for seed in range(5):
            planted.noise(10 * number + seed).save(root / label / f"{seed}.png")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


def split_file(root: Path, test: set[str], target: Path) -> Path:
    """A splits.json with these images in the test part, one more in validation."""
    dataset = load_dataset(root)
    tested = tuple(record for record in dataset.records if record.path in test)
    first, *others = (record for record in dataset.records if record.path not in test)
    save_split(Split(tuple(others), (first,), tested, DataConfig().split_seed), dataset, target)
    return target


def brighter(source: Path, target: Path) -> None:
    Image.open(source).point([min(255, value + 4) for value in range(256)]).save(target)


def test_a_clean_dataset_passes(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0
    assert "No leakage and no broken file was found." in result.stdout
    assert "No image is a duplicate of another." in result.stdout


def test_duplicates_without_a_split_are_no_failure(folder: Path) -> None:
    brighter(folder / "glioma/0.png", folder / "glioma/9.png")
    (folder / "no_tumor/9.png").write_bytes((folder / "no_tumor/0.png").read_bytes())
    result = run(folder, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0 and not found["failed"]
    assert [[member["path"] for member in group["members"]] for group in found["groups"]] == [
        ["glioma/0.png", "glioma/9.png"],
        ["no_tumor/0.png", "no_tumor/9.png"],
    ]
    assert [group["exact"] for group in found["groups"]] == [False, True]
    assert [group["exact_duplicates"] for group in found["groups"]] == [0, 1]
    assert "2 images are redundant, 1 of them pixel for pixel." in run(folder).stdout
    assert found["duplicates"]["glioma"] == {
        "images": 6,
        "exact_groups": 0,
        "near_groups": 1,
        "in_groups": 2,
        "largest": 2,
        "distinct": 5,
    }


def test_duplicates_across_a_split(folder: Path, tmp_path: Path) -> None:
    brighter(folder / "glioma/3.png", folder / "glioma/8.png")
    brighter(folder / "glioma/3.png", folder / "glioma/9.png")
    splits = split_file(folder, {"glioma/8.png", "glioma/9.png", "no_tumor/0.png"}, tmp_path / "splits.json")
    result = run(folder, "--splits", splits)
    assert result.exit_code == 1
    assert "2 of 3 test and 0 of 1 validation images have a duplicate in training" in result.stdout
    assert "has leakage." in result.stderr
    assert not (tmp_path / "audit.json").exists()
    inside = split_file(folder, {"glioma/3.png", "glioma/8.png", "glioma/9.png"}, tmp_path / "inside.json")
    assert run(folder, "--splits", inside).exit_code == 0


def test_conflicting_labels(folder: Path) -> None:
    brighter(folder / "glioma/2.png", folder / "no_tumor/9.png")
    result = run(folder)
    assert result.exit_code == 1
    assert "CONFLICTING LABELS: 1 group" in result.stdout
    assert "glioma/2.png (glioma), no_tumor/9.png (no_tumor)" in result.stdout


def test_patients_across_a_split(folder: Path, tmp_path: Path) -> None:
    records = load_dataset(folder).records
    # The same number from two hospitals is two patients.
    named = {"glioma/0.png": ("7", "a"), "glioma/1.png": ("7", "a"), "glioma/2.png": ("7", "b")}
    write_manifest(folder, [Record(r.path, r.label, *named.get(r.path, ("", ""))) for r in records])
    splits = split_file(folder, {"glioma/1.png"}, tmp_path / "splits.json")
    result = run(folder, "--splits", splits, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert found["split"]["patients_across"] == {"a 7": ["validation", "test"]}
    apart = split_file(folder, {"glioma/2.png"}, tmp_path / "apart.json")
    assert json.loads(run(folder, "--splits", apart, "--json").stdout)["split"]["patients_across"] == {
        "a 7": ["train", "validation"]
    }


def test_patients_whom_published_folds_divide(folder: Path) -> None:
    records = load_dataset(folder).records
    # Two examinations of a patient in different folds, two of another in one, and a patient with one id in both.
    named = {
        "glioma/0.png": ("MR1B", "2"),
        "glioma/1.png": ("MR1C", "1"),
        "glioma/2.png": ("MR2", "1"),
        "glioma/3.png": ("MR2B", "1"),
        "glioma/4.png": ("7", "1"),
        "no_tumor/0.png": ("7", "2"),
    }
    columns = [(record, *named.get(record.path, ("", ""))) for record in records]
    write_manifest(folder, [Record(r.path, r.label, name, extra={"official_fold": fold}) for r, name, fold in columns])
    result = run(folder)
    said = "2 of 3 patients (3 ids; 4 of 6 slices, 66.7%)"
    assert result.exit_code == 0 and f"The published folds (official_fold) divide {said}" in result.stdout
    result = run(folder, "--split-column", "official_fold")
    assert result.exit_code == 1 and f"PATIENTS ACROSS THE SPLIT: {said} have slices in several" in result.stdout
    assert "MR1: fold 1, fold 2" in result.stdout
    brighter(folder / "glioma/3.png", folder / "glioma/0.png")
    found = json.loads(run(folder, "--split-column", "official_fold", "--json").stdout)
    assert found["split"]["images"] == {"fold 1": 4, "fold 2": 2}
    assert found["official_folds_divide"] == found["split"]["divided"]
    assert found["split"]["divided"] == {"patients": 2, "ids": 3, "slices": 4, "of_patients": 3, "of_slices": 6}
    assert "1 group in several folds; 2 of 6 images have a duplicate in another." in " ".join(found["findings"])


def test_overlap_with_another_dataset(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for number, label in enumerate(CLASSES):
        (other / label).mkdir(parents=True)
        planted.noise(100 + number).save(other / label / "new.png")
    assert run(folder, "--against", other).exit_code == 0
    flipped = Image.open(folder / "glioma/4.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    flipped.save(other / "glioma" / "known.png")
    result = run(folder, "--against", other)
    assert result.exit_code == 1
    assert "OVERLAP: 1 of 10 images (10.0%)" in result.stdout
    assert "No image is a duplicate of another." in result.stdout


def test_what_is_in_another_dataset_changes_nothing_that_is_said_of_this_one(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "glioma/0.png", folder / "glioma/1.png")
    shutil.copy(folder / "no_tumor/0.png", folder / "no_tumor/1.png")
    brighter(folder / "no_tumor/0.png", folder / "no_tumor/2.png")
    other = tmp_path / "other"
    for label in CLASSES:
        (other / label).mkdir(parents=True)
    for label in CLASSES:
        for number in range(20):
            # Of one of ours, and of one of its own, which also has two classes there.
            shutil.copy(folder / "glioma/0.png", other / label / f"copy{number}.png")
            shutil.copy(folder / "no_tumor/4.png", other / "no_tumor" / f"{label}{number}.png")
            planted.noise(99).save(other / label / f"own{number}.png")
    mirrored = Image.open(folder / "no_tumor/3.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(other / "no_tumor/mirrored.png")
    (other / "glioma/broken.png").write_bytes(b"no image")
    alone, compared = (json.loads(run(folder, *more, "--json").stdout) for more in ((), ("--against", other)))
    about_both = ("against", "overlap", "unreadable_there", "findings", "leakage", "failed")
    assert {key: compared[key] for key in compared if key not in about_both} == {
        key: alone[key] for key in alone if key not in about_both
    }
    text = run(folder, "--against", other)
    assert "3 images are redundant, 2 of them pixel for pixel." in text.stdout
    # Ours have one class each; what the other dataset calls them is said of the overlap.
    assert alone["findings"] == [] and "CONFLICTING" not in text.stdout
    assert "OVERLAP: 4 of 10 images (40.0%)" in text.stdout
    assert "In 1 group (2 images) the class differs." in text.stdout
    assert "BROKEN FILES: " not in text.stdout and f"BROKEN FILES in {other}: 1 could not be compared." in text.stdout
    assert f"{folder} has leakage. {other} has broken files." in text.stderr
    assert sorted(len(group["members"]) for group in compared["overlap"]) == [2, 41, 42]


def test_broken_files_are_named_and_fail(folder: Path) -> None:
    (folder / "glioma/1.png").write_bytes(b"no image")
    result = run(folder)
    assert result.exit_code == 1
    assert "BROKEN FILES: 1 cannot be read." in result.stdout and "glioma/1.png" in result.stdout
    assert "has broken files." in result.stderr


def test_statistics_are_of_each_class(folder: Path) -> None:
    Image.new("RGB", (50, 30), (200, 200, 200)).save(folder / "no_tumor/5.jpg")
    found = json.loads(run(folder, "--json").stdout)
    glioma, no_tumor = found["statistics"]
    assert (glioma["sizes"], glioma["commonest_size"], glioma["modes"]) == (1, [64, 64], {"L": 5})
    assert (no_tumor["count"], no_tumor["smallest"], no_tumor["modes"]) == (6, 30, {"L": 5, "RGB": 1})
    assert glioma["mean"] == pytest.approx(127.5, abs=2) and glioma["contrast"] == pytest.approx(73.9, abs=2)


def test_the_page_shows_the_groups_and_needs_nothing_else(folder: Path, tmp_path: Path) -> None:
    brighter(folder / "glioma/2.png", folder / "no_tumor/<b>.png")
    for number in range(8):
        brighter(folder / "glioma/0.png", folder / "glioma" / f"copy{number}.png")
    page = tmp_path / "audit.html"
    assert run(folder, "--html", page).exit_code == 1
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") >= 8
    assert "and 4 more" in text and "&lt;b&gt;" in text and "<b>.png" not in text
    assert "CONFLICTING LABELS" in text and "http" not in text.replace("http-equiv", "")


def test_what_is_no_dataset_or_no_split_is_one_message(folder: Path, tmp_path: Path) -> None:
    missing = run(tmp_path / "nowhere")
    assert missing.exit_code == 1 and "A dataset must be a folder" in missing.stderr
    (tmp_path / "splits.json").write_text("{}")
    other = run(folder, "--splits", tmp_path / "splits.json")
    assert other.exit_code == 1 and "must hold the lists" in other.stderr


def test_the_audit_of_a_runs_split_is_on_its_card(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained_run, tmp_path / "run")
    result = run(shared_images, "--splits", copy / "splits.json", "--json")
    assert json.loads((copy / "audit.json").read_text()) == json.loads(result.stdout)
    card = btkeras("card", copy, "--out", "-")
    assert card.exit_code == 0, card.output
    assert "btkeras audit DATASET" not in card.stdout

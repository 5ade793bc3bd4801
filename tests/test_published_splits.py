"""Splits that a collection's authors published: their test part exactly, and validation from their training part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.cli import main
from btkeras.config import CVConfig, DataConfig
from btkeras.datasets import Dataset, Record, load_dataset
from btkeras.datasets.dataset import write_manifest
from btkeras.errors import ConfigError, DataError
from btkeras.splitting.split_file import load_split, save_split
from btkeras.splitting.splits import SUBSETS, Split, make_folds, make_split

# As the authors of collections, challenges and competitions write them in folders' names and tables.
SPELLINGS = [
    ("Training", "Testing", "Validation"),
    ("train", "test", "val"),
    ("TRAIN", "TEST", "VALID"),
    ("train_set", "Test Set", "validation-set"),
    ("Train_Data", "test_images", "dev"),
    ("trn", "tst", "valid"),
    ("tr", "te", "val_split"),
    ("trainset", "testset", "devset"),
]


def collection(columns: Sequence[str] = ("subset",), values: Sequence[str] = ("train", "train", "test")) -> Dataset:
    """24 images of each of two classes, whose columns take the values in turns."""
    records = [
        Record(f"{label}/{number:02d}.png", label, extra=dict.fromkeys(columns, value))
        for label in ("glioma", "no_tumor")
        for number, value in zip(range(24), cycle(values), strict=False)
    ]
    return Dataset(Path("images"), tuple(records))


def official(dataset: Dataset, column: str = "", seed: int = 0) -> Split:
    return make_split(dataset, DataConfig(group_by="official", split_column=column, split_seed=seed))


def said(split: Split, name: str, column: str = "subset") -> set[str]:
    """What the column says of a subset's images."""
    return {record.extra[column] for record in split.subset(name)}


def test_the_test_subset_is_the_published_one_and_validation_is_taken_from_training() -> None:
    split = official(collection())
    assert (said(split, "test"), said(split, "train"), said(split, "validation")) == ({"test"}, {"train"}, {"train"})
    sizes = {name: len(split.subset(name)) for name in SUBSETS}
    # A fifth of each class's 16, rounded down.
    assert sizes == {"train": 26, "validation": 6, "test": 16}
    other = official(collection(), seed=1)
    assert other.test == split.test and other.validation != split.validation


@pytest.mark.parametrize(("train", "test", "validation"), SPELLINGS)
def test_a_published_validation_subset_is_used_however_it_is_spelt(train: str, test: str, validation: str) -> None:
    split = official(collection(["split"], [train, test, validation]), "split")
    assert [said(split, name, "split") for name in SUBSETS] == [{train}, {validation}, {test}]


def test_groups_are_in_one_of_training_and_validation_and_no_test_image_moves(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "btkeras")
    plain = collection(values=["train"] * 9 + ["test"] * 3)
    records = [replace(r, patient=str(int(r.path[-6:-4]) // 5), source=r.label) for r in plain.records]
    split = official(Dataset(plain.root, tuple(records)))
    assert said(split, "test") == {"test"} and len(split.test) == 12
    holders = [{(r.source, r.patient) for r in split.subset(name)} for name in SUBSETS]
    assert not holders[0] & holders[1]
    assert "published split: 6 groups are in its test part and outside it" in caplog.text


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=12, max_size=40),
    tested=st.lists(st.booleans(), min_size=240, max_size=240),
    seed=st.integers(0, 5),
)
def test_whatever_the_groups_the_test_subset_is_exact_and_validation_parts_none(
    sizes: list[int], tested: list[bool], seed: int
) -> None:
    records, values = [], iter(tested)
    for number, size in enumerate(sizes):
        label = ("glioma", "no_tumor")[number % 2]
        # Each class has enough groups outside the test part, and some images in it.
        fixed = {0: "train", 1: "train", 2: "test"}.get(number // 2 % 3) if number < 12 else None
        for i in range(size):
            value = fixed or ("test" if next(values) else "train")
            records.append(Record(f"{label}/{number}_{i}.png", label, str(number), "s", {"subset": value}))
    images = Dataset(Path("images"), tuple(sorted(records, key=lambda record: record.path)))
    config = DataConfig(group_by="official", split_seed=seed, validation_fraction=0.5)
    try:
        split = make_split(images, config)
    except DataError as error:
        assert "enough" in str(error)
        return
    assert {r.path for r in split.test} == {r.path for r in records if r.extra["subset"] == "test"}
    assert not {r.patient for r in split.train} & {r.patient for r in split.validation}
    assert sorted(r.path for name in SUBSETS for r in split.subset(name)) == [r.path for r in images.records]


@pytest.mark.parametrize("column", ["split", "part", "set", "partition"])
def test_other_projects_columns_are_named(column: str) -> None:
    assert said(official(collection([column]), column), "test", column) == {"test"}
    with pytest.raises(DataError, match=r"neither in the columns official_fold and subset.*--split-column"):
        official(collection([column]))


def test_of_two_published_splits_one_must_be_named() -> None:
    both = collection(["subset"])
    folds = [replace(r, extra={**r.extra, "official_fold": str(i % 5 + 1)}) for i, r in enumerate(both.records)]
    both = Dataset(both.root, tuple(folds))
    with pytest.raises(DataError, match=r"one published split.*--split-column official_fold or --split-column subset"):
        official(both)
    assert said(official(both, "subset"), "test") == {"test"}
    assert said(official(both, "official_fold", seed=3), "test", "official_fold") == {"4"}


def test_images_without_a_subset_are_counted_and_named() -> None:
    known = collection().records
    other = tuple(Record(f"no_tumor/x{i}.png", "no_tumor", source="br35h") for i in range(7))
    message = r"7 of 55 images without a value in the column subset \(7 no_tumor of br35h\).*train or test into"
    with pytest.raises(DataError, match=message):
        official(Dataset(Path("images"), (*known, *other)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "test", "holdout"], r"train, test or validation.*'holdout' of 16 images in the column subset"),
        (["1", "2", "3"], r"'1' of 16 images \(and 2 other values\)"),
        (["train"], "no glioma in test, no no_tumor in test"),
        (["test", "val"], "no glioma in train"),
    ],
)
def test_a_column_that_is_no_split_is_refused(values: Sequence[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        official(collection(values=values))


@pytest.mark.parametrize("column", ["splitt", "label"])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(column: str) -> None:
    with pytest.raises(DataError, match=f"column of manifest.csv.*'{column}'; the dataset has subset"):
        official(collection(), column)


def test_a_column_is_of_official_splits_only() -> None:
    with pytest.raises(ConfigError, match=r"split_column must go with data\.group_by=official only.*'part'"):
        DataConfig(split_column="part")


def test_folds_have_the_published_test_subset_and_rotate_the_validation() -> None:
    images = collection()
    folds = make_folds(images, DataConfig(group_by="official"), CVConfig(folds=4, test="fixed"))
    assert all(fold.test == official(images).test and fold.column == "subset" for fold in folds)
    validated = sorted(record.path for fold in folds for record in fold.validation)
    assert validated == [record.path for record in images.records if record.extra["subset"] == "train"]
    with pytest.raises(DataError, match=r"fixed test subset.*rotating for the column subset.*--test fixed"):
        make_folds(images, DataConfig(group_by="official"), CVConfig())


@pytest.mark.parametrize("column", ["subset", "official_fold"])
def test_the_split_says_which_column_it_is_of(tmp_path: Path, column: str) -> None:
    values = ["train", "test"] if column == "subset" else list("12345")
    images = collection([column], values)
    split = official(images)
    save_split(split, images, tmp_path / "splits.json")
    assert json.loads((tmp_path / "splits.json").read_text())["column"] == column
    assert load_split(tmp_path / "splits.json", images) == split
    assert split.without([images.records[0].path]).column == column


@pytest.fixture
def with_column(image_folder: Path) -> Path:
    """The dataset with a column ``part``: each class's first two images are tested, and are copies of later ones."""
    for path in image_folder.glob("*/00[01].png"):
        path.write_bytes(path.with_name(f"01{path.stem[-1]}.png").read_bytes())
    records = load_dataset(image_folder).records
    parts = ["Testing" if "/00" in r.path and r.path[-5] in "01" else "Training" for r in records]
    write_manifest(image_folder, [replace(r, extra={"part": part}) for r, part in zip(records, parts, strict=True)])
    return image_folder


def test_the_commands_take_the_column(with_column: Path, tmp_path: Path) -> None:
    column, out = ["--split-column", "part"], tmp_path / "cv"
    made = CliRunner().invoke(main, ["cv", "--data", str(with_column), "--out", str(out), *column, "--plan"])
    assert made.exit_code == 1 and "fixed test subset" in made.output
    options = ["--data", str(with_column), "--out", str(out), *column, "--test", "fixed", "--plan", "--folds", "2"]
    assert CliRunner().invoke(main, ["cv", *options]).exit_code == 0
    document = json.loads((out / "splits/fold_1.json").read_text())
    assert document["group_by"] == "official" and len(document["test"]) == 8
    found = CliRunner().invoke(main, ["shortcuts", str(with_column), *column, "--json"])
    assert {row["images"] for row in json.loads(found.stdout)["rows"]} == {8}
    audited = CliRunner().invoke(main, ["audit", str(with_column), *column])
    assert "8 of 8 test and 0 of 0 validation images have a duplicate in training" in audited.output


def test_audit_takes_a_whole_published_part_by_itself(with_column: Path) -> None:
    assert "No split was audited" in CliRunner().invoke(main, ["audit", str(with_column)]).output
    records = [replace(r, extra={"subset": r.extra["part"]}) for r in load_dataset(with_column).records]
    write_manifest(with_column, records)
    audited = CliRunner().invoke(main, ["audit", str(with_column)])
    assert audited.exit_code == 1
    assert "8 of 8 test and 0 of 0 validation images have a duplicate in training" in audited.output
    # An image without a value is in no part.
    write_manifest(with_column, [replace(records[0], extra={"subset": ""}), *records[1:]])
    assert "No split was audited" in CliRunner().invoke(main, ["audit", str(with_column)]).output

"""Training, validation and test: the paper's sizes, made once, and verified whenever they are read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.config import CVConfig, DataConfig
from btkeras.datasets import Dataset, Record, load_dataset
from btkeras.errors import DataError
from btkeras.files import digest
from btkeras.splitting.split_file import files_digest, load_split, save_split
from btkeras.splitting.splits import SUBSETS, Split, make_folds, make_split, split_sizes
from tests.conftest import CLASSES

PAPER = {"glioma": (1426, 285, 228, 913), "meningioma": (708, 141, 113, 454)}
PAPER |= {"no_tumor": (1436, 287, 229, 920), "pituitary": (930, 186, 148, 596)}


def dataset(**counts: int) -> Dataset:
    records = [Record(f"{label}/{number:04d}.png", label) for label, count in counts.items() for number in range(count)]
    return Dataset(Path("images"), tuple(sorted(records, key=lambda record: record.path)))


SMALL = dataset(glioma=20, no_tumor=15)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_split(make_split(SMALL, DataConfig()), SMALL, tmp_path / "splits.json")
    return tmp_path / "splits.json"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(("count", "test", "validation", "train"), PAPER.values(), ids=PAPER)
def test_sizes_are_those_of_the_papers_table_1(count: int, test: int, validation: int, train: int) -> None:
    assert split_sizes(count, DataConfig()) == (train, validation, test)


def test_a_split_of_the_papers_dataset_has_its_sizes_in_every_class() -> None:
    split = make_split(dataset(**{label: sizes[0] for label, sizes in PAPER.items()}), DataConfig())
    for label, (_, *sizes) in PAPER.items():
        subsets = (split.test, split.validation, split.train)
        assert [sum(record.label == label for record in subset) for subset in subsets] == sizes
    assert [len(subset) for subset in subsets] == [899, 718, 2883]


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.7])
def test_a_fraction_that_gives_a_whole_number_gives_that_number(fraction: float) -> None:
    for tens in range(1, 200):
        assert split_sizes(10 * tens, DataConfig(test_fraction=fraction))[2] == round(fraction * 10) * tens


@settings(max_examples=15, derandomize=True)
@given(
    counts=st.lists(st.integers(5, 80), min_size=2, max_size=4),
    seed=st.integers(0, 9),
    test=st.sampled_from([0.2, 0.3, 0.5]),
)
def test_every_image_is_in_exactly_one_subset(counts: list[int], seed: int, test: float) -> None:
    images = dataset(**{f"class_{number}": count for number, count in enumerate(counts)})
    config = DataConfig(split_seed=seed, test_fraction=test, validation_fraction=0.4)
    split = make_split(images, config)
    together = sorted((record for name in SUBSETS for record in split.subset(name)), key=lambda record: record.path)
    assert tuple(together) == images.records
    for name in SUBSETS:
        assert {record.label for record in split.subset(name)} == set(images.classes)
        assert list(split.subset(name)) == sorted(split.subset(name), key=lambda record: record.path)


def test_the_same_seed_is_the_same_split_and_another_seed_another() -> None:
    first, again, other = (make_split(SMALL, DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first.test != other.test


def test_the_order_in_which_files_were_found_does_not_matter() -> None:
    reverse = Dataset(SMALL.root, SMALL.records[::-1])
    assert make_split(reverse, DataConfig()) == make_split(SMALL, DataConfig())


def test_this_seed_gives_this_split_for_good() -> None:
    names = [record.path for record in make_split(SMALL, DataConfig()).test]
    assert names == [
        "glioma/0001.png",
        "glioma/0009.png",
        "glioma/0014.png",
        "glioma/0015.png",
        "no_tumor/0000.png",
        "no_tumor/0008.png",
        "no_tumor/0009.png",
    ]


@pytest.mark.parametrize("few", [1, 2, 4])
def test_too_few_images_of_a_class_are_refused_by_its_name(few: int) -> None:
    with pytest.raises(
        DataError, match=rf"enough images .*\. Received: {few} of pituitary.*'test': 0.*\. Add"
    ) as caught:
        make_split(dataset(glioma=20, pituitary=few), DataConfig())
    assert "data.test_fraction" in str(caught.value)


def test_five_images_of_each_class_are_enough_for_the_paper_protocol_when_validation_is_larger() -> None:
    split = make_split(dataset(glioma=5, pituitary=5), DataConfig(validation_fraction=0.25))
    assert [len(split.subset(name)) for name in SUBSETS] == [6, 2, 2]


def test_a_subset_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DataError, match=r"one of train, validation, test\. Received: 'dev'"):
        make_split(SMALL, DataConfig()).subset("dev")


def test_a_split_without_some_images_keeps_the_others() -> None:
    split = make_split(SMALL, DataConfig(split_seed=3))
    gone = {split.train[0].path, split.test[1].path, "not/there.png"}
    rest = split.without(gone)
    assert rest.train == split.train[1:]
    assert rest.validation == split.validation
    assert rest.test == (split.test[0], *split.test[2:])
    assert rest.seed == 3


def test_a_saved_split_is_read_back(saved: Path) -> None:
    assert load_split(saved, SMALL) == make_split(SMALL, DataConfig())
    document = json.loads(saved.read_text())
    assert document["group_by"] == "image"
    assert document["counts"]["test"] == {"glioma": 4, "no_tumor": 3}


def test_a_split_of_before_there_were_groups_is_read(saved: Path) -> None:
    def age(document: dict[str, Any]) -> None:
        del document["group_by"], document["groups"]

    split = load_split(edit(saved, age), SMALL)
    assert split == make_split(SMALL, DataConfig())
    assert split.group_by == "image" and split.groups == {}


def test_the_key_of_an_older_version_is_refused_with_its_new_name(saved: Path) -> None:
    saved.write_text(saved.read_text().replace('"group_by": "image"', '"by": "neighbours"'))
    with pytest.raises(DataError, match=r"must have the current names\. Received: by\. `by` was renamed to `group_by`"):
        load_split(saved, SMALL)


def test_the_file_of_a_split_by_image_is_that_of_version_0_1_but_for_a_key(saved: Path) -> None:
    # So finished runs and new ones can be compared by their files.
    old = saved.read_text().replace('"group_by"', '"by"')
    assert hashlib.sha256(old.encode()).hexdigest()[:16] == "317d64a7447d31f8"


def test_a_split_that_leaves_images_out_is_read_back(saved: Path) -> None:
    split = make_split(SMALL, DataConfig()).without([SMALL.records[0].path])
    save_split(split, SMALL, saved)
    assert load_split(saved, SMALL) == split


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["train"].pop(),
        lambda document: document["test"].append(document["train"].pop()),
        lambda document: document["train"].reverse(),
        lambda document: document["train"].append(7),
        lambda document: document.update(digest="0" * 64),
    ],
)
def test_an_edited_split_is_refused(saved: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(DataError, match=r"must be as it was written\..*Restore it, or start a new run"):
        load_split(edit(saved, change), SMALL)


@pytest.mark.parametrize("key", [*SUBSETS, "seed", "digest", "dataset_digest"])
def test_a_split_without_one_of_its_entries_is_refused(saved: Path, key: str) -> None:
    with pytest.raises(DataError, match=rf"must hold the lists .*\. Received: nothing, or something else, as {key}\."):
        load_split(edit(saved, lambda document: document.pop(key)), SMALL)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '"train"', "\udcff"])
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "splits.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"splits\.json must (be a readable|hold)"):
        load_split(path, SMALL)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json must be a readable splits.json.*No such file"):
        load_split(tmp_path / "none.json", SMALL)


def test_an_image_in_two_subsets_is_refused(tmp_path: Path) -> None:
    split = make_split(SMALL, DataConfig())
    twice = replace(split, test=(*split.test, split.train[0]))
    save_split(twice, SMALL, tmp_path / "splits.json")
    with pytest.raises(DataError, match=f"one subset of a split only.*{split.train[0].path}"):
        load_split(tmp_path / "splits.json", SMALL)


def test_an_image_of_another_dataset_is_refused(tmp_path: Path) -> None:
    split = Split(SMALL.records[:5], SMALL.records[5:9], (Record("glioma/other.png", "glioma"),))
    save_split(split, SMALL, tmp_path / "splits.json")
    with pytest.raises(DataError, match=r"glioma/other\.png is missing"):
        load_split(tmp_path / "splits.json", SMALL)


@pytest.mark.parametrize(
    ("records", "difference"),
    [
        (SMALL.records[1:], r"glioma/0000\.png is missing\."),
        (SMALL.records[3:], r"glioma/0000\.png is missing \(and 2 more\)"),
        ((*SMALL.records, Record("glioma/new.png", "glioma")), r"glioma/new\.png is new\."),
        ((replace(SMALL.records[0], label="no_tumor"), *SMALL.records[1:]), "labels have changed"),
    ],
    ids=["removed", "several removed", "added", "relabelled"],
)
def test_a_changed_dataset_is_refused(saved: Path, records: tuple[Record, ...], difference: str) -> None:
    with pytest.raises(DataError, match=f"made for.*images, where {difference}"):
        load_split(saved, Dataset(Path("images"), records))


def test_the_digest_of_a_dataset_is_about_paths_and_labels_and_not_about_order() -> None:
    same = [replace(record, patient="9", source="else") for record in reversed(SMALL.records)]
    assert files_digest(same) == files_digest(SMALL.records)
    assert files_digest(same[1:]) != files_digest(same)


# --- folds ---


def paths(records: Iterable[Record]) -> Counter[str]:
    return Counter(record.path for record in records)


def counts(records: tuple[Record, ...]) -> Counter[str]:
    return Counter(record.label for record in records)


@settings(max_examples=10)
@given(
    sizes=st.lists(st.integers(12, 60), min_size=2, max_size=4),
    folds=st.integers(2, 6),
    seed=st.integers(0, 5),
    test=st.sampled_from(["rotating", "fixed"]),
)
def test_subsets_never_overlap_and_hold_everything(sizes: list[int], folds: int, seed: int, test: str) -> None:
    images = dataset(**dict(zip(CLASSES, sizes, strict=False)))
    splits = make_folds(images, DataConfig(split_seed=seed), CVConfig(folds=folds, test=test))
    assert len(splits) == folds
    for split in splits:
        assert paths(chain(*(split.subset(subset) for subset in SUBSETS))) == paths(images.records)
        assert all(counts(split.subset(subset)).keys() == set(images.classes) for subset in SUBSETS)


@settings(max_examples=10)
@given(sizes=st.lists(st.integers(12, 60), min_size=2, max_size=4), folds=st.integers(2, 6))
def test_rotating_tests_every_image_once_in_folds_that_differ_by_one(sizes: list[int], folds: int) -> None:
    images = dataset(**dict(zip(CLASSES, sizes, strict=False)))
    tests = [split.test for split in make_folds(images, DataConfig(), CVConfig(folds=folds))]
    assert paths(chain(*tests)) == paths(images.records)
    for label in images.classes:
        each = [counts(test)[label] for test in tests]
        assert max(each) - min(each) <= 1
    assert max(map(len, tests)) - min(map(len, tests)) <= 1


def test_fixed_keeps_the_papers_test_subset_and_rotates_the_validation() -> None:
    images = dataset(**{label: sizes[0] for label, sizes in PAPER.items()})
    splits = make_folds(images, DataConfig(), CVConfig(test="fixed"))
    single = make_split(images, DataConfig())
    assert all(split.test == single.test for split in splits)
    assert paths(chain(*(split.validation for split in splits))) == paths([*single.train, *single.validation])
    # Table 1 of the paper: 718 of 3,601 images validate, 113 of the meningiomas.
    assert {len(split.validation) for split in splits} <= {720, 721}
    assert {counts(split.validation)["meningioma"] for split in splits} == {113, 114}


def test_the_same_seed_gives_the_same_folds_and_another_seed_others() -> None:
    images = dataset(glioma=30, no_tumor=30)
    first, again, other = (make_folds(images, DataConfig(split_seed=seed), CVConfig()) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("sizes", "folds"), [({"glioma": 4, "no_tumor": 30}, 5), ({"glioma": 3, "no_tumor": 30}, 3)])
def test_a_class_with_too_few_images_is_refused(sizes: dict[str, int], folds: int) -> None:
    with pytest.raises(DataError, match=f"Received: {sizes['glioma'] if folds == 5 else 2} of glioma"):
        make_folds(dataset(**sizes), DataConfig(), CVConfig(folds=folds))


@pytest.mark.parametrize(("test", "expected"), [("rotating", "77874954bba56fc7"), ("fixed", "e77ecea7582955e5")])
def test_this_seed_gives_these_folds_by_image_for_good(test: str, expected: str) -> None:
    splits = make_folds(dataset(glioma=20, no_tumor=15), DataConfig(group_by="image"), CVConfig(test=test))
    lines = [f"{name}\n{record.path}" for split in splits for name in SUBSETS for record in split.subset(name)]
    assert digest(lines)[:16] == expected


def test_groups_survive_saving(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "glioma/copy.png").write_bytes((image_folder / "glioma/000.png").read_bytes())
    loaded = load_dataset(image_folder)
    split = make_split(loaded, DataConfig())
    save_split(split, loaded, tmp_path / "splits.json")
    assert set(split.groups) == {"glioma/000.png", "glioma/copy.png"}
    assert load_split(tmp_path / "splits.json", loaded) == split

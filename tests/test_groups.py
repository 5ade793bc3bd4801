"""Groups of images that belong in one subset, and how whole groups are split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from btkeras.config import GROUPINGS, CVConfig, DataConfig
from btkeras.datasets import Dataset, Record
from btkeras.errors import DataError
from btkeras.splitting.groups import count_groups, find_groups, group_records
from btkeras.splitting.split_file import load_split, save_split
from btkeras.splitting.splits import SUBSETS, Split, make_folds, make_split, split_sizes
from btkeras.splitting.stratified import split_groups, split_records
from tests.conftest import CLASSES
from tests.test_series import sequence


class Duplicates:
    """In the place of ``find_near_duplicates``: finds what it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.sets: list[list[str]] = []
        self.asked: list[list[str]] = []

    def __call__(self, paths: Sequence[Path], progress: Callable[[Sequence[Path]], Iterable[Path]]) -> SimpleNamespace:
        files = list(progress(paths))
        self.asked += [[file.name for file in files]] * bool(files)
        found = [[file for file in files if file.name in one] for one in self.sets]
        return SimpleNamespace(groups=lambda: [group for group in found if len(group) > 1])


@pytest.fixture
def duplicates(monkeypatch: pytest.MonkeyPatch) -> Duplicates:
    fake = Duplicates()
    monkeypatch.setattr("btkeras.splitting.duplicates.find_near_duplicates", fake)
    return fake


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "btkeras")
    return caplog


def patients(sizes: dict[str, Sequence[int]], **extra: str) -> list[Record]:
    """Records of patients with so many slices, by class."""
    return [
        Record(f"{label}/{number:03d}_{slice_:02d}.png", label, f"{label}-{number}", "s", extra)
        for label, own in sizes.items()
        for number, count in enumerate(own)
        for slice_ in range(count)
    ]


def dataset(records: Iterable[Record], root: Path = Path("images")) -> Dataset:
    return Dataset(root, tuple(sorted(records, key=lambda record: record.path)))


def counts(records: Iterable[Record]) -> Counter[str]:
    return Counter(record.label for record in records)


def holders(split: Split) -> list[set[str]]:
    """The groups of each subset."""
    return [{split.groups.get(record.path, record.path) for record in split.subset(name)} for name in SUBSETS]


MANY = {label: [3, 5, 2, 8, 4, 6, 1, 7, 3, 5, 4, 9, 2, 6, 3, 4, 5, 5, 8, 3, 6, 2, 4, 7] for label in CLASSES}


# --- groups ---


def test_by_image_groups_are_those_of_the_intervals(duplicates: Duplicates) -> None:
    images = dataset(patients({"glioma": [3, 2], "no_tumor": [1, 4]}))
    assert group_records(images, "image") == find_groups(images)
    assert duplicates.asked == []


def test_groups_are_patients_or_else_equal_files(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    known = [Record(f"x{i}", "glioma", patient="7", source="s") for i in range(2)]
    elsewhere = Record("y", "glioma", patient="7", source="t")
    files = [Record(name, "no_tumor") for name in "abc"]
    groups = find_groups(Dataset(tmp_path, (*known, elsewhere, *files)))
    assert groups["x0"] == groups["x1"] and groups["a"] == groups["b"] and len(groups) == 4
    assert count_groups(["x0", "x1", "y", "a", "b", "c"], groups) == 4


def test_by_duplicate_joins_near_copies_and_the_patients_they_belong_to(
    duplicates: Duplicates, log: pytest.LogCaptureFixture
) -> None:
    unnamed = [Record(f"no_tumor/{name}.png", "no_tumor") for name in "abcd"]
    images = dataset([*patients({"glioma": [2, 2, 2]}), *unnamed])
    # The second patient's first slice is a copy of the first's last; c is a copy of b, which is one of a.
    duplicates.sets = [["000_01.png", "001_00.png"], ["a.png", "b.png"], ["b.png", "c.png"]]
    groups = group_records(images, "duplicate")
    joined = {frozenset(path for path in groups if groups[path] == name) for name in groups.values()}
    assert joined == {
        frozenset({"glioma/000_00.png", "glioma/000_01.png", "glioma/001_00.png", "glioma/001_01.png"}),
        frozenset({"glioma/002_00.png", "glioma/002_01.png"}),
        frozenset({"no_tumor/a.png", "no_tumor/b.png", "no_tumor/c.png"}),
    }
    assert groups["glioma/002_00.png"] == "patient s glioma-2"
    assert count_groups([record.path for record in images.records], groups) == 4
    assert "grouped by duplicate: 4 groups of 10 images, 1 of which stand alone" in log.text


def test_by_patient_compares_only_images_that_name_none_and_says_how_many(
    duplicates: Duplicates, log: pytest.LogCaptureFixture
) -> None:
    elsewhere = replace(patients({"glioma": [1]})[0], path="t.png", source="t")
    images = dataset([*patients({"glioma": [2]}), elsewhere, *(Record(f"{name}.png", "no_tumor") for name in "ab")])
    duplicates.sets = [["a.png", "b.png"], ["000_00.png", "t.png"]]
    groups = group_records(images, "patient")
    # An id is unique within its source only.
    assert groups["glioma/000_00.png"] == groups["glioma/000_01.png"] and "t.png" not in groups
    assert groups["a.png"] == groups["b.png"]
    assert duplicates.asked == [["a.png", "b.png"]]
    assert "2 name no patient and are grouped by near-duplicates only" in log.text


@pytest.mark.parametrize(
    ("group_by", "message"),
    [("patient", r"name their patient.*--group-by series"), ("official", r"folds of FigShare's authors.*cvind\.mat")],
)
def test_what_no_image_names_is_refused_with_what_to_do(group_by: str, message: str) -> None:
    images = dataset([Record("a.png", "glioma"), Record("b.png", "no_tumor")])
    with pytest.raises(DataError, match=message):
        make_split(images, DataConfig(group_by=group_by))


def test_by_series_joins_series_of_images_without_id_and_near_copies(
    duplicates: Duplicates, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    unnamed = [Record(f"n/{number}.png", "no_tumor") for number in range(6)]
    images = dataset([*patients({"glioma": [2, 3]}), *unnamed])
    duplicates.sets = [["1.png", "4.png"]]
    bands = dict(zip([f"{number}.png" for number in range(6)], sequence([2, 1, 2, 1], 0.95), strict=True))
    monkeypatch.setattr("btkeras.splitting.series._band", lambda file: bands[file.name])
    groups = group_records(images, "series")
    assert {path: groups.get(path) for path in (f"n/{i}.png" for i in range(6))} == {
        **dict.fromkeys(["n/0.png", "n/1.png", "n/3.png", "n/4.png"], "group n/0.png"),
        **dict.fromkeys(["n/2.png", "n/5.png"]),
    }
    assert set(groups.values()) == {"group n/0.png", "patient s glioma-0", "patient s glioma-1"}


def test_by_series_is_refused_where_numbers_say_nothing(duplicates: Duplicates, tmp_path: Path) -> None:
    records = [Record(f"{name}.png", label) for name, label in (("a", "glioma"), ("b", "no_tumor"))]
    with pytest.raises(DataError, match=r"numbered patient by patient.*--group-by duplicate"):
        group_records(dataset(records, tmp_path), "series")


def test_what_was_found_is_kept_until_a_file_changes(
    duplicates: Duplicates, tmp_path: Path, image_folder: Path
) -> None:
    from btkeras.datasets import load_dataset

    duplicates.sets = [["000.png", "001.png"]]
    first = group_records(load_dataset(image_folder), "duplicate", tmp_path / "cache")
    assert group_records(load_dataset(image_folder), "duplicate", tmp_path / "cache") == first
    assert len(duplicates.asked) == 1
    (image_folder / "glioma/000.png").write_bytes((image_folder / "glioma/002.png").read_bytes() + b" ")
    group_records(load_dataset(image_folder), "duplicate", tmp_path / "cache")
    assert len(duplicates.asked) == 2
    (image_folder / "glioma/001.png").unlink()
    group_records(load_dataset(image_folder), "duplicate", tmp_path / "cache")
    assert len(duplicates.asked) == 3


def test_a_cache_that_cannot_be_written_costs_time_only(
    duplicates: Duplicates, tmp_path: Path, image_folder: Path, log: pytest.LogCaptureFixture
) -> None:
    from btkeras.datasets import load_dataset

    (tmp_path / "file").write_text("in the way")
    duplicates.sets = [["000.png", "001.png"]]
    loaded = load_dataset(image_folder)
    assert group_records(loaded, "duplicate", tmp_path / "file") == group_records(loaded, "duplicate")
    assert "groups are not cached" in log.text


# --- splits by group ---

GROUPS = st.lists(st.integers(1, 12), min_size=8, max_size=30)


@settings(max_examples=12)
@given(own=st.lists(GROUPS, min_size=2, max_size=4), seed=st.integers(0, 50))
def test_no_group_is_on_two_sides_and_every_class_in_every_subset(own: list[list[int]], seed: int) -> None:
    images = dataset(patients(dict(zip(CLASSES, own, strict=False))))
    split = make_split(images, DataConfig(split_seed=seed, group_by="patient"))
    assert sorted(r.path for name in SUBSETS for r in split.subset(name)) == [r.path for r in images.records]
    assert all(counts(split.subset(name)).keys() == set(images.classes) for name in SUBSETS)
    train, validation, test = holders(split)
    assert not (train & validation or train & test or validation & test)
    assert (
        make_split(Dataset(images.root, images.records[::-1]), DataConfig(split_seed=seed, group_by="patient")) == split
    )


@settings(max_examples=10)
@given(
    own=st.lists(GROUPS, min_size=2, max_size=4),
    folds=st.integers(2, 3),
    seed=st.integers(0, 5),
    test=st.sampled_from(["rotating", "fixed"]),
)
@example(own=[[1] * 8, [*[1] * 7, 10]], folds=2, seed=0, test="rotating")
def test_folds_part_no_group_and_rotating_ones_test_every_image_once(
    own: list[list[int]], folds: int, seed: int, test: str
) -> None:
    images = dataset(patients(dict(zip(CLASSES, [[*sizes, 1, 1, 1] for sizes in own], strict=False))))
    splits = make_folds(images, DataConfig(split_seed=seed, group_by="patient"), CVConfig(folds=folds, test=test))
    assert len(splits) == folds
    for split in splits:
        assert counts(chain(*(split.subset(name) for name in SUBSETS))) == counts(images.records)
        assert all(counts(split.subset(name)).keys() == set(images.classes) for name in SUBSETS)
        train, validation, tested = holders(split)
        assert not (train & validation or train & tested or validation & tested)
    rotating = [split.test if test == "rotating" else split.validation for split in splits]
    rest = images.records if test == "rotating" else (*splits[0].train, *splits[0].validation)
    assert sorted(r.path for subset in rotating for r in subset) == sorted(r.path for r in rest)


@settings(max_examples=8)
@given(own=st.lists(GROUPS, min_size=2, max_size=4), seed=st.integers(0, 5))
def test_five_folds_test_every_image_once(own: list[list[int]], seed: int) -> None:
    images = dataset(patients(dict(zip(CLASSES, own, strict=False))))
    splits = make_folds(images, DataConfig(split_seed=seed, group_by="patient"), CVConfig())
    assert sorted(r.path for split in splits for r in split.test) == [r.path for r in images.records]


@settings(max_examples=12)
@given(alone=st.lists(st.integers(20, 60), min_size=2, max_size=4), seed=st.integers(0, 20))
def test_images_that_stand_alone_give_the_sizes_of_a_split_by_image(alone: list[int], seed: int) -> None:
    own = {label: [1] * count for label, count in zip(CLASSES, alone, strict=False)}
    split = make_split(dataset(patients(own)), DataConfig(split_seed=seed, group_by="patient"))
    for label, sizes in own.items():
        assert tuple(counts(split.subset(name))[label] for name in SUBSETS) == split_sizes(len(sizes), DataConfig())


def test_sizes_by_patient_are_close_to_those_by_image() -> None:
    images = dataset(patients(MANY))
    for seed in range(6):
        split = make_split(images, DataConfig(split_seed=seed, group_by="patient"))
        for label in CLASSES:
            wanted = split_sizes(sum(MANY[label]), DataConfig())
            got = [counts(split.subset(name))[label] for name in SUBSETS]
            # The smallest group has one image, the mean four or five.
            assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) <= 3


def test_large_groups_are_as_often_in_the_test_part_as_others() -> None:
    sizes = np.array([[12]] * 6 + [[2]] * 80)
    targets = np.array([[0.64], [0.16], [0.2]]) * sizes.sum()
    drawn = [split_groups(sizes, targets, np.random.default_rng(seed))[:6] for seed in range(60)]
    share = float((np.stack(drawn) == 2).mean())
    # 360 draws: a standard error of 0.021 if they were independent.
    assert share == pytest.approx(0.2, abs=0.07)


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_as_even_as_those_of_scikit_learn(seed: int) -> None:
    records = patients({label: np.random.default_rng(seed).integers(1, 25, 25).tolist() for label in CLASSES})
    groups = find_groups(dataset(records))
    labels = np.array([record.label for record in records])
    names = [groups.get(record.path, record.path) for record in records]
    sizes = {label: [count / 5] * 5 for label, count in counts(records).items()}

    def unevenness(subsets: list[Counter[str]]) -> float:
        return sum((subset[label] - sizes[label][0]) ** 2 / sizes[label][0] for subset in subsets for label in CLASSES)

    ours = unevenness([counts(p) for p in split_records(records, groups, sizes, np.random.default_rng(seed))])
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, names)
    assert ours <= max(1.0, unevenness([Counter(labels[tested].tolist()) for _, tested in folds]))


def test_a_group_larger_than_a_subset_is_said(log: pytest.LogCaptureFixture) -> None:
    images = dataset(patients({"glioma": [40, 40, 40], "no_tumor": [1] * 60}))
    split = make_split(images, DataConfig(group_by="patient"))
    assert [counts(split.subset(name))["glioma"] for name in SUBSETS] == [40, 40, 40]
    assert "test has 40 images of glioma where 24 were wanted" in log.text


@pytest.mark.parametrize("group_by", ["patient", "duplicate"])
def test_a_class_with_fewer_groups_than_subsets_is_refused(duplicates: Duplicates, group_by: str) -> None:
    images = dataset(patients({"glioma": [10, 10], "no_tumor": [1] * 30}))
    with pytest.raises(DataError, match=r"enough groups for every subset.*no glioma left for (test|validation)"):
        make_split(images, DataConfig(group_by=group_by))
    with pytest.raises(DataError, match=r"enough groups for every subset.*no glioma left for fold \d"):
        make_folds(images, DataConfig(group_by=group_by), CVConfig())


# --- the folds of FigShare's authors ---


def figshare(unnamed: int = 25, shift: int = 0) -> Dataset:
    named = [
        replace(record, extra={"official_fold": str((int(record.patient.rpartition("-")[2]) + shift) % 5 + 1)})
        for record in patients({"glioma": MANY["glioma"], "meningioma": MANY["glioma"]})
    ]
    return dataset([*named, *(Record(f"no_tumor/{i:03d}.png", "no_tumor") for i in range(unnamed))])


def test_each_fold_tests_an_official_fold(duplicates: Duplicates) -> None:
    images = figshare()
    duplicates.sets = [["000.png", "001.png", "002.png"]]
    splits = make_folds(images, DataConfig(group_by="official"), CVConfig())
    for fold, split in enumerate(splits):
        assert {record.extra["official_fold"] for record in split.test if record.patient} == {str(fold + 1)}
        assert sum(not record.patient for record in split.test) == 5
        train, validation, test = holders(split)
        assert not (train & validation or train & test or validation & test)
    tested = [record.path for split in splits for record in split.test]
    assert sorted(tested) == [record.path for record in images.records]
    for seed in (0, 6):
        single = make_split(images, DataConfig(group_by="official", split_seed=seed))
        assert {record.extra["official_fold"] for record in single.test if record.patient} == {str(seed % 5 + 1)}
        assert single.group_by == "official"


def test_there_are_as_many_folds_as_official_ones(duplicates: Duplicates) -> None:
    with pytest.raises(DataError, match=r"as many folds as there are.*cv\.folds = 4 for 5.*--folds 5"):
        make_folds(figshare(), DataConfig(group_by="official"), CVConfig(folds=4))


def test_official_folds_that_divide_a_patient_are_kept_and_logged(
    duplicates: Duplicates, log: pytest.LogCaptureFixture
) -> None:
    records = list(figshare().records)
    odd = next(i for i, record in enumerate(records) if record.path == "glioma/003_00.png")
    records[odd] = replace(records[odd], extra={"official_fold": "1"})
    splits = make_folds(dataset(records), DataConfig(group_by="official"), CVConfig())
    assert records[odd] in splits[0].test
    assert log.text.count("official folds divide 1 of ") == 1
    assert "patients (1 ids; " in log.text and "--group-by patient keeps patients together" in log.text


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", "²"])
def test_an_official_fold_that_is_no_number_is_refused(duplicates: Duplicates, text: str) -> None:
    records = list(figshare().records)
    records[0] = replace(records[0], extra={"official_fold": text})
    with pytest.raises(DataError, match="An official_fold must be a number from 1 on"):
        make_split(dataset(records), DataConfig(group_by="official"))


# --- on disk ---


@pytest.mark.parametrize("group_by", GROUPINGS)
def test_a_split_says_by_what_it_was_made(duplicates: Duplicates, tmp_path: Path, group_by: str) -> None:
    images = figshare()
    duplicates.sets = [["000.png", "001.png"]]
    if group_by == "series":
        images = dataset(record for record in images.records if record.patient)
    split = make_split(images, DataConfig(group_by=group_by)).without([images.records[0].path])
    save_split(split, images, tmp_path / "splits.json")
    loaded = load_split(tmp_path / "splits.json", images)
    assert loaded == split and loaded.group_by == group_by
    assert loaded.groups == group_records(images, group_by)

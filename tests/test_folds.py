"""The folds of a cross-validation: every image tested once, classes dealt evenly, groups known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.config import CVConfig, DataConfig
from btkeras.datasets import Dataset, Record, load_dataset
from btkeras.errors import DataError
from btkeras.files import digest
from btkeras.splitting.groups import count_groups, find_groups
from btkeras.splitting.splits import SUBSETS, load_split, make_folds, make_split, save_split
from tests.conftest import CLASSES
from tests.test_splits import PAPER, dataset


def paths(records: Iterable[Record]) -> Counter[str]:
    return Counter(record.path for record in records)


def counts(records: tuple[Record, ...]) -> Counter[str]:
    return Counter(record.label for record in records)


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(12, 60), min_size=2, max_size=4),
    folds=st.integers(2, 6),
    seed=st.integers(0, 5),
    test=st.sampled_from(["rotating", "fixed"]),
)
def test_parts_never_overlap_and_hold_everything(sizes: list[int], folds: int, seed: int, test: str) -> None:
    images = dataset(**dict(zip(CLASSES, sizes, strict=False)))
    splits = make_folds(images, DataConfig(split_seed=seed), CVConfig(folds=folds, test=test))
    assert len(splits) == folds
    for split in splits:
        assert paths(chain(*(split.subset(subset) for subset in SUBSETS))) == paths(images.records)
        assert all(counts(split.subset(subset)).keys() == set(images.classes) for subset in SUBSETS)


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(12, 60), min_size=2, max_size=4), folds=st.integers(2, 6))
def test_rotating_tests_every_image_once_in_folds_that_differ_by_one(sizes: list[int], folds: int) -> None:
    images = dataset(**dict(zip(CLASSES, sizes, strict=False)))
    tests = [split.test for split in make_folds(images, DataConfig(), CVConfig(folds=folds))]
    assert paths(chain(*tests)) == paths(images.records)
    for label in images.classes:
        each = [counts(test)[label] for test in tests]
        assert max(each) - min(each) <= 1
    assert max(map(len, tests)) - min(map(len, tests)) <= 1


def test_fixed_keeps_the_papers_test_part_and_rotates_the_validation() -> None:
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


def test_groups_are_patients_or_else_equal_files(tmp_path: Path) -> None:
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    known = [Record(f"x{i}", "glioma", patient="7", source="s") for i in range(2)]
    elsewhere = Record("y", "glioma", patient="7", source="t")
    files = [Record(name, "no_tumor") for name in "abc"]
    groups = find_groups(Dataset(tmp_path, (*known, elsewhere, *files)))
    assert groups["x0"] == groups["x1"] and groups["a"] == groups["b"] and len(groups) == 4
    assert count_groups(["x0", "x1", "y", "a", "b", "c"], groups) == 4


def test_groups_survive_saving(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "glioma/copy.png").write_bytes((image_folder / "glioma/000.png").read_bytes())
    loaded = load_dataset(image_folder)
    split = make_split(loaded, DataConfig())
    save_split(split, loaded, tmp_path / "splits.json")
    assert set(split.groups) == {"glioma/000.png", "glioma/copy.png"}
    assert load_split(tmp_path / "splits.json", loaded) == split

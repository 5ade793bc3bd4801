"""The run folder: where results go."""

from __future__ import annotations

from pathlib import Path

import pytest

from btkeras.datasets import load_dataset
from btkeras.errors import ConfigError
from btkeras.runs import Run
from tests.conftest import write_images


def test_the_test_subset_is_the_runs_own_and_other_subsets_have_folders(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.create_results() == run
    assert run.create_results("validation").metrics_file == tmp_path / "evaluations/validation/metrics.json"
    assert run.create_results("validation").path.is_dir()


@pytest.mark.parametrize("name", ["other", "validation"])
def test_datasets_of_one_name_have_folders_of_their_own_that_stay_theirs(tmp_path: Path, name: str) -> None:
    run = Run(tmp_path / "run")
    run.create_results("validation")
    first = load_dataset(write_images(tmp_path / "a" / name, per_class=1))
    second = load_dataset(write_images(tmp_path / "b" / name, per_class=1, seed=1))
    folders = [run.create_results("test", dataset).path for dataset in (first, second, first, second)]
    assert folders[:2] == folders[2:] and folders[0] != folders[1] != run.create_results("validation").path
    assert all(folder.parent == run.evaluations and folder.name.startswith(name) for folder in folders)
    assert (folders[0].name == name) == (name == "other")


def test_a_dataset_that_moved_keeps_its_folder(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    folder = run.create_results("test", load_dataset(write_images(tmp_path / "a/other", per_class=1))).path
    (tmp_path / "a").rename(tmp_path / "b")
    assert run.create_results("test", load_dataset(tmp_path / "b/other")).path == folder


def test_a_run_of_an_older_version_says_what_was_renamed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.config_file.write_text("data:\n  by: patient\n")
    with pytest.raises(ConfigError, match=r"`data\.by` was renamed to `data\.group_by`"):
        run.config()

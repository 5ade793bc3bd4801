"""An image that was replaced after a run has begun is noticed, and a copied dataset is the same."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btkeras.config import ExperimentConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import DataError, RunError
from btkeras.experiments.experiment import create_experiment
from btkeras.experiments.single_run import run_job
from btkeras.preprocessing.decode import decode_file, pixel_digest
from btkeras.runs import Run, open_run
from btkeras.splitting.fingerprints import changed_images, check_images, read_fingerprints, write_fingerprints
from btkeras.training import trainer
from tests.conftest import TINY, write_images
from tests.test_cli import btkeras, fails


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, ``images``, and a run that has begun, ``run``; read only."""
    folder = tmp_path_factory.mktemp("begun")
    dataset = load_dataset(write_images(folder / "images"))
    trainer.begin(load_config(None, (*TINY, "data.cache=disk")), dataset, folder / "run")
    return folder


@pytest.fixture
def own(tmp_path: Path, begun: Path) -> Path:
    """A copy of it for a test that changes it."""
    copy = Path(shutil.copytree(begun, tmp_path / "own"))
    Run(copy / "run").update_manifest(dataset=str(copy / "images"))
    return copy


def invert(file: Path) -> None:
    """Inverts an image in place; the file keeps its size."""
    with Image.open(file) as image:
        pixels = 255 - np.asarray(image)
    size = file.stat().st_size
    # Less noise takes less room, which bytes behind the image's end fill.
    Image.fromarray(pixels & 0xF0).save(file)
    with file.open("ab") as opened:
        opened.write(b"\0" * (size - file.stat().st_size))
    assert file.stat().st_size == size


def test_every_image_of_the_split_is_recorded_as_it_is(begun: Path) -> None:
    found = read_fingerprints(begun / "run/images.csv")
    assert found.keys() == {record.path for record in load_dataset(begun / "images").records}
    for path, each in found.items():
        file = begun / "images" / path
        state = file.stat()
        assert each == (state.st_size, state.st_mtime_ns, pixel_digest(decode_file(file)))


def test_a_cache_from_an_earlier_run_knows_the_pixels_too(tmp_path: Path, begun: Path) -> None:
    config = load_config(None, (*TINY, "data.cache=disk"))
    run, images = trainer.begin(config, load_dataset(begun / "images"), tmp_path / "run")
    assert "from an earlier run" in images.caches["train"].location
    assert run.images_file.read_bytes() == (begun / "run/images.csv").read_bytes()


@pytest.mark.parametrize("keep_size", [False, True])
def test_resuming_names_the_images_that_were_replaced(own: Path, keep_size: bool) -> None:
    for number in range(7):
        file = own / f"images/glioma/{number:03d}.png"
        if keep_size:
            invert(file)
        else:
            shutil.copyfile(own / f"images/pituitary/{number:03d}.png", file)
    first = ", ".join(f"glioma/{number:03d}.png" for number in range(5))
    failed = btkeras("train", "--resume", "--out", own / "run")
    fails(failed, f"7 in {own}/images that changed: {first} and 2 more", "Restore them, or start a new run")
    assert not (own / "run/history.csv").exists()


def test_a_replaced_image_of_the_same_size_and_time_is_found_when_it_is_decoded(own: Path) -> None:
    file = own / "images/glioma/003.png"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    invert(file)
    os.utime(file, ns=times)
    check_images(own / "run/images.csv", own / "images")
    fails(btkeras("train", "--resume", "--out", own / "run"), r"1 in .* that changed: glioma/003\.png")


def test_a_dataset_with_other_times_is_compared_once_by_its_pixels(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = read_fingerprints(own / "run/images.csv")
    for path in known:
        (own / "images" / path).touch()
    caplog.set_level("INFO", "btkeras")
    assert [changed_images(known, own / "images") for _ in range(2)] == [[], []]
    assert sum("comparing 48 images" in text for text in caplog.messages) == 1


def test_the_same_pixels_in_another_file_are_another_file_but_a_gone_one_is_named(own: Path) -> None:
    known = read_fingerprints(own / "run/images.csv")
    with Image.open(own / "images/glioma/000.png") as image:
        image.load()
    image.save(own / "images/glioma/000.png", compress_level=0)
    (own / "images/glioma/001.png").unlink()
    assert changed_images(known, own / "images") == ["glioma/000.png", "glioma/001.png"]


def test_a_broken_image_that_was_left_out_may_change(
    tmp_path: Path, tiny_config: Callable[..., ExperimentConfig]
) -> None:
    images = write_images(tmp_path / "images")
    (images / "glioma/005.png").write_bytes(b"no image")
    run, _ = trainer.begin(tiny_config(), load_dataset(images), tmp_path / "run", skip_broken=True)
    assert read_fingerprints(run.images_file)["glioma/005.png"].pixels == ""
    shutil.copyfile(images / "glioma/004.png", images / "glioma/005.png")
    run.split(run.dataset())


def test_runs_of_earlier_versions_have_no_fingerprints(own: Path) -> None:
    (own / "run/images.csv").unlink()
    fails(btkeras("train", "--resume", "--out", own / "run"), r"images\.csv must be as it was written", "that is gone")
    Run(own / "run").update_manifest(files={})
    (own / "images/glioma/000.png").write_bytes((own / "images/glioma/001.png").read_bytes())
    run = open_run(own / "run")
    assert run.split(run.dataset()).train


def test_a_finished_run_is_evaluated_on_its_own_images_only(tmp_path: Path, trained_run: Path) -> None:
    run = Run(Path(shutil.copytree(trained_run, tmp_path / "run")))
    images = Path(shutil.copytree(run.dataset().root, tmp_path / "images"))
    run.update_manifest(dataset=str(images))
    for path in read_fingerprints(run.images_file):
        if path.startswith("pituitary"):
            invert(images / path)
    for command in ("evaluate", "evaluate --split train", "calibrate", "robustness"):
        fails(btkeras(*command.split(), run.path), "12 in .* that changed: pituitary/000.png")
    quantized = btkeras("export", run.path, "--out", tmp_path / "out", "--format", "litert", "--quantize", "int8")
    fails(quantized, "Quantization needs the run's dataset", "that changed: pituitary/000.png")


def test_a_damaged_record_is_one_message(own: Path) -> None:
    text = (own / "run/images.csv").read_text()
    (own / "run/images.csv").write_text(text[: len(text) // 3])
    run = open_run(own / "run")
    with pytest.raises((RunError, DataError), match=r"images\.csv"):
        run.split(run.dataset())


def test_a_fold_starts_on_the_images_of_the_folds_before(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    dataset = load_dataset(write_images(tmp_path / "images"))
    config = load_config(None, (*TINY, "cv.models=[lbp_knn]", "cv.folds=2"))
    experiment = create_experiment(tmp_path / "cv", config, dataset)
    run_job(experiment, 0)
    shutil.copyfile(tmp_path / "images/glioma/000.png", tmp_path / "images/glioma/001.png")
    with pytest.raises(DataError, match=r"that changed: glioma/001\.png"):
        run_job(experiment, 1)


def test_five_thousand_unchanged_images_take_no_time(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    pixels = {f"{number:04d}.png": f"{number:032x}" for number in range(5000)}
    for path in pixels:
        (root / path).touch()
    write_fingerprints(tmp_path / "images.csv", root, pixels)
    start = time.process_time()
    check_images(tmp_path / "images.csv", root)
    assert time.process_time() - start < 1

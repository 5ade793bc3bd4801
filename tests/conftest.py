"""Fixtures: a small dataset of real files, a tiny network that trains in seconds, and one trained run."""

from __future__ import annotations

import contextlib
import os
import shutil

# Before TensorFlow is loaded by any test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from btkeras.checksums import record_files
from btkeras.config import ExperimentConfig
from btkeras.config_io import load_config
from btkeras.logging import log_to_terminal
from btkeras.preprocessing.decode import decode_file, pixel_digest
from btkeras.runs import Run
from btkeras.splitting.fingerprints import read_fingerprints, write_fingerprints

# A busy machine fails no test.
settings.register_profile("btkeras", deadline=None)
settings.load_profile("btkeras")

CLASSES = ("glioma", "meningioma", "no_tumor", "pituitary")

# Small, float32 and quick to trace, but with everything that a training has.
TINY = (
    "model.name=tiny",
    "data.image_size=32",
    "data.channels=1",
    "train.precision=float32",
    "train.epochs=3",
    "train.batch_size=8",
    "optimizer.name=adamw",
    "optimizer.weight_decay=0.01",
    "schedule.name=cosine",
    "schedule.warmup_epochs=1",
    "augment.crop=[0.9, 1.1]",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow, jax, ray and browser")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip_slow = pytest.mark.skip(reason="slow: run with --run-slow")
    skip_data = pytest.mark.skip(reason="needs real slices: set BTKERAS_DATA to a folder of them")
    for item in items:
        if not config.getoption("--run-slow") and not {"slow", "jax", "ray", "browser"}.isdisjoint(item.keywords):
            item.add_marker(skip_slow)
        if not os.environ.get("BTKERAS_DATA") and "data" in item.keywords:
            item.add_marker(skip_data)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the tests out of the user's cache."""
    before = os.environ.get("BTKERAS_CACHE")
    os.environ["BTKERAS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.setdefault("BTKERAS_PSEUDONYM_KEY", str(tmp_path_factory.mktemp("pseudonyms") / "key"))
    yield
    if before is None:
        del os.environ["BTKERAS_CACHE"]
    else:
        os.environ["BTKERAS_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def _log() -> None:
    """Shows log lines on standard error, as the command line does."""
    log_to_terminal()


@pytest.fixture(autouse=True, scope="session")
def _no_pretrained_model() -> Iterator[None]:
    """As if none were installed: what is tested does not depend on it, but where a test says so."""
    from btkeras.inference import model_folder

    before, model_folder.PRETRAINED_FOLDERS = model_folder.PRETRAINED_FOLDERS, ()
    yield
    model_folder.PRETRAINED_FOLDERS = before


@pytest.fixture(scope="session")
def real_slices() -> Path:
    """The folder of real slices; its tests carry the marker ``data``."""
    return Path(os.environ["BTKERAS_DATA"])


def write_images(folder: Path, per_class: int = 12, seed: int = 0) -> Path:
    """Writes class folders of 48 x 40 grey PNG: noise, with rows, columns, a chequerboard or nothing in it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((48, 40)) // 6 % 2
    patterns = (rows, columns, rows ^ columns, np.zeros_like(rows))
    for label, pattern in zip(CLASSES, patterns, strict=True):
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 100, (48, 40)) + 150 * pattern
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{number:03d}.png")
    return folder


def copied_run(run: Path, images: Path, target: Path) -> Run:
    """A copy of a run, as if it had been trained on the images that a copy of its dataset has now."""
    copy = Run(Path(shutil.copytree(run, target)))
    copy.update_manifest(dataset=str(images))
    pixels = {path: pixel_digest(decode_file(images / path)) for path in read_fingerprints(copy.images_file)}
    write_fingerprints(copy.images_file, images, pixels)
    record_files(copy.path, [copy.images_file])
    return copy


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A dataset of its own for a test that changes it."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="session")
def shared_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset for tests that only read it."""
    return write_images(tmp_path_factory.mktemp("shared") / "images")


def tiny_network(x):  # type: ignore[no-untyped-def]
    """Two of the real blocks: what a trainer needs from a network."""
    from btkeras.models import blocks

    x = blocks.conv_bn(x, 8, 3, stride=2, name="stem_conv")
    return blocks.residual_block(x, 16, stride=2, attention=True, name="stage1_block1")


def plain_network(x):  # type: ignore[no-untyped-def]
    """A smaller one still, to be compared with."""
    from btkeras.models import blocks

    return blocks.conv_bn(x, 8, 3, stride=2, name="stem_conv")


TINY_NETWORKS = {"tiny": tiny_network, "tiny_plain": plain_network}


@pytest.fixture(autouse=True, scope="session")
def _tiny_model() -> Iterator[None]:
    """Makes ``TINY_NETWORKS`` known for the whole session."""
    from btkeras.models import build

    before = build.MODELS
    build.MODELS = MappingProxyType({**before, **TINY_NETWORKS})
    yield
    build.MODELS = before


@pytest.fixture
def tiny_config() -> Callable[..., ExperimentConfig]:
    """Makes the tiny configuration, with changes as for ``--set``."""
    return lambda *overrides: load_config(None, (*TINY, *overrides))


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory, shared_images: Path, _tiny_model: None) -> Path:
    """A finished, evaluated run of the tiny network; read only."""
    from btkeras.datasets import load_dataset
    from btkeras.evaluation.evaluate import evaluate_split
    from btkeras.training.trainer import train

    out = tmp_path_factory.mktemp("runs") / "tiny"
    run = train(
        load_config(None, (*TINY, "train.epochs=10", "optimizer.learning_rate=0.01")),
        load_dataset(shared_images),
        out,
    )
    evaluate_split(run)
    return out


@pytest.fixture(scope="session")
def calibrated_run(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Path:
    """The tiny run, calibrated, with OOD scores, and evaluated; read only."""
    from btkeras.evaluation.calibrate import calibrate, fit_decisions, fit_ood
    from btkeras.evaluation.evaluate import evaluate_split
    from btkeras.runs import open_run

    run = open_run(shutil.copytree(trained_run, tmp_path_factory.mktemp("calibrated") / "run"))
    calibrate(run)
    fit_ood(run)
    fit_decisions(run)
    evaluate_split(run)
    return run.path


@pytest.fixture(scope="session")
def exported_formats(tmp_path_factory: pytest.TempPathFactory, calibrated_run: Path) -> Path:
    """Version 1 of the model ``tiny``, the calibrated run in all formats; read only."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    from btkeras.export.export import export
    from btkeras.runs import open_run

    out = tmp_path_factory.mktemp("formats") / "tiny"
    with _borrowing_small_weights():
        return export(open_run(calibrated_run), out, formats=("savedmodel", "onnx", "litert"))


@contextlib.contextmanager
def _borrowing_small_weights() -> Iterator[None]:
    """Since all weights of the tiny network are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("btkeras.export.borrowed_weights._LEAST", 1024)
        yield


@pytest.fixture(scope="session")
def quantized_formats(tmp_path_factory: pytest.TempPathFactory, calibrated_run: Path) -> Path:
    """Version 1 of the model ``tiny``: a SavedModel, and ONNX and LiteRT in int8; read only."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    from btkeras.export.export import export
    from btkeras.runs import open_run

    out = tmp_path_factory.mktemp("quantized") / "tiny"
    with _borrowing_small_weights():
        return export(open_run(calibrated_run), out, formats=("savedmodel", "onnx", "litert"), quantize="int8")


@pytest.fixture(scope="session")
def exported_model(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Path:
    """The tiny run exported as version 1 of the model ``tiny``; read only."""
    from btkeras.export.export import export
    from btkeras.runs import open_run

    folder = tmp_path_factory.mktemp("saved_models") / "tiny"
    export(open_run(trained_run), folder)
    return folder

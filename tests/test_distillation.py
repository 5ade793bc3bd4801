"""Knowledge distillation: what a network learns from a teacher, and which runs may be one."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from btkeras.checksums import recorded_file
from btkeras.evaluation.results import read_predictions
from btkeras.models import build_model
from btkeras.models.keras_file import load_network, save_network
from btkeras.runs import Run, open_run
from btkeras.training.distillation import with_teacher

from .test_cli import btkeras, fails

SETTINGS = ("train.epochs=2", "train.keep_state=true", "train.teacher_share=1", "optimizer.learning_rate=0.02")


def train(run: Path, images: Path, teacher: Path, *settings: str):  # type: ignore[no-untyped-def]
    """Trains with a teacher and the configuration of ``teacher``."""
    given = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    config = ("--config", teacher / "config.yaml")
    return btkeras("train", "--data", images, *config, *given, "--teacher", teacher, "--out", run)


@pytest.fixture(scope="module")
def of_one_mind(tmp_path_factory: pytest.TempPathFactory, trained_run: Path) -> Path:
    """A finished run whose network takes all images for meningiomas."""
    run = Run(Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("teacher") / "run")))
    network = load_network(run.best_model)
    head = next(layer for layer in reversed(network.layers) if layer.weights)
    kernel, bias = head.get_weights()
    head.set_weights([np.zeros_like(kernel), np.array([0, 9, 0, 0], bias.dtype)])
    with recorded_file(run.best_model) as temporary:
        save_network(network, temporary)
    return run.path


def test_a_network_learns_what_its_teacher_says(of_one_mind: Path, shared_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert (result := train(out, shared_images, of_one_mind)).exit_code == 0, result.output
    _, _, probabilities = read_predictions(open_run(out).predictions_file, open_run(out).classes())
    assert set(probabilities.argmax(axis=1)) == {1}
    # It goes on with its teacher.
    longer = btkeras("train", "--resume", "--out", out, "--set", "train.epochs=3")
    assert longer.exit_code == 0, longer.output
    assert open_run(out).manifest()["epochs"] == 3


def test_targets_are_a_mean_of_true_classes_and_the_teachers_probabilities(trained_run: Path) -> None:
    teacher, share = open_run(trained_run), 0.3
    shape = teacher.config().data
    network = build_model("tiny", input_shape=(shape.image_size, shape.image_size, shape.channels), classes=4)
    weights = [variable.path for variable in network.weights]
    taught = with_teacher(network, teacher, share)
    assert [variable.path for variable in taught.weights] == weights
    taught.compile(loss="categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (6, *network.input_shape[1:])).astype(np.float32)
    y = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 6)]
    said = load_network(teacher.best_model).predict(x, verbose=0)
    own = rng.dirichlet(np.ones(4), 6).astype(np.float32)
    for training, targets in ((True, (1 - share) * y + share * said), (False, y)):
        loss = float(taught.compute_loss(x, y, keras.ops.convert_to_tensor(own), training=training))
        assert loss == pytest.approx(-(targets * np.log(own)).sum(axis=1).mean(), rel=1e-5)


def test_a_teacher_computes_in_the_trainings_precision(trained_run: Path) -> None:
    teacher = open_run(trained_run)
    network = load_network(teacher.best_model)
    images = np.random.default_rng(1).uniform(0, 255, (4, *network.input_shape[1:])).astype(np.float32)
    whole, half = (
        with_teacher(network, teacher, 0.5, name).probabilities(images) for name in ("float32", "mixed_bfloat16")
    )
    assert half.dtype == whole.dtype == "float32"
    assert 0 < np.abs(half - whole).max() < 0.05


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.image_size=48", "data.image_size 32 in place of 48"),
        ("data.channels=3", "data.channels 1 in place of 3"),
        ("data.harmonize=true", "data.harmonize False in place of True"),
        ("data.split_seed=7", "A test image must be none that"),
    ],
)
def test_a_teacher_sees_what_the_network_sees_and_no_test_image(
    setting: str, message: str, trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    fails(train(tmp_path / "run", shared_images, trained_run, setting), message)
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_a_finished_run_with_a_network(trained_run: Path, shared_images: Path, tmp_path: Path) -> None:
    fails(btkeras("train", "--data", shared_images, "--teacher", tmp_path, "--out", tmp_path / "run"), "A run folder")
    copy = Path(shutil.copytree(trained_run, tmp_path / "teacher"))
    (copy / "best.keras").unlink()
    fails(train(tmp_path / "run", shared_images, copy), "A teacher must be a network", "train.teacher")


def test_a_run_goes_on_with_the_teacher_that_it_began_with(
    trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    teacher, out = Path(shutil.copytree(trained_run, tmp_path / "teacher")), tmp_path / "run"
    assert train(out, shared_images, teacher).exit_code == 0
    network = load_network(teacher / "best.keras")
    network.set_weights([2 * weight for weight in network.get_weights()])
    with recorded_file(teacher / "best.keras") as temporary:
        save_network(network, temporary)
    fails(btkeras("train", "--resume", "--out", out, "--set", "train.epochs=3"), "must go on with the teacher")

"""Losses for rare classes, against NumPy and scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from btkeras.config import TrainConfig
from btkeras.config_io import load_config, override_config
from btkeras.datasets import load_dataset
from btkeras.errors import ConfigError, ModelError
from btkeras.evaluation.evaluate import load_best
from btkeras.experiments.single_run import check_model
from btkeras.splitting.splits import make_split
from btkeras.training import trainer
from btkeras.training.losses import balanced_weights, make_loss
from btkeras.training.pipeline import load_images
from tests.conftest import TINY
from tests.test_training import history

LABELS = [0] * 7 + [1] * 2 + [2]
Floats = NDArray[np.float64]


def reference(targets: Floats, probabilities: Floats, weights: Floats, gamma: float = 0, smoothing: float = 0) -> float:
    """The mean focal loss (Lin et al. 2017, equation 5) over the images, each class's part with its weight."""
    targets = targets * (1 - smoothing) + smoothing / targets.shape[1]
    parts = -weights * (1 - probabilities) ** gamma * targets * np.log(probabilities)
    return float(parts.sum(axis=1).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [None, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_a_loss_is_that_of_numpy(class_weight: str, gamma: float | None, smoothing: float) -> None:
    rng = np.random.default_rng(0)
    probabilities, targets = rng.dirichlet([1, 1, 1], 16), np.eye(3)[rng.integers(0, 3, 16)]
    focal = {} if gamma is None else {"loss": "focal", "focal_gamma": gamma}
    config = TrainConfig(class_weight=class_weight, label_smoothing=smoothing, **focal)
    weights = np.array([10 / (3 * count) for count in (7, 2, 1)]) if class_weight == "balanced" else np.ones(3)
    expected = reference(targets, probabilities, weights, gamma or 0, smoothing)
    assert float(make_loss(config, LABELS, 3)(targets, probabilities)) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert balanced_weights(LABELS, 3) == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"of each class. Received: \[7, 2, 1, 0\]"):
        balanced_weights(LABELS, 4)


def test_a_run_is_trained_and_validated_with_the_loss_of_its_settings(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for image in sorted((image_folder / "glioma").iterdir())[6:]:
        image.unlink()
    config = load_config(None, (*TINY, "train.epochs=1", "train.loss=focal", "train.class_weight=balanced"))
    config = override_config(config, ["train.monitor=val_macro_recall"])
    dataset = load_dataset(image_folder)
    run, split = trainer.train(config, dataset, tmp_path / "run"), make_split(dataset, config.data)
    images = load_images(dataset, split.validation, 32, config, name="validation")
    probabilities = load_best(run).predict(images.take(np.arange(len(images))).astype(np.float32), verbose=0)
    targets = np.array([[record.label == name for name in dataset.classes] for record in split.validation], float)
    counts = np.array([sum(record.label == name for record in split.train) for name in dataset.classes])
    weights = len(split.train) / (len(counts) * counts)
    assert weights.max() > 1.5 * weights.min()
    expected = reference(targets, probabilities.astype(float), weights, gamma=2)
    row = history(run.path)[0]
    assert float(row["val_loss"]) == pytest.approx(expected, rel=1e-4)
    # What chose the checkpoint is said, of the epoch and of the checkpoint.
    assert caplog.text.count(f"val_macro_recall {float(row['val_macro_recall']):.4f}") == 2


@pytest.mark.parametrize(
    "setting", ["train.loss=focal", "train.class_weight=balanced", "train.teacher=run", "model.weights=imagenet"]
)
def test_what_only_networks_have_is_an_error_of_another_classifier(setting: str) -> None:
    with pytest.raises(ModelError, match=f"{setting.partition('=')[0]} is for networks. Received: .* for lbp_svm"):
        check_model(load_config(None, ["model.name=lbp_svm", setting]))

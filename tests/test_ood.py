"""The out-of-distribution score, its percentile, and its file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from btkeras.decisions import ood as module
from btkeras.decisions.ood import CalibrationScores, Gaussian, OODDetector, load_ood, save_ood
from btkeras.errors import RunError
from btkeras.evaluation.calibrate import fit_ood
from btkeras.runs import Run, open_run

MIX = np.random.default_rng(1).normal(size=(6, 6))


def features(count: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) @ MIX + shift


def ood(count: int = 500) -> OODDetector:
    gaussian = Gaussian.fit(features(count))
    scores = OODDetector(gaussian, CalibrationScores(np.empty(0))).score(features(200, seed=2))
    return OODDetector(gaussian, CalibrationScores(np.sort(scores)))


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


def test_the_score_is_the_mahalanobis_distance_under_the_shrunk_covariance() -> None:
    reference = LedoitWolf().fit(features(500))
    rows = features(20, seed=3)
    inverse = np.linalg.inv(reference.covariance_)
    expected = [mahalanobis(row, reference.location_, inverse) ** 2 for row in rows]
    np.testing.assert_allclose(ood().score(rows), expected, rtol=1e-3)


def test_beyond_the_strongest_directions_the_others_share_their_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DIRECTIONS", 4)
    gaussian = Gaussian.fit(features(500))
    assert gaussian.directions.shape == (6, 4)
    variances, directions = np.linalg.eigh(LedoitWolf().fit(features(500)).covariance_)
    variances[:2] = variances[:2].mean()
    rows = features(20, seed=3)
    expected = (((rows - features(500).mean(0)) @ directions) ** 2 / variances).sum(axis=1)
    np.testing.assert_allclose(OODDetector(gaussian, CalibrationScores(np.zeros(1))).score(rows), expected, rtol=1e-3)


def test_weak_directions_count_to_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's weak directions have a ten-thousandth of the strong ones' variance, which float32 must not lose."""
    monkeypatch.setattr(module, "DIRECTIONS", 8)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(256, 256))).Q
    scales = np.repeat([0.3, 30], [248, 8])
    rows = (np.random.default_rng(1).normal(size=(2000, 256)) * scales) @ rotation
    gaussian = Gaussian.fit(rows)
    offsets = rows.astype(np.float32).astype(np.float64) - gaussian.mean
    along = offsets @ gaussian.directions
    beyond = ((offsets - along @ gaussian.directions.T) ** 2).sum(axis=1) / gaussian.rest
    expected = (along**2 / gaussian.variances).sum(axis=1) + beyond
    scores = OODDetector(gaussian, CalibrationScores(np.zeros(1))).score(rows)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_one_percent_of_the_validation_scores_are_beyond_and_shifted_features_far_more() -> None:
    found = ood()
    own, shifted = found.score(features(200, seed=2)), found.score(features(200, seed=4, shift=6.0))
    assert found.reference.ood(own).sum() == 2
    assert found.reference.ood(shifted).mean() > 0.9
    assert roc_auc_score(np.repeat([0, 1], 200), np.concatenate([own, shifted])) > 0.99


def test_percentiles_are_shares_of_the_validation_scores() -> None:
    reference = CalibrationScores(np.arange(1.0, 11.0))
    np.testing.assert_array_equal(reference.percentile(np.array([0.5, 1.0, 5.5, 10.0, 99.0])), [0, 10, 50, 100, 100])


def test_features_that_never_vary_make_no_division_by_zero() -> None:
    constant = features(50) * np.array([1, 1, 0, 0, 1, 1])
    scores = OODDetector(Gaussian.fit(constant), CalibrationScores(np.zeros(1))).score(constant)
    assert np.isfinite(scores).all() and np.isfinite(Gaussian.fit(np.zeros((5, 3))).variances).all()


def test_the_file_keeps_the_score(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert load_ood(run) is None
    found = ood()
    save_ood(run, found)
    read = load_ood(run)
    assert read is not None
    np.testing.assert_allclose(read.score(features(9, seed=5)), found.score(features(9, seed=5)), rtol=1e-4)
    assert read.reference.threshold == pytest.approx(found.reference.threshold, rel=1e-6)


@pytest.mark.parametrize("damage", ["cut", "text", "misses an array", "does not fit", "NaN"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    file = Run(tmp_path).ood_file
    save_ood(Run(tmp_path), ood())
    arrays = dict(np.load(file))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "text":
        file.write_text("no arrays")
    elif damage == "misses an array":
        np.savez(file, **{name: value for name, value in arrays.items() if name != "scores"})
    elif damage == "NaN":
        np.savez(file, **{**arrays, "mean": arrays["mean"] * np.nan})
    else:
        np.savez(file, **{**arrays, "mean": arrays["mean"][:3]})
    with pytest.raises(RunError, match="btkeras calibrate RUN"):
        load_ood(Run(tmp_path))


def test_a_run_is_fitted_on_its_training_subset_with_the_corrupted_validation_subset_as_reference(run: Path) -> None:
    import keras

    from btkeras.evaluation.corruptions import corrupt_at_random
    from btkeras.evaluation.evaluate import load_best
    from btkeras.preprocessing.decode import decode_file
    from btkeras.preprocessing.preprocessor import Preprocessor

    opened = open_run(run)
    found = fit_ood(opened)
    model, dataset = load_best(opened), opened.dataset()
    network = keras.Model(model.input, model.get_layer("features").output)
    preprocessor = Preprocessor(32, 1)

    def of(subset: str, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        files = [dataset.root / record.path for record in opened.split(dataset).subset(subset)]
        images = [preprocessor.array(change(decode_file(file))) for file in files]
        return np.asarray(network.predict_on_batch(np.stack(images).astype(np.float32)))

    np.testing.assert_allclose(found.gaussian.mean, of("train", np.copy).mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found.reference.scores, np.sort(found.score(of("validation", corrupt_at_random))), rtol=1e-3
    )
    assert load_ood(opened) is not None

"""Ensembles and test-time augmentation as runs: what they average, what calibrates and tests them, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras.config import ExperimentConfig
from btkeras.datasets import load_dataset
from btkeras.datasets.dataset import Record
from btkeras.errors import BTKerasError, DataError
from btkeras.evaluation.results import read_predictions
from btkeras.experiments.ensemble import ensemble_name, start_ensemble
from btkeras.experiments.single_run import start_run
from btkeras.models.head import temperature_of
from btkeras.models.keras_file import load_network
from btkeras.runs import open_run
from btkeras.splitting.combined import combine_splits
from btkeras.splitting.splits import SUBSETS, Split

from .conftest import write_images
from .test_averaging import views_of
from .test_cli import btkeras

LABELS = ("glioma", "no_tumor")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, calibrated_run: Path, _tiny_model: None) -> tuple[Path, Path]:
    """Two calibrated runs of one split, from different seeds; read only."""
    first = open_run(calibrated_run)
    other = tmp_path_factory.mktemp("other") / "run"
    config = first.config()
    start_run(
        replace(config, train=replace(config.train, seed=7)), first.dataset(), other, split=first.split(first.dataset())
    )
    return calibrated_run, other


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, runs: tuple[Path, Path]) -> Path:
    """The ensemble of both; read only."""
    out = tmp_path_factory.mktemp("both") / "both"
    result = btkeras("ensemble", *runs, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"btkeras report {out}" in result.stderr
    return out


def probabilities_of(run: Path) -> np.ndarray:
    return read_predictions(open_run(run).predictions_file, open_run(run).classes())[2]


def test_an_ensemble_averages_its_runs_and_has_its_own_temperature(both: Path, runs: tuple[Path, Path]) -> None:
    mean = np.mean([probabilities_of(run) for run in runs], axis=0)
    temperature = temperature_of(load_network(both / "best.keras"))
    expected = mean ** (1 / temperature)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities_of(both), expected, atol=2e-5)
    assert json.loads((both / "calibration.json").read_text())["temperature"] == pytest.approx(temperature)
    splits = [json.loads((run / "splits.json").read_text())["digest"] for run in (both, *runs)]
    assert len(set(splits)) == 1, "runs of one split keep it"


def test_views_are_averaged_too(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    metrics = start_ensemble([open_run(runs[0])], tmp_path / "flipped", ["flip"])
    assert metrics["images"] == len(probabilities_of(runs[0]))
    one, flipped = open_run(runs[0]).manifest(), open_run(tmp_path / "flipped").manifest()
    assert (flipped["parameters"], flipped["macs"]) == (one["parameters"], 2 * one["macs"])
    whole, single = (load_network(run / "best.keras") for run in (tmp_path / "flipped", runs[0]))
    pixels = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 1)).astype(np.float32)
    mean = np.mean([single(view) for view in views_of(pixels, "flip")], axis=0) ** (1 / temperature_of(whole))
    np.testing.assert_allclose(whole(pixels), mean / mean.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_every_command_takes_an_ensemble(both: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    own = shutil.copytree(both, tmp_path / "both")
    image = next((open_run(both).dataset().root).rglob("*.png"))
    for command in (
        ("evaluate", own),
        ("evaluate", own, "--split", "validation", "--json"),
        ("calibrate", own),
        ("predict", image, "--model", own, "--explain", tmp_path / "maps"),
        ("card", own),
        ("report", own, runs[0], "--out", tmp_path / "report.html"),
    ):
        result = btkeras(*command)
        assert result.exit_code == 0, (command, result.output)
    card = (own / "model_card.md").read_text()
    assert "| average of | 2 networks |" in card
    assert "initial weights" not in card
    assert "tiny_x2" in (tmp_path / "report.html").read_text()


def test_an_ensemble_is_exported_to_one_file(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    pytest.importorskip("onnxruntime")
    start_ensemble([open_run(run) for run in runs], tmp_path / "run", ["flip", "crops"])
    formats = [word for name in ("savedmodel", "onnx", "litert") for word in ("--format", name)]
    result = btkeras("export", tmp_path / "run", "--out", tmp_path / "model", *formats)
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "model/1/assets.extra/manifest.json").read_text())
    assert (manifest["model"], manifest["maps"]) == ("tiny_x2_flip_crops", ["savedmodel", "onnx", "litert"])
    assert btkeras("selftest", "--model", tmp_path / "model").exit_code == 0


def test_weights_are_averaged_into_one_network(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "between"
    result = btkeras("ensemble", *runs, "--share", 3, "--share", 1, "--kernel-scale", 0.9, "--out", out)
    assert result.exit_code == 0, result.output
    # They were trained from two seeds.
    assert "have little in common" in result.stderr
    between, first, second = (load_network(run / "best.keras").weights for run in (out, *runs))
    for found, one, other in zip(between, first, second, strict=True):
        scale = 0.9 if found.name == "kernel" and "logits" not in found.path else 1
        expected = scale * (0.75 * one.numpy() + 0.25 * other.numpy())
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7, err_msg=found.path)
    facts, own = open_run(out).manifest(), open_run(runs[0]).manifest()
    assert (facts["macs"], facts["parameters"]) == (own["macs"], own["parameters"])
    assert btkeras("card", out).exit_code == 0
    assert (
        "the weights of 2 networks, with shares of 3.0, 1.0, kernels times 0.9" in (out / "model_card.md").read_text()
    )


def test_a_run_and_its_copy_have_all_in_common(
    runs: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start_ensemble(
        [open_run(run) for run in (runs[0], shutil.copytree(runs[0], tmp_path / "copy"))],
        tmp_path / "run",
        shares=[1, 1],
    )
    assert "in common" not in caplog.text
    np.testing.assert_allclose(probabilities_of(tmp_path / "run"), probabilities_of(runs[0]), atol=1e-5)


def test_a_share_of_one_is_that_network(runs: tuple[Path, Path], tmp_path: Path) -> None:
    start_ensemble([open_run(run) for run in runs], tmp_path / "run", shares=[0, 1])
    np.testing.assert_allclose(probabilities_of(tmp_path / "run"), probabilities_of(runs[1]), atol=1e-5)


@pytest.mark.parametrize("shares", [(1,), (1, -1), (0, 0), (1, 1, 1), (1, "nan"), (1e308, 1e308)])
def test_shares_go_with_the_runs(shares: tuple[object, ...], runs: tuple[Path, Path], tmp_path: Path) -> None:
    given = [word for share in shares for word in ("--share", share)]
    result = btkeras("ensemble", *runs, *given, "--out", tmp_path / "out")
    assert (result.exit_code, "a share of each" in result.stderr) == (1, True), result.output
    assert not (tmp_path / "out").exists()


def test_kernels_are_scaled_where_weights_are_averaged(runs: tuple[Path, Path], tmp_path: Path) -> None:
    two = ("--share", 1, "--share", 1)
    for shares, scale, message in (
        ((), 0.9, "without --share"),
        (two, "nan", "from 0.5 to 2"),
        (two, 0.4, "from 0.5 to 2"),
    ):
        result = btkeras("ensemble", *runs, *shares, "--kernel-scale", scale, "--out", tmp_path / "out")
        assert (result.exit_code, message in result.stderr) == (1, True), result.output
        assert not (tmp_path / "out").exists()


def test_averaged_weights_predict_at_another_size(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out, alone = tmp_path / "run", load_network(runs[0] / "best.keras")
    size = alone.input_shape[1] + 8
    arguments = ("ensemble", *runs, "--image-size", size, "--out", out)
    result = btkeras(*arguments)
    assert (result.exit_code, "without --share" in result.stderr) == (1, True) and not out.exists()
    result = btkeras(*arguments, "--share", 1, "--share", 0)
    assert result.exit_code == 0, result.output
    run, network = open_run(out), load_network(out / "best.keras")
    assert run.config().data.image_size == network.input_shape[1] == size
    assert all(map(np.array_equal, network.get_weights(), alone.get_weights()))
    # A larger image has more multiplications.
    assert run.manifest()["macs"] > open_run(runs[0]).manifest()["macs"]
    assert f"at {size} pixels" in btkeras("card", out, "--out", "-").stdout
    assert btkeras("predict", next(run.dataset().root.rglob("*.png")), "--model", out).exit_code == 0


def test_names_say_what_is_averaged() -> None:
    assert ensemble_name(["a", "a", "a"], []) == "a_x3"
    assert ensemble_name(["a", "b", "a"], ["flip", "crops"]) == "a_x2_and_b_flip_crops"
    assert ensemble_name(["a"], ["flip"]) == "a_flip"


def test_what_does_not_go_together_is_refused(
    tmp_path: Path, runs: tuple[Path, Path], tiny_config: Callable[..., ExperimentConfig]
) -> None:
    first, other = open_run(runs[0]), tmp_path / "other"
    start_run(tiny_config("data.image_size=40", "train.epochs=1"), first.dataset(), other)
    elsewhere = tmp_path / "elsewhere"
    start_run(tiny_config("train.epochs=1"), load_dataset(write_images(tmp_path / "images", seed=5)), elsewhere)
    for second, message in (
        (runs[0], "must differ"),
        (other, "one image size"),
        (elsewhere, "that changed"),
    ):
        result = btkeras("ensemble", runs[0], second, "--out", tmp_path / "out")
        assert (result.exit_code, message in result.stderr) == (1, True), result.output
        assert not (tmp_path / "out").exists()


def test_an_ensemble_is_made_anew_and_whole(both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = btkeras("ensemble", both, "--tta", "flip", "--out", tmp_path / "again")
    assert again.exit_code != 0 and "single networks" in again.stderr
    resumed = btkeras("train", "--resume", "--out", both)
    assert resumed.exit_code == 1 and "btkeras ensemble RUN" in resumed.stderr
    taken = btkeras("ensemble", both, "--tta", "flip", "--out", both)
    assert taken.exit_code == 1 and "Choose another --out" in taken.stderr


def test_nothing_is_left_of_one_that_was_stopped(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(run: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("btkeras.experiments.ensemble.calibrate_and_evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        start_ensemble([open_run(run) for run in runs], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def records(count: int) -> tuple[Record, ...]:
    return tuple(Record(f"{i:03}.png", LABELS[i % 2], f"patient{i // 4}", "phantom") for i in range(count))


@st.composite
def splits_of_one_dataset(draw: st.DrawFn) -> list[Split]:
    every = records(24)
    names = [draw(st.lists(st.sampled_from(SUBSETS), min_size=24, max_size=24)) for _ in range(draw(st.integers(1, 3)))]
    return [
        Split(*(tuple(r for r, own in zip(every, each, strict=True) if own == name) for name in SUBSETS))
        for each in names
    ]


@settings(max_examples=60)
@given(splits_of_one_dataset())
def test_no_image_that_a_network_trained_on_calibrates_or_tests(splits: list[Split]) -> None:
    trained = {record.path for split in splits for record in split.train}
    tested = [{record.path for record in split.test} for split in splits]
    try:
        found = combine_splits(splits)
    except DataError:
        labels = [record.label for record in records(24) if all(record.path in own for own in tested)]
        rest = {record.path for record in records(24)} - trained - set.intersection(*tested)
        assert not labels or (not rest and min(map(labels.count, set(labels))) < 2)
        return
    subsets = [{record.path for record in found.subset(name)} for name in SUBSETS]
    assert set.union(*subsets) == {record.path for record in records(24)} and sum(map(len, subsets)) == 24
    assert subsets[0] == trained and subsets[1] and subsets[2] and subsets[2] <= set.intersection(*tested)


def test_half_of_a_fixed_test_subset_calibrates_folds_by_whole_groups() -> None:
    every = records(48)
    test, rest = every[:16], every[16:]
    groups = {record.path: record.patient for record in every}
    folds = [
        Split(tuple(r for r in rest if r not in own), own, test, 3, groups, "patient") for own in (rest[:16], rest[16:])
    ]
    found = combine_splits(folds)
    assert found.train == rest and tuple(sorted((*found.validation, *found.test), key=lambda r: r.path)) == test
    assert not {r.patient for r in found.validation} & {r.patient for r in found.test}
    assert found == combine_splits(folds) and {r.label for r in found.validation} == set(LABELS)


def test_folds_that_rotate_have_no_test_image_in_common() -> None:
    every = records(24)
    folds = [Split(every[8:], every[4:8], every[:4]), Split(every[:16], every[16:20], every[20:])]
    with pytest.raises(BTKerasError, match="--test fixed"):
        combine_splits(folds)
    with pytest.raises(DataError, match="grouped alike"):
        combine_splits([folds[0], Split(*(folds[1].train, folds[1].validation, folds[1].test), group_by="patient")])

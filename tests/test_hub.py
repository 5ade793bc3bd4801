"""Models on the Hugging Face Hub, through ``huggingface_hub`` itself and a stand-in for the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from btkeras.cli import main
from btkeras.inference.predictor import Predictor
from tests.hub_server import REPOSITORY, FakeHub, fake_hub
from tests.images import head

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    with fake_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_none")
        yield running


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_what_is_pushed_is_pulled_and_predicts_the_same(hub: FakeHub, exported_formats: Path, tmp_path: Path) -> None:
    pushed = btkeras("push", exported_formats, REPOSITORY, "--private", "--license", "cc-by-4.0")
    assert pushed.exit_code == 0, pushed.stderr
    assert hub.private and hub.commits == ["Version 1"]
    assert pushed.stdout.strip() == f"{hub.url}/{REPOSITORY}/commit/{hub.sha}"

    pulled = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs")
    assert pulled.exit_code == 0, pulled.stderr
    assert pulled.stdout.strip() == str(tmp_path / "theirs/1")
    assert "MB, of someone/model, version 1, commit " + hub.sha in pulled.stderr
    folders = exported_formats, tmp_path / "theirs/1"
    own, theirs = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert own == theirs
    ours, again = (Predictor(folder).predict([head()]) for folder in (exported_formats, tmp_path / "theirs"))
    np.testing.assert_array_equal(ours.probabilities, again.probabilities)


def test_the_card_has_the_hubs_metadata(hub: FakeHub, exported_formats: Path) -> None:
    from huggingface_hub import ModelCard

    btkeras("push", exported_formats, REPOSITORY, "--license", "cc-by-4.0")
    card = ModelCard(hub.files["README.md"].decode())
    assert f"btkeras pull {REPOSITORY} --out saved_models/tiny" in card.text
    assert (card.data.license, card.data.pipeline_tag) == ("cc-by-4.0", "image-classification")
    assert {"brain-tumor", "litert", "onnx", "savedmodel"} <= set(card.data.tags)
    results = {result.metric_type: result for result in card.data.eval_results}
    assert 0 <= results["accuracy"].metric_value <= 1 and results["accuracy"].dataset_split == "test"
    assert "Research use only" in card.text or "medical device" in card.text


def test_a_version_is_published_once(hub: FakeHub, exported_formats: Path) -> None:
    assert btkeras("push", exported_formats, REPOSITORY).exit_code == 0
    again = btkeras("push", exported_formats, REPOSITORY)
    assert again.exit_code == 1 and "which has version 1" in again.stderr
    assert hub.commits == ["Version 1"]


def test_a_file_that_changed_on_the_way_leaves_nothing(hub: FakeHub, exported_formats: Path, tmp_path: Path) -> None:
    btkeras("push", exported_formats, REPOSITORY)
    hub.files["1/model.tflite"] += b"x"
    pulled = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs")
    assert pulled.exit_code == 1 and "model.tflite, whose content was changed" in pulled.stderr
    assert not (tmp_path / "theirs").exists()


def test_what_the_hub_has_not_is_said(hub: FakeHub, exported_formats: Path, tmp_path: Path) -> None:
    missing = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs")
    assert missing.exit_code == 1 and "The Hugging Face Hub must have the repository" in missing.stderr
    hub.private, hub.files = False, {"README.md": b"another model"}
    other = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs")
    assert other.exit_code == 1 and "someone/model with no exported model" in other.stderr
    btkeras("push", exported_formats, REPOSITORY)
    third = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs", "--version", 3)
    assert third.exit_code == 1 and "must have version 3. Received: someone/model with version 1" in third.stderr


def test_a_refusal_is_one_message(hub: FakeHub, exported_formats: Path) -> None:
    hub.refuses = True
    refused = btkeras("push", exported_formats, REPOSITORY)
    assert refused.exit_code == 1 and "hf auth login" in refused.stderr and "Traceback" not in refused.stderr
    assert "401" in refused.stderr


def test_a_changed_model_or_a_run_is_not_pushed(hub: FakeHub, calibrated_run: Path, tmp_path: Path) -> None:
    for folder, said in ((calibrated_run, "which is none"), (tmp_path / "nope", "which does not exist")):
        run = btkeras("push", folder, REPOSITORY)
        assert run.exit_code == 1 and said in run.stderr and "btkeras export RUN" in run.stderr
    for name in ("noslash", "a/b/c", "a b/c"):
        assert "must be OWNER/NAME" in btkeras("pull", name, "--out", tmp_path / "theirs").stderr
    assert hub.private is None


def test_a_version_that_is_here_stays(hub: FakeHub, exported_formats: Path, tmp_path: Path) -> None:
    btkeras("push", exported_formats, REPOSITORY)
    (tmp_path / "theirs/1").mkdir(parents=True)
    pulled = btkeras("pull", REPOSITORY, "--out", tmp_path / "theirs")
    assert pulled.exit_code == 1 and "theirs/1, which exists" in pulled.stderr

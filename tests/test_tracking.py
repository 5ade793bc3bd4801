"""Trackers: what TensorBoard's HParams, MLflow and Weights & Biases have of a training, read with these themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.config import ExperimentConfig
from btkeras.config_io import load_config
from btkeras.datasets import load_dataset
from btkeras.errors import RunError
from btkeras.experiments.experiment import create_experiment
from btkeras.experiments.single_run import resume_run, run_job, start_run
from btkeras.runs import Run, open_run
from btkeras.training import run_callbacks, tracking
from tests.conftest import TINY

Config = Callable[..., ExperimentConfig]


@dataclass
class Recorder:
    """A tracker that remembers, and fails where it is told to."""

    fails: str = ""
    said: list[tuple[Any, ...]] = field(default_factory=list)

    def __call__(self) -> Recorder:
        return self

    def start(self, run: Run, settings: Mapping[str, Any], identifier: str) -> str:
        return str(self._note("start", identifier) or "record 7")

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        self._note("epoch", number, sorted(metrics))

    def end(self, status: str, test: Mapping[str, float]) -> None:
        self._note("end", status, sorted(test))

    def _note(self, *said: Any) -> None:
        self.said.append(said)
        if said[0] == self.fails:
            raise ValueError("no connection")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(tracking, "SERVICES", {"mlflow": tracking._Service(made, "json")})
    return made


EPOCH = ["accuracy", "loss", "macro_recall", "val_accuracy", "val_loss", "val_macro_recall"]
TEST = ["accuracy", "auc", "brier", "ece", "macro_recall", "negative_log_likelihood"]


def test_hparams_has_settings_all_metrics_and_a_status(
    tiny_config: Config, shared_images: Path, tmp_path: Path
) -> None:
    metrics = start_run(tiny_config("train.epochs=1"), load_dataset(shared_images), tmp_path / "run")
    session = _hparams_session(tmp_path / "run")
    assert session["status"] == "STATUS_SUCCESS"
    assert session["settings"]["optimizer.name"] == "adamw"
    assert session["metrics"]["test", "accuracy"] == pytest.approx(metrics["accuracy"])
    assert {("train", "loss"), ("validation", "loss"), ("validation", "macro_recall")} <= session["metrics"].keys()


def test_hparams_of_a_run_that_failed_and_went_on_are_those_of_its_end(
    tiny_config: Config, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_callbacks, "save_state", full)
        with pytest.raises(OSError, match="No space left"):
            start_run(tiny_config("train.epochs=1"), load_dataset(shared_images), tmp_path / "run")
    assert _hparams_session(tmp_path / "run")["status"] == "STATUS_FAILURE"
    resume_run(tmp_path / "run")
    assert _hparams_session(tmp_path / "run")["status"] == "STATUS_SUCCESS"


def _hparams_session(logdir: Path) -> dict[str, Any]:
    """The only session, as TensorBoard's own plugin finds it."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(TBContext(logdir=str(logdir), data_provider=provider))
    wanted = api_pb2.ListSessionGroupsRequest(allowed_statuses=api_pb2.Status.values(), start_index=0, slice_size=10)
    found = list_session_groups.Handler(RequestContext(), context, "", wanted).run()
    (group,) = found.session_groups
    (session,) = group.sessions
    return {
        "status": api_pb2.Status.Name(session.status),
        "settings": {name: value.string_value for name, value in group.hparams.items()},
        "metrics": {(value.name.group, value.name.tag): value.value for value in session.metric_values},
    }


def test_mlflow_and_wandb_follow_a_run_also_when_it_goes_on(
    tiny_config: Config, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    facts = tracking.tracking(["mlflow", "wandb"])
    config, out = tiny_config("train.epochs=1", "train.keep_state=true", "schedule.name=constant"), tmp_path / "first"
    start_run(config, load_dataset(shared_images), out, facts=facts)
    metrics = resume_run(out, tiny_config("train.epochs=2", "train.keep_state=true", "schedule.name=constant"))

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("btkeras")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "first")
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert run.data.metrics["test_accuracy"] == pytest.approx(metrics["accuracy"])
    assert [value.step for value in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]

    records = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    (identifier,) = {file.stem for file in records}
    assert open_run(out).manifest()["tracking"] == {"mlflow": run.info.run_id, "wandb": identifier.removeprefix("run-")}
    # Records are protocol buffers with plain names.
    for name in (b"optimizer.learning_rate", b"val_loss", b"test_accuracy"):
        assert all(name in file.read_bytes() for file in records)

    before = len(client.get_metric_history(run.info.run_id, "test_accuracy"))
    resume_run(out)
    assert len(client.get_metric_history(run.info.run_id, "test_accuracy")) == before


@pytest.mark.parametrize(("fails", "last"), [("", "end"), ("epoch", "epoch")])
def test_a_tracker_that_fails_is_left_out_and_the_training_goes_on(
    fails: str,
    last: str,
    recorder: Recorder,
    tiny_config: Config,
    shared_images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder.fails = fails
    facts = tracking.tracking(["mlflow"])
    start_run(tiny_config("train.epochs=2"), load_dataset(shared_images), tmp_path / "run", facts=facts)
    assert open_run(tmp_path / "run").manifest()["epochs"] == 2
    assert recorder.said[-1][0] == last
    if fails:
        assert recorder.said == [("start", ""), ("epoch", 1, EPOCH)]
        assert "tracking by mlflow ends here: ValueError: no connection" in caplog.text
    else:
        assert recorder.said == [("start", ""), ("epoch", 1, EPOCH), ("epoch", 2, EPOCH), ("end", "finished", TEST)]


def test_a_tracker_that_does_not_begin_stops_a_run_that_can_go_on(
    recorder: Recorder, tiny_config: Config, shared_images: Path, tmp_path: Path
) -> None:
    recorder.fails, out = "start", tmp_path / "run"
    with pytest.raises(RunError, match=r"no connection.*--resume --out"):
        start_run(tiny_config("train.epochs=1"), load_dataset(shared_images), out, facts=tracking.tracking(["mlflow"]))
    assert recorder.said == [("start", "")]
    recorder.fails = ""
    resume_run(out)
    assert recorder.said[-1] == ("end", "finished", TEST)


def test_it_says_how_a_training_ended(
    recorder: Recorder, tiny_config: Config, shared_images: Path, tmp_path: Path
) -> None:
    config = tiny_config("optimizer.learning_rate=1e9", "optimizer.weight_decay=0", "schedule.warmup_epochs=0")
    with pytest.raises(RunError, match="finite"):
        start_run(config, load_dataset(shared_images), tmp_path / "run", facts=tracking.tracking(["mlflow"]))
    assert recorder.said[-1] == ("end", "failed", [])


def test_a_cross_validation_tracks_each_of_its_runs(recorder: Recorder, shared_images: Path, tmp_path: Path) -> None:
    config = load_config(None, (*TINY, "train.epochs=1", "cv.folds=2"))
    facts = tracking.tracking(["mlflow"])
    experiment = create_experiment(tmp_path / "cv", config, load_dataset(shared_images), facts=facts)
    run_job(experiment, 1)
    assert recorder.said == [("start", ""), ("epoch", 1, EPOCH), ("end", "finished", TEST)]
    assert experiment.run(experiment.jobs()[1]).manifest()["tracking"] == {"mlflow": "record 7"}


def test_a_run_that_goes_on_may_get_a_tracker(
    recorder: Recorder, tiny_config: Config, shared_images: Path, tmp_path: Path
) -> None:
    start_run(tiny_config("train.epochs=1"), load_dataset(shared_images), tmp_path / "run")
    result = CliRunner().invoke(main, ["train", "--resume", "--out", str(tmp_path / "run"), "--track", "mlflow"])
    assert result.exit_code == 0, result.stderr
    assert recorder.said == [("start", ""), ("end", "finished", TEST)]
    CliRunner().invoke(main, ["train", "--resume", "--out", str(tmp_path / "run"), "--track", "mlflow"])
    assert recorder.said[2] == ("start", "record 7")


def test_a_missing_library_is_said_before_anything_is_made(
    shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "SERVICES", {"wandb": tracking._Service(Recorder(), "not_there")})
    out = tmp_path / "run"
    result = CliRunner().invoke(main, ["train", "--data", str(shared_images), "--out", str(out), "--track", "wandb"])
    assert result.exit_code == 2 and "pip install 'btkeras[wandb]'" in result.stderr
    assert not out.exists()

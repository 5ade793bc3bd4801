"""Trackers follow a training from its settings to its test metrics: TensorBoard's HParams, MLflow, Weights & Biases.

Which ones follow a run is in its manifest, ``tracking``: name and identifier of the record there, so that a resumed
training goes on in the same. Accounts, servers and projects are set as these libraries document it, by their own
environment variables.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections import deque
from collections.abc import Collection, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Protocol, Self

import keras
import tensorflow as tf

from btkeras.config_io import config_to_dict
from btkeras.errors import ConfigError, RunError
from btkeras.logging import logger
from btkeras.runs import Run, TrainingFolder
from btkeras.training.background import BackgroundWriter

Settings = Mapping[str, str | int | float | bool]
Metrics = Mapping[str, float]

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
# Of a run's test metrics, those that a table of runs is sorted by.
_TEST_METRICS = ("accuracy", "macro_recall", "auc", "negative_log_likelihood", "brier", "ece")
# Where neither the user nor the library's variable names another one.
_PROJECT = "btkeras"


class Tracker(Protocol):
    """Keeps a record of one training."""

    def start(self, run: Run, settings: Settings, identifier: str) -> str:
        """Begins a record, or goes on with the one of ``identifier``, unless ""; returns its identifier."""

    def epoch(self, number: int, metrics: Metrics) -> None:
        """Adds an epoch, from 1; the validation's metrics begin with ``val_``."""

    def end(self, status: str, test: Metrics) -> None:
        """Ends it: ``finished`` with the test metrics, ``stopped`` by the user, or ``failed``."""


class HParams:
    """A row of TensorBoard's HParams: the run's folder is the session, its subsets' folders hold the metrics."""

    def start(self, run: Run, settings: Settings, identifier: str) -> str:
        # Imported here, because it drags in TensorBoard's web server.
        from tensorboard.plugins.hparams import api

        self._run = run
        # TensorBoard keeps the first settings and the first end that it finds, and this run may have failed before.
        for file in run.tensorboard.glob("events.out.tfevents.*"):
            file.unlink()
        with self._writing():
            api.hparams(dict(settings))
        return identifier

    def epoch(self, number: int, metrics: Metrics) -> None:
        """Nothing: the callback ``TensorBoard`` writes scalars."""

    def end(self, status: str, test: Metrics) -> None:
        """No status if it was stopped: TensorBoard has none for that."""
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.summary import session_end_pb

        codes = {FINISHED: api_pb2.STATUS_SUCCESS, FAILED: api_pb2.STATUS_FAILURE}
        with self._writing("test"):
            for name, value in test.items():
                tf.summary.scalar(name, value, self._run.manifest().get("epochs", 0))
        if status in codes:
            with self._writing():
                tf.summary.experimental.write_raw_pb(session_end_pb(codes[status]).SerializeToString(), step=0)

    def _writing(self, subset: str = "") -> Any:
        return tf.summary.create_file_writer(str(self._run.tensorboard / subset)).as_default()


class MLflow:
    """A run of MLflow, in the experiment ``$MLFLOW_EXPERIMENT_NAME`` or ``btkeras``."""

    def start(self, run: Run, settings: Settings, identifier: str) -> str:
        import mlflow

        self._client = mlflow.MlflowClient()
        if identifier:
            self._client.update_run(identifier, status="RUNNING")
        else:
            identifier = self._client.create_run(self._experiment(), run_name=run.path.name).info.run_id
            params = [mlflow.entities.Param(key, str(value)) for key, value in settings.items()]
            self._client.log_batch(identifier, params=params)
        self._identifier = identifier
        return identifier

    def epoch(self, number: int, metrics: Metrics) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._identifier, [Metric(name, value, now, number) for name, value in metrics.items()])

    def end(self, status: str, test: Metrics) -> None:
        known = self._client.get_run(self._identifier).data.metrics
        for name, value in test.items():
            # Not again, when a finished run is resumed.
            if known.get(f"test_{name}") != value:
                self._client.log_metric(self._identifier, f"test_{name}", value)
        self._client.set_terminated(self._identifier, {FINISHED: "FINISHED", STOPPED: "KILLED"}.get(status, "FAILED"))

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


class WandB:
    """A run of Weights & Biases, in the project ``$WANDB_PROJECT`` or ``btkeras``."""

    def start(self, run: Run, settings: Settings, identifier: str) -> str:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.path.name,
            id=identifier or None,
            resume="allow",
            config=dict(settings),
            settings=wandb.Settings(console="off"),
        )
        return str(self._run.id)

    def epoch(self, number: int, metrics: Metrics) -> None:
        self._run.log(dict(metrics), step=number)

    def end(self, status: str, test: Metrics) -> None:
        self._run.summary.update({f"test_{name}": value for name, value in test.items()})
        self._run.finish(exit_code=0 if status == FINISHED else 1)


class _Service(NamedTuple):
    tracker: type[Tracker]
    module: str


# By its name, which is also that of the extra that installs it.
SERVICES: Mapping[str, _Service] = MappingProxyType(
    {"mlflow": _Service(MLflow, "mlflow"), "wandb": _Service(WandB, "wandb")}
)


def tracking(names: Collection[str]) -> dict[str, dict[str, str]]:
    """What a new run's manifest says of its trackers, keys of ``SERVICES``; empty for none.

    Raises ``ConfigError`` if the library of one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(SERVICES[name].module) is None:
            rule = f"Tracking by {name} needs the package {SERVICES[name].module}"
            raise ConfigError(rule, received="none", remedy=f"Install it: pip install 'btkeras[{name}]'")
    return {"tracking": dict.fromkeys(names, "")} if names else {}


def track(folder: TrainingFolder, names: Collection[str]) -> None:
    """Adds trackers to a run, or to the runs of a cross-validation that are not begun yet; errors as ``tracking``."""
    known = folder.manifest().get("tracking", {})
    if set(names) - set(known):
        folder.update_manifest(tracking=tracking(names)["tracking"] | known)


class Trackers:
    """The trackers of a run, as a context manager around its training and test.

    One that fails is left out from there on, with a warning: a training is worth more than its record.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun, self._test = False, dict[str, float]()
        self._identifiers = dict(run.manifest().get("tracking", {}))
        tracking(self._identifiers)
        # Those that have begun.
        self._trackers: dict[str, Tracker] = {}

    def __enter__(self) -> Self:
        return self

    def begin(self) -> None:
        """Begins or goes on with all records, once: when it is clear that the run can be trained.

        Raises:
            RunError: If a tracker does not begin.
        """
        if self._begun:
            return
        self._begun = True
        sections = config_to_dict(self._run.config()).items()
        values = {f"{section}.{key}": value for section, keys in sections for key, value in keys.items()}
        settings = {key: str(value) if isinstance(value, list | dict) else value for key, value in values.items()}
        wanted: dict[str, type[Tracker]] = {
            "HParams": HParams,
            **{name: SERVICES[name].tracker for name in self._identifiers},
        }
        for name, make in wanted.items():
            tracker = make()
            try:
                identifier = tracker.start(self._run, settings, self._identifiers.get(name, ""))
            except Exception as error:  # These libraries' errors have no other common class.
                raise RunError(
                    f"Tracking by {name} must begin before the training does",
                    received=f"{type(error).__name__}: {error}",
                    remedy=f"Mend that, and go on with: btkeras train --resume --out {self._run.path}",
                ) from error
            self._trackers[name] = tracker
            if name in self._identifiers:
                self._identifiers[name] = identifier
        if self._identifiers:
            self._run.update_manifest(tracking=self._identifiers)

    def epoch(self, number: int, metrics: Metrics) -> None:
        """Hands an epoch to all of them."""
        self._each("epoch", number, metrics)

    def tested(self, metrics: Mapping[str, Any]) -> None:
        """Takes the test metrics, as of ``metrics.json``, for the end."""
        # A run that was trained before, or without epochs.
        self.begin()
        self._test = {name: metrics[name] for name in _TEST_METRICS if metrics.get(name) is not None}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._begun:
            return
        stopped = error and isinstance(error.__cause__ or error, KeyboardInterrupt)
        self._each("end", STOPPED if stopped else FAILED if error else FINISHED, self._test)

    def _each(self, method: str, *values: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*values)
            except Exception as error:  # As above.
                logger.warning(f"tracking by {name} ends here: {type(error).__name__}: {error}")
                del self._trackers[name]


class TrackedEpochs(keras.callbacks.Callback):
    """Hands each epoch to trackers, beside the training."""

    def __init__(self, trackers: Trackers, writer: BackgroundWriter) -> None:
        super().__init__()
        self._trackers, self._writer = trackers, writer
        self._waiting: deque[tuple[int, Metrics]] = deque()

    def on_epoch_end(self, epoch: int, logs: Metrics | None = None) -> None:
        self._waiting.append((epoch + 1, {name: float(value) for name, value in (logs or {}).items()}))
        # Under a name of its own: the callback of the next phase must not take its place.
        self._writer.give(self, self._send)
        self._writer.start()

    def _send(self) -> None:
        while self._waiting:
            self._trackers.epoch(*self._waiting.popleft())

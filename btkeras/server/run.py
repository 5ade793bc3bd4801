"""The server as a process: its socket, TensorFlow's threads, signals, and its end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import FrameType

import uvicorn

from btkeras.errors import ConfigError, ModelError
from btkeras.inference.model_folder import SAVED_MODEL, latest_version
from btkeras.machine import threads
from btkeras.server.app import create_app
from btkeras.server.engine import Engine
from btkeras.server.logs import log, start_logging
from btkeras.server.protocol import bounded_protocol
from btkeras.server.settings import ServerSettings
from btkeras.server.versions import has_version

_BACKLOG = 512


def serve(settings: ServerSettings) -> None:
    """Serves a model until SIGTERM or SIGINT.

    Then readiness goes off, answers close their connections, and after ``drain_seconds`` no connection is taken any
    more; requests under way are answered, and the process ends. A second signal ends it at once.

    Raises:
        ConfigError: If the address cannot be had.
        ModelError: If there is no model, or none of its versions can be loaded; not with ``wait``.
    """
    if not settings.wait and not has_version(settings.model):
        raise _no_model(settings.model)
    listener = _listen(settings.host, settings.port)
    with listener:
        start_logging()
        _use_cores()
        asyncio.run(_serve(settings, listener))


def _no_model(given: Path) -> ModelError:
    rule = "A model to serve must be a folder with a SavedModel, NAME/VERSION/saved_model.pb"
    if (given / SAVED_MODEL).is_file():
        return ModelError(rule, received=f"{given}, a version", remedy=f"Name the folder above it: {given.parent}")
    version = latest_version(given)
    if version is not None:
        return ModelError(
            rule,
            received=f"{given}, whose version {version.name} has another format",
            remedy="Export its run as a SavedModel (`btkeras export RUN --out MODEL`); of the model that is installed "
            "with btkeras there is no run: train one. `btkeras predict` and Python take the other formats",
        )
    if (given / "config.yaml").is_file():
        remedy = f"Export it first: btkeras export {given} --out saved_models/{given.resolve().name}"
        return ModelError(rule, received=f"{given}, a run", remedy=remedy)
    remedy = f"Write one with `btkeras export RUN --out {given}`, or wait for it with --wait"
    return ModelError(rule, received=given, remedy=remedy)


async def _serve(settings: ServerSettings, listener: socket.socket) -> None:
    engine = Engine(settings)
    try:
        await engine.start()
        if not settings.wait and engine.versions.latest is None:
            errors = "; ".join(status.error for status in engine.versions.statuses.values())
            raise ModelError("At least one version must be a whole SavedModel", received=errors)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log("listening", url=f"http://{shown}:{port}", model=settings.name, token=settings.token is not None)
        await _Server(_config(settings, engine), engine).serve([listener])
    finally:
        await engine.stop()
    log("stopped")


def _config(settings: ServerSettings, engine: Engine) -> uvicorn.Config:
    limits = settings.limits
    return uvicorn.Config(
        create_app(engine),
        http=bounded_protocol(limits),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.idle_seconds) or 1,
        # A request's own limits end it sooner.
        timeout_graceful_shutdown=int(limits.body_seconds + limits.request_seconds) + 1,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which says that it is about to stop before it does."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal drains, on the second ends. Unlike uvicorn's own it leaves the exit code 0."""
        if self._engine.draining:
            self.should_exit = self.force_exit = True
            return
        self._engine.draining = True
        seconds = self._engine.settings.drain_seconds
        log("draining", seconds=seconds)
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(loop.call_later, seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Not `reuse_port`: a second server would take requests from the first unseen.
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            "The address to serve at must be free and this machine's own",
            received=f"{host}:{port} ({error.strerror if isinstance(error, OSError) else error})",
            remedy="Choose another with --host and --port; --port 0 takes a free one",
        ) from error


def _use_cores() -> None:
    """One batch at a time gets all cores; two at once would only share them."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads())
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads()))
    except RuntimeError:
        # TensorFlow runs already, with the threads it has.
        log("threads unchanged")

"""``btkeras serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btkeras.cli.common import PATH, echo_engine, echo_model, located
from btkeras.errors import ConfigError

if TYPE_CHECKING:
    from btkeras.inference.backends import InferenceBackend

_TOKEN = "BTKERAS_TOKEN"
_LIMITS = ("instances", "pixels", "queued_images", "connections", "request_seconds")
# A run's model is re-parameterised for as many images: that takes half a second at the start and makes each faster.
_MANY_IMAGES = 1_000


@click.command(short_help="Serve a model: TensorFlow Serving's REST interface and a web page.")
@click.argument("model", required=False, type=PATH)
@click.option("--name", help="The model's name in requests.  [default: its folder's]")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8501, help="Port to listen on; 0 takes a free one.")
@click.option("--token-file", type=PATH, help="File with the token that clients must send.")
@click.option("--drain-seconds", default=0.0, help="From SIGTERM until it stops accepting.")
@click.option("--max-queue", "queued_images", default=256, help="Images under way; 503 beyond.")
@click.option("--max-instances", "instances", default=64, help="Images in one request; 413 beyond.")
@click.option("--max-mib", default=32.0, help="Size of one request; 413 beyond.")
@click.option("--max-pixels", "pixels", default=10_000_000, help="Pixels of one image; 400 beyond.")
@click.option("--max-connections", "connections", default=512, help="Open connections; 503 beyond.")
@click.option("--timeout-seconds", "request_seconds", default=30.0, help="Time for a response; 504 beyond.")
def serve(model: Path | None, token_file: Path | None, **options: Any) -> None:
    """Serve one model over HTTP on one machine, as TensorFlow Serving does, with a web page at /.

    MODEL is a run folder, an exported model (SavedModel, LiteRT or ONNX), or `newest`; without it the
    pretrained model is served. To serve another version, restart it. In production, use TensorFlow Serving (deploy/).

    On Ctrl-C or SIGTERM it answers the requests under way and stops. Logs go to standard error, a JSON object a line;
    metrics for Prometheus are at /metrics. By default only this machine can connect: for others, set a token
    (--token-file, or the environment variable BTKERAS_TOKEN) and put TLS in front.

    \b
    Examples:
      btkeras serve
      btkeras serve saved_models/cpu --port 8080
      btkeras serve runs/first --host 0.0.0.0 --token-file token.txt --drain-seconds 5
      (printf '{"instances": [{"image_bytes": {"b64": "'; base64 -w0 slice.png; printf '"}}]}') > request.json
      curl -d @request.json localhost:8501/v1/models/brain_tumour_mri:predict
    """
    from btkeras.server.limits import MIB, Limits
    from btkeras.server.settings import ServerSettings

    own = {name: options.pop(name) for name in _LIMITS}
    limits = Limits(body_bytes=int(options.pop("max_mib") * MIB), **own)
    settings = ServerSettings(options.pop("name") or "", token=_read_token(token_file), limits=limits, **options)
    if settings.is_public:
        warning = f"anyone who reaches {settings.host} can use this server; set a token (--token-file)"
        click.echo(f"warning: {warning}", err=True)
    backend = _load(model)
    from btkeras.server import app

    app.serve(backend, settings)


def _load(model: Path | None) -> InferenceBackend:
    from btkeras.inference.backends import default_model

    with located(model or default_model(), explained=True) as location:
        backend = location.load(_MANY_IMAGES)
    echo_model(location.path, model is not None)
    echo_engine(backend.engine)
    return backend


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except ValueError as error:
        raise ConfigError("A token's file must be text", received=file) from error
    if not text:
        raise ConfigError("A token's file must not be empty", received=file)
    return text

"""``btkeras serve``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from btkeras.cli.group import quiet_tensorflow
from btkeras.errors import ConfigError

_TOKEN = "BTKERAS_TOKEN"


@click.command(short_help="Answer requests: TensorFlow Serving's REST interface and a web page.")
@click.option("--model", required=True, type=click.Path(path_type=Path), help="An exported model, saved_models/NAME.")
@click.option("--name", default="", help="The model's name in requests.  [default: the folder's]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8501, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token that clients must send.")
@click.option("--cors-origin", "origins", multiple=True, help="Web origin whose pages may call; may be repeated.")
@click.option("--keep", default=1, show_default=True, help="How many of the highest versions to serve.")
@click.option("--poll-seconds", default=2.0, show_default=True, help="Between looks for new versions.")
@click.option("--drain-seconds", default=0.0, show_default=True, help="Not ready but answering, before the end.")
@click.option("--wait", is_flag=True, help="Start without a model, and wait for one.")
@click.option("--max-batch", default=32, show_default=True, help="Images in a batch; 1: no batching.")
@click.option("--batch-wait-ms", default=2.0, show_default=True, help="How long an image waits for others.")
@click.option("--max-queue", default=256, show_default=True, help="Images under way; 503 beyond.")
@click.option("--max-instances", default=64, show_default=True, help="Images in one request; 413 beyond.")
@click.option("--max-mib", default=32.0, show_default=True, help="Size of one request; 413 beyond.")
@click.option("--max-pixels", default=10_000_000, show_default=True, help="Pixels of one image; 400 beyond.")
@click.option("--max-connections", default=512, show_default=True, help="Open connections; 503 beyond.")
@click.option("--timeout-seconds", default=30.0, show_default=True, help="For an answer; 504 beyond.")
def serve(model: Path, token_file: Path | None, **options: Any) -> None:
    """Serve an exported model over HTTP, as TensorFlow Serving does, with a web page at /.

    New versions in the model's folder are picked up while it runs. Images of several requests go through the network
    together. What is too large, too slow or malformed is refused. Stops on Ctrl-C or SIGTERM when all requests under
    way are answered. Logs go to standard error, a JSON object a line; metrics for Prometheus are at /metrics.

    By default only this machine can connect. For others, set a token (--token-file, or the environment variable
    BTKERAS_TOKEN) and put TLS in front. Needs: pip install 'btkeras[serve]'.

    \b
    Examples:
      btkeras serve --model saved_models/cpu
      btkeras serve --model saved_models/cpu --host 0.0.0.0 --token-file token.txt --drain-seconds 5
      (printf '{"instances": [{"b64": "'; base64 -w0 slice.png; printf '"}]}') > request.json
      curl -d @request.json localhost:8501/v1/models/cpu:predict
      curl localhost:8501/v1/models/cpu
    """
    _need_extra()
    token = _token(token_file)
    quiet_tensorflow()
    from btkeras.server.run import serve as run_server
    from btkeras.server.settings import ServerSettings

    settings = ServerSettings(model, token=token, **_parts(options))
    if settings.open_to_others:
        click.echo(
            f"warning: anyone who reaches {settings.host} can use this server; set a token (--token-file)", err=True
        )
    run_server(settings)


def _parts(options: dict[str, Any]) -> dict[str, Any]:
    """Options as fields of ``ServerSettings``."""
    from btkeras.server.settings import MIB, Batching, Limits

    limits = Limits(
        body_bytes=int(options.pop("max_mib") * MIB),
        instances=options.pop("max_instances"),
        pixels=options.pop("max_pixels"),
        queued_images=options.pop("max_queue"),
        connections=options.pop("max_connections"),
        request_seconds=options.pop("timeout_seconds"),
    )
    batching = Batching(options.pop("max_batch"), options.pop("batch_wait_ms"))
    return options | {"limits": limits, "batching": batching}


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(_TOKEN) or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except ValueError as error:
        raise ConfigError("A token's file must be text", received=file) from error
    if not text:
        raise ConfigError("A token's file must not be empty", received=file)
    return text


def _need_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "btkeras serve needs its extra packages",
            received=f"no {', '.join(missing)}",
            remedy="pip install 'btkeras[serve]'",
        )

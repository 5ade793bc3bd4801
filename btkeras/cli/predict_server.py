"""``btkeras predict --server``: answers of a server instead of a model loaded here. Loads no TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from btkeras.errors import ConfigError

if TYPE_CHECKING:
    from btkeras.inference.inputs import SliceRef
    from btkeras.inference.processing import FilePrediction

_HERE_ONLY = ("model", "coverage", "explain", "method")
_THERE_ONLY = ("name", "model_version")


def remote(context: click.Context) -> bool:
    """Whether ``predict`` is to ask a server.

    Raises:
        ConfigError: If an option was given that then means nothing.
    """
    asked = context.params["server"] is not None
    given = [name for name in (_HERE_ONLY if asked else _THERE_ONLY) if _given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        rule = "With --server the model is the server's" if asked else f"{options} belongs to --server"
        remedy = f"Leave {options} away" if asked else "Say where it is: --server http://localhost:8501"
        raise ConfigError(rule, received=options if asked else "no --server", remedy=remedy)
    return asked


def ask(
    refs: Sequence[SliceRef], server: str, name: str | None, version: str | None
) -> tuple[Sequence[str], Iterator[FilePrediction]]:
    """The classes and the answers of a server; errors as ``Client``."""
    # Imported here because it takes a third as long as an answer that asks no server.
    from btkeras.inference.client import NAME, Client
    from btkeras.inference.client_http import TOKEN

    client = Client(server, name or NAME, version or "", os.environ.get(TOKEN))
    click.echo(f"server: {client.source}", err=True)
    click.echo(
        "answers of a server have no prediction sets and no outliers, and refuse no image by its looks", err=True
    )
    return client.predict_files(refs)


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

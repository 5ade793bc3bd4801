"""The click group: commands in sections, and errors as one message."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from btkeras.errors import BTKerasError
from btkeras.logging import log_to_terminal


class Failure(click.ClickException):
    """One message on standard error, with the exit code that fits."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class SectionedGroup(click.Group):
    """A group that lists its commands in sections and turns expected exceptions into messages."""

    sections: Mapping[str, Sequence[str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self.sections.items():
            with formatter.section(title):
                commands = [(name, self.commands[name]) for name in names]
                formatter.write_dl([(name, command.get_short_help_str(80)) for name, command in commands])

    def invoke(self, ctx: click.Context) -> Any:
        log_to_terminal()
        try:
            return super().invoke(ctx)
        except (BTKerasError, OSError) as error:
            # A reader that went away (`| head`) is no failure of ours; click ends quietly.
            if isinstance(error, BrokenPipeError):
                raise
            if ctx.params.get("debug"):
                traceback.print_exc(file=sys.stderr)
            raise _failure(error) from error


def _failure(error: BTKerasError | OSError) -> Failure:
    if isinstance(error, BTKerasError):
        return Failure(str(error), error.exit_code)
    reason = error.strerror or str(error)
    place = f"{error.filename}: " if error.filename else ""
    return Failure(
        f"Files must be readable and writable. Received: {place}{reason}. Check the path and the free space."
    )


def quiet_tensorflow() -> None:
    """Loads TensorFlow without the lines that its C++ code prints at import; a failing import still says why."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_engine():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def quiet_engine() -> Iterator[None]:
    """Keeps off standard error what an engine's C++ code prints as it is loaded; exceptions still come."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

"""The ``btkeras`` command. Nothing here loads TensorFlow until a command runs."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import click

import btkeras
from btkeras.cli import benchmark, data, evaluate, export, hub, predict, serve, train
from btkeras.cli.common import Failure, Terminated, terminable
from btkeras.errors import BTKerasError
from btkeras.logging import log_to_terminal

_SECTIONS = {
    "Data": (data.prepare, data.audit, data.shortcuts),
    "Train and evaluate": (
        *(train.train, evaluate.evaluate, evaluate.calibrate, evaluate.robustness),
        *(train.cv, train.ensemble, evaluate.report, evaluate.card),
    ),
    "Use a model": (
        *(predict.predict, export.selftest, export.export, serve.serve, benchmark.benchmark),
        *(hub.push, hub.pull),
    ),
}
_COMMANDS = {str(command.name): command for commands in _SECTIONS.values() for command in commands}


class _Commands(click.Group):
    """Lists its commands in sections, and turns expected exceptions into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(80)) for command in commands])

    def invoke(self, ctx: click.Context) -> Any:
        log_to_terminal()
        # Pillow warns of odd metadata without naming the file; what it cannot read is an error.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            with terminable():
                return super().invoke(ctx)
        except Terminated as signal:
            raise Failure(f"Stopped by {signal}; what was being written is removed", signal.exit_code) from signal
        except (BTKerasError, OSError) as error:
            # When the reader of a pipe ends (`| head`), click ends quietly.
            if isinstance(error, BrokenPipeError):
                raise
            if ctx.params.get("debug"):
                # Imported here because it takes longer than the help.
                import traceback

                traceback.print_exc(file=sys.stderr)
            raise _failure(error) from error


def _failure(error: BTKerasError | OSError) -> Failure:
    if isinstance(error, BTKerasError):
        # A training that was stopped says how to go on.
        code = error.__cause__.exit_code if isinstance(error.__cause__, Terminated) else error.exit_code
        return Failure(str(error), code)
    found = f"{error.filename}: " * bool(error.filename) + (error.strerror or str(error))
    return Failure(f"Files must be readable and writable. Received: {found}. Check the path and the free space.")


@click.group(
    cls=_Commands,
    commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
    epilog="Research use only: btkeras is no medical device.",
)
@click.version_option(btkeras.__version__, prog_name="btkeras")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool) -> None:
    """Classify brain-tumour MRI slices: glioma, meningioma, pituitary tumour, no tumour.

    \b
    Examples:
      btkeras train --data phantom --config configs/quick.yaml --out runs/first
      btkeras predict slice.png
      btkeras export runs/first --out saved_models/first
    """

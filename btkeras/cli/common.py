"""What the commands share: options, errors as one message, and quiet loading of TensorFlow."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btkeras.config import GROUPINGS
from btkeras.errors import BTKerasError, ModelError
from btkeras.logging import log_to_terminal

if TYPE_CHECKING:
    from btkeras.config import PhantomConfig
    from btkeras.datasets.dataset import Dataset

PATH = click.Path(path_type=Path)
_Option = Callable[[Callable[..., Any]], Callable[..., Any]]


data_option: _Option = click.option(
    "--data",
    metavar="DATASET",
    help="A dataset's folder, or `phantom` for the synthetic one; with --resume only if it has moved.",
)
config_option: _Option = click.option(
    "--config",
    "config_files",
    multiple=True,
    type=PATH,
    help="YAML file with settings, see configs/; of several, a later one replaces keys of an earlier one.",
)
set_option: _Option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, e.g. train.epochs=10."
)
group_by_option: _Option = click.option(
    "--group-by",
    type=click.Choice(GROUPINGS),
    help="Short for --set data.group_by=: what a split keeps in one subset. Nothing (image, as the paper); "
    "near-duplicates (duplicate); a patient's slices (patient); similar slices of adjacent numbers, where patients are "
    "not named (series); the folds of FigShare's authors (official).  [default: image]",
)
skip_broken_option: _Option = click.option(
    "--skip-broken", is_flag=True, help="Leave out images that cannot be read, and record them."
)
run_argument: _Option = click.argument("run", type=PATH)


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
            # When the reader of a pipe ends (`| head`), click ends quietly.
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
    """Loads TensorFlow without what its C++ code prints; exceptions still come."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_engine():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def quiet_engine() -> Iterator[None]:
    """Discards what an inference engine's C++ code prints to standard error; exceptions still come."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


@contextlib.contextmanager
def quiet_backend(needs_tensorflow: bool) -> Iterator[None]:
    """Discards what is printed while an inference backend is loaded; TensorFlow is loaded before, if needed.

    Raises:
        ModelError: If TensorFlow is needed and not installed.
    """
    if not needs_tensorflow:
        with quiet_engine():
            yield
        return
    try:
        quiet_tensorflow()
    except ImportError as error:
        raise ModelError(
            "This model needs the package tensorflow", received=error, remedy="Install it: pip install tensorflow"
        ) from error
    yield


def open_dataset(name: str, phantom: PhantomConfig) -> Dataset:
    """The dataset that ``--data`` names: a folder, or ``phantom``."""
    if name == "phantom":
        from btkeras.datasets.phantom import cached_phantom
        from btkeras.machine import cache_folder

        return cached_phantom(phantom, cache_folder())
    from btkeras.datasets.dataset import load_dataset

    return load_dataset(name)

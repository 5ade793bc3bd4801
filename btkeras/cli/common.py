"""What the commands share: options, errors as one message, and quiet loading of TensorFlow."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btkeras.config import GROUPINGS
from btkeras.errors import DataError, ModelError
from btkeras.keras_settings import require_usable_keras
from btkeras.quiet import load_tensorflow

if TYPE_CHECKING:
    from btkeras.config import PhantomConfig
    from btkeras.datasets.dataset import Dataset
    from btkeras.inference.backends import ModelLocation

_SIGNALS = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


class _Path(click.Path):
    """A path that is no option: of ``--explain --out maps``, click makes the folder ``--out`` otherwise."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = str(value)
        if name.startswith("-") and name != "-":
            self.fail(
                f"a path must not begin with -. Received: {name}. Did you forget a path? Or write ./{name}", param, ctx
            )
        return super().convert(value, param, ctx)


PATH = _Path(path_type=Path)
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
    "not named (series); the published split (official): FigShare's folds, or a training and a test part.  "
    "[default: image]",
)
split_column_option: _Option = click.option(
    "--split-column",
    metavar="NAME",
    help="Test the published test part, by this column of manifest.csv (train, test, perhaps validation, for each "
    "image). Short for --group-by official --set data.split_column=NAME.",
)
skip_broken_option: _Option = click.option(
    "--skip-broken", is_flag=True, help="Leave out images that cannot be read, and record them."
)
json_option: _Option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
run_argument: _Option = click.argument("run", type=PATH)


def echo(document: Any, as_json: bool, text: Callable[[Any], str]) -> None:
    """Prints a result as JSON, or as the text that is made of it."""
    click.echo(json.dumps(document, indent=2) if as_json else text(document))


class Failure(click.ClickException):
    """One message on standard error, with the exit code that fits."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Terminated(KeyboardInterrupt):
    """A signal that asks the process to end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Ends the block by an exception at SIGTERM, a scheduler's, and SIGHUP, a terminal's, so that it is cleared up."""

    def end(number: int, frame: object) -> None:
        raise Terminated(number)

    # `nohup` ignores one, and only the main thread may ask.
    main = threading.current_thread() is threading.main_thread()
    wanted = [number for number in _SIGNALS if main and signal.getsignal(number) is signal.SIG_DFL]
    for number in wanted:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, signal.SIG_DFL)


def quiet_tensorflow() -> None:
    """Loads TensorFlow, and Keras with it, as ``load_tensorflow``.

    Raises:
        ConfigError: If Keras' settings would break a run.
    """
    require_usable_keras()
    load_tensorflow()


@contextlib.contextmanager
def located(model: Path, explained: bool = False) -> Iterator[ModelLocation]:
    """Finds a model for the block to load; TensorFlow is loaded before, if needed.

    Raises:
        ModelError: If there is no such model, or TensorFlow is needed and not installed.
    """
    from btkeras.inference.backends import locate

    location = locate(model, explained)
    try:
        if location.needs_tensorflow:
            quiet_tensorflow()
    except ImportError as error:
        rule, remedy = "This model needs the package tensorflow", "Install it: pip install tensorflow"
        raise ModelError(rule, received=error, remedy=remedy) from error
    yield location


def echo_model(file: Path, chosen: bool) -> None:
    """Says which model is used, on what it was trained, and what the pretrained one is if it was not chosen."""
    from btkeras.inference.backends import training_data
    from btkeras.inference.model_folder import is_pretrained, pretrained_summary

    click.echo(f"model: {file}", err=True)
    if is_pretrained(file):
        if not chosen:
            click.echo(pretrained_summary(file), err=True)
    elif data := training_data(file):
        click.echo(f"trained on: {data}", err=True)
        if data.startswith("phantom"):
            text = "trained on the phantom's drawn images: what it says of real slices means nothing"
            click.echo(f"warning: this model was {text}", err=True)
    echo_unfinished(file)


def echo_engine(engine: str) -> None:
    """Says what runs a model, where that is not its format's own engine."""
    if engine:
        click.echo(f"engine: {engine} (BTKERAS_ENGINE names another one)", err=True)


def echo_unfinished(file: Path) -> None:
    """Says how far the training of a model's file is, if it is unfinished."""
    from btkeras.inference.backends import training_state

    if state := training_state(file):
        click.echo(f"warning: the training of {file}: {state}", err=True)


def echo_unknown_slices(model: Path) -> None:
    """Says it of a run's or version's folder that has nothing to recognize its training and validation slices by."""
    from btkeras.inference.model_folder import hashes_file

    if hashes_file(model) is None:
        text = "has no hashes of its training slices, so near-duplicates of them are not recognized"
        click.echo(f"{model} {text}; an export of btkeras has them", err=True)


def open_dataset(name: str, phantom: PhantomConfig) -> Dataset:
    """The dataset that ``--data`` names: a folder, or ``phantom``."""
    if name == "phantom":
        from btkeras.datasets.phantom import cached_phantom
        from btkeras.machine import cache_folder

        return cached_phantom(phantom, cache_folder())
    from btkeras.datasets.dataset import load_dataset

    if not name:
        raise DataError("A dataset must be a folder", received="an empty name", remedy="Say where the images are")
    return load_dataset(name)

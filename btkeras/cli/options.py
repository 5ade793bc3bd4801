"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btkeras.config import GROUPINGS

if TYPE_CHECKING:
    from btkeras.config import PhantomConfig
    from btkeras.datasets.dataset import Dataset

_Command = Callable[..., Any]

dataset: Callable[[_Command], _Command] = click.option(
    "--data",
    metavar="DATASET",
    help="A dataset's folder, or `phantom` for the synthetic one; with --resume only if it has moved.",
)
config_files: Callable[[_Command], _Command] = click.option(
    "--config",
    "config_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="YAML file with settings, see configs/; of several, a later one replaces keys of an earlier one.",
)
overrides: Callable[[_Command], _Command] = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting, e.g. train.epochs=10."
)
group_by: Callable[[_Command], _Command] = click.option(
    "--group-by",
    type=click.Choice(GROUPINGS),
    help="Short for --set data.group_by=: what a split keeps on one side. Nothing (image, the paper's); near-copies "
    "(duplicate); a patient's slices (patient); slices of neighbouring numbers that look alike, where patients are not "
    "named (series); the folds of FigShare's authors (official).  [default: image]",
)
skip_broken: Callable[[_Command], _Command] = click.option(
    "--skip-broken", is_flag=True, help="Leave out images that cannot be read, and record them."
)
run_folder: Callable[[_Command], _Command] = click.argument("run", type=click.Path(path_type=Path))


def open_dataset(name: str, phantom: PhantomConfig) -> Dataset:
    """The dataset that ``--data`` names: a folder, or ``phantom``."""
    if name == "phantom":
        from btkeras.datasets.phantom.dataset import cached_phantom
        from btkeras.machine import cache_folder

        return cached_phantom(phantom, cache_folder())
    from btkeras.datasets.dataset import load_dataset

    return load_dataset(name)

"""``btkeras robustness``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from btkeras.cli.common import open_dataset, quiet_tensorflow, run_argument


def _count(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 nor `all`.")
    return int(value)


@click.command(short_help="How accuracy and confidence hold under noise, blur, rotation ...")
@run_argument
@click.option("--data", metavar="DATASET", help="Another dataset, all of whose images count; or `phantom`.")
@click.option(
    "--images",
    default="200",
    show_default=True,
    metavar="N|all",
    callback=_count,
    help="How many, drawn at random from each class in its proportion.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def robustness(run: Path, data: str | None, images: int | None, as_json: bool) -> None:
    """Show RUN's network its test images under nine changes at five strengths each.

    Noise, blur, gamma, bias field, rotation, JPEG, contrast, resolution and inversion, from barely visible to severe:
    accuracy, balanced accuracy, mean confidence and calibration error beside those of the images as they are. A
    image is changed at the size it is stored at, the same way each time. The figures are written to
    RUN/robustness.json, and one image under all the changes to RUN/robustness.png; those of another dataset to
    RUN/evaluations/NAME/. `btkeras report` shows them.

    \b
    Examples:
      btkeras robustness runs/cpu
      btkeras robustness runs/cpu --images all --json
      btkeras robustness runs/cpu --data data/other-hospital
    """
    quiet_tensorflow()
    from btkeras.evaluation.robustness import Sampling, measure_robustness, robustness_table
    from btkeras.runs import open_run

    opened = open_run(run)
    dataset = open_dataset(data, opened.config().phantom) if data else None
    document = measure_robustness(opened, dataset, Sampling(images))
    click.echo(json.dumps(document, indent=2) if as_json else robustness_table(document))

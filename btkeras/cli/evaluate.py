"""``btkeras evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from btkeras.cli import options
from btkeras.cli.group import quiet_tensorflow


@click.command(short_help="Compute a run's figures again, or on another dataset.")
@options.run_folder
@click.option("--data", metavar="DATASET", help="Another dataset, all of which is tested; or `phantom`.")
@click.option("--split", "part", default="test", show_default=True, type=click.Choice(["test", "validation", "train"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@options.skip_broken
def evaluate(run: Path, data: str | None, part: str, as_json: bool, skip_broken: bool) -> None:
    """Compute the figures of RUN's best checkpoint: on its own test part, or on another dataset.

    Accuracy, precision, recall, specificity and F1 per class (one against the rest) and macro-averaged, and the
    confusion matrix. They are printed and written, with a prediction per picture, to RUN/metrics.json and
    RUN/predictions.csv, or to RUN/evaluations/NAME/ for another part or dataset.

    \b
    Examples:
      btkeras evaluate runs/cpu
      btkeras evaluate runs/cpu --split validation --json
      btkeras evaluate runs/cpu --data data/other-hospital
    """
    quiet_tensorflow()
    from btkeras.evaluation.evaluate import evaluate_dataset, evaluate_split, metrics_table
    from btkeras.runs import open_run

    opened = open_run(run)
    if data:
        dataset = options.open_dataset(data, opened.config().phantom)
        metrics = evaluate_dataset(opened, dataset, skip_broken=skip_broken)
    else:
        metrics = evaluate_split(opened, part)
    click.echo(json.dumps(metrics, indent=2) if as_json else metrics_table(metrics))

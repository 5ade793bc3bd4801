"""``btkeras calibrate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from btkeras.cli.common import quiet_tensorflow, run_argument


@click.command(short_help="Make a run's probabilities mean what they say.")
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the calibration figures of the test part as JSON.")
def calibrate(run: Path, as_json: bool) -> None:
    """Calibrate RUN's best checkpoint on its validation part, then compute the figures of its test part again.

    A temperature that the network's logits are divided by is fitted and stored in RUN/best.keras, so that `predict`,
    `export` and `evaluate` have it; the most probable class stays what it was. RUN/calibration.json keeps what
    prediction sets are made from, and RUN/ood.npz what tells images unlike the training slices.
    `train` and `cv` do this themselves: it is for runs of before they did.

    \b
    Examples:
      btkeras calibrate runs/cpu
      btkeras calibrate runs/cpu --json
    """
    quiet_tensorflow()
    from btkeras.evaluation.calibrate import calibrate as calibrate_run
    from btkeras.evaluation.calibrate import fit_ood
    from btkeras.evaluation.evaluate import evaluate_split
    from btkeras.evaluation.results import metrics_table
    from btkeras.runs import open_run

    opened = open_run(run)
    calibrate_run(opened)
    fit_ood(opened)
    metrics = evaluate_split(opened)
    click.echo(json.dumps(metrics["calibration"], indent=2) if as_json else metrics_table(metrics))

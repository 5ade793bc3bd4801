"""``btkeras evaluate``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from btkeras.cli import options
from btkeras.cli.group import quiet_tensorflow
from btkeras.errors import ConfigError


@click.command(short_help="Compute a run's figures again, or on another dataset.")
@options.run_folder
@click.option("--data", metavar="DATASET", help="Another dataset, all of which is tested; or `phantom`.")
@click.option("--split", "part", default="test", show_default=True, type=click.Choice(["test", "validation", "train"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--explain", is_flag=True, help="Score explanations against tumour boxes or masks as well.")
@click.option("--method", "methods", multiple=True, help="Of --explain; repeatable. [default: layercam]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Explain N pictures, drawn evenly. [default: all]")
@options.skip_broken
def evaluate(  # noqa: PLR0913 - one parameter an option
    run: Path,
    data: str | None,
    part: str,
    as_json: bool,
    explain: bool,
    methods: tuple[str, ...],
    limit: int | None,
    skip_broken: bool,
) -> None:
    """Compute the figures of RUN's best checkpoint: on its own test part, or on another dataset.

    Accuracy, precision, recall, specificity and F1 per class (one against the rest) and macro-averaged, and the
    confusion matrix. They are printed and written, with a prediction per picture, to RUN/metrics.json and
    RUN/predictions.csv, or to RUN/evaluations/NAME/ for another part or dataset.

    --explain asks whether the network looks at the tumours: maps by layercam, gradcam or occlusion (slow: see
    --limit) of the tumours that it named correctly are held against their boxes or masks, beside simple baselines and
    the same network with random weights. The scores are printed and written to explanations.json.

    \b
    Examples:
      btkeras evaluate runs/cpu
      btkeras evaluate runs/cpu --split validation --json
      btkeras evaluate runs/cpu --data data/other-hospital
      btkeras evaluate runs/cpu --explain --method layercam --method occlusion --limit 100
    """
    if (methods or limit) and not explain:
        raise ConfigError("--method and --limit belong to --explain", remedy="Add --explain, or leave them away")
    quiet_tensorflow()
    from btkeras.evaluation.evaluate import evaluate_dataset, evaluate_split, metrics_table
    from btkeras.evaluation.explain_methods import DEFAULT_METHOD, method_of
    from btkeras.evaluation.explain_scores import explanations_table, score_explanations
    from btkeras.runs import open_run

    opened = open_run(run)
    dataset = options.open_dataset(data, opened.config().phantom) if data else None
    for method in methods:
        method_of(method)
    if dataset is not None:
        metrics = evaluate_dataset(opened, dataset, skip_broken=skip_broken)
    else:
        metrics = evaluate_split(opened, part)
    if not as_json:
        click.echo(metrics_table(metrics))
    if explain:
        chosen = methods or (DEFAULT_METHOD,)
        scores = score_explanations(opened, part, dataset=dataset, methods=chosen, limit=limit)
        metrics = {**metrics, "explanations": scores}
        if not as_json:
            click.echo(f"\n{explanations_table(scores)}")
    if as_json:
        click.echo(json.dumps(metrics, indent=2))

"""``btkeras train``."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from btkeras.cli import options
from btkeras.cli.group import quiet_tensorflow


@click.command(short_help="Train a network on one split of a dataset.")
@options.dataset
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run folder to make.")
@options.config_files
@options.overrides
@click.option("--model", help="Short for --set model.name=NAME.")
@click.option("--weights", help="Short for --set model.weights=: imagenet, or a file of weights to fine-tune.")
@options.group_by
@click.option("--resume", is_flag=True, help="Go on with the run in --out; start it if it is not there.")
@options.skip_broken
def train(  # noqa: PLR0913 - an argument per option
    data: str | None,
    out: Path,
    config_files: tuple[Path, ...],
    overrides: tuple[str, ...],
    model: str | None,
    weights: str | None,
    group_by: str | None,
    resume: bool,
    skip_broken: bool,
) -> None:
    """Train a network on one split of a dataset, then test its best checkpoint.

    The best checkpoint is chosen on the validation part; the test part is looked at once, at the end. Ctrl-C stops
    after the last finished epoch, and --resume goes on from there to the very result of an uninterrupted run.

    \b
    Examples:
      btkeras train --data phantom --config configs/quick.yaml --out runs/first
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/cpu --model resnet34
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/patients --group-by patient
      btkeras train --data data/figshare --config configs/paper.yaml --out runs/p --set train.epochs=50
      btkeras train --resume --out runs/cpu
      tensorboard --logdir runs
    """
    from btkeras.config_io import load_config

    shorts = {"model.name": model, "model.weights": weights, "data.group_by": group_by}
    overrides = (*overrides, *(f"{key}={value}" for key, value in shorts.items() if value))
    config = load_config(config_files, overrides)
    if data is None and not (resume and out.exists()):
        raise click.UsageError("A new run needs --data DATASET (a folder, or `phantom`).")
    quiet_tensorflow()
    from btkeras.evaluation.results import metrics_table
    from btkeras.experiments.single_run import resume_run, start_run
    from btkeras.runs import open_run

    # A scheduler's "please stop" ends the run as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if resume and out.exists():
        run = open_run(out)
        if data is not None:
            run.use_dataset(options.open_dataset(data, run.config().phantom))
        metrics = resume_run(out, load_config(config_files, overrides, run.config()))
    else:
        dataset = options.open_dataset(str(data), config.phantom)
        metrics = start_run(config, dataset, out, skip_broken=skip_broken)
    click.echo(metrics_table(metrics))
    uses = f"btkeras predict IMAGE --model {out}   or   btkeras export {out} --out saved_models/{out.name}"
    # A classical model keeps its answers only.
    click.echo(f"Next: {uses if (out / 'best.keras').is_file() else f'btkeras report {out}'}", err=True)

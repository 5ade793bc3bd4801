"""``btkeras benchmark``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(short_help="Time a model on this machine.")
@click.option("--model", type=click.Path(path_type=Path), help="A run folder or an exported model.")
@click.option(
    "--batch",
    "batches",
    multiple=True,
    default=(1, 16),
    show_default=True,
    type=click.IntRange(min=1),
    help="Images a call; may be given several times.",
)
@click.option("--rounds", default=15, show_default=True, type=click.IntRange(min=1), help="How often each is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def benchmark(model: Path | None, batches: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Measure how fast a model answers on this machine, in each form that it is there in, and say which to use.

    Of a run these are the network as trained and its deploy form; of an exported model each file of the version. Each
    form has a process of its own, and all are measured in turns, so that they meet the same machine. Preparing a
    image (reading, resizing) is not part of it. Without --model the newest model in saved_models/ or runs/ is taken.

    \b
    Said are
      ms, p95       what a caller waits: the median, and the slowest of twenty
      images/s    of the median
      time          against the first form, the median of the rounds' quotients
      CPU ms        of all threads
      of the limit  by that time, of the rate at which this machine multiplies float32 matrices
      peak memory   of the process that loads the model and answers
      differs by    the largest difference of a probability from the first form's

    \b
    Examples:
      btkeras benchmark
      btkeras benchmark --model saved_models/first --batch 1 --batch 32
      btkeras benchmark --model runs/first --json > benchmark.json
      BTKERAS_THREADS=1 btkeras benchmark --model saved_models/first/1/model.onnx
    """
    from tqdm import tqdm

    from btkeras.benchmark.benchmark import benchmark as measure
    from btkeras.benchmark.format import format_benchmark
    from btkeras.inference.backends import newest_model

    chosen = newest_model() if model is None else model
    with tqdm(desc=str(chosen), bar_format="{desc} {n_fmt} {elapsed} {postfix}", leave=False) as bar:

        def done(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        found = measure(chosen, batches, rounds, done)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        click.echo("\n".join(format_benchmark(found)))

"""``btkeras export``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli import options
from btkeras.cli.group import quiet_tensorflow


@click.command(short_help="Write a SavedModel for TensorFlow Serving.")
@options.run_folder
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model's folder, saved_models/NAME.")
@click.option("--version", type=int, help="Version number; by default the next.")
def export(run: Path, out: Path, version: int | None) -> None:
    """Write RUN's best checkpoint to OUT/VERSION/, a SavedModel for TensorFlow Serving.

    Decoding, resizing and standardisation are inside, so that a client sends the PNG or JPEG file itself. The folder
    appears whole, after the SavedModel was loaded again and found to agree with the checkpoint.

    \b
    Examples:
      btkeras export runs/cpu --out saved_models/cpu
      saved_model_cli show --all --dir saved_models/cpu/1
      docker run -p 8501:8501 -v "$PWD/saved_models/cpu:/models/cpu" -e MODEL_NAME=cpu tensorflow/serving
    """
    quiet_tensorflow()
    from btkeras.runs import open_run
    from btkeras.serving.export import export as export_run

    click.echo(export_run(open_run(run), out, version))

"""``btkeras export``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.common import quiet_tensorflow, run_argument


@click.command(short_help="Write a SavedModel, ONNX or LiteRT file of a run.")
@run_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The model's folder, saved_models/NAME.")
@click.option("--version", type=int, help="Version number; by default the next.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("savedmodel",),
    show_default=True,
    type=click.Choice(("savedmodel", "onnx", "litert")),
    help="May be given several times: all go into the one version.",
)
@click.option("--quantize", type=click.Choice(("int8", "float16")), help="Of onnx (int8) and litert: smaller weights.")
def export(run: Path, out: Path, version: int | None, formats: tuple[str, ...], quantize: str | None) -> None:
    """Write RUN's best checkpoint to OUT/VERSION/, for TensorFlow Serving, ONNX Runtime or LiteRT.

    A SavedModel decodes, resizes and standardises inside, so that a client sends the PNG or JPEG file itself, and it
    explains its answers. model.onnx and model.tflite take images that are prepared already (uint8, as `predict`
    prepares them), and carry their class names and calibration inside. TensorFlow Serving needs savedmodel in every
    version of its folder.

    The folder appears whole, after each format was loaded again and found to agree with the checkpoint on slices of
    the validation part. --quantize also measures there what it costs, and needs the run's dataset for it.

    \b
    Examples:
      btkeras export runs/cpu --out saved_models/cpu
      btkeras export runs/cpu --out saved_models/cpu --format savedmodel --format onnx --format litert
      btkeras export runs/cpu --out saved_models/phone --format litert --quantize int8
      btkeras predict slice.png --model saved_models/phone
      saved_model_cli show --all --dir saved_models/cpu/1
      docker run -p 8501:8501 -v "$PWD/saved_models/cpu:/models/cpu" -e MODEL_NAME=cpu tensorflow/serving
    """
    quiet_tensorflow()
    from btkeras.export.export import export as export_run
    from btkeras.export.metadata import format_export
    from btkeras.files import read_json
    from btkeras.inference.model_folder import MANIFEST
    from btkeras.runs import open_run

    folder = export_run(open_run(run), out, version, formats=formats, quantize=quantize)
    for line in format_export(read_json(folder / MANIFEST)):
        click.echo(line, err=True)
    click.echo(folder)

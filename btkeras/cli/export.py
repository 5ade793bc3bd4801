"""``btkeras export`` and ``btkeras selftest``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.common import PATH, echo, echo_unfinished, json_option, located, quiet_tensorflow, run_argument
from btkeras.errors import ModelError


@click.command(short_help="Write a SavedModel, ONNX or LiteRT file of a run.")
@run_argument
@click.option("--out", required=True, type=PATH, help="The model's folder, saved_models/NAME.")
@click.option("--version", type=int, help="Version number; by default the next.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("savedmodel",),
    type=click.Choice(("savedmodel", "onnx", "litert")),
    help="Repeatable: all go into the one version.",
)
@click.option("--quantize", type=click.Choice(("int8", "float16")), help="Of onnx (int8) and litert: smaller weights.")
def export(run: Path, out: Path, version: int | None, formats: tuple[str, ...], quantize: str | None) -> None:
    """Write RUN's best checkpoint to OUT/VERSION/, for TensorFlow Serving, ONNX Runtime or LiteRT.

    A SavedModel decodes and preprocesses PNG and JPEG files itself, and explains its predictions. model.onnx and
    model.tflite take preprocessed images (uint8), and have their class names and calibration embedded. TensorFlow
    Serving needs savedmodel in every version of its folder.

    The folder appears after each format was loaded again and agreed with the checkpoint on slices of the validation
    subset. --quantize also compares the quantized file with the float32 one, for which it needs the run's dataset.

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

    opened = open_run(run)
    echo_unfinished(opened.best_model)
    folder = export_run(opened, out, version, formats=formats, quantize=quantize)
    for line in format_export(read_json(folder / MANIFEST)):
        click.echo(line, err=True)
    click.echo(folder)


@click.command(short_help="Check that an exported model is unchanged and predicts as at its export.")
@click.option("--model", type=PATH, help="An exported model.  [default: the one installed with btkeras]")
@click.option("--write", type=PATH, metavar="FILE.png", help="Also write the self-test's image.")
@json_option
def selftest(model: Path | None, write: Path | None, as_json: bool) -> None:
    """Test an exported model where it is installed, after each installation and update.

    Compares the files of its version with their digests, and the prediction for a synthetic slice with the one at the
    export. Of several formats the file that `predict` takes is tested, or the file that you name. The exit code is 1
    if a file was changed or is missing, the prediction differs, or what runs the model is not installed.

    \b
    Examples:
      btkeras selftest
      btkeras selftest --write slice.png
      btkeras selftest --model saved_models/cpu --json
      btkeras selftest --model saved_models/cpu/1/model.onnx
    """
    from btkeras.inference.model_folder import pretrained_model
    from btkeras.inference.selftest import format_selftest
    from btkeras.inference.selftest import selftest as run

    given = model or pretrained_model()
    if given is None:
        raise ModelError(
            "Without --model there must be a model that was installed with btkeras",
            received="an installation without one",
            remedy="Name an exported model with --model; `btkeras export` writes them",
        )
    if (given / "config.yaml").is_file():
        remedy = f"Export it first: btkeras export {given} --out saved_models/{given.resolve().name}"
        raise ModelError("A self-test is of an exported model", received=f"{given}, a run", remedy=remedy)
    with located(given) as location:
        result = run(location.path)
    if write is not None:
        _write_image(location.path.parent, write)
    echo(result, as_json, lambda result: "\n".join(format_selftest(result)))


def _write_image(version: Path, target: Path) -> None:
    from btkeras.files import atomic_file
    from btkeras.inference.model_folder import SELFTEST_IMAGE

    with atomic_file(target) as temporary:
        temporary.write_bytes((version / SELFTEST_IMAGE).read_bytes())
    click.echo(f"image: {target}, synthetic: its prediction says nothing about the model's accuracy", err=True)

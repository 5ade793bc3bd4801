"""``btkeras export`` and ``btkeras selftest``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from btkeras.cli.common import PATH, quiet_backend, quiet_tensorflow, run_argument
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
    show_default=True,
    type=click.Choice(("savedmodel", "onnx", "litert")),
    help="May be given several times: all go into the one version.",
)
@click.option("--quantize", type=click.Choice(("int8", "float16")), help="Of onnx (int8) and litert: smaller weights.")
def export(run: Path, out: Path, version: int | None, formats: tuple[str, ...], quantize: str | None) -> None:
    """Write RUN's best checkpoint to OUT/VERSION/, for TensorFlow Serving, ONNX Runtime or LiteRT.

    A SavedModel decodes, resizes and standardises inside, so that a client sends the PNG or JPEG file itself, and it
    explains its predictions. model.onnx and model.tflite take preprocessed images (uint8, as `predict` makes them), and
    have their class names and calibration embedded. TensorFlow Serving needs savedmodel in every version of its folder.

    The folder appears whole, after each format was loaded again and agreed with the checkpoint on slices of the
    validation subset. --quantize also compares the quantized file with the float32 one there, and needs the run's
    dataset for it.

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


@click.command(short_help="Check that an exported model is unchanged and predicts as at its export.")
@click.option("--model", type=PATH, help="An exported model.  [default: the one installed with btkeras]")
@click.option("--write", type=PATH, metavar="FILE.png", help="Also write the self-test's image.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def selftest(model: Path | None, write: Path | None, as_json: bool) -> None:
    """Test an exported model where it is installed, after each installation and update.

    Compares the files of its version with their digests, classifies the synthetic slice that is exported with it as
    `predict` does, and compares the prediction with the one at the export. Of a version with several formats the file
    that `predict` takes is tested; name another to test that. The exit code is 1 if a file was changed or is missing,
    the prediction differs, or what runs the model is not installed.

    \b
    Examples:
      btkeras selftest
      btkeras selftest --write slice.png
      btkeras selftest --model saved_models/cpu --json
      btkeras selftest --model saved_models/cpu/1/model.onnx
    """
    from btkeras.inference.backends import locate
    from btkeras.inference.selftest import format_selftest
    from btkeras.inference.selftest import selftest as run

    location = locate(_given(model))
    if location.path.is_dir():
        raise ModelError(
            "A self-test is of an exported model",
            received=f"{location.path}, a run",
            remedy=f"Export it first: btkeras export {location.path} --out saved_models/{location.path.resolve().name}",
        )
    with quiet_backend(location.needs_tensorflow):
        result = run(location.path)
    if write is not None:
        _write_image(location.path.parent, write)
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(format_selftest(result)))


def _given(model: Path | None) -> Path:
    from btkeras.inference.model_folder import pretrained_model

    found = model or pretrained_model()
    if found is None:
        raise ModelError(
            "Without --model there must be a model that was installed with btkeras",
            received="an installation without one",
            remedy="Name an exported model with --model; `btkeras export` writes them",
        )
    return found


def _write_image(version: Path, target: Path) -> None:
    from btkeras.files import atomic_file
    from btkeras.inference.model_folder import SELFTEST_IMAGE

    with atomic_file(target) as temporary:
        temporary.write_bytes((version / SELFTEST_IMAGE).read_bytes())
    click.echo(f"image: {target}, synthetic: its prediction says nothing about the model's accuracy", err=True)

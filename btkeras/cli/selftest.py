"""``btkeras selftest``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import click

from btkeras.cli.common import quiet_engine, quiet_tensorflow
from btkeras.errors import ModelError


@click.command(short_help="Check that a model is whole and answers as it did when it was exported.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="An exported model.  [default: the one installed with btkeras]"
)
@click.option(
    "--write",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Also write the image it is asked about.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def selftest(model: Path | None, write: Path | None, as_json: bool) -> None:
    """Test an exported model where it is installed, after each installation and update.

    Compares the files of its version with their digests, shows it the synthetic slice that travels with it, the way
    `predict` does, and compares the answer with the one at the export. Of a version with several formats the file that
    `predict` takes is tested; name another to test that. The exit code is 1 if a file was changed or is missing, the
    answer is another one, or what runs the model is not installed.

    \b
    Examples:
      btkeras selftest
      btkeras selftest --write slice.png
      btkeras selftest --model saved_models/cpu --json
      btkeras selftest --model saved_models/cpu/1/model.onnx
    """
    from btkeras.inference.backends.base import locate
    from btkeras.inference.selftest import selftest as run

    place = locate(_given(model))
    if place.path.is_dir():
        raise ModelError(
            "A self-test is of an exported model",
            received=f"{place.path}, a run",
            remedy=f"Export it first: btkeras export {place.path} --out saved_models/{place.path.resolve().name}",
        )
    if place.needs_tensorflow:
        _load_tensorflow()
    with nullcontext() if place.needs_tensorflow else quiet_engine():
        result = run(place.path)
    if write is not None:
        _write_image(place.path.parent, write)
    click.echo(json.dumps(result.to_json(), indent=2) if as_json else "\n".join(result.lines()))


def _given(model: Path | None) -> Path:
    from btkeras.inference.pretrained import pretrained_model

    found = model or pretrained_model()
    if found is None:
        raise ModelError(
            "Without --model there must be a model that was installed with btkeras",
            received="an installation without one",
            remedy="Name an exported model with --model; `btkeras export` writes them",
        )
    return found


def _load_tensorflow() -> None:
    try:
        quiet_tensorflow()
    except ImportError as error:
        raise ModelError(
            "A SavedModel needs the package tensorflow", received=error, remedy="Install it: pip install tensorflow"
        ) from error


def _write_image(version: Path, target: Path) -> None:
    from btkeras.files import atomic_file
    from btkeras.inference.model_folder import SELFTEST_IMAGE

    with atomic_file(target) as temporary:
        temporary.write_bytes((version / SELFTEST_IMAGE).read_bytes())
    click.echo(f"image: {target}, synthetic: the answer to it says nothing of what the model is worth", err=True)

"""``btkeras predict``: by a model on this machine, or with ``--server`` by another."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from btkeras.cli.common import Failure, quiet_engine, quiet_tensorflow
from btkeras.errors import ConfigError

if TYPE_CHECKING:
    from btkeras.inference.inputs import SliceRef
    from btkeras.inference.processing import FilePrediction


@click.command(short_help="Classify images.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=click.Path(path_type=Path), help="A run folder or an exported model; see above.")
@click.option("--coverage", type=float, default=0.95, show_default=True, help="Of prediction sets, between 0 and 1.")
@click.option("--explain", type=click.Path(path_type=Path), help="Draw what answers rest on: FILE.png, or a folder.")
@click.option("--method", help="Of --explain: layercam, gradcam or occlusion.  [default: layercam where it can be had]")
@click.option("--slice", "wanted", default="middle", show_default=True, help="Of a volume: middle, all, or N from 0.")
@click.option(
    "--axis",
    type=click.Choice(["axial", "coronal", "sagittal"]),
    help="View of a NIfTI volume.  [default: as scanned where voxels are thick, else axial]",
)
@click.option("--server", metavar="URL", help="Ask a server of TensorFlow Serving's REST interface.")
@click.option("--name", help="The model's name on the server.  [default: btkeras]")
@click.option("--model-version", help="Its version there, by number or label.  [default: the server's choice]")
@click.option("--json", "form", flag_value="json", help="Print a JSON array.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
def predict(
    images: tuple[str, ...],
    model: Path | None,
    explain: Path | None,
    method: str | None,
    form: str | None,
    **chosen: Any,
) -> None:
    """Classify slices (PNG, JPEG, DICOM, NIfTI): files, folders, quoted patterns, or `-` for a list on standard input.

    Prints the answer and the probability of each class. The answer is the most probable class, or `uncertain` where a
    image is unlike the training slices or its prediction set (the classes that cannot be ruled out at --coverage)
    has not exactly one class, or `refused` where it plainly shows no brain MRI slice. Without --model the newest
    model in saved_models/ or runs/ is taken, and where there is none, the one that is installed with btkeras. An image
    that cannot be read gets an error as its answer, the others are still answered, and the exit code is 1.

    Of files with several slices (multi-frame DICOM, NIfTI) the middle one is classified, which says nothing of the
    others: --slice all answers for each. Answers name the slice behind the path, scan.nii.gz#57, counted from 0: from
    the feet (axial), the back (coronal) or the left (sagittal).

    --explain draws, beside each slice, the slice under a map of what speaks for its most probable class. It shows what
    the network looks at, not where a tumour is, and works from a run or a SavedModel (an ONNX or LiteRT file
    has --method occlusion only, and gradcam needs the run).

    --server asks TensorFlow Serving, or `btkeras serve`, instead of loading a model. Such answers are the most probable
    class, without prediction sets and outliers. The environment variable BTKERAS_TOKEN is sent as bearer token.

    \b
    Examples:
      btkeras predict slice.png
      btkeras predict slices/ --model saved_models/first --csv > decisions.csv
      btkeras predict 'study/**/*.jpg' --json --coverage 0.99
      btkeras predict slice.png --explain why.png
      btkeras predict scan.nii.gz --slice all --csv > decisions.csv
      btkeras predict series/ --json
      find . -name '*.png' | btkeras predict -
      btkeras predict slices/ --server http://localhost:8501 --name cpu
    """
    from tqdm import tqdm

    from btkeras.inference.inputs import expand, references

    asked, coverage = remote(click.get_current_context()), chosen["coverage"]
    if not 0 < coverage < 1:
        raise click.BadParameter(f"it must be above 0 and below 1, not {coverage:g}", param_hint="--coverage")
    if method and explain is None:
        raise ConfigError("--method belongs to --explain", remedy="Say where the image goes: --explain why.png")
    refs = references(expand(images, sys.stdin), chosen["wanted"], chosen["axis"])
    if asked:
        classes, answers = ask(refs, chosen["server"], chosen["name"], chosen["model_version"])
    else:
        classes, answers = _local(refs, model, coverage, explain, method)
    # On a terminal the answers themselves show the progress.
    hidden = True if sys.stdout.isatty() else None
    noticed = _with_notice(answers) if chosen["wanted"] == "middle" else answers
    shown = tqdm(noticed, total=len(refs), unit=" images", file=sys.stderr, leave=False, disable=hidden)
    failed = _PRINTERS[form](shown, classes)
    if failed:
        raise Failure(f"{failed} of {len(refs)} images could not be read.")


def _local(
    refs: Sequence[SliceRef], model: Path | None, coverage: float, explain: Path | None, method: str | None
) -> tuple[Sequence[str], Iterator[FilePrediction]]:
    from btkeras.inference.backends.base import locate, newest_model
    from btkeras.inference.pretrained import is_pretrained, pretrained_note

    with_maps = explain is not None and method != "occlusion"
    given = model or newest_model()
    place = locate(given, explained=with_maps)
    if place.needs_tensorflow:
        quiet_tensorflow()
    from btkeras.inference.predictor import Predictor

    with nullcontext() if place.needs_tensorflow else quiet_engine():
        predictor = Predictor(place.path, coverage=coverage, images=len(refs))
    click.echo(f"model: {predictor.file}", err=True)
    if model is None and is_pretrained(given):
        click.echo(pretrained_note(place.path), err=True)
    if predictor.missing:
        click.echo(predictor.missing, err=True)
    answers = predictor.predict_files(refs)
    if explain is not None:
        from btkeras.inference.explanations import overlays

        if method is None and place.path.is_file() and predictor.network.explain is None:
            method = "occlusion"
            click.echo("maps by occlusion, the coarse way, since the model's format has no gradients", err=True)
        answers = overlays(answers, refs, place.path, explain, method)
    return predictor.classes, answers


def _with_notice(answers: Iterable[FilePrediction]) -> Iterator[FilePrediction]:
    """Says once that an answer is for one slice of many."""
    said = False
    for answer in answers:
        if answer.slices > 1 and not said:
            said = True
            more = f"{answer.path} is the middle one of {answer.slices} slices"
            click.echo(f"{more}; --slice all answers for each.", err=True)
        yield answer


def _print_table(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed = 0
    click.echo(f"{'decision':<12}{'outlier':>8}  " + "".join(f"{name:>12}" for name in classes) + "  file")
    for answer in answers:
        if answer.error:
            failed += 1
            click.echo(f"{answer.path}: {answer.error}", err=True)
            continue
        row = "".join(f"{answer.probabilities[name]:12.4f}" for name in classes)
        ood_percentile = "" if answer.ood_percentile is None else f"{answer.ood_percentile:.1f} %"
        click.echo(f"{answer.decision:<12}{ood_percentile:>8}  {row}  {answer.path}{_because(answer)}")
    return failed


def _because(answer: FilePrediction) -> str:
    return f" ({'; '.join(answer.reasons)})" if answer.reasons else ""


def _print_json(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed, separator = 0, "["
    for answer in answers:
        item: dict[str, object] = {"path": answer.path}
        if answer.error:
            failed += 1
            item["error"] = answer.error
        else:
            item |= {name: getattr(answer, name) for name in _KEYS}
        click.echo(f"{separator}\n  {json.dumps(item)}", nl=False)
        separator = ","
    click.echo("\n]")
    return failed


def _print_csv(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ["path", "label", *classes, "error", "decision", "set", "ood_percentile", "reasons", "slice", "slices"]
    )
    for answer in answers:
        failed += bool(answer.error)
        numbers = [answer.probabilities.get(name, "") for name in classes]
        ood_percentile = "" if answer.ood_percentile is None else answer.ood_percentile
        worth = [answer.decision, ";".join(answer.set or ()), ood_percentile, ";".join(answer.reasons)]
        place = ["", ""] if answer.error else [answer.slice, answer.slices]
        writer.writerow([answer.path, answer.label, *numbers, answer.error or "", *worth, *place])
    return failed


_KEYS = ("label", "probabilities", "decision", "set", "ood_percentile", "reasons", "slice", "slices")
_PRINTERS = {None: _print_table, "json": _print_json, "csv": _print_csv}


_HERE_ONLY = ("model", "coverage", "explain", "method")
_THERE_ONLY = ("name", "model_version")


def remote(context: click.Context) -> bool:
    """Whether ``predict`` is to ask a server.

    Raises:
        ConfigError: If an option was given that then means nothing.
    """
    asked = context.params["server"] is not None
    given = [name for name in (_HERE_ONLY if asked else _THERE_ONLY) if _given(context, name)]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        rule = "With --server the model is the server's" if asked else f"{options} belongs to --server"
        remedy = f"Leave {options} away" if asked else "Say where it is: --server http://localhost:8501"
        raise ConfigError(rule, received=options if asked else "no --server", remedy=remedy)
    return asked


def ask(
    refs: Sequence[SliceRef], server: str, name: str | None, version: str | None
) -> tuple[Sequence[str], Iterator[FilePrediction]]:
    """The classes and the answers of a server; errors as ``Client``."""
    # Imported here because it takes a third as long as an answer that asks no server.
    from btkeras.inference.client import NAME, Client
    from btkeras.inference.client_http import TOKEN

    client = Client(server, name or NAME, version or "", os.environ.get(TOKEN))
    click.echo(f"server: {client.source}", err=True)
    click.echo(
        "answers of a server have no prediction sets and no outliers, and refuse no image by its looks", err=True
    )
    return client.predict_files(refs)


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE

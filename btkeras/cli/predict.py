"""``btkeras predict``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from btkeras.cli.common import PATH, Failure, echo_engine, echo_model, echo_unknown_slices, located
from btkeras.cli.predict_slices import Columns, print_slices, slice_values
from btkeras.errors import ConfigError

if TYPE_CHECKING:
    from btkeras.inference.inputs import SliceRef
    from btkeras.inference.predictor import FilePrediction
    from btkeras.inference.scans import ScanPrediction

_LOCAL_ONLY = ("model", "coverage", "explain", "method")
_SERVER_ONLY = ("name", "model_version")


@click.command(short_help="Classify images.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=PATH, help="A run folder or an exported model; see above.")
@click.option("--coverage", type=float, default=0.95, help="Of prediction sets, between 0 and 1.")
@click.option("--explain", type=PATH, help="Draw what predictions rest on: FILE.png, or a folder.")
@click.option("--method", help="Of --explain: layercam, gradcam or occlusion.  [default: layercam]")
@click.option("--slice", "which", default="middle", help="Of a volume: middle, all, or N from 0.")
@click.option(
    "--axis",
    type=click.Choice(["axial", "coronal", "sagittal"]),
    help="View of a NIfTI volume.  [default: as scanned where voxels are thick, else axial]",
)
@click.option("--channel", type=click.IntRange(0), help="Which of several volumes in a NIfTI file, from 0.")
@click.option(
    "--group-by", type=click.Choice(["patient", "series"]), help="One decision per patient or series, by all slices."
)
@click.option("--server", metavar="URL", help="Ask a server of TensorFlow Serving's REST interface.")
@click.option("--name", help="The model's name on the server.  [default: its only one]")
@click.option("--model-version", help="Its version there, by number or label.  [default: the server's choice]")
@click.option("--json", "output", flag_value="json", help="Print a JSON array.")
@click.option("--csv", "output", flag_value="csv", help="Print CSV.")
def predict(
    images: tuple[str, ...], model: Path | None, explain: Path | None, method: str | None, **options: Any
) -> None:
    """Classify slices: files, folders, quoted patterns, or `-` for a list of files on standard input.

    PNG, JPEG, BMP, TIFF, WebP, GIF, DICOM and NIfTI files are read. Of folders and patterns, those are taken that are
    one of these by ending or content, without masks; the others are counted and named on standard error. Hidden files
    and __MACOSX do not count.

    Prints the decision and the probability of each class. The decision is `rejected` if the image plainly shows no
    brain MRI slice, `uncertain` if it is out of distribution (unlike the training slices) or its highest probability
    is below the model's threshold (see `btkeras calibrate`), and else the most probable class. The prediction set
    (`set`) has the classes that cannot be ruled out at --coverage. The column `ood_percentile` says how many of 100 of
    the model's calibration slices are at most as unlike its training slices as this image: it is no confidence.

    Without --model the pretrained model is taken; `--model newest` is the newest in saved_models/ or runs/. An image
    that cannot be read gets an error, the others are still classified, and the exit code is 1.

    DICOM files of a folder or pattern are taken by patient, series and position, without localizers and repeats; with
    --json and --csv their rows name patient and series (by the pseudonyms of `btkeras prepare`), the instance's number
    and the slice's place in its series, from 0.

    Of files with several slices (multi-frame DICOM, NIfTI) the middle one is classified, or each with --slice all. The
    slice's number follows the path, scan.nii.gz#57, counted from 0: from the feet (axial), the back (coronal) or the
    left (sagittal).

    --group-by gives one decision per patient, or per scan: DICOM by PatientID, or SeriesInstanceUID, with localizers
    left out; a NIfTI volume is one; other images by patients.csv in their folder (image or path, patient, series), or
    by a dataset's manifest.csv. Whether there is a tumour is decided by the tenth of the slices with most evidence of
    one, since most slices of a head lie beside it; which one by all slices. The decision is uncertain unless half of
    the slices that show a tumour (of no_tumor: half of all) are decided so themselves. --json lists the slices.

    --explain draws each slice beside a map of what speaks for its most probable class. It shows what the network looks
    at, not where a tumour is. Files that older versions exported may have --method occlusion only; gradcam needs the
    run.

    --server asks a server instead of loading a model; BTKERAS_TOKEN in the environment is its bearer token. `btkeras
    serve` answers as the model would here, but does not look up training slices: near_duplicate stays empty. TensorFlow
    Serving knows neither thresholds nor prediction sets: its predictions have a label, the most probable class, and no
    decision; it does not list its models, so --name is needed unless the name is btkeras.

    \b
    Examples:
      btkeras predict slice.png
      btkeras predict slice.png --model newest
      btkeras predict slices/ --model saved_models/first --csv > predictions.csv
      btkeras predict 'study/**/*.jpg' --json --coverage 0.99
      btkeras predict slice.png --explain why.png
      btkeras predict scan.nii.gz --slice all --csv > predictions.csv
      btkeras predict series/ --json
      btkeras predict study/ --group-by series --json
      find . -name '*.png' | btkeras predict -
      btkeras predict slices/ --server http://localhost:8501
    """
    from tqdm import tqdm

    from btkeras.datasets.readers.selection import left_out_text
    from btkeras.inference.dicom_columns import dicom_columns
    from btkeras.inference.inputs import choose_files, references

    _check_server_options(click.get_current_context())
    coverage = options["coverage"]
    if not 0 < coverage < 1:
        raise click.BadParameter(f"it must be above 0 and below 1, not {coverage:g}", param_hint="--coverage")
    if method and explain is None:
        raise ConfigError("--method belongs to --explain", remedy="Say where the image goes: --explain why.png")
    files, which = choose_files(images, sys.stdin), options["which"]
    if group_by := options["group_by"]:
        from btkeras.inference.scans import decide_scans, scan_names, whole_scans

        files, which = whole_scans(files), _whole(click.get_current_context())
    if files.left_out:
        click.echo(left_out_text(files.left_out), err=True)
    refs = references(files.paths, which, options["axis"], options["channel"])
    names = scan_names(files, refs, group_by) if group_by else {}
    if options["server"] is not None:
        classes, predictions = _by_server(refs, options)
    else:
        classes, predictions = _local(refs, model, coverage, explain, method)
    # On a terminal the predictions themselves show the progress.
    hidden = True if sys.stdout.isatty() else None
    shown = tqdm(predictions, total=len(refs), unit=" images", file=sys.stderr, leave=False, disable=hidden)
    failed: list[str] = []
    known: list[str] = []
    columns = dicom_columns(files.identities) if options["output"] else {}
    watched = _watch(shown, failed, known, hint=which == "middle")
    if group_by:
        _print_scans(decide_scans(watched, names, classes), classes, columns, options)
    else:
        print_slices(watched, classes, columns, options["output"])
    if explain is not None and len(failed) < len(refs):
        click.echo(f"drawn: {explain}", err=True)
    if known:
        found = f"{len(known)} of {len(refs)} slices are near-duplicates of training or validation slices of the model"
        click.echo(f"{found}: their predictions say nothing about new ones", err=True)
    if failed:
        raise Failure(f"{len(failed)} of {len(refs)} images could not be read.")


def _whole(context: click.Context) -> str:
    """All slices; ConfigError if others are asked for."""
    if context.get_parameter_source("which") is ParameterSource.COMMANDLINE and context.params["which"] != "all":
        raise ConfigError(
            "One decision per scan needs all of its slices",
            received=f"--slice {context.params['which']} with --group-by",
            remedy="Leave --slice away",
        )
    return "all"


def _print_scans(
    scans: Sequence[ScanPrediction], classes: Sequence[str], columns: Columns, options: Mapping[str, Any]
) -> None:
    from btkeras.cli.predict_scans import RULE, print_scans

    click.echo(f"one decision per {options['group_by']}: {RULE}", err=True)
    print_scans(scans, classes, options["output"], lambda prediction: slice_values(prediction, columns))


def _check_server_options(context: click.Context) -> None:
    """Raises ConfigError for an option that has no effect with --server, or only with it."""
    server = context.params["server"] is not None
    names = _LOCAL_ONLY if server else _SERVER_ONLY
    given = [name for name in names if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        rule = "With --server the model is the server's" if server else f"{options} belongs to --server"
        remedy = f"Leave {options} away" if server else "Say where it is: --server http://localhost:8501"
        raise ConfigError(rule, received=options if server else "no --server", remedy=remedy)


def _by_server(refs: Sequence[SliceRef], options: Mapping[str, Any]) -> tuple[Sequence[str], Iterator[FilePrediction]]:
    # Imported here because it takes a third as long as a local prediction.
    from btkeras.inference.client import Client
    from btkeras.inference.connection import TOKEN

    version, token = options["model_version"] or "", os.environ.get(TOKEN)
    client = Client(options["server"], options["name"] or "", version, token)
    click.echo(f"server: {client.source}; it does not look up training slices (near_duplicate is empty)", err=True)
    return client.predict_files(refs)


def _local(
    refs: Sequence[SliceRef], model: Path | None, coverage: float, explain: Path | None, method: str | None
) -> tuple[Sequence[str], Iterator[FilePrediction]]:
    from btkeras.inference.backends import default_model

    with located(model or default_model(), explain is not None and method != "occlusion") as location:
        from btkeras.inference.predictor import Predictor

        predictor = Predictor(location.path, coverage=coverage, images=len(refs))
    backend = predictor.backend
    echo_model(backend.file or location.path, chosen=model is not None)
    echo_engine(backend.engine)
    if missing := backend.missing():
        click.echo(missing, err=True)
    echo_unknown_slices(backend.source)
    predictions = predictor.predict_files(refs)
    if explain is not None:
        from btkeras.inference.explanations import write_overlays

        if method is None and location.path.is_file() and backend.explain is None:
            method = "occlusion"
            click.echo("explained by occlusion, which is coarser: this model was exported without maps", err=True)
        predictions = write_overlays(predictions, refs, location.path, explain, method)
    return predictor.classes, predictions


def _watch(
    predictions: Iterable[FilePrediction], failed: list[str], known: list[str], *, hint: bool
) -> Iterator[FilePrediction]:
    """Collects the paths of unreadable images and of near-duplicates of the model's own slices, and hints once that a
    prediction is for one slice of many.
    """
    from btkeras.splitting.known_slices import KNOWN_SUBSETS

    for prediction in predictions:
        if prediction.error:
            failed.append(prediction.path)
        if prediction.near_duplicate in KNOWN_SUBSETS:
            known.append(prediction.path)
        if hint and prediction.slices > 1:
            hint = False
            found = f"{prediction.path} is the middle one of {prediction.slices} slices"
            click.echo(f"{found}; --slice all classifies each.", err=True)
        yield prediction

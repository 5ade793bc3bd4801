"""``btkeras predict``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from btkeras.cli.group import Failure, quiet_tensorflow

if TYPE_CHECKING:
    from btkeras.serving.predictor import FilePrediction


@click.command(short_help="Classify pictures.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", type=click.Path(path_type=Path), help="A run folder or an exported model.")
@click.option("--json", "form", flag_value="json", help="Print a JSON array.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
def predict(images: tuple[str, ...], model: Path | None, form: str | None) -> None:
    """Classify PNG or JPEG pictures: files, folders, quoted patterns, or `-` for a list on standard input.

    Prints the class and the probability of each class. Without --model the newest model in saved_models/ or runs/
    is taken. A picture that cannot be read gets an error as its answer, the others are still answered, and the exit
    code is 1.

    \b
    Examples:
      btkeras predict slice.png
      btkeras predict slices/ --model saved_models/first --csv > answers.csv
      btkeras predict 'study/**/*.jpg' --json
      find . -name '*.png' | btkeras predict -
    """
    from btkeras.serving.paths import expand

    paths = expand(images, sys.stdin)
    quiet_tensorflow()
    from tqdm import tqdm

    from btkeras.serving.predictor import Predictor

    predictor = Predictor(model)
    click.echo(f"model: {predictor.source}", err=True)
    answers = predictor.predict_files(paths)
    # On a terminal the answers themselves show the progress.
    hidden = True if sys.stdout.isatty() else None
    shown = tqdm(answers, total=len(paths), unit=" images", file=sys.stderr, leave=False, disable=hidden)
    failed = _PRINTERS[form](shown, predictor.classes)
    if failed:
        raise Failure(f"{failed} of {len(paths)} pictures could not be read.")


def _print_table(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed = 0
    click.echo(f"{'class':<12}{'probability':>11}  " + "".join(f"{name:>12}" for name in classes) + "  file")
    for answer in answers:
        if answer.error:
            failed += 1
            click.echo(f"{answer.path}: {answer.error}", err=True)
            continue
        numbers = [answer.probabilities[name] for name in classes]
        row = "".join(f"{number:12.4f}" for number in numbers)
        click.echo(f"{answer.label:<12}{max(numbers):11.4f}  {row}  {answer.path}")
    return failed


def _print_json(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed, separator = 0, "["
    for answer in answers:
        item: dict[str, object] = {"path": answer.path}
        if answer.error:
            failed += 1
            item["error"] = answer.error
        else:
            item |= {"label": answer.label, "probabilities": answer.probabilities}
        click.echo(f"{separator}\n  {json.dumps(item)}", nl=False)
        separator = ","
    click.echo("\n]")
    return failed


def _print_csv(answers: Iterable[FilePrediction], classes: Sequence[str]) -> int:
    failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["path", "label", *classes, "error"])
    for answer in answers:
        failed += bool(answer.error)
        numbers = [answer.probabilities.get(name, "") for name in classes]
        writer.writerow([answer.path, answer.label, *numbers, answer.error or ""])
    return failed


_PRINTERS = {None: _print_table, "json": _print_json, "csv": _print_csv}

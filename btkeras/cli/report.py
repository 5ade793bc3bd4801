"""``btkeras report`` and ``btkeras card``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.common import PATH, run_argument
from btkeras.config import GROUPINGS


@click.command(short_help="Tables and plots of runs and cross-validations.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="The file to write.  [default, of one RUN: RUN/report.html]")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["html", "markdown", "latex", "json"]),
    help="Of the file.  [default: by its ending]",
)
@click.option("--no-images", is_flag=True, help="Leave the misclassified images out.")
@click.option(
    "--intervals-group-by",
    type=click.Choice(GROUPINGS),
    help="Group the images by this for the intervals, in place of the splits' own groups; see `train --group-by`.",
)
def report(
    runs: tuple[Path, ...], out: Path | None, format_name: str | None, no_images: bool, intervals_group_by: str | None
) -> None:
    """Report the results of RUNs: each the folder of a cross-validation or of a single training.

    It has the paper's tables with the published figures beside yours, intervals, comparisons, all curves, calibration,
    robustness, the misclassified images that the model was most sure of, and the provenance. RUNs of the same dataset
    and splits are compared; where these differ, the report says so. HTML is one file that needs nothing else;
    Markdown and LaTeX have their plots in NAME_files/ beside them.

    \b
    Examples:
      btkeras report runs/cv
      btkeras report runs/ablation runs/others --out report.html
      btkeras report runs/cv --out paper/tables.tex
      btkeras report runs/cpu --no-images --out report.json
    """
    from btkeras.machine import cache_folder
    from btkeras.reporting.render import FORMATS, format_of, write_report
    from btkeras.reporting.report import build_report

    if out is None and len(runs) > 1:
        raise click.UsageError("A report of several RUNs needs --out FILE.")
    out = out or runs[0] / f"report{FORMATS[format_name or 'html'][0]}"
    chosen = format_name or format_of(out)
    cache = cache_folder() if intervals_group_by else None
    built = build_report(runs, images=not no_images, intervals_group_by=intervals_group_by, cache=cache)
    write_report(built, out, chosen)
    click.echo(out)


@click.command(short_help="Write the model card of a run, in Markdown.")
@run_argument
@click.option("--out", type=PATH, help="The file to write, or `-` to print it.  [default: RUN/model_card.md]")
def card(run: Path, out: Path | None) -> None:
    """Write the model card of RUN: its model, intended use, data, metrics with intervals, and limits.

    What was not measured, it says with the command that does. It names no folder of this machine. Your own notes in
    RUN/notes.md (Markdown) become a section of the card.

    \b
    Examples:
      btkeras card runs/cpu
      btkeras card runs/cpu --out -
      btkeras card runs/cpu --out saved_models/cpu/README.md
    """
    from btkeras.files import write_text
    from btkeras.reporting.card import card_text
    from btkeras.runs import Run

    text = card_text(Run(run))
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    target = out or Run(run).card_file
    write_text(target, text)
    click.echo(target)

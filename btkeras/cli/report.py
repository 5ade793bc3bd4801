"""``btkeras report``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.group import quiet_tensorflow
from btkeras.config import GROUPINGS


@click.command(short_help="Tables and plots of runs and cross-validations.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file to write.  [default, of one RUN: RUN/report.html]"
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["html", "markdown", "latex", "json"]),
    help="Of the file.  [default: by its ending]",
)
@click.option("--no-images", is_flag=True, help="Leave the images of the worst mistakes out.")
@click.option(
    "--intervals-by",
    type=click.Choice(GROUPINGS),
    help="Cluster the intervals by this instead of what the splits keep together, see `btkeras train --group-by`.",
)
def report(
    runs: tuple[Path, ...], out: Path | None, format_name: str | None, no_images: bool, intervals_by: str | None
) -> None:
    """Show what RUNs say: each the folder of a cross-validation or of a single training.

    The tables of the paper with its figures beside these, intervals, which networks differ by more than noise,
    learning curves, confusion matrices, ROC and precision-recall curves, the worst mistakes as images, and where
    all of it comes from. RUNs of the same dataset and splits are compared; where these differ, the report says so.
    HTML is one file that needs nothing else; Markdown and LaTeX have their plots in NAME_files/ beside them.

    \b
    Examples:
      btkeras report runs/cv
      btkeras report runs/ablation runs/networks --out report.html
      btkeras report runs/cv --out paper/tables.tex
      btkeras report runs/cpu --no-images --out figures.json
      btkeras report runs/cpu --intervals-by series
    """
    from btkeras.reporting.build import build_report
    from btkeras.reporting.write import FORMATS, format_of, write_report

    if out is None and len(runs) > 1:
        raise click.UsageError("A report of several RUNs needs --out FILE.")
    out = out or runs[0] / f"report{FORMATS[format_name or 'html'][0]}"
    chosen = format_name or format_of(out)
    cache = None
    if intervals_by:
        quiet_tensorflow()
        from btkeras.machine import cache_folder

        cache = cache_folder()
    built = build_report(runs, images=not no_images, intervals_by=intervals_by, cache=cache)
    write_report(built, out, chosen)
    click.echo(out)

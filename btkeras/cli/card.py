"""``btkeras card``."""

from __future__ import annotations

from pathlib import Path

import click

from btkeras.cli.common import run_argument


@click.command(short_help="Write the model card of a run, in Markdown.")
@run_argument
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file to write, or `-` to print it.  [default: RUN/model_card.md]",
)
def card(run: Path, out: Path | None) -> None:
    """Write the model card of RUN: its model, intended use, data, metrics with intervals, and limits.

    It holds what `train`, `evaluate`, `calibrate`, `robustness` and others measured, and says of everything else
    that it was not measured, and which command does. It names no folder of this machine. Your own notes
    in RUN/notes.md (Markdown) become a section of the card.

    \b
    Examples:
      btkeras card runs/cpu
      btkeras card runs/cpu --out -
      btkeras card runs/cpu --out saved_models/cpu/README.md
    """
    from btkeras.files import write_text
    from btkeras.reporting.card import FILE, card_text
    from btkeras.runs import Run

    text = card_text(Run(run))
    if str(out) == "-":
        click.echo(text, nl=False)
        return
    target = out or run / FILE
    write_text(target, text)
    click.echo(target)

"""The ``btkeras`` command."""

from __future__ import annotations

import click

import btkeras
from btkeras.cli.audit import audit, shortcuts
from btkeras.cli.benchmark import benchmark
from btkeras.cli.common import SectionedGroup
from btkeras.cli.evaluate import calibrate, evaluate, robustness
from btkeras.cli.export import export, selftest
from btkeras.cli.predict import predict
from btkeras.cli.prepare import prepare
from btkeras.cli.report import card, report
from btkeras.cli.serve import serve
from btkeras.cli.train import cv, train

_SECTIONS = {
    "Data": (prepare, audit, shortcuts),
    "Train and evaluate": (train, evaluate, calibrate, robustness, cv, report, card),
    "Use a model": (predict, selftest, export, serve, benchmark),
}


class _Commands(SectionedGroup):
    sections = {title: [str(command.name) for command in commands] for title, commands in _SECTIONS.items()}


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Research use only: btkeras is no medical device.",
)
@click.version_option(btkeras.__version__, prog_name="btkeras")
@click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
def main(debug: bool) -> None:
    """Classify brain-tumour MRI slices: glioma, meningioma, pituitary tumour, no tumour.

    \b
    Examples:
      btkeras train --data phantom --config configs/quick.yaml --out runs/first
      btkeras predict slice.png
      btkeras export runs/first --out saved_models/first
    """


for _command in (command for commands in _SECTIONS.values() for command in commands):
    main.add_command(_command)

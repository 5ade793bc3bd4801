"""``btkeras shortcuts``."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import click

from btkeras.cli.common import group_by_option, open_dataset, quiet_tensorflow


@click.command(short_help="How well a class can be predicted without its tumours.")
@click.argument("dataset", metavar="DATASET")
@click.option(
    "--model", type=click.Path(path_type=Path), metavar="RUN", help="Also test its network; writes RUN/shortcuts.json."
)
@group_by_option
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of the split.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def shortcuts(dataset: str, model: Path | None, group_by: str | None, seed: int, as_json: bool) -> None:
    """Find out what in DATASET predicts the class without showing a tumour.

    Simple classifiers (logistic regression, nearest neighbours, random forest; the best on the validation subset)
    predict the test images from their size, file size, border, histogram, head outline, 16 x 16 thumbnail, and from
    the thumbnail with the tumour's box filled. Images without a tumour have the box of some tumour filled, so that the
    filling gives nothing away. High accuracies say that a network's accuracy on this dataset means little.

    With --model the split is the run's, and its network predicts whole images, images without the tumour's box, the
    box alone, the head's rim alone, and slices that exchanged their tumours. The result is also written to
    RUN/shortcuts.json, for `btkeras card`.

    \b
    Examples:
      btkeras shortcuts data/both
      btkeras shortcuts data/both --model runs/cpu
      btkeras shortcuts data/figshare --group-by patient --json
    """
    if model and (group_by or seed):
        raise click.UsageError("With --model the split is the run's: leave --group-by and --seed away.")
    if model:
        quiet_tensorflow()
    from btkeras.audit.format import format_shortcuts
    from btkeras.audit.shortcuts import find_shortcuts
    from btkeras.config import DataConfig, PhantomConfig
    from btkeras.files import write_json
    from btkeras.machine import cache_folder
    from btkeras.runs import open_run
    from btkeras.splitting.splits import make_split

    run = open_run(model) if model else None
    opened = open_dataset(dataset, run.config().phantom if run else PhantomConfig())
    if run:
        from btkeras.audit.shortcut_network import network_rows

        found = find_shortcuts(opened, run.split(opened), functools.partial(network_rows, run), seed=seed)
        write_json(run.shortcuts_file, found.to_dict())
    else:
        config = DataConfig(group_by=group_by or "image", split_seed=seed)
        found = find_shortcuts(opened, make_split(opened, config, cache_folder()), seed=seed)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else format_shortcuts(found))

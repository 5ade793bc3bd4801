"""``btkeras audit`` and ``btkeras shortcuts``."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from btkeras.cli.common import PATH, Failure, group_by_option, open_dataset, quiet_tensorflow


@click.command(short_help="Find duplicates, leakage, conflicts and broken files in a dataset.")
@click.argument("dataset", type=PATH)
@click.option(
    "--splits",
    type=PATH,
    help="A run's splits.json: what is in several subsets of it? Writes audit.json beside it.",
)
@click.option("--against", type=PATH, help="Another dataset: what is in both?")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every group, instead of tables.")
@click.option("--html", type=PATH, help="Write a page that shows the groups as images.")
def audit(dataset: Path, splits: Path | None, against: Path | None, as_json: bool, html: Path | None) -> None:
    """Check every image of DATASET.

    Found are files that cannot be read; duplicates, also at another size, brightness or JPEG quality, flipped, rotated
    or with a border cropped; duplicates with different labels; duplicates and patients in several subsets of a split;
    duplicates in another dataset; and what the files of each class have in common. Slices that are next to each other
    in a head are no duplicates: `btkeras train --group-by series` keeps those in one subset.

    With the splits.json of a run, the result is also written to the run's audit.json, for `btkeras card`.

    The exit code is 1 if there is leakage (conflicting labels, duplicates or patients across the split, overlap with
    the other dataset) or a broken file. Duplicates within one subset are no failure.

    \b
    Examples:
      btkeras audit data/both
      btkeras audit data/both --splits runs/cpu/splits.json --html audit.html
      btkeras audit data/other-hospital --against data/both --json > audit.json
    """
    from btkeras.audit.audit import audit as find
    from btkeras.audit.format import audit_json, format_audit
    from btkeras.datasets.dataset import load_dataset
    from btkeras.files import write_json
    from btkeras.runs import Run
    from btkeras.splitting.splits import load_split

    opened = load_dataset(dataset)
    other = load_dataset(against) if against else None
    split = load_split(splits, opened) if splits else None
    found = find(opened, split, other, _bar)
    click.echo(json.dumps(audit_json(found), indent=2) if as_json else format_audit(found))
    if splits and (run := Run(splits.parent)).manifest_file.is_file():
        write_json(run.audit_file, audit_json(found))
    if html:
        from btkeras.reporting.audit_page import write_audit_page

        write_audit_page(found, html)
        click.echo(f"written: {html}", err=True)
    reasons = ["leakage"] * found.leaks + ["broken files"] * bool(found.unreadable)
    if reasons:
        raise Failure(f"{dataset} has {' and '.join(reasons)}.")


def _bar(paths: Sequence[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    return tqdm(paths, "reading images", unit=" images", file=sys.stderr, leave=False, disable=None)


@click.command(short_help="How well a class can be predicted without its tumours.")
@click.argument("dataset", metavar="DATASET")
@click.option("--model", type=PATH, metavar="RUN", help="Also test its network; writes RUN/shortcuts.json.")
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

"""``btkeras prepare``, ``btkeras audit`` and ``btkeras shortcuts``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import click

from btkeras.cli.common import (
    PATH,
    Failure,
    echo,
    group_by_option,
    json_option,
    open_dataset,
    quiet_tensorflow,
    skip_broken_option,
    split_column_option,
)
from btkeras.errors import DataError


@click.command(short_help="Make a dataset from FigShare files, class folders, DICOM, NIfTI.")
@click.argument("sources", nargs=-1, type=PATH, metavar="SOURCE...")
@click.option("--out", required=True, type=PATH, help="The dataset's folder to make.")
@click.option(
    "--download", type=click.Choice(["figshare", "brisc"]), help="Fetch this collection first, resuming if cut off."
)
@click.option("--download-dir", type=PATH, default=Path("downloads"), help="Where --download puts its files.")
@click.option("--harmonize", is_flag=True, help="Make every image a grey square: the head, of normalized intensity.")
@click.option("--size", default=256, type=click.IntRange(32, 2048), help="Side of --harmonize's squares, in pixels.")
@click.option(
    "--slices",
    default="middle-third",
    help="Of NIfTI volumes: middle-third, middle-two-thirds, all, every-N; with a mask, where it shows the tumour.",
)
@click.option(
    "--plane",
    "planes",
    multiple=True,
    callback=lambda _, __, given: [plane.strip() for text in given for plane in text.split(",")],
    metavar="NAME[,...]",
    help="Of NIfTI volumes: axial, coronal, sagittal.  [default: as scanned where voxels are thick, else axial]",
)
@click.option("--patients", type=PATH, metavar="FILE", help="A CSV with whose images these are; see below.")
@click.option("--sequence", default="", help="Of cases with several: t1c, t1, t2, flair, or another's name.")
@click.option("--channel", default="", help="Of nnU-Net's channels, or the volumes in a file: N from 0, or its name.")
@click.option(
    "--classes",
    default="",
    callback=lambda _, __, given: [name for text in given.split(",") if (name := text.strip())],
    metavar="NAME[,...]",
    help="Folders of classes beside the usual ones: metastasis.",
)
@click.option("--mri-check/--no-mri-check", default=True, help="Stop at images that plainly show no brain MRI slice.")
@skip_broken_option
def prepare(sources: tuple[Path, ...], out: Path, download: str | None, download_dir: Path, **chosen: Any) -> None:
    """Make a dataset from any number of SOURCEs.

    A SOURCE is FigShare's download (zips, zips in a zip, or .mat files), a folder of class folders (glioma, meningioma,
    no_tumor, pituitary and their usual spellings; tumor, or yes, beside no_tumor, or no; others by --classes; also
    below Training/ and Testing/; with boxes.csv), or another dataset. Every image is read: broken ones are named, and
    nothing is written unless --skip-broken.

    Class folders may hold DICOM and NIfTI too (pip install 'btkeras[medical]'). Each DICOM frame becomes a PNG; ids of
    patients and series become pseudonyms, and nothing else of the header or the files' names is stored.

    Names of BIDS, BraTS, nnU-Net, the Medical Decathlon, UCSF-PDGM, UPENN-GBM, TCIA and others give patient, session
    and sequence. Of a case with several sequences one must be chosen. Masks, by name (NAME_seg.nii.gz, NAME_mask.png)
    or folder (labelsTr/, masks/), go to the images of their case; a file that looks like a mask and is not named as one
    is an error. Files that are left out are counted, and listed in left_out.csv.

    --patients FILE, or a file patients.csv in a SOURCE, names patients: columns image (a number, or a name without
    ending) or path (in the SOURCE), patient, and fold (of a published cross-validation), if known. Of FigShare's ids,
    those that differ by a trailing letter only (MR040240, MR040240B) are one patient. Ids are in manifest.csv alone,
    never in the names of images.

    --harmonize makes collections look alike, to see what is left of a shortcut (btkeras shortcuts). To train a network
    for images as they come, use the plain dataset and --set data.harmonize=true.

    \b
    Examples:
      btkeras prepare --download figshare --out data/figshare
      btkeras prepare --download brisc --out data/brisc                # its own split: train --group-by official
      btkeras prepare 1512427.zip br35h/no --out data/both
      btkeras prepare archive/Training archive/Testing --out data/kaggle
      btkeras prepare hospital/ --classes metastasis,lymphoma --out data/hospital
      btkeras prepare study/ --out data/study                         # study/glioma/*.dcm, study/no_tumor/*.nii.gz
      btkeras prepare volumes/ --slices every-5 --out data/volumes
      btkeras prepare volumes/ --plane axial,coronal,sagittal --slices middle-two-thirds --out data/volumes
      btkeras prepare brats/ --sequence t1c --out data/brats           # brats/glioma/BraTS-GLI-00001-000/*.nii.gz
      btkeras prepare data/both --harmonize --out data/both-harmonized
    """
    if not sources and not download:
        raise click.UsageError("Give at least one SOURCE, or --download NAME.")
    from btkeras.datasets.choice import SequenceChoice
    from btkeras.datasets.prepare import prepare as prepare_dataset

    if download:
        sources = (*sources, _fetch(download, download_dir))
    size = chosen.pop("size") * chosen.pop("harmonize")
    choice = SequenceChoice(chosen.pop("sequence"), chosen.pop("channel"))
    click.echo(prepare_dataset(sources, out, harmonize=size, choice=choice, **chosen).summary())


def _fetch(name: str, folder: Path) -> Path:
    """Downloads a published collection to ``folder/name``, and says whose it is."""
    from btkeras.datasets.collections import COLLECTIONS
    from btkeras.datasets.download import download

    collection = COLLECTIONS[name]
    click.echo(str(collection), err=True)
    if collection.deposit:
        download(collection.deposit, folder / name)
    return folder / name


@click.command(short_help="Find duplicates, leakage, conflicts and broken files in a dataset.")
@click.argument("dataset", type=PATH)
@click.option("--splits", type=PATH, help="A run's splits.json: what is in several of its subsets?")
@click.option(
    "--split-column", metavar="NAME", help="A column of manifest.csv with a published split: subset, official_fold, ..."
)
@click.option("--against", type=PATH, help="Another dataset: what is in both?")
@json_option
@click.option("--html", type=PATH, help="Write a page that shows the groups as images.")
def audit(
    dataset: Path,
    splits: Path | None,
    split_column: str | None,
    against: Path | None,
    as_json: bool,
    html: Path | None,
) -> None:
    """Check every image of DATASET.

    Found are files that cannot be read; duplicates, also at another size, brightness or JPEG quality, flipped, rotated
    or with a border cropped; duplicates with different labels; duplicates and patients in several subsets of a split;
    duplicates in another dataset; copies of FigShare's and Br35H's slices; and what the files of each class have in
    common. Slices that are next to each other in a head are no duplicates: `btkeras train --group-by series` keeps
    those in one subset.

    Without --splits and --split-column, a published training and test part (column `subset`) is the split. With a run's
    splits.json, the result is also written to its audit.json, for `btkeras card`. The exit code is 1 if
    there is leakage (conflicting labels, duplicates or patients across the split, overlap with the other dataset) or a
    broken file.

    \b
    Examples:
      btkeras audit data/both
      btkeras audit data/both --splits runs/cpu/splits.json --html audit.html
      btkeras audit data/brisc --split-column subset
      btkeras audit data/figshare --split-column official_fold     # patients that published folds divide
      btkeras audit data/other-hospital --against data/both --json > audit.json
    """
    from btkeras.audit.audit import audit as find
    from btkeras.audit.format import audit_json, format_audit
    from btkeras.checksums import recorded_file
    from btkeras.datasets.dataset import load_dataset
    from btkeras.files import write_json
    from btkeras.runs import Run
    from btkeras.splitting.published import SUBSET, published_parts
    from btkeras.splitting.split_file import load_split

    if splits and split_column:
        raise click.UsageError("--splits and --split-column are two splits: give one of them.")
    opened = load_dataset(dataset)
    other = load_dataset(against) if against else None
    subset_of = load_split(splits, opened).subset_of() if splits else None
    if not splits:
        # Without a choice, the training and test part that `prepare` found, if it is whole.
        with nullcontext() if split_column else suppress(DataError):
            subset_of = published_parts(opened.records, split_column or SUBSET)
    found = find(opened, subset_of, other, _bar)
    echo(audit_json(found), as_json, lambda _: format_audit(found))
    if splits and (run := Run(splits.parent)).manifest_file.is_file():
        write_json(run.audit_file, audit_json(found), recorded_file)
    if html:
        from btkeras.reporting.audit_page import write_audit_page

        write_audit_page(found, html)
        click.echo(f"written: {html}", err=True)
    reasons = ["leakage"] * found.leaks + ["broken files"] * bool(found.unreadable)
    failures = [f"{dataset} has {' and '.join(reasons)}."] * bool(reasons)
    failures += [f"{against} has broken files."] * bool(found.unreadable_there)
    if failures:
        raise Failure(" ".join(failures))


def _bar(paths: Sequence[Path]) -> Iterable[Path]:
    from tqdm import tqdm

    return tqdm(paths, "reading images", unit=" images", file=sys.stderr, leave=False, disable=None)


@click.command(short_help="How well a class can be predicted without its tumours.")
@click.argument("dataset", metavar="DATASET")
@click.option("--model", type=PATH, metavar="RUN", help="Also test its network; writes RUN/shortcuts.json.")
@group_by_option
@split_column_option
@click.option("--seed", default=0, type=click.IntRange(0, 2**32 - 1), help="Of the split.")
@json_option
def shortcuts(
    dataset: str, model: Path | None, group_by: str | None, split_column: str | None, seed: int, as_json: bool
) -> None:
    """Find out what in DATASET predicts the class without showing a tumour.

    Simple classifiers (logistic regression, nearest neighbours, random forest; the best on the validation subset)
    predict the test images from their size, file size, border, histogram, head outline, 16 x 16 thumbnail, and from
    the thumbnail with the tumour's box (of images without one, that of some tumour) filled. High accuracies say that a
    network's accuracy on this dataset means little.

    With --model the split is the run's, and its network predicts whole images, images without the tumour's box, the
    box alone, the head's rim alone, and slices that exchanged their tumours.

    \b
    Examples:
      btkeras shortcuts data/both
      btkeras shortcuts data/both --model runs/cpu
      btkeras shortcuts data/figshare --group-by patient --json
    """
    if model and (group_by or split_column or seed):
        raise click.UsageError("With --model the split is the run's: leave --group-by, --split-column and --seed away.")
    if model:
        quiet_tensorflow()
    from btkeras.audit.format import format_shortcuts
    from btkeras.audit.shortcuts import find_shortcuts
    from btkeras.checksums import recorded_file
    from btkeras.config import DataConfig, PhantomConfig
    from btkeras.files import write_json
    from btkeras.machine import cache_folder
    from btkeras.runs import open_run
    from btkeras.splitting.splits import make_split

    run = open_run(model) if model else None
    opened = open_dataset(dataset, run.config().phantom if run else PhantomConfig())
    if run:
        run.require_finished()
        from btkeras.audit.shortcut_network import network_rows

        found = find_shortcuts(opened, run.split(opened), functools.partial(network_rows, run), seed=seed)
        write_json(run.shortcuts_file, found.to_dict(), recorded_file)
    else:
        group_by = group_by or ("official" if split_column else "image")
        config = DataConfig(group_by=group_by, split_column=split_column or "", split_seed=seed)
        found = find_shortcuts(opened, make_split(opened, config, cache_folder()), seed=seed)
    echo(found.to_dict(), as_json, lambda _: format_shortcuts(found))

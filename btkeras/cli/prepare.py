"""``btkeras prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from btkeras.cli.common import PATH, skip_broken_option


@click.command(short_help="Make a dataset from FigShare files, class folders, DICOM, NIfTI.")
@click.argument("sources", nargs=-1, type=PATH, metavar="SOURCE...")
@click.option("--out", required=True, type=PATH, help="The dataset's folder to make.")
@click.option("--download", type=click.Choice(["figshare"]), help="Fetch this collection first, resuming if cut off.")
@click.option(
    "--download-dir",
    type=PATH,
    default=Path("downloads"),
    show_default=True,
    help="Where --download puts its files.",
)
@click.option(
    "--harmonize",
    is_flag=True,
    help="Crop every image to the head, normalize its intensity and make it a grey square.",
)
@click.option(
    "--size",
    default=256,
    show_default=True,
    type=click.IntRange(32, 2048),
    help="Side of the squares of --harmonize, pixels.",
)
@click.option(
    "--slices",
    default="middle-third",
    show_default=True,
    help="Slices of NIfTI volumes: middle-third, all, or every-N; with a mask beside it, of the tumour's slices.",
)
@skip_broken_option
def prepare(sources: tuple[Path, ...], out: Path, download: str | None, download_dir: Path, **chosen: Any) -> None:
    """Make a dataset from any number of SOURCEs.

    A SOURCE is FigShare's download (zips, zips in a zip, or .mat files, with patient ids, folds and tumour masks), a
    folder of class folders (glioma, meningioma, no_tumor, pituitary and their usual spellings; also below Training/
    and Testing/; with boxes.csv), or another dataset. Every image is read: broken ones are named, and nothing is
    written unless --skip-broken.

    Class folders may hold DICOM and NIfTI too (pip install 'btkeras[medical]'). Each DICOM frame becomes a PNG; ids of
    patients and series become pseudonyms, and nothing else of the header, nor the files' names, gets into the dataset.
    Of a NIfTI volume, --slices become PNGs; where its mask lies beside it, those of the tumour. The mask of
    NAME.nii.gz, NAME_t1.nii.gz, ... is NAME_seg.nii.gz.

    --harmonize makes collections look alike, to see what is left of a shortcut (btkeras shortcuts). A network for
    images as they come is better trained on the plain dataset with --set data.harmonize=true, since it then does
    this itself wherever it is used.

    \b
    Examples:
      btkeras prepare --download figshare --out data/figshare
      btkeras prepare 1512427.zip br35h/no --out data/both
      btkeras prepare archive/Training archive/Testing --out data/kaggle
      btkeras prepare study/ --out data/study                         # study/glioma/*.dcm, study/no_tumor/*.nii.gz
      btkeras prepare volumes/ --slices every-5 --out data/volumes
      btkeras prepare data/both --harmonize --out data/both-harmonized
    """
    if not sources and not download:
        raise click.UsageError("Give at least one SOURCE, or --download figshare.")
    from btkeras.datasets.prepare import prepare as prepare_dataset

    if download:
        from btkeras.datasets.readers.figshare import download_figshare

        folder = download_dir / download
        download_figshare(folder)
        sources = (*sources, folder)
    size = chosen.pop("size")
    chosen["harmonize"] = size if chosen["harmonize"] else 0
    click.echo(prepare_dataset(sources, out, **chosen).summary())

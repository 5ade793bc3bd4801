"""From a dataset and its split to stores of decoded pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from btkeras.config import ExperimentConfig
from btkeras.data.boxes import Tumours, box_of, tumours_of
from btkeras.data.decoder import Decoder
from btkeras.data.head_boxes import boxes_in_heads
from btkeras.data.pipeline import stored_size
from btkeras.data.records import Dataset, Record
from btkeras.data.splits import PARTS, Split
from btkeras.data.store import Store, build_store, resolved_cache
from btkeras.errors import DataError

_NAMED = 20
_QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Inputs:
    """Attributes:
    stores: Pictures of each part, broken ones left out.
    labels: Class indices of each part's pictures.
    broken: Path (relative to the dataset) and reason of each picture that could not be read.
    tumours: Boxes of the training pictures, where ``augment.tumour_exchange`` needs them.
    """

    stores: dict[str, Store]
    labels: dict[str, list[int]]
    broken: dict[str, str]
    tumours: Tumours | None = None

    @property
    def kept(self) -> str:
        """Where the training pictures are kept, in words."""
        return self.stores["train"].kept


def cache_folder() -> Path:
    """Where decoded pictures and the phantom are kept between runs: ``$BTKERAS_CACHE`` or ``~/.cache/btkeras``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btkeras"
    return Path(os.environ.get("BTKERAS_CACHE") or default)


def build_inputs(
    dataset: Dataset, split: Split, config: ExperimentConfig, *, skip_broken: bool = False, keep_test: bool = False
) -> Inputs:
    """Decodes every picture of the split once, so that a broken one is known before anything is trained.

    Args:
        dataset: The pictures.
        split: Their use.
        config: Says how they are decoded and where they are kept.
        skip_broken: Leave out what cannot be read.
        keep_test: Whether the test part's pictures take memory too. On disk they are kept for the evaluation anyway.

    Raises:
        DataError: If some cannot be read and ``skip_broken`` is not set; it names them. Also if a part loses all its
            pictures of a class.
    """
    sizes = dict.fromkeys(PARTS, config.data.image_size) | {
        "train": stored_size(config.data.image_size, config.augment)
    }
    stores: dict[str, Store] = {}
    labels: dict[str, list[int]] = {}
    broken: dict[str, str] = {}
    for part in PARTS:
        records = split.part(part)
        keep = keep_test or part != "test"
        stores[part] = load_pictures(dataset, records, sizes[part], config, name=part, keep=keep)
        reasons = stores[part].broken
        broken |= {records[i].path: str(error) for i, error in reasons.items()}
        labels[part] = [dataset.classes.index(r.label) for i, r in enumerate(records) if i not in reasons]
    if broken and not skip_broken:
        raise broken_pictures(broken)
    for part in PARTS:
        _check_classes_left(part, split.part(part), broken)
    return Inputs(stores, labels, broken, _tumours(dataset, split, config, broken))


def _tumours(dataset: Dataset, split: Split, config: ExperimentConfig, broken: Collection[str]) -> Tumours | None:
    if not config.augment.tumour_exchange:
        return None
    if unknown := set(config.augment.exchanged_classes) - set(dataset.classes):
        raise DataError(
            f"augment.exchanged_classes must be classes of the dataset: {', '.join(dataset.classes)}",
            received=min(unknown),
        )
    records = [record for record in split.train if record.path not in broken]
    boxes = boxes_in_heads(dataset.root, records) if config.data.harmonise else [box_of(record) for record in records]
    tumours = tumours_of(records, boxes, config.augment.exchanged_classes)
    for what, found in (("a tumour's box", tumours.boxes.any()), ("a slice without tumour", tumours.healthy.any())):
        if not found:
            raise DataError(
                "augment.tumour_exchange needs slices of no_tumor, and boxes of "
                + " and ".join(config.augment.exchanged_classes),
                received=f"{dataset.root} without {what} in its training part",
                remedy="Prepare it from masks or boxes.csv, or set augment.tumour_exchange=0",
            )
    return tumours


def _check_classes_left(part: str, records: Sequence[Record], broken: Collection[str]) -> None:
    lost = {r.label for r in records} - {r.label for r in records if r.path not in broken}
    if lost:
        raise DataError(
            "Each part of a split must keep a readable picture of each of its classes",
            received=f"no readable {min(lost)} in {part}",
            remedy="Mend the broken pictures, or remove them and start a new run",
        )


def load_pictures(
    dataset: Dataset, records: Sequence[Record], size: int, config: ExperimentConfig, *, name: str, keep: bool = True
) -> Store:
    """Decodes the given records' pictures, with a progress bar; without ``keep`` they take no memory."""
    decoder = Decoder(size, config.data.channels, config.data.harmonise)
    cache = resolved_cache(config.data.cache, len(records), decoder)
    # A log gets a line now and then, if it takes long.
    pause = 0.0 if sys.stderr.isatty() else _QUIET_SECONDS

    def progress(pictures):  # type: ignore[no-untyped-def]
        return tqdm(
            pictures,
            f"reading {name}",
            len(records),
            unit=" images",
            file=sys.stderr,
            leave=False,
            delay=pause,
            mininterval=max(pause, 0.1),
            maxinterval=max(pause, 10.0),
        )

    return build_store(
        [dataset.root / record.path for record in records],
        decoder,
        cache="none" if cache == "memory" and not keep else cache,
        folder=cache_folder() / "pictures",
        progress=progress,
    )


def broken_pictures(broken: dict[str, str]) -> DataError:
    """The error that names broken pictures, the first of them where there are many."""
    reasons = [f"\n  {reason.removesuffix('.')}" for reason in list(broken.values())[:_NAMED]]
    more = f"\n  and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return DataError(
        "Every picture of a dataset must be readable",
        received=f"{len(broken)} broken:{''.join(reasons)}{more}",
        remedy="Mend or remove them, or leave them out: --skip-broken",
    )

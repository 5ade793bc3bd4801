"""Maps scored against tumour boxes or masks, and beside maps that need no network; without Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.boxes import boxes_in_heads
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Dataset, Record
from btkeras.errors import DataError
from btkeras.metrics import localization as local
from btkeras.metrics import wilson

_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]


class NothingToExplainError(DataError):
    """No tumour is classified correctly."""


@dataclass(frozen=True)
class Tumors:
    """Correctly classified tumours: the network's inputs, the class ``[n]`` whose maps are scored, the dataset's names
    of theirs ``[n]`` and regions ``[n, side, side]`` of a kind, box or mask; and the total number of tumours with a
    region.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64]
    names: NDArray[np.str_]
    regions: _Bools
    kind: str
    total: int


def with_region(
    dataset: Dataset, records: Sequence[Record], *, harmonized: bool, limit: int | None = None
) -> tuple[list[Record], str, int]:
    """The tumours among records that have a region, ``limit`` of them at most, drawn evenly.

    Returns:
        The records, the kind of their regions, mask or box, and how many have one.

    Raises:
        DataError: If there are none.
    """
    # Masks fit the image as it is stored; after a crop to the head only boxes do.
    masked = not harmonized and any(record.extra.get("mask") for record in records)
    kind = "mask" if masked else "box"
    known = [r for r in records if r.label != NO_TUMOR and r.extra.get(kind)]
    if not known:
        raise DataError(
            "Explanations are scored on tumours with a box or mask",
            received=f"{dataset.root} without any",
            remedy="Add boxes.csv, prepare the dataset from masks, or explain single images: predict --explain",
        )
    count = len(known)
    if limit is not None and limit < count:
        known = [known[i] for i in np.linspace(0, count - 1, limit).round().astype(int)]
    return known, kind, count


def classified_tumors(
    images: NDArray[Any],
    known: tuple[Sequence[Record], str, int],
    regions: _Bools,
    classes: Sequence[str],
    probabilities: NDArray[np.floating],
) -> Tumors:
    """Those of ``with_region``'s tumours that are classified correctly and have a region, by the model's probabilities
    ``[n, classes]``; NothingToExplainError if none is.

    A label that the model does not know is ``tumor``, to a model of kinds: it is right where their sum is above the
    probability of none, and explained by the most probable kind.
    """
    records, kind, total = known
    tumors = np.array([name != NO_TUMOR for name in classes])
    likeliest = np.where(tumors, probabilities, -1).argmax(axis=1)
    names = np.array([record.label for record in records])
    labels = np.array([classes.index(name) if name in classes else i for name, i in zip(names, likeliest, strict=True)])
    some = probabilities[:, tumors].sum(axis=1) > probabilities[:, ~tumors].sum(axis=1)
    right = np.where(np.isin(names, classes), probabilities.argmax(axis=1) == labels, some)
    chosen = right & regions.any(axis=(1, 2))
    if not chosen.any():
        raise NothingToExplainError(
            "Explanations need tumours that the network classifies correctly", received=f"0 of {len(images)}"
        )
    return Tumors(images[chosen], labels[chosen], names[chosen], regions[chosen], kind, total)


def regions_of(
    dataset: Dataset, records: Sequence[Record], shape: tuple[int, int], kind: str, *, harmonized: bool = False
) -> _Bools:
    """Where tumours are in the network's image: bool ``[n, height, width]``; all False where that is unknown.

    ``kind`` is box or mask; ``harmonized`` images are cropped to the head, as boxes then are.
    """
    if kind == "mask":
        return np.stack([_mask(dataset.root / record.extra["mask"], shape) for record in records])
    boxes = [record.box for record in records]
    if harmonized:
        boxes = boxes_in_heads([dataset.root / record.path for record in records], boxes)
    return np.stack([np.zeros(shape, bool) if box is None else local.box_region(box, shape) for box in boxes])


def _mask(file: Path, shape: tuple[int, int]) -> _Bools:
    from PIL import Image

    try:
        with Image.open(file) as image:
            small = image.convert("L").resize(shape[::-1], Image.Resampling.BOX)
    except (OSError, ValueError) as error:
        raise DataError("A tumour mask must be a readable image", received=f"{file} ({error})") from error
    # Pixels that the tumour fills by half at least; the fullest if there are none.
    values = np.asarray(small)
    return np.asarray((values >= min(128, int(values.max()))) & (values > 0))


def baselines(tumors: Tumors, training: Sequence[_Bools]) -> list[dict[str, Any]]:
    """Maps without a network: where tumours usually are, and what is bright."""
    count, shape = len(tumors.images), tumors.regions.shape[1:]
    center = np.zeros(shape, np.float32)
    center[shape[0] // 2, shape[1] // 2] = 1
    same: dict[str, _Floats] = {"centre of the image": center}
    if training:
        prior: _Floats = np.asarray(np.mean(training, axis=0), np.float32)
        middle = np.zeros(shape, np.float32)
        middle[tuple(np.mean([local.center(region) for region in training], axis=0).round().astype(int))] = 1
        same |= {"mean centre of the training tumours": middle, "frequency of tumours in training": prior}
    maps = {name: np.broadcast_to(one, (count, *shape)) for name, one in same.items()}
    maps["brightness of the image"] = tumors.images.mean(axis=-1)
    return [score_row(name, "baseline", one, tumors) for name, one in maps.items()]


def score_row(title: str, network: str, maps: _Floats, tumors: Tumors) -> dict[str, Any]:
    """Scores of maps ``[n, height, width]``: of all tumours, and of those of each class."""
    hits = local.pointing_game(maps, tumors.regions)
    scores: Mapping[str, NDArray[Any]] = {
        "pointing": hits,
        "energy": local.energy(maps, tumors.regions),
        "iou": local.iou(maps, tumors.regions),
        "iou_same_area": local.iou_of_same_area(maps, tumors.regions),
    }

    def means(chosen: Any) -> dict[str, float]:
        return {name: float(values[chosen].mean()) for name, values in scores.items()}

    per_class = {str(name): tumors.names == name for name in np.unique(tumors.names)}
    return {
        "title": title,
        "network": network,
        **means(...),
        "pointing_interval": list(wilson(int(hits.sum()), len(hits))),
        "empty": int((maps.max(axis=(1, 2)) <= 0).sum()),
        "per_class": {label: means(own) | {"images": int(own.sum())} for label, own in per_class.items()},
    }


def document(dataset: Dataset, subset: str, tumors: Tumors, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``explanations.json``."""
    return {
        "dataset": str(dataset.root),
        "split": subset,
        "region": tumors.kind,
        "images": len(tumors.images),
        "tumors": tumors.total,
        "threshold": local.THRESHOLD,
        "rows": list(rows),
    }


def explanations_table(document: Mapping[str, Any]) -> str:
    """The scores as a text table, in percent."""
    rows = document["rows"]
    width = max(len(row["title"]) for row in rows) + 2
    head = f"{'':{width}}{'weights':>15}{'pointing':>10}{'95 % interval':>16}{'energy':>8}{'IoU':>7}{'IoU area':>10}"
    lines = [head + f"{'s/100':>8}{'rank corr.':>12}"]
    for row in rows:
        low, high = (100 * end for end in row["pointing_interval"])
        weights = "" if row["network"] == "baseline" else row["network"]
        seconds = f"{row['seconds_per_100']:8.0f}" if "seconds_per_100" in row else ""
        correlation = row.get("correlation_with_random")
        lines.append(
            f"{row['title']:{width}}{weights:>15}{100 * row['pointing']:10.1f}{f'{low:.1f} to {high:.1f}':>16}"
            f"{100 * row['energy']:8.1f}{100 * row['iou']:7.1f}{100 * row['iou_same_area']:10.1f}{seconds}"
            + (f"{correlation:12.2f}" if correlation is not None else "")
        )
    lines += [
        "",
        f"{document['split']} images of {document['dataset']}: {document['images']:,} correctly classified tumours of "
        f"{document['tumors']:,} with a {document['region']}.",
        "pointing: the map's maximum lies in the region; energy: its share of the map; IoU: of the pixels above "
        f"{document['threshold']:g} of the maximum; IoU area: of as many pixels as the region has; rank corr.: between "
        "the maps of trained and random weights.",
    ]
    return "\n".join(lines)

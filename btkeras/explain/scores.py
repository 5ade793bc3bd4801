"""Scores of explanation maps against tumour boxes or masks, beside simple baselines and random weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import recorded_file
from btkeras.datasets.boxes import boxes_in_heads
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.finite import require_finite
from btkeras.errors import DataError
from btkeras.evaluation.evaluate import LoadedRun, loaded
from btkeras.explain.cam import explain
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, method_of
from btkeras.files import write_json
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.metrics import localization as local
from btkeras.metrics import wilson
from btkeras.runs import Run
from btkeras.training.pipeline import broken_images, load_images

_BATCH = 32
_Bools = NDArray[np.bool_]
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class _Tumors:
    """Correctly classified tumours: the network's inputs, labels ``[n]`` and regions ``[n, side, side]`` of a kind, box
    or mask; and the total number of tumours with a region.
    """

    images: _Floats
    labels: NDArray[np.int64]
    regions: _Bools
    kind: str
    total: int


@only_writer
def score_explanations(
    run: Run | LoadedRun,
    subset: str = "test",
    *,
    dataset: Dataset | None = None,
    methods: Sequence[str] = (DEFAULT_METHOD,),
    limit: int | None = None,
) -> dict[str, Any]:
    """Scores explanation methods on the tumours of a subset of the run's dataset, or of all of another dataset.

    Each method is scored with the network and with random weights, and the rank correlation of both maps is computed
    (Adebayo et al. 2018, arXiv:1810.03292): a method whose maps hardly change does not explain what was learnt.
    ``limit`` images at most are drawn evenly from the list.

    Returns:
        The content of ``explanations.json``, beside ``metrics.json``.

    Raises:
        DataError: If there is no correctly classified tumour with a box or mask.
        ConfigError, ModelError: As ``cam.explain``.
    """
    for name in methods:
        method_of(name)
    opened = loaded(run)
    run, model, own = opened.run, opened.model, dataset or opened.dataset
    records = own.records if dataset else opened.split.subset(subset)
    tumors = _tumors(opened, own, records, limit)
    boxed = () if dataset else [one for one in opened.split.train if one.label != NO_TUMOR and one.box]
    harmonized, shape = run.config().data.harmonize, tumors.images.shape[1:3]
    training = list(regions_of(own, boxed, shape, "box", harmonized=harmonized)) if boxed else []
    rows = _baselines(tumors, training, run.classes())
    other = reinitialized(model)
    for name in methods:
        rows += _method_rows(name, model, other, tumors, run.classes())
    document = {
        "dataset": str(own.root),
        "split": "all" if dataset else subset,
        "region": tumors.kind,
        "images": len(tumors.images),
        "tumors": tumors.total,
        "threshold": local.THRESHOLD,
        "rows": rows,
    }
    write_json(run.create_results(subset, dataset).explanations_file, document, recorded_file)
    return document


def _tumors(opened: LoadedRun, dataset: Dataset, records: Sequence[Record], limit: int | None) -> _Tumors:
    config, classes, model = opened.run.config(), opened.run.classes(), opened.model
    # Masks fit the image as it is stored; after a crop to the head only boxes do.
    masked = not config.data.harmonize and any(record.extra.get("mask") for record in records)
    kind = "mask" if masked else "box"
    known = [r for r in records if r.label != NO_TUMOR and r.label in classes and r.extra.get(kind)]
    if not known:
        raise DataError(
            "Explanations are scored on tumours with a box or mask",
            received=f"{dataset.root} without any",
            remedy="Add boxes.csv, prepare the dataset from masks, or explain single images: predict --explain",
        )
    count = len(known)
    if limit is not None and limit < count:
        known = [known[i] for i in np.linspace(0, count - 1, limit).round().astype(int)]
    store = load_images(dataset, known, config.data.image_size, config, name="tumors")
    if store.broken:
        raise broken_images({known[i].path: str(error) for i, error in store.broken.items()})
    images = store.take(np.arange(len(known))).astype(np.float32)
    labels = np.array([classes.index(record.label) for record in known])
    probabilities = model.predict(images, batch_size=_BATCH, verbose=0)
    require_finite("outputs", [probabilities], opened.run.best_model)
    right = probabilities.argmax(axis=1) == labels
    regions = regions_of(dataset, known, images.shape[1:3], kind, harmonized=config.data.harmonize)
    right &= regions.any(axis=(1, 2))
    if not right.any():
        raise DataError(
            "Explanations need tumours that the network classifies correctly", received=f"0 of {len(known)}"
        )
    return _Tumors(images[right], labels[right], regions[right], kind, count)


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


def _baselines(tumors: _Tumors, training: Sequence[_Bools], classes: Sequence[str]) -> list[dict[str, Any]]:
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
    return [_row(name, "baseline", one, tumors, classes) for name, one in maps.items()]


def _method_rows(
    name: str, model: keras.Model, other: keras.Model, tumors: _Tumors, classes: Sequence[str]
) -> list[dict[str, Any]]:
    title = METHODS[name].title
    logger.info(f"explaining {len(tumors.images):,} images by {name}, and again with random weights")
    begin = time.perf_counter()
    maps = explain(model, tumors.images, tumors.labels, name)
    seconds = 100 * (time.perf_counter() - begin) / len(tumors.images)
    random = explain(other, tumors.images, tumors.labels, name)
    correlations = local.rank_correlation(maps, random)
    defined = correlations[~np.isnan(correlations)]
    trained = _row(title, "trained", maps, tumors, classes) | {
        "method": name,
        "seconds_per_100": round(seconds, 1),
        "correlation_with_random": float(defined.mean()) if len(defined) else None,
    }
    return [trained, _row(title, "random weights", random, tumors, classes) | {"method": name}]


def _row(title: str, network: str, maps: _Floats, tumors: _Tumors, classes: Sequence[str]) -> dict[str, Any]:
    hits = local.pointing_game(maps, tumors.regions)
    scores: Mapping[str, NDArray[Any]] = {
        "pointing": hits,
        "energy": local.energy(maps, tumors.regions),
        "iou": local.iou(maps, tumors.regions),
        "iou_same_area": local.iou_of_same_area(maps, tumors.regions),
    }

    def means(chosen: Any) -> dict[str, float]:
        return {name: float(values[chosen].mean()) for name, values in scores.items()}

    per_class = {classes[i]: tumors.labels == i for i in np.unique(tumors.labels)}
    return {
        "title": title,
        "network": network,
        **means(...),
        "pointing_interval": list(wilson(int(hits.sum()), len(hits))),
        "empty": int((maps.max(axis=(1, 2)) <= 0).sum()),
        "per_class": {label: means(own) | {"images": int(own.sum())} for label, own in per_class.items()},
    }


def reinitialized(model: keras.Model, seed: int = 0) -> keras.Model:
    """A copy of a network from ``build_model`` with newly drawn weights; equal seeds give equal weights."""
    other = keras.models.clone_model(model)
    for number, layer in enumerate(other.layers):
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            weight, initializer = getattr(layer, name, None), getattr(layer, f"{name}_initializer", None)
            if weight is not None and initializer is not None:
                settings = initializer.get_config() | {"seed": 1000 * seed + number}
                weight.assign(type(initializer).from_config(settings)(weight.shape, weight.dtype))
    return other


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

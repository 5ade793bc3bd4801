"""Scores of a run's explanation maps, beside those of the same network with random weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.checksums import recorded_file
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.finite import require_finite
from btkeras.evaluation.evaluate import LoadedRun, loaded
from btkeras.evaluation.tumor_or_none import dataset_of_model
from btkeras.explain.cam import explain
from btkeras.explain.methods import DEFAULT_METHOD, METHODS, method_of
from btkeras.explain.score_rows import (
    Tumors,
    baselines,
    classified_tumors,
    document,
    regions_of,
    score_row,
    with_region,
)
from btkeras.files import write_json
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.metrics import localization as local
from btkeras.models.averaging import members, with_members
from btkeras.runs import Run
from btkeras.training.pipeline import broken_images, load_images

_BATCH = 32
_Floats = NDArray[np.float32]


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
        DataError: If there is no correctly classified tumour with a box or mask, or a class that the network does not
            know.
        ConfigError, ModelError: As ``cam.explain``.
    """
    for name in methods:
        method_of(name)
    opened = loaded(run)
    run, model = opened.run, opened.model
    own = dataset_of_model(dataset, run.classes(), merged=True) if dataset else opened.dataset
    records = own.records if dataset else opened.split.subset(subset)
    tumors = _tumors(opened, own, records, limit)
    boxed = () if dataset else [one for one in opened.split.train if one.label != NO_TUMOR and one.box]
    harmonized, shape = run.config().data.harmonize, tumors.images.shape[1:3]
    training = list(regions_of(own, boxed, shape, "box", harmonized=harmonized)) if boxed else []
    rows = baselines(tumors, training)
    other = reinitialized(model)
    for name in methods:
        rows += _method_rows(name, model, other, tumors)
    scores = document(own, "all" if dataset else subset, tumors, rows)
    write_json(run.create_results(subset, dataset).explanations_file, scores, recorded_file)
    return scores


def require_regions(run: LoadedRun, subset: str, dataset: Dataset | None) -> None:
    """Raises ``DataError`` if no tumour that ``score_explanations`` looks at has a box or mask."""
    records = dataset.records if dataset else run.split.subset(subset)
    with_region(dataset or run.dataset, records, harmonized=run.run.config().data.harmonize)


def _tumors(opened: LoadedRun, dataset: Dataset, records: Sequence[Record], limit: int | None) -> Tumors:
    config, model = opened.run.config(), opened.model
    harmonized = config.data.harmonize
    known, kind, count = with_region(dataset, records, harmonized=harmonized, limit=limit)
    store = load_images(dataset, known, config.data.image_size, config, name="tumors")
    if store.broken:
        raise broken_images({known[i].path: str(error) for i, error in store.broken.items()})
    images = store.take(np.arange(len(known))).astype(np.float32)
    probabilities = model.predict(images, batch_size=_BATCH, verbose=0)
    require_finite("outputs", [probabilities], opened.run.best_model)
    regions = regions_of(dataset, known, images.shape[1:3], kind, harmonized=harmonized)
    return classified_tumors(images, (known, kind, count), regions, opened.run.classes(), probabilities)


def _method_rows(name: str, model: keras.Model, other: keras.Model, tumors: Tumors) -> list[dict[str, Any]]:
    title = METHODS[name].title
    logger.info(f"explaining {len(tumors.images):,} images by {name}, and again with random weights")
    begin = time.perf_counter()
    maps = explain(model, tumors.images, tumors.labels, name)
    seconds = 100 * (time.perf_counter() - begin) / len(tumors.images)
    random = explain(other, tumors.images, tumors.labels, name)
    correlations = local.rank_correlation(maps, random)
    defined = correlations[~np.isnan(correlations)]
    trained = score_row(title, "trained", maps, tumors) | {
        "method": name,
        "seconds_per_100": round(seconds, 1),
        "correlation_with_random": float(defined.mean()) if len(defined) else None,
    }
    return [trained, score_row(title, "random weights", random, tumors) | {"method": name}]


def reinitialized(model: keras.Model, seed: int = 0) -> keras.Model:
    """A copy of a network from ``build_model`` with newly drawn weights; equal seeds give equal weights."""
    if members(model):
        return with_members(model, lambda member: reinitialized(member, seed))
    other = keras.models.clone_model(model)
    for number, layer in enumerate(other.layers):
        for name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            weight, initializer = getattr(layer, name, None), getattr(layer, f"{name}_initializer", None)
            if weight is not None and initializer is not None:
                settings = initializer.get_config() | {"seed": 1000 * seed + number}
                weight.assign(type(initializer).from_config(settings)(weight.shape, weight.dtype))
    return other

"""The robustness sheet: a network's figures on images as they are, and under every corruption at five strengths.

Corruptions act on the decoded image at the size it is stored at, before cropping, resizing and everything else that
belongs to the network, as they do in the world.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from btkeras.datasets.dataset import Dataset, Record
from btkeras.decisions.calibration import load_calibration
from btkeras.errors import ConfigError
from btkeras.evaluation.corruptions import CORRUPTIONS, LEVELS, corrupt
from btkeras.evaluation.evaluate import load_best, require_known_classes
from btkeras.evaluation.robustness_sheet import SETTINGS, sampling_errors, sheet_of
from btkeras.files import atomic_file, write_json
from btkeras.logging import logger
from btkeras.machine import map_in_threads
from btkeras.preprocessing.preprocessor import ImageArray, Preprocessor, decode_file
from btkeras.runs import Run

_CELL = 160
_MARGIN = 96
_LINE = 16


def contact_sheet(image: ImageArray, cell: int = _CELL) -> NDArray[np.uint8]:
    """A row per corruption: its name, the image as it is, and the five strengths with their values above.

    Args:
        image: uint8 ``[height, width, 1 or 3]``, shown as it would reach the preprocessing.
        cell: Side of each small image, pixels.

    Returns:
        uint8 ``[rows, columns, 3]``.
    """
    columns, height = len(LEVELS) + 1, cell + _LINE
    sheet = Image.new("RGB", (_MARGIN + columns * cell, len(CORRUPTIONS) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (name, corruption) in enumerate(CORRUPTIONS.items()):
        top = row * height
        draw.text((6, top + _LINE), name, "black", font)
        for column, value in enumerate(("as it is", *(f"{strength:g}" for strength in corruption.strengths))):
            left = _MARGIN + column * cell
            draw.text((left + 4, top + 3), value, "black", font)
            sheet.paste(_small(corrupt(image, name, column), cell), (left, top + _LINE))
    return np.asarray(sheet)


def _small(image: ImageArray, side: int) -> Image.Image:
    pillow_image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return pillow_image.resize(
        (side, side), Image.Resampling.BOX if min(pillow_image.size) > side else Image.Resampling.BILINEAR
    )


IMAGES = 200


@dataclass(frozen=True)
class Sampling:
    """Which images are taken, a share of each class.

    Attributes:
        images: How many; None for all.
        seed: Seed of the draw.
    """

    images: int | None = IMAGES
    seed: int = 0


def measure_robustness(run: Run, dataset: Dataset | None = None, sampling: Sampling | None = None) -> dict[str, Any]:
    """Makes the sheet and writes ``robustness.json``, and ``robustness.png``, one of the images under all of it.

    They go to the run's folder, or to ``evaluations/NAME/`` in it for another dataset.

    Args:
        run: A trained run.
        dataset: Another dataset, of which all images count; None for the run's own test part.
        sampling: Which of the images; ``IMAGES`` of them by default.

    Returns:
        ``dataset``, ``split``, ``images`` of ``of``, ``seed``, ``per_class``, ``estimator`` (of the ECE),
        ``temperature``, ``clean``, ``corruptions`` (``name``, ``title``, ``unit``, ``levels``, ``mean``), ``mean`` over
        all of them, ``sampling_error`` and ``seconds``. Figures are ``accuracy`` with Wilson's ``accuracy_interval``,
        ``balanced_accuracy`` (mean recall of the classes), ``confidence`` (mean highest probability) and ``ece``.

    Raises:
        RunError: If the run has no network.
        DataError: If an image cannot be read, or its class is not one of the network's.
        ConfigError: If fewer images are wanted than there are classes.
    """
    start, model = time.perf_counter(), load_best(run)
    calibration = load_calibration(run, model)
    records, subset = _images(run, dataset)
    root = (dataset or run.dataset()).root
    sampling = sampling or Sampling()
    drawn = draw(records, sampling)
    logger.info(f"{len(drawn):,} of {len(records):,} images, each as it is and under {len(SETTINGS) - 1} changes")
    labels = np.array([run.classes().index(record.label) for record in drawn])
    answers = predict_corrupted(run, model, [root / record.path for record in drawn])
    document = {
        "dataset": str(root),
        "split": subset,
        "images": len(drawn),
        "of": len(records),
        "seed": sampling.seed,
        "per_class": dict(sorted(Counter(record.label for record in drawn).items())),
        "temperature": calibration.temperature if calibration else 1.0,
        **sheet_of(labels, answers),
        "sampling_error": sampling_errors(labels, answers[:, 0], len(records)),
        "seconds": round(time.perf_counter() - start, 1),
    }
    results = run.create_results("test", dataset)
    with atomic_file(results.robustness_image) as temporary:
        Image.fromarray(contact_sheet(decode_file(root / drawn[0].path))).save(temporary)
    write_json(results.robustness_file, document)
    return document


def draw(records: Sequence[Record], sampling: Sampling) -> tuple[Record, ...]:
    """A random sample of images, stratified: each class in its proportion, with one image at least.

    Args:
        records: To draw from.
        sampling: How many.

    Returns:
        In the order of ``records``; all of them if no more are there.

    Raises:
        ConfigError: If fewer are wanted than there are classes.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        members[record.label].append(i)
    wanted = sampling.images
    if wanted is None or wanted >= len(records):
        return tuple(records)
    if wanted < len(members):
        raise ConfigError("A sample must hold an image of each class", received=f"{wanted} of {len(members)} classes")
    shares = {label: wanted * len(found) / len(records) for label, found in members.items()}
    counts = {label: max(1, math.floor(share)) for label, share in shares.items()}
    while (rest := wanted - sum(counts.values())) != 0:
        # Largest remainders; where single images of rare classes took too many, the class furthest above its share.
        choose, step = (max, 1) if rest > 0 else (min, -1)
        label = choose(
            (one for one in counts if step > 0 or counts[one] > 1), key=lambda one: shares[one] - counts[one]
        )
        counts[label] += step
    rng = np.random.default_rng(sampling.seed)
    chosen = [rng.choice(members[label], counts[label], replace=False) for label in sorted(members)]
    return tuple(records[i] for i in sorted(np.concatenate(chosen).tolist()))


def predict_corrupted(run: Run, model: keras.Model, paths: Sequence[Path]) -> NDArray[np.float32]:
    """A network's answers to images in every one of ``SETTINGS``.

    Args:
        run: Says size, channels and whether images are harmonized.
        model: Its network.
        paths: The files.

    Returns:
        Probabilities, float32 ``[images, settings, classes]``.

    Raises:
        ImageError: If a file cannot be read.
    """
    data = run.config().data
    decoder = Preprocessor(data.image_size, data.channels, data.harmonize)
    look = functools.partial(_looks, decoder)
    bar = tqdm(paths, "robustness", unit=" images", file=sys.stderr, leave=False, disable=None)
    # One image's looks are one batch, so that there is one shape, and only some of the looks are held.
    batches = map_in_threads(look, bar)
    return np.stack([np.asarray(model.predict_on_batch(batch)) for batch in batches])


def _looks(decoder: Preprocessor, path: Path) -> NDArray[np.float32]:
    image = decode_file(path)
    return np.stack([decoder.array(_changed(image, *setting)) for setting in SETTINGS]).astype(np.float32)


def _changed(image: ImageArray, name: str, level: int) -> ImageArray:
    return corrupt(image, name, level) if name else image


def _images(run: Run, dataset: Dataset | None) -> tuple[tuple[Record, ...], str]:
    if dataset is None:
        return run.split(run.dataset()).test, "test"
    require_known_classes(run, dataset)
    return dataset.records, "all"

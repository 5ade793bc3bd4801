"""The worst mistakes of the best network, as images: where it was wrong and most sure of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from btkeras.datasets.readers.images import to_png_or_jpeg
from btkeras.errors import ImageError
from btkeras.reporting.document import Block, Gallery, GalleryImage, Text
from btkeras.reporting.evidence import ReportData, ReportedModel

_SHOWN = 12
_SIDE = 192
_QUALITY = 85


@dataclass(frozen=True)
class _Mistake:
    """Attributes:
    path: Of the image, in the dataset.
    label: Its true class.
    answer: The network's.
    probabilities: Of each class, by name, the most probable first.
    others: In words, how many of the report's networks were wrong about it.
    """

    path: str
    label: str
    answer: str
    probabilities: tuple[tuple[str, float], ...]
    others: str


def mistake_blocks(evidence: ReportData, *, images: bool) -> list[Block]:
    """The most confident wrong answers of the best network.

    Args:
        evidence: What the report is about.
        images: Whether the images are shown; their paths and answers are said anyway.
    """
    network = evidence.best
    mistakes, count = _worst(evidence, network)
    if not mistakes:
        return [Text((f"{network.name} made no mistake on its test images.",))]
    root = Path(str(network.source.manifest.get("dataset", "")))
    blocks: list[Block] = []
    if images and not root.is_dir():
        blocks.append(Text((f"The dataset is no longer at {root}, so its images are not shown.",)))
        images = False
    shown = tuple(_image(number, mistake, root if images else None) for number, mistake in enumerate(mistakes, start=1))
    caption = f"The {len(shown)} of {count:,} wrong answers of {network.name} that it was most sure of"
    return [*blocks, Gallery("mistakes", caption, shown, ("Some may be mistakes of the labels.",))]


def _worst(evidence: ReportData, network: ReportedModel) -> tuple[list[_Mistake], int]:
    paths, labels, probabilities = network.answers
    answers, classes = probabilities.argmax(axis=1), network.source.summary["classes"]
    wrong = np.flatnonzero(answers != labels)
    # By path where equally sure, so that the order is the same each time.
    ranked = sorted(wrong.tolist(), key=lambda i: (-float(probabilities[i].max()), paths[i]))[:_SHOWN]
    others = _wrong_networks(evidence, network)
    found = []
    for i in ranked:
        order = np.argsort(-probabilities[i], kind="stable")
        named = tuple((classes[j], float(probabilities[i, j])) for j in order)
        found.append(_Mistake(paths[i], classes[labels[i]], classes[answers[i]], named, _others(paths[i], others)))
    return found, len(wrong)


def _wrong_networks(evidence: ReportData, network: ReportedModel) -> list[set[str]]:
    """The images that each network of the same dataset has wrong at least once."""
    found = []
    for other in evidence.networks:
        if other.source.dataset_digest == network.source.dataset_digest:
            paths, labels, probabilities = other.answers
            found.append({paths[i] for i in np.flatnonzero(probabilities.argmax(axis=1) != labels)})
    return found


def _others(path: str, wrong: Sequence[set[str]]) -> str:
    if len(wrong) < 2:
        return ""
    return f"wrong in {sum(path in paths for paths in wrong)} of {len(wrong)} networks"


def _image(number: int, mistake: _Mistake, root: Path | None) -> GalleryImage:
    jpeg, problem = thumbnail(root, mistake.path) if root else (None, "")
    probabilities = ", ".join(f"{name} {100 * p:.1f} %" for name, p in mistake.probabilities)
    lines = (mistake.path, f"{mistake.label}, taken for {mistake.answer}", probabilities, mistake.others, problem)
    return GalleryImage(
        name=f"mistake-{number}",
        jpeg=jpeg,
        alt=f"Slice of class {mistake.label} that was taken for {mistake.answer}",
        lines=tuple(line for line in lines if line),
        data={
            "path": mistake.path,
            "label": mistake.label,
            "prediction": mistake.answer,
            "probabilities": dict(mistake.probabilities),
        },
    )


def thumbnail(root: Path, path: str) -> tuple[bytes | None, str]:
    """A small JPEG of a dataset's image, or why there is none."""
    from PIL import Image

    # predictions.csv may have been edited; a report must not show what lies outside the dataset.
    if Path(path).is_absolute() or ".." in Path(path).parts:
        return None, "not shown: the path leaves the dataset"
    try:
        data, _ = to_png_or_jpeg((root / path).read_bytes(), path)
    except (OSError, ValueError, ImageError) as error:
        return None, f"not shown: {getattr(error, 'strerror', None) or error}"
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((_SIDE, _SIDE))
        image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue(), ""

"""Copies as they turn up in collections: the same slice stored anew, changed a little, flipped, turned, cut."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient

Change = Callable[[Image.Image], Image.Image]


def _cut(fraction: float, right: float, down: float) -> Change:
    """Keeps ``fraction`` of each side; of what is cut off, ``right`` and ``down`` say how much at the left and top."""

    def change(image: Image.Image) -> Image.Image:
        width, height = round(image.width * fraction), round(image.height * fraction)
        left, top = round((image.width - width) * right), round((image.height - height) * down)
        return image.crop((left, top, left + width, top + height))

    return change


def _jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return Image.open(buffer)


COPIES: Mapping[str, Change] = {
    "copy": lambda image: image,
    "jpeg": _jpeg,
    "smaller": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.BILINEAR),
    "larger": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BICUBIC),
    "flipped": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "cut": _cut(0.95, 0.5, 0.5),
    "cut_corner": _cut(0.95, 1, 0),
    "cut_all_sides": _cut(0.9, 0.5, 0.5),
    "cut_flipped": lambda image: _cut(0.95, 0.3, 0.8)(image).transpose(Image.Transpose.FLIP_TOP_BOTTOM),
}


def slices(count: int, size: int = 192) -> list[Image.Image]:
    """Distinct slices: one each of ``count`` phantom patients."""
    config = PhantomConfig(patients=max(count, 4), slices=1, image_size=size)
    return [Image.fromarray(draw_patient(config, patient)[0].image) for patient in range(count)]


def plant(folder: Path, count: int) -> dict[str, list[Path]]:
    """Writes slices and every copy of each into a folder.

    Returns:
        The files by slice; they are alone in the folder.
    """
    folder.mkdir(parents=True)
    planted: dict[str, list[Path]] = {}
    for number, image in enumerate(slices(count)):
        files = {folder / f"{number:03d}.png": image}
        files |= {folder / f"{number:03d}_{name}.png": change(image) for name, change in COPIES.items()}
        for file, original in files.items():
            original.save(file)
        planted[f"{number:03d}"] = list(files)
    return planted


def noise(seed: int, side: int = 64) -> Image.Image:
    """An image that resembles no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side))
    return Image.fromarray(pixels.astype(np.uint8))

"""Image corruptions at five levels, for testing a network's robustness, and a contact sheet of them.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR
2019, arXiv:1903.12261), with changes that scanners and exports make. Level 1 is barely visible, level 5 severe. Random
numbers come from a digest of the pixels, so that an image gets the same change at every level, only stronger.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from btkeras.errors import ConfigError
from btkeras.files import digest

ImageArray = NDArray[np.uint8]
Floats = NDArray[np.float32]
_Change = Callable[[Floats, float, np.random.Generator], Floats]

LEVELS = (1, 2, 3, 4, 5)
# Corruptions of one image at random, one after the other.
_MOST = 3
# Degree of the polynomial that a bias field is: coils vary slowly.
_DEGREE = 3


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption."""

    title: str
    unit: str  # of its strengths
    strengths: tuple[float, float, float, float, float]  # of the levels 1 to 5
    # From float32 ``[height, width, channels]`` in 0..1, a strength and random numbers to the same shape; values
    # outside 0..1 are cut off afterwards.
    change: _Change


def corrupt(image: ImageArray, name: str, level: int) -> ImageArray:
    """Corrupts a decoded image, uint8 ``[height, width, 1 or 3]``, at its stored size; all channels change alike.

    Raises:
        ConfigError: If ``name`` is none of ``CORRUPTIONS``, or ``level`` not 0 (which changes nothing) to 5.
    """
    if name not in CORRUPTIONS or level not in (0, *LEVELS):
        raise ConfigError(
            f"A corruption must be one of {', '.join(CORRUPTIONS)}, at level 0 to {LEVELS[-1]}",
            received=f"{name!r} at level {level}",
        )
    if level == 0:
        return image.copy()
    corruption, rng = CORRUPTIONS[name], _numbers(image, name)
    changed = corruption.change(np.divide(image, 255, dtype=np.float32), corruption.strengths[level - 1], rng)
    return np.rint(255 * np.clip(changed, 0, 1)).astype(np.uint8)


def corrupt_at_random(image: ImageArray) -> ImageArray:
    """None to three corruptions of a decoded image one after the other, each number of them as likely, at any level.

    They stand for other scanners and exports; the same image is always changed alike.
    """
    rng = _numbers(image, "at random")
    for name in rng.permutation(list(CORRUPTIONS))[: rng.integers(_MOST + 1)]:
        image = corrupt(image, str(name), int(rng.integers(LEVELS[0], LEVELS[-1] + 1)))
    return image


def _numbers(image: ImageArray, salt: str) -> np.random.Generator:
    return np.random.default_rng(int(digest([salt, repr(image.shape), image.tobytes()])[:32], 16))


def _noise(x: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    """Rician noise, as in magnitude images (Gudbjartsson and Patz 1995): Gaussian in the real and imaginary signal."""
    real, imaginary = sigma * rng.standard_normal((2, *x.shape[:2], 1), np.float32)
    return np.asarray(np.hypot(x + real, imaginary), np.float32)


def _blur(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    sigma = share * min(x.shape[:2])
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest")


def _gamma(x: Floats, exponent: float, rng: np.random.Generator) -> Floats:
    return x ** np.float32(exponent if rng.random() < 0.5 else 1 / exponent)


def _bias_field(x: Floats, octaves: float, rng: np.random.Generator) -> Floats:
    """Multiplies by two to the power of a random polynomial of the position (Van Leemput et al. 1999)."""
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in x.shape[:2])
    orders = np.arange(_DEGREE + 1, dtype=np.float32)
    weights = rng.uniform(-1, 1, (len(orders), len(orders))).astype(np.float32)
    weights *= orders[:, None] + orders <= _DEGREE
    field = (rows[:, None] ** orders) @ weights @ (columns[:, None] ** orders).T
    low, high = field.min(), field.max()
    # Scaled to -1..1.
    field = (2 * field - low - high) / (high - low)
    return x * np.exp(np.float32(octaves * np.log(2)) * field)[..., None]


def _rotation(x: Floats, degrees: float, rng: np.random.Generator) -> Floats:
    angle = degrees if rng.random() < 0.5 else -degrees
    edge = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    # Not every background is black.
    background = float(np.median(edge))
    turned = ndimage.rotate(x, angle, axes=(1, 0), reshape=False, order=1, mode="constant", cval=background)
    return np.asarray(turned, np.float32)


def _jpeg(x: Floats, quality: float, rng: np.random.Generator) -> Floats:
    buffer = io.BytesIO()
    _to_pillow(255 * x).save(buffer, "JPEG", quality=int(quality))
    return _from_pillow(Image.open(buffer))


def _contrast(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    mean = x.mean(dtype=np.float64)
    return np.asarray(mean + share * (x - mean), np.float32)


def _resolution(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    image = _to_pillow(255 * x)
    width, height = (max(1, round(share * side)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BOX)
    return _from_pillow(small.resize(image.size, Image.Resampling.BILINEAR))


def _inversion(x: Floats, share: float, rng: np.random.Generator) -> Floats:
    return np.asarray((1 - share) * x + share * (1 - x), np.float32)


def _to_pillow(levels: NDArray[Any]) -> Image.Image:
    pixels = np.rint(levels).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _from_pillow(image: Image.Image) -> Floats:
    pixels = np.divide(np.asarray(image), 255, dtype=np.float32)
    return pixels if pixels.ndim == 3 else pixels[..., None]


CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": Corruption("Rician noise", "sigma, fraction of the range", (0.02, 0.04, 0.07, 0.1, 0.14), _noise),
    "blur": Corruption(
        "Gaussian blur", "sigma, fraction of the shorter side", (0.002, 0.004, 0.006, 0.009, 0.012), _blur
    ),
    "gamma": Corruption(
        "gamma, half of the images darker", "exponent, or one over it", (1.15, 1.3, 1.6, 2.0, 2.5), _gamma
    ),
    "bias field": Corruption(
        "smooth change of brightness", "largest either way, octaves", (0.3, 0.7, 1.2, 1.7, 2.4), _bias_field
    ),
    "rotation": Corruption("rotation to either side", "degrees", (3.0, 8.0, 15.0, 25.0, 45.0), _rotation),
    "jpeg": Corruption("JPEG compression", "quality", (60.0, 30.0, 15.0, 8.0, 5.0), _jpeg),
    "contrast": Corruption(
        "less contrast about the image's mean", "fraction left", (0.8, 0.6, 0.45, 0.3, 0.2), _contrast
    ),
    "resolution": Corruption(
        "fewer pixels, enlarged again", "fraction of each side left", (0.6, 0.4, 0.28, 0.2, 0.14), _resolution
    ),
    # 0.5 would be uniform grey, so it is skipped: the last two are negatives.
    "inversion": Corruption("blend with the negative", "share of the negative", (0.1, 0.2, 0.3, 0.75, 1.0), _inversion),
}

_MARGIN, _LINE = 96, 16


def contact_sheet(image: ImageArray, cell: int = 160) -> NDArray[np.uint8]:
    """A row per corruption: its name, the image as it is, and the five levels with their strengths above.

    The image is uint8 ``[height, width, 1 or 3]``, the sheet RGB with cells of ``cell`` pixels.
    """
    columns, height = len(LEVELS) + 1, cell + _LINE
    sheet = Image.new("RGB", (_MARGIN + columns * cell, len(CORRUPTIONS) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for row, (name, corruption) in enumerate(CORRUPTIONS.items()):
        top = row * height
        draw.text((6, top + _LINE), name, "black", font)
        for level, title in enumerate(("as it is", *(f"{strength:g}" for strength in corruption.strengths))):
            left = _MARGIN + level * cell
            draw.text((left + 4, top + 3), title, "black", font)
            small = _to_pillow(corrupt(image, name, level))
            method = Image.Resampling.BOX if min(small.size) > cell else Image.Resampling.BILINEAR
            sheet.paste(small.resize((cell, cell), method), (left, top + _LINE))
    return np.asarray(sheet)

#!/usr/bin/env python3
"""Makes images that are no brain MRI slices, to test what refuses them: photographs' noise, text, gradients, ...

    .venv/bin/python scripts/make_non_mri.py FOLDER --count 200 --seed 0

FOLDER gets ``KIND_NUMBER.png``, the kinds in turn; the same seed gives the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient

ImageArray = NDArray[np.uint8]
Rng = np.random.Generator
PHANTOM = PhantomConfig(image_size=160)
WORDS = "patient report findings contrast no acute lesion was seen of normal 12 mm 2019 see also"


def _side(rng: Rng) -> int:
    return int(rng.choice([150, 224, 256, 400, 512]))


def _byte(values: NDArray[np.floating]) -> ImageArray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _scaled(field: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    return low + (high - low) * (field - field.min()) / max(float(np.ptp(field)), 1e-9)


def _spectral(rng: Rng, side: int, slope: float) -> NDArray[np.floating]:
    """A random field whose amplitude falls as 1/f**slope; photographs have about 1 (Field, JOSA A 1987)."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None, :])
    frequency[0, 0] = np.inf
    spectrum = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
    return np.fft.irfft2(spectrum / frequency**slope, s=(side, side))


def _shapes(rng: Rng, image: Image.Image, count: int) -> Image.Image:
    draw, (width, height) = ImageDraw.Draw(image), image.size
    for _ in range(count):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        w, h = (int(v) for v in rng.integers(width // 12, width // 2, 2))
        color = tuple(int(v) for v in rng.integers(0, 256, 3)) if image.mode == "RGB" else int(rng.integers(0, 256))
        (draw.ellipse, draw.rectangle)[int(rng.integers(2))]((x, y, x + w, y + h), fill=color)
    return image


def color_photo(rng: Rng) -> ImageArray:
    """A 1/f field per channel, partly shared, with things in front, somewhat blurred."""
    side, slope = _side(rng), rng.uniform(0.8, 1.6)
    shared, share = _spectral(rng, side, slope), rng.uniform(0, 0.6)
    fields = [_scaled(share * shared + (1 - share) * _spectral(rng, side, slope), 0, 255) for _ in range(3)]
    image = _shapes(rng, Image.fromarray(_byte(np.stack(fields, -1))), int(rng.integers(0, 8)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5))))


def grey_photo(rng: Rng) -> ImageArray:
    """The same without colour."""
    low, high = rng.uniform(0, 80), rng.uniform(140, 255)
    field = _scaled(_spectral(rng, _side(rng), rng.uniform(0.8, 1.6)), low, high)
    image = _shapes(rng, Image.fromarray(_byte(field)), int(rng.integers(0, 8)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5))))


def one_color(rng: Rng) -> ImageArray:
    """One colour, as from a lens cap or an empty page."""
    return np.full((_side(rng), _side(rng), 3), rng.integers(0, 256, 3), np.uint8)


def blank(rng: Rng) -> ImageArray:
    """One grey level, black and white among them, with a sensor's faint noise or none."""
    level, side = rng.choice([0, 255, int(rng.integers(256))]), _side(rng)
    return _byte(level + rng.choice([0.0, 1.0, 2.0]) * rng.normal(size=(side, side)))


def gradient(rng: Rng) -> ImageArray:
    """A ramp in some direction or from a centre, grey or between two colours, clean or a little noisy."""
    side = _side(rng)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    angle, cy, cx = rng.uniform(0, 2 * np.pi), *rng.uniform(0, 1, 2)
    ramp = _scaled(np.cos(angle) * x + np.sin(angle) * y if rng.random() < 0.6 else np.hypot(y - cy, x - cx), 0, 1)
    ends = rng.integers(0, 256, (2, 3)) if rng.random() < 0.4 else np.array([[0], [255]])[:: rng.choice([-1, 1])]
    image = ends[0] + ramp[..., None] * (ends[1] - ends[0])
    return _byte(image + rng.choice([0.0, 3.0]) * rng.normal(size=image.shape)).squeeze()


def text(rng: Rng) -> ImageArray:
    """A page of text: dark on light, now and then light on dark, sometimes scanned with noise."""
    side = max(_side(rng), 224)
    paper, ink = (int(rng.integers(200, 256)), int(rng.integers(0, 60)))
    paper, ink = (paper, ink) if rng.random() < 0.7 else (ink, paper)
    image = Image.new("L", (side, int(side * rng.uniform(0.8, 1.4))), paper)
    draw, size = ImageDraw.Draw(image), int(rng.integers(9, 26))
    font = ImageFont.load_default(size)
    for line in range(size, image.height - size, int(size * rng.uniform(1.3, 2))):
        if rng.random() < 0.9:
            words = " ".join(rng.choice(WORDS.split(), int(rng.integers(2, max(3, side // size // 2)))))
            draw.text((side // 16, line), words, fill=ink, font=font)
    noise = rng.choice([0, 0, 6]) * rng.normal(size=(image.height, image.width))
    return _byte(np.asarray(image) + noise)


def noise(rng: Rng) -> ImageArray:
    """White noise, uniform or normal, grey or in colour, sometimes of large grains."""
    shape = (_side(rng), _side(rng), int(rng.choice([1, 3])))
    values = rng.uniform(0, 256, shape) if rng.random() < 0.5 else rng.normal(rng.uniform(60, 190), 50, shape)
    grain = int(rng.choice([1, 1, 3]))
    return _byte(np.repeat(np.repeat(values, grain, 0), grain, 1)[: shape[0], : shape[1]]).squeeze()


def inverted(rng: Rng) -> ImageArray:
    """A synthetic slice in negative."""
    slices = draw_patient(PHANTOM, int(rng.integers(PHANTOM.patients)))
    return 255 - slices[int(rng.integers(len(slices)))].image


def barcode(rng: Rng) -> ImageArray:
    """Bars, or the squares of a matrix code, on white."""
    side, cells = _side(rng), int(rng.integers(20, 60))
    rows = cells if rng.random() < 0.5 else 1
    code = np.pad(rng.integers(0, 2, (rows, cells)) * 255, 0 if rows == 1 else 2, constant_values=255)
    image = Image.fromarray(code.astype(np.uint8)).resize((side, side * 3 // 4), Image.Resampling.NEAREST)
    page = Image.new("L", (side + 40, side + 40), 255)
    page.paste(image.rotate(int(rng.choice([0, 90])), expand=True), (20, 20))
    return np.asarray(page)


def screenshot(rng: Rng) -> ImageArray:
    """Windows with title bars, buttons and a little text; light or dark."""
    width, height, dark = 480, 320, rng.random() < 0.4
    shade = (lambda: int(rng.integers(10, 60))) if dark else (lambda: int(rng.integers(190, 250)))
    tint = int(rng.integers(0, 40))
    image = Image.new("RGB", (width, height), (shade(), shade(), min(255, shade() + tint)))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for _ in range(int(rng.integers(2, 5))):
        x, y = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        w, h = int(rng.integers(120, 260)), int(rng.integers(80, 180))
        draw.rectangle((x, y, x + w, y + h), fill=(shade(),) * 3, outline=(128,) * 3)
        draw.rectangle((x, y, x + w, y + 16), fill=tuple(int(v) for v in rng.integers(30, 220, 3)))
        for line in range(y + 22, y + h - 10, 14):
            draw.text((x + 6, line), " ".join(rng.choice(WORDS.split(), 4)), fill=(220 if dark else 20,) * 3, font=font)
    return np.asarray(image)


def chest(rng: Rng) -> ImageArray:
    """Something like a chest radiograph: a bright body to the borders, two dark lungs, ribs."""
    side = _side(rng)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = 150 + 40 * ndimage.gaussian_filter(rng.normal(size=(side, side)), side / 20) * side / 20
    lungs = sum(np.exp(-((np.hypot((x - s) / 0.35, y / 0.7)) ** 4)) for s in (-0.45, 0.45))
    ribs = 15 * np.sin(rng.uniform(20, 30) * (y + 0.3 * x**2))
    return _byte(body - (110 + rng.uniform(-20, 20)) * lungs + ribs * lungs + 3 * rng.normal(size=(side, side)))


def chart(rng: Rng) -> ImageArray:
    """Bars or a curve with axes, on white or black."""
    side, light = _side(rng), rng.random() < 0.7
    paper, ink = (255, 0) if light else (0, 255)
    image = Image.new("L", (side, side), paper)
    draw, edge = ImageDraw.Draw(image), side // 10
    draw.line((edge, edge, edge, side - edge, side - edge, side - edge), fill=ink, width=2)
    heights = rng.uniform(0.1, 0.8, 9)
    for i, share in enumerate(heights):
        left = edge * (1.4 + i * 0.8)
        draw.rectangle((left, side - edge - share * (side - 2 * edge), left + edge * 0.5, side - edge), fill=120)
    return np.asarray(image)


def hardly_any_light(rng: Rng) -> ImageArray:
    """A synthetic slice in the lowest grey levels, or in three."""
    slices = draw_patient(PHANTOM, int(rng.integers(PHANTOM.patients)))
    image = slices[0].image
    return image // 24 if rng.random() < 0.5 else (image // 64 * 64).astype(np.uint8)


_MAKERS: tuple[Callable[[Rng], ImageArray], ...] = (
    color_photo,
    grey_photo,
    one_color,
    blank,
    gradient,
    text,
    noise,
    inverted,
    barcode,
    screenshot,
    chest,
    chart,
    hardly_any_light,
)
KINDS = {maker.__name__: maker for maker in _MAKERS}


def make(count: int, seed: int) -> Iterator[tuple[str, ImageArray]]:
    """Yields kind and image, uint8 ``[height, width]`` or ``[height, width, 3]``, the kinds in turn."""
    names = list(KINDS)
    for number in range(count):
        name = names[number % len(names)]
        yield name, KINDS[name](np.random.default_rng([seed, number]))


def main() -> None:
    """Writes the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for number, (kind, image) in enumerate(make(arguments.count, arguments.seed)):
        Image.fromarray(image).save(arguments.folder / f"{kind}_{number:03d}.png")


if __name__ == "__main__":
    main()

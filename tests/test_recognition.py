"""``btkeras audit`` names well-known collections that a dataset has copies of.

Without their images: a stored hash says the signs of an image's 144 lowest waves, so an image is drawn that has it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import fft

from btkeras.audit.recognition import HASHES, NAMES
from btkeras.datasets.dataset import load_dataset
from tests import planted
from tests.test_audit import run

STORED = files("btkeras.audit") / HASHES


def drawn(stored: np.ndarray) -> Image.Image:
    """An image that has this hash."""
    waves = np.zeros((120, 120))
    waves[:12, :12] = np.unpackbits(stored).reshape(12, 12) * 2.0 - 1
    # The mean is positive in every image.
    waves[0, 0] = 0
    pixels = fft.idctn(waves)
    return Image.fromarray((128 + 127 * pixels / np.abs(pixels).max()).astype(np.uint8)).resize((240, 240))


def recognized(folder: Path, images: Sequence[Image.Image], **options: object) -> list[dict[str, object]]:
    (folder / "glioma").mkdir(parents=True)
    (folder / "no_tumor").mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"glioma/{number}.{'jpg' if options else 'png'}", **options)
    for seed in range(3):
        planted.noise(seed).save(folder / f"no_tumor/{seed}.png")
    found: list[dict[str, object]] = json.loads(run(folder, "--json").stdout)["recognized"]
    return found


def test_copies_are_counted_by_collection_also_mirrored_and_resized(tmp_path: Path) -> None:
    with np.load(str(STORED)) as known:
        ours, theirs = ([drawn(row) for row in known[key][:12]] for key in NAMES)
    images = [*ours[:4], *map(ImageOps.mirror, ours[4:9]), ours[9].rotate(90), *(i.resize((131, 97)) for i in theirs)]
    (tumors, others) = recognized(tmp_path / "mixed", images)
    assert (tumors["name"], tumors["images"], tumors["turned"]) == ("FigShare", 10, 6)
    assert (others["name"], others["images"], others["turned"]) == ("Br35H", 12, 0)
    text = run(tmp_path / "mixed", "--html", tmp_path / "page.html").stdout
    sentence = "10 of 25 images are FigShare's (doi 10.6084/m9.figshare.1512427), 6 of them flipped or rotated"
    assert sentence in text and "12 of 25 images are Br35H's" in text
    assert "10 of 25 images are FigShare" in (tmp_path / "page.html").read_text()
    assert recognized(tmp_path / "jpeg", [ImageEnhance.Brightness(i).enhance(1.1) for i in ours], quality=40)[0] == {
        **tumors,
        "images": 12,
        "turned": 0,
    }


def test_other_images_are_not_taken_for_copies(image_folder: Path) -> None:
    result = run(image_folder)
    assert "FigShare" not in result.stdout and "Br35H" not in result.stdout
    assert json.loads(run(image_folder, "--json").stdout)["recognized"] == []


def test_the_package_holds_hashes_alone_and_few_bytes() -> None:
    assert len(Path(str(STORED)).read_bytes()) < 100_000
    with np.load(str(STORED)) as known:
        assert {key: known[key].shape for key in known} == {"figshare": (3064, 18), "br35h": (1100, 18)}


@pytest.mark.data
def test_real_slices_are_recognized_resized_and_mirrored(tmp_path: Path) -> None:
    data = load_dataset(os.environ["BTKERAS_DATA"])
    images = [Image.open(data.root / record.path).convert("L").resize((224, 224)) for record in data.records[::60]]
    found = recognized(tmp_path / "copies", [ImageOps.mirror(image) for image in images], quality=75)
    assert sum(int(str(row["images"])) for row in found) == len(images)

"""Shortcuts that were planted are found, and where there is none, none is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from btkeras.audit import shortcuts as found_in
from btkeras.audit.format import format_shortcuts
from btkeras.audit.shortcut_features import boxes_to_hide, hide, image_features, silhouette
from btkeras.audit.shortcuts import ShortcutRow, Shortcuts, find_shortcuts
from btkeras.config import DataConfig
from btkeras.datasets.boxes import Box, box_in_crop
from btkeras.datasets.dataset import Record, load_dataset, write_manifest
from btkeras.runs import open_run
from btkeras.splitting.splits import make_split
from tests.test_cli import btkeras

Grey = NDArray[np.uint8]
CLASSES = ("glioma", "no_tumor")
PER_CLASS = 40


@pytest.fixture(autouse=True)
def _small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the trees, and of the time."""
    forest = {"random forest": lambda seed: RandomForestClassifier(10, random_state=seed)}
    monkeypatch.setattr(found_in, "CLASSIFIERS", {**found_in.CLASSIFIERS, **forest})


def a_head(rng: np.random.Generator, side: int = 64) -> Grey:
    """A noisy disc that says nothing of a class."""
    y, x = np.mgrid[:side, :side] + 0.5
    radius = np.hypot(y - side / 2 + rng.uniform(-3, 3), x - side / 2 + rng.uniform(-3, 3))
    image = rng.integers(0, 12, (side, side)) + (radius < side * 0.35) * rng.integers(90, 140)
    return image.astype(np.uint8)


def plain(image: Grey, label: str) -> Grey:
    return image


def border(image: Grey, label: str) -> Grey:
    return np.where(np.pad(np.ones((60, 60), bool), 2) | (label == "glioma"), image, 90).astype(np.uint8)


def size(image: Grey, label: str) -> Grey:
    return image if label == "glioma" else np.pad(image, ((0, 0), (8, 8)))


def bright(image: Grey, label: str) -> Grey:
    return image if label == "glioma" else np.minimum(image, 85)


def tumor(image: Grey, label: str) -> Grey:
    """A bright spot where `dataset` puts the box."""
    if label == "glioma":
        image[26:34, 30:38] = 250
    return image


def dataset(root: Path, change: Callable[[Grey, str], Grey], seed: int = 0) -> Path:
    rng, records = np.random.default_rng(seed), []
    for label in CLASSES:
        (root / label).mkdir(parents=True)
        for number in range(PER_CLASS):
            path = f"{label}/{number}.png"
            Image.fromarray(change(a_head(rng), label)).save(root / path)
            extra = {"box": "0.53125 0.46875 0.125 0.125"} if label == "glioma" else {}
            records.append(Record(path, label, extra=extra))
    write_manifest(root, records)
    return root


def search(root: Path) -> Shortcuts:
    loaded = load_dataset(root)
    return find_shortcuts(loaded, make_split(loaded, DataConfig(test_fraction=0.4)))


def row_of(result: Shortcuts, name: str) -> ShortcutRow:
    return next(row for row in result.rows if row.name == name)


@pytest.mark.parametrize(
    ("planted", "found"),
    [(border, "border"), (size, "size"), (tumor, "thumbnail"), (bright, "histogram")],
    ids=["border", "size", "tumor", "brightness"],
)
def test_what_was_planted_is_found(planted: Callable[[Grey, str], Grey], found: str, tmp_path: Path) -> None:
    result = search(dataset(tmp_path / "planted", planted))
    row = row_of(result, found)
    assert row.images == 32
    assert row.chance == row.detection_chance == 0.5
    assert row.accuracy >= 0.95
    assert row.accuracy == row.detection_accuracy == pytest.approx(row.balanced_accuracy)
    assert row.beats_chance
    # The tumour lies inside, and hiding it hides it; its place is no giveaway.
    if planted is tumor:
        assert not any(row_of(result, name).beats_chance for name in ("size", "border", "box hidden", "box alone"))
    if found in ("border", "size"):
        assert f"The {found} alone tells tumour from no tumour in" in format_shortcuts(result)


@pytest.mark.parametrize("seed", [1])
def test_where_there_is_none_none_is_found(seed: int, tmp_path: Path) -> None:
    result = search(dataset(tmp_path / "plain", plain, seed))
    # Of 32 fair coins 25 or more fall alike in one of 500 cases; the rows' mistakes go together.
    assert max(row.accuracy for row in result.rows) < 25 / 32
    assert np.mean([row.accuracy for row in result.rows]) == pytest.approx(0.5, abs=0.12)


def test_an_image_that_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    root = dataset(tmp_path / "broken", size)
    (root / "glioma/0.png").write_bytes(b"no image")
    result = search(root)
    assert result.broken == 1
    assert "1 images could not be read" in format_shortcuts(result)


def test_hidden_boxes_of_tumor_free_heads_lie_as_the_tumors_do_in_theirs() -> None:
    left, right = Box(0.1, 0.0, 0.9, 0.4), Box(0.2, 0.5, 0.8, 1.0)
    records = [Record("a", "glioma", extra={"box": "0.2 0.5 0.1 0.2"}), *(Record(str(i), "no_tumor") for i in range(5))]
    boxes = boxes_to_hide(records, [left, *[right] * 5], ["test"] * 6, seed=0)
    assert boxes[0] == pytest.approx((0.4, 0.15, 0.6, 0.25))
    for box in boxes[1:]:
        assert box is not None
        assert box_in_crop(box, right) == pytest.approx(box_in_crop(boxes[0], left))  # type: ignore[arg-type]


def test_no_box_is_made_up_where_none_is_known() -> None:
    whole = Box(0, 0, 1, 1)
    records = [Record("a", "glioma"), Record("b", "no_tumor")]
    assert boxes_to_hide(records, [whole, whole], ["test", "test"], seed=0) == [None, None]


def test_a_box_is_never_known_from_another_subset() -> None:
    known = Record("a", "glioma", extra={"box": "0.5 0.5 0.1 0.2"})
    records, whole = [known, Record("b", "no_tumor"), Record("c", "no_tumor")], Box(0, 0, 1, 1)
    boxes = boxes_to_hide(records, [whole] * 3, ["train", "train", "test"], seed=0)
    assert boxes[1] == pytest.approx(boxes[0])
    assert boxes[2] is None


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_what_is_hidden_has_the_level_of_its_surroundings(channels: tuple[int, ...]) -> None:
    image = np.full((40, 60, *channels), 80, np.uint8)
    image[10:20, 30:45] = 250
    hidden = hide(image, Box(10 / 40, 30 / 60, 20 / 40, 45 / 60))
    assert (hidden == 80).all()
    assert image.max() == 250
    # Boxes at and beyond the edge change what is there.
    for box in (Box(0.9, 0.9, 1.3, 1.2), Box(-0.2, -0.1, 0.01, 0.01), Box(0, 0, 1, 1)):
        assert hide(image, box).shape == image.shape


def test_the_silhouette_is_the_head_without_its_holes() -> None:
    y, x = np.mgrid[:100, :80] + 0.5
    radius = np.hypot((y - 50) / 40, (x - 40) / 30)
    image = np.where((radius < 1) & (radius > 0.8), 200, 0).astype(np.uint8)
    image[0, 0] = 255
    np.testing.assert_array_equal(silhouette(image)[1:, 1:], (radius < 1)[1:, 1:])


def test_sizes_and_modes_are_those_of_the_file(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8))
    image.save(tmp_path / "colour.png")
    image.quantize(16).save(tmp_path / "palette.png")
    color, palette = (image_features(tmp_path / name).values for name in ("colour.png", "palette.png"))
    assert color["size"][:3].tolist() == palette["size"][:3].tolist() == [40, 20, 2]
    assert not np.array_equal(color["size"], palette["size"])
    assert np.exp(color["file size"][0]) == pytest.approx((tmp_path / "colour.png").stat().st_size)


def test_the_shortcuts_of_a_runs_network_are_on_its_card(
    trained_run: Path, shared_images: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(trained_run, tmp_path / "run")
    result = btkeras("shortcuts", shared_images, "--model", copy, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    rows = {row["name"]: row for row in document["rows"]}
    assert rows["network"]["accuracy"] == pytest.approx(open_run(trained_run).metrics()["accuracy"])
    assert "network, outline" in rows
    # There are no boxes.
    assert not {"box hidden", "network, box hidden"} & rows.keys()
    assert json.loads((copy / "shortcuts.json").read_text()) == document
    card = btkeras("card", copy, "--out", "-")
    assert card.exit_code == 0, card.output
    assert "btkeras shortcuts DATASET" not in card.stdout and "network, outline" in card.stdout


def test_the_table_names_every_row(tmp_path: Path) -> None:
    root = dataset(tmp_path / "planted", border)
    result = btkeras("shortcuts", root, "--group-by", "image", "--seed", 3)
    assert result.exit_code == 0, result.output
    for name in ("size", "file size", "border", "histogram", "outline", "thumbnail", "box hidden", "box alone"):
        assert f"\n{name} " in result.stdout


def test_a_split_given_twice_is_refused(trained_run: Path, shared_images: Path) -> None:
    result = btkeras("shortcuts", shared_images, "--model", trained_run, "--group-by", "image")
    assert result.exit_code == 2
    assert "leave --group-by" in result.output

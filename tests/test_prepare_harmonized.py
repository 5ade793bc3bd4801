"""``prepare --harmonize``: crops to heads, on one scale of intensity, with masks and boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import Dataset, load_dataset
from btkeras.datasets.phantom import write_phantom
from btkeras.preprocessing.harmonize import harmonize
from btkeras.preprocessing.resize import resize
from tests.prepare_files import pixels, prepare, quiet

SIZE = 96


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = PhantomConfig(patients=8, slices=1, image_size=128)
    return write_phantom(config, tmp_path_factory.mktemp("phantom") / "dataset")


@pytest.fixture(scope="module")
def harmonized(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("harmonized") / "dataset"
    prepare([phantom.root], out, harmonize=SIZE, progress=quiet)
    return load_dataset(out)


def test_images_are_harmonized_squares_with_label_and_patient(phantom: Dataset, harmonized: Dataset) -> None:
    assert len(harmonized.records) == len(phantom.records)
    before = {record.extra.get("original", record.path): record for record in phantom.records}
    for record in harmonized.records:
        source = before[record.extra["original"]]
        expected = resize(harmonize(pixels(phantom.root / source.path)[..., None]), SIZE)[..., 0]
        np.testing.assert_array_equal(pixels(harmonized.root / record.path), expected)
        assert (record.label, record.patient) == (source.label, source.patient)
        assert record.path.endswith(".png")
        assert record.extra["harmonized"] == str(SIZE)


def test_masks_and_boxes_stay_on_the_tumor(harmonized: Dataset) -> None:
    tumors = [record for record in harmonized.records if record.label != "no_tumor"]
    assert len(tumors) == 6
    for record in tumors:
        mask = pixels(harmonized.root / record.extra["mask"])
        assert mask.shape == (SIZE, SIZE)
        assert set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        edges = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / SIZE
        np.testing.assert_allclose(record.box, edges, atol=1.5 / SIZE)


def test_what_is_harmonized_is_not_cropped_and_scaled_again(harmonized: Dataset, tmp_path: Path) -> None:
    prepare([harmonized.root], tmp_path / "again", harmonize=SIZE, progress=quiet)
    again = load_dataset(tmp_path / "again")
    for record, before in zip(again.records, harmonized.records, strict=True):
        np.testing.assert_array_equal(pixels(again.root / record.path), pixels(harmonized.root / before.path))
        assert record.extra["box"] == before.extra["box"]


def test_the_command(phantom: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["prepare", str(phantom.root), "--out", str(out), "--harmonize", "--size", "64"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    records = load_dataset(out).records
    assert {pixels(out / record.path).shape for record in records} == {(64, 64)}
    assert {record.extra["harmonized"] for record in records} == {"64"}

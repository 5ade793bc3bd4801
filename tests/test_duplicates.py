"""Copies among images: found under what is usually done to them, and not seen where there are none."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr

from btkeras.preprocessing.image_file import MIN_SIDE
from btkeras.splitting.duplicate_alignment import THRESHOLD, Aligner
from btkeras.splitting.duplicate_hashes import ORIENTATIONS, SIDE, WINDOWS, candidates, hashes, oriented
from btkeras.splitting.duplicates import find_near_duplicates
from tests import planted

SLICES = 16


def pairs(groups: list[list[Path]]) -> set[frozenset[str]]:
    """Every two files of a group."""
    return {frozenset((a.name, b.name)) for group in groups for a, b in combinations(group, 2)}


@pytest.fixture(scope="module")
def planted_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return planted.plant(tmp_path_factory.mktemp("planted") / "files", SLICES)


def test_planted_copies_are_found_and_nothing_else(planted_files: dict[str, list[Path]]) -> None:
    files = [file for group in planted_files.values() for file in group]
    shuffled = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
    true, found = pairs(list(planted_files.values())), pairs(find_near_duplicates(shuffled).groups())
    missed, wrong = true - found, found - true
    assert len(missed) <= 0.02 * len(true), sorted(map(sorted, missed))[:10]
    assert len(wrong) <= 0.02 * len(found), sorted(map(sorted, wrong))[:10]


@pytest.mark.parametrize("name", planted.COPIES)
def test_each_kind_of_copy_is_found_on_its_own(planted_files: dict[str, list[Path]], name: str) -> None:
    # Without the other copies nothing can be joined in a roundabout way.
    chosen = [[file for file in group if file.stem in (key, f"{key}_{name}")] for key, group in planted_files.items()]
    chosen = chosen[:8]
    found = find_near_duplicates([file for group in chosen for file in group])
    assert pairs(found.groups()) == pairs(chosen)
    assert all(link.exact == (name == "copy") for link in found.pairs)


def test_a_link_says_what_was_done(tmp_path: Path) -> None:
    image = planted.slices(1)[0]
    for turn, (transposed, vertical, horizontal) in enumerate(ORIENTATIONS):
        copy = image.transpose(Image.Transpose.TRANSPOSE) if transposed else image
        copy = copy.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if vertical else copy
        copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if horizontal else copy
        # Brighter, so that the first turn is no exact copy.
        copy.point([min(255, i + 3) for i in range(256)]).save(tmp_path / f"{turn}.png")
    image.save(tmp_path / "original.png")
    said = []
    for turn in range(len(ORIENTATIONS)):
        (link,) = find_near_duplicates([tmp_path / f"{turn}.png", tmp_path / "original.png"]).pairs
        said.append(link.orientation)
        assert not link.exact and link.correlation > 0.99
    assert said == [
        "as it is",
        "flipped left to right",
        "flipped upside down",
        "rotated by 180 degrees",
        "transposed",
        "rotated by 90 degrees clockwise",
        "rotated by 90 degrees counter-clockwise",
        "transposed along the other diagonal",
    ]


def test_equal_pixels_in_other_files_are_exact_copies(tmp_path: Path) -> None:
    image = planted.slices(1)[0]
    image.save(tmp_path / "grey.png")
    image.convert("RGB").save(tmp_path / "colour.png", compress_level=1)
    image.convert("LA").save(tmp_path / "alpha.png")
    (link, other) = find_near_duplicates(sorted(tmp_path.iterdir())).pairs
    assert link.exact and other.exact and link.correlation == 1


def test_broken_and_blank_images(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    planted.noise(0).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(data[: len(data) // 2])
    for level in (0, 1, 200):
        Image.new("L", (40, 30), level).save(tmp_path / f"blank{level}.png")
    Image.new("L", (MIN_SIDE - 1, 30)).save(tmp_path / "tiny.png")
    files = [*sorted(tmp_path.iterdir()), tmp_path / "missing.png"]
    found = find_near_duplicates(files)
    assert {files[i].name for i in found.unreadable} == {"broken.png", "half.png", "tiny.png", "missing.png"}
    # Two blank images of different grey are not evidence of anything.
    assert found.groups() == []


def test_unlike_images_and_few_images(tmp_path: Path) -> None:
    files = [tmp_path / f"{seed}.png" for seed in range(6)]
    for seed, file in enumerate(files):
        planted.noise(seed).save(file)
    assert find_near_duplicates(files).groups() == []
    assert find_near_duplicates(files[:1]).groups() == []
    assert find_near_duplicates([]).groups() == []


def test_many_copies_are_one_group_with_few_links(tmp_path: Path) -> None:
    image = planted.slices(1)[0]
    files = [tmp_path / f"{number}.png" for number in range(40)]
    for number, file in enumerate(files):
        image.point([min(255, i + number % 8) for i in range(256)]).save(file)
    found = find_near_duplicates(files)
    assert found.groups() == [files]
    assert len(found.pairs) == len(files) - 1


def test_progress_sees_each_file_once(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(150)]
    planted.noise(0).save(files[0])
    for file in files[1:]:
        shutil.copy(files[0], file)
    seen: list[Path] = []

    def progress(paths):  # type: ignore[no-untyped-def]
        for path in paths:
            seen.append(path)
            yield path

    assert find_near_duplicates(files, progress).groups() == [files]
    assert seen == files


def test_hashes_are_those_of_the_library() -> None:
    thumbnails = np.stack([np.asarray(image.resize((SIDE, SIDE))) for image in planted.slices(3)])
    windows, turns = hashes(thumbnails)
    for i, thumbnail in enumerate(thumbnails):
        for turn in range(len(ORIENTATIONS)):
            one = Image.fromarray(np.ascontiguousarray(oriented(thumbnail, turn)))
            expected = imagehash.phash(one, hash_size=12, highfreq_factor=SIDE // 12).hash.ravel()
            assert (np.unpackbits(turns[i, turn]).astype(bool) == expected).mean() > 0.99
        assert (windows[i, 0] == turns[i, 0]).all()
        # A window on whole pixels is a one of its own, whose bits may differ where a coefficient is at the median.
        left, top, side = (round(value * SIDE) for value in WINDOWS[1])
        one = Image.fromarray(thumbnail[top : top + side, left : left + side])
        bits = imagehash.phash(one.resize((SIDE, SIDE), Image.Resampling.LANCZOS), 12, SIDE // 12).hash.ravel()
        assert (np.unpackbits(windows[i, 1]).astype(bool) != bits).sum() <= 8


def test_candidates_are_those_of_comparing_all() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (60, len(WINDOWS), 144), dtype=np.uint8)
    turns = rng.integers(0, 2, (60, len(ORIENTATIONS), 144), dtype=np.uint8)
    for i in range(0, 60, 2):
        # One window of every other image resembles a turn of the next, in all but ten bits.
        copy = bits[i, i % len(WINDOWS)].copy()
        copy[rng.choice(144, 10, replace=False)] ^= 1
        turns[i + 1, i % len(ORIENTATIONS)] = copy
    windows, asked = np.packbits(bits, axis=-1), np.packbits(turns, axis=-1)
    found = candidates(windows, asked)
    assert {tuple(row) for row in found.tolist()} == {
        (i, i % len(WINDOWS), i + 1, i % len(ORIENTATIONS)) for i in range(0, 60, 2)
    }


def test_aligned_correlation_is_pearsons() -> None:
    # Where nothing is to be aligned, the correlation is that of the filtered images.
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    base = gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 2)
    base = (base - base.min()) / np.ptp(base) * 200 + 20
    other = base + gaussian_filter(rng.normal(0, 1, (SIDE, SIDE)), 1) * 6
    thumbnails = np.stack([base, other]).astype(np.uint8)
    (found,) = Aligner(thumbnails).correlations(np.array([[0, 0, 1, 0]]))
    bands = [gaussian_filter(t.astype(float), 0.7) - gaussian_filter(t.astype(float), 4) for t in thumbnails]
    inner = [band[4:-4, 4:-4].ravel() for band in bands]
    assert found > THRESHOLD
    assert found == pytest.approx(pearsonr(*inner).statistic, abs=0.003)


@pytest.mark.data
def test_real_copies_are_found_and_real_neighbours_are_not(real_slices: Path, tmp_path: Path) -> None:
    numbered = sorted(real_slices.glob("glioma/*.jpg"))[:300]
    originals = numbered[::5]
    truth, files = [], list(numbered)
    for number, original in enumerate(originals):
        image = Image.open(original).convert("L")
        group = [original]
        for name, change in planted.COPIES.items():
            file = tmp_path / f"{number:03d}_{name}.png"
            change(image).save(file)
            group.append(file)
        truth.append(group)
        files += group[1:]
    true, found = pairs(truth), pairs(find_near_duplicates(files).groups())
    assert len(true & found) >= 0.98 * len(true)
    assert len(true & found) >= 0.98 * len(found)

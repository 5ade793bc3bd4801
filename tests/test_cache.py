"""The image cache in memory, on disk or switched off: always the same images."""

from __future__ import annotations

import os
import shutil
import tracemalloc
import types
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest

from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.cache import DiskCache, ImageCache, build_cache
from btkeras.preprocessing.preprocessor import Preprocessor
from tests.images import encode, scene

CACHES = ("memory", "disk", "none")
COLOR, GREY = Preprocessor(32, 3), Preprocessor(32, 1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Twelve colour images of two sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.png").write_bytes(encode(scene(40 + number % 2, 50, seed=number)))
    return sorted(folder.iterdir())


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_of(paths: list[Path], cache: str, folder: Path, preprocessor: Preprocessor = COLOR) -> ImageCache:
    return build_cache(paths, preprocessor, cache=cache, folder=folder)


def everything(built: ImageCache) -> np.ndarray:
    return built.take(np.arange(len(built)))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read: list[str] = []
    original = Preprocessor.try_file
    monkeypatch.setattr(Preprocessor, "try_file", lambda self, path: (read.append(str(path)), original(self, path))[1])
    return read


@pytest.mark.parametrize("preprocessor", [COLOR, GREY], ids=["color", "grey"])
@pytest.mark.parametrize("cache", CACHES)
def test_images_are_those_of_the_preprocessor(
    paths: list[Path], cached: Path, cache: str, preprocessor: Preprocessor
) -> None:
    built = cache_of(paths, cache, cached, preprocessor)
    np.testing.assert_array_equal(everything(built), [preprocessor.file(path) for path in paths])
    assert len(built) == 12
    assert built.shape == (32, preprocessor.channels)
    assert built.broken == {}


@pytest.mark.parametrize("cache", CACHES)
def test_images_are_taken_in_the_order_asked_for(paths: list[Path], cached: Path, cache: str) -> None:
    built = cache_of(paths, cache, cached)
    np.testing.assert_array_equal(built.take(np.array([7, 0, 7])), everything(built)[[7, 0, 7]])


@pytest.mark.parametrize("preprocessor", [COLOR, GREY], ids=["color", "grey"])
@pytest.mark.parametrize("cache", CACHES)
def test_statistics_are_numpys(paths: list[Path], cached: Path, cache: str, preprocessor: Preprocessor) -> None:
    built = cache_of(paths, cache, cached, preprocessor)
    pixels = everything(built).astype(np.float64)
    mean, variance = built.statistics()
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(variance, pixels.var(axis=(0, 1, 2)), rtol=1e-9)
    assert cache_of(paths, cache, cached, preprocessor).statistics() == (mean, variance)


def test_the_variance_of_black_images_can_be_divided_by(tmp_path: Path, cached: Path) -> None:
    (tmp_path / "black.png").write_bytes(encode(np.zeros((32, 32), np.uint8)))
    mean, variance = cache_of([tmp_path / "black.png"], "memory", cached, GREY).statistics()
    assert mean == [0]
    assert 0 < variance[0] < 1e-3


@pytest.fixture
def grey_paths(tmp_path: Path) -> list[Path]:
    """Twelve grey images, of which one is stored with three channels."""
    folder = tmp_path / "grey"
    folder.mkdir()
    for number in range(12):
        grey = scene(40, 50, seed=number)[..., 0]
        image = np.stack([grey] * 3, axis=-1) if number == 4 else grey
        (folder / f"{number:02d}.png").write_bytes(encode(image))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("cache", CACHES)
def test_grey_images_are_given_with_all_channels(grey_paths: list[Path], cached: Path, cache: str) -> None:
    built = cache_of(grey_paths, cache, cached)
    np.testing.assert_array_equal(everything(built), [COLOR.file(path) for path in grey_paths])
    assert built.shape == (32, 3)
    mean, variance = built.statistics()
    assert len(mean) == len(variance) == 3
    np.testing.assert_allclose(mean, everything(built).mean(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_grey_images_take_a_third(grey_paths: list[Path], cached: Path, cache: str) -> None:
    assert cache_of(grey_paths, cache, cached).take_stored(np.arange(12)).shape == (12, 32, 32, 1)
    again = cache_of(grey_paths, cache, cached)
    assert again.take_stored(np.arange(12)).shape == (12, 32, 32, 1)
    np.testing.assert_array_equal(everything(again), [COLOR.file(path) for path in grey_paths])


@pytest.mark.parametrize("place", [0, 1, 11])
@pytest.mark.parametrize("cache", CACHES)
def test_one_image_in_color_is_stored_in_color_wherever_it_lies(
    paths: list[Path], grey_paths: list[Path], cached: Path, cache: str, place: int
) -> None:
    mixed = [*grey_paths[:place], paths[0], *grey_paths[place:]]
    mixed[6].write_bytes(b"")
    usable = mixed[:6] + mixed[7:]
    built = cache_of(mixed, cache, cached)
    assert list(built.broken) == [6]
    np.testing.assert_array_equal(everything(built), [COLOR.file(path) for path in usable])
    np.testing.assert_allclose(built.statistics()[0], everything(built).mean(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("cache", CACHES)
def test_broken_files_are_reported_and_the_others_remain_right(paths: list[Path], cached: Path, cache: str) -> None:
    whole = everything(cache_of(paths, "memory", cached))
    paths[0].write_bytes(b"")
    paths[5].write_bytes(paths[5].read_bytes()[:-30])
    paths[11].unlink()
    built = cache_of(paths, cache, cached)
    assert sorted(built.broken) == [0, 5, 11]
    for position, reason in ((0, "empty file"), (5, "damaged"), (11, "No such file")):
        assert isinstance(built.broken[position], ImageError)
        assert reason in str(built.broken[position])
        assert str(paths[position]) in str(built.broken[position])
    rest = np.delete(whole, [0, 5, 11], axis=0)
    np.testing.assert_array_equal(everything(built), rest)
    np.testing.assert_allclose(built.statistics()[0], rest.mean(axis=(0, 1, 2), dtype=np.float64))


def test_what_had_broken_files_is_not_kept_on_disk(paths: list[Path], cached: Path) -> None:
    good = paths[3].read_bytes()
    paths[3].write_bytes(b"")
    assert "for this run only" in cache_of(paths, "disk", cached).location
    assert list(cached.iterdir()) == []
    assert list(cache_of(paths, "disk", cached).broken) == [3]
    paths[3].write_bytes(good)
    assert cache_of(paths, "disk", cached).broken == {}
    assert len(list(cached.iterdir())) == 1


def test_the_disk_is_read_and_not_the_files_the_second_time(
    paths: list[Path], cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache_of(paths, "disk", cached)
    read = count_reads(monkeypatch)
    second = cache_of(paths, "disk", cached)
    assert read == []
    np.testing.assert_array_equal(everything(second), everything(first))
    assert second.statistics() == first.statistics()
    assert (second.shape, len(second), second.broken) == (first.shape, len(first), {})
    assert "from an earlier run" in second.location


def test_a_shortened_file_of_images_is_named(paths: list[Path], cached: Path) -> None:
    built = cache_of(paths, "disk", cached)
    (file,) = cached.rglob("images.npy")
    os.truncate(file, file.stat().st_size - 1)
    np.testing.assert_array_equal(built.take(np.array([3]))[0], COLOR.file(paths[3]))
    with pytest.raises(DataError, match=r"must be whole.*images\.npy.*Remove it"):
        built.take(np.array([11]))
    with pytest.raises(DataError, match=r"must be whole.*images\.npy.*Remove it"):
        cache_of(paths, "disk", cached)


def test_images_on_disk_take_no_memory(tmp_path: Path) -> None:
    shape = (100, 512, 512, 1)
    tracemalloc.start()
    try:
        images = DiskCache(tmp_path / "images.npy", shape)
        for number in range(100):
            images[number] = np.full(shape[1:], number, np.uint8)
        for number in range(100):
            assert (images[np.array([number])] == number).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # All of them would be 26 MB; a file mapped into memory is an array.
    assert peak < 3e6
    assert not isinstance(images, np.ndarray)


def test_who_finds_the_images_written_meanwhile_takes_those(paths: list[Path], cached: Path) -> None:
    def written_meanwhile(images: Iterable[object]) -> Iterable[object]:
        yield from images
        cache_of(paths, "disk", cached)

    built = build_cache(paths, COLOR, cache="disk", folder=cached, progress=written_meanwhile)
    np.testing.assert_array_equal(everything(built), [COLOR.file(path) for path in paths])
    assert len(list(cached.iterdir())) == 1


def test_a_link_to_another_file_is_another_image(paths: list[Path], cached: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.png"
    link.symlink_to(paths[0])
    before = everything(cache_of([link], "disk", cached))
    time = paths[0].stat().st_mtime_ns
    size = max(path.stat().st_size for path in paths[:2])
    for path in paths[:2]:
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(time, time))
    cache_of([link], "disk", cached)
    link.unlink()
    link.symlink_to(paths[1])
    assert (everything(cache_of([link], "disk", cached)) != before).any()


def test_a_file_with_another_time_is_decoded_anew(paths: list[Path], cached: Path) -> None:
    before = everything(cache_of(paths, "disk", cached))
    time = paths[2].stat().st_mtime_ns
    paths[2].write_bytes(paths[4].read_bytes())
    os.utime(paths[2], ns=(time + 10**9, time + 10**9))
    after = everything(cache_of(paths, "disk", cached))
    np.testing.assert_array_equal(after[2], before[4])


@pytest.mark.parametrize("change", ["order", "size", "channels", "files"])
def test_another_request_has_another_file(paths: list[Path], cached: Path, change: str) -> None:
    preprocessor = {"size": Preprocessor(48, 3), "channels": GREY}.get(change, COLOR)
    asked = {"order": paths[::-1], "files": paths[:-1]}.get(change, paths)
    cache_of(paths, "disk", cached)
    built = cache_of(asked, "disk", cached, preprocessor)
    np.testing.assert_array_equal(everything(built), [preprocessor.file(path) for path in asked])
    assert len(list(cached.iterdir())) == 2


def test_a_run_that_is_cut_off_leaves_no_file(paths: list[Path], cached: Path) -> None:
    def cut_off(images: Iterable[object]) -> Iterable[object]:
        for number, image in enumerate(images):
            if number == 7:
                raise KeyboardInterrupt
            yield image

    with pytest.raises(KeyboardInterrupt):
        build_cache(paths, COLOR, cache="disk", folder=cached, progress=cut_off)
    assert list(cached.iterdir()) == []


@pytest.mark.parametrize(("free", "kept"), [(4, "in memory"), (3.9, "MB in /")])
def test_auto_takes_the_memory_if_a_quarter_suffices(
    paths: list[Path], cached: Path, monkeypatch: pytest.MonkeyPatch, free: float, kept: str
) -> None:
    memory = types.SimpleNamespace(available=free * 12 * 32 * 32 * 3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert kept in cache_of(paths, "auto", cached).location


def test_a_full_disk_is_found_before_it_is_written_to(
    paths: list[Path], cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=r"must fit onto the disk\. Received: 0 MB.*BTKERAS_CACHE.*data\.cache=none"):
        cache_of(paths, "disk", cached)


def test_decoding_on_demand_names_a_file_that_has_vanished(paths: list[Path], cached: Path) -> None:
    built = cache_of(paths, "none", cached)
    paths[1].unlink()
    with pytest.raises(ImageError, match=r"01\.png"):
        built.take(np.array([0, 1]))

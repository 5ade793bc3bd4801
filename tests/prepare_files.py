"""Images, zips and folders for the tests of ``prepare``, and short ways to run it and look at what it made."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from btkeras.datasets import prepare as prepare_module
from btkeras.datasets.dataset import Record, load_dataset
from btkeras.datasets.prepare import PrepareReport
from tests.mat_files import mat73, slice_mat

GREY = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
COLOR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
DEEP = (np.arange(20 * 30, dtype=np.uint16) * 50 + 7).reshape(20, 30)


def encoded(pixels: Any = GREY, kind: str = "PNG", mode: str = "", **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def put(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return buffer.getvalue()


def quiet(items: Iterable[Any], total: int) -> Iterable[Any]:
    return items


def prepare(*arguments: Any, mri_check: bool = False, **options: Any) -> PrepareReport:
    """``prepare`` without the MRI check, since the images of most tests are no heads."""
    return prepare_module.prepare(*arguments, mri_check=mri_check, **options)


def run(*sources: Path, out: Path, skip_broken: bool = False) -> PrepareReport:
    return prepare(sources, out, skip_broken=skip_broken, progress=quiet)


def records(out: Path) -> dict[str, Record]:
    return {record.path: record for record in load_dataset(out).records}


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def figshare_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    images = [rng.integers(-5, 3000, (24, 32), dtype=np.int16) for _ in range(4)]
    return {
        f"{number}.mat": slice_mat(images[number - 1], label, f"P{label}")
        for number, label in ((1, 1), (2, 2), (3, 3), (4, 3))
    }


def figshare_download(method: int = zipfile.ZIP_STORED) -> bytes:
    """As FigShare gives it: the four zips in one, with the folds and a README beside them."""
    files = list(figshare_files().items())
    inner = {f"brainTumorDataPublic_{n}-{n}.zip": zipped(dict([file])) for n, file in enumerate(files, start=1)}
    cvind = {"cvind.mat": mat73({"cvind": np.array([[5.0], [1.0], [2.0], [2.0]])}), "README.txt": b"hello"}
    return zipped(cvind | inner, method)

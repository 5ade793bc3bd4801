"""The FigShare brain tumour dataset (Cheng 2017, doi 10.6084/m9.figshare.1512427): its download, and its files.

Each slice is one MATLAB v7.3 file, which is HDF5 behind a block of 512 bytes. MATLAB stores arrays column by column, so
HDF5 shows them transposed. ``cvind.mat`` beside the slices has the authors' patient-wise fold of each.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from btkeras.datasets.readers import check
from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.image_file import MAX_PIXELS, MIN_SIDE, damaged, sniff

if TYPE_CHECKING:
    import requests

API, ARTICLE = "https://api.figshare.com/v2", 1512427
CVIND = "cvind.mat"
FOLDS = 5
LABELS = {1: "meningioma", 2: "glioma", 3: "pituitary"}
FIELDS = ("image", "label", "PID", "tumorMask")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, 512, 1024, 2048)
# What h5py and scipy raise on a file whose inside is broken.
_DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, EOFError, IndexError, OverflowError, zlib.error)
_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of a response
_CHUNK = 2**18
_BY_HAND = "Or download the files with a browser and give their folder to `btkeras prepare`"


class FigShareSlice(NamedTuple):
    """One slice, upright: its integers ``[h, w]`` (int16 in the published files), its tumour's mask, class, patient."""

    image: NDArray[np.integer]
    mask: NDArray[np.bool_]
    label: str
    patient: str


class _RemoteFile(NamedTuple):
    name: str
    size: int
    md5: str
    url: str


def read_slice(data: bytes, name: str = "the slice") -> FigShareSlice:
    """Reads the content of one slice's ``.mat`` file; ImageError, which calls it ``name``, if it is not valid."""
    with _hdf5(data, name) as file:
        image, label, patient, mask = (_read(file, f"cjdata/{field}", name) for field in FIELDS)
    _check(
        image.ndim == 2 and min(image.shape) >= MIN_SIDE and image.dtype.kind in "iu" and image.itemsize <= 4,
        f"cjdata/image must be a matrix of integers of up to 32 bits, at least {MIN_SIDE} x {MIN_SIDE}",
        f"{name} with {image.dtype} {image.shape[::-1]}",
    )
    _check(
        mask.shape == image.shape,
        "A tumour mask must be as large as its image",
        f"{name} with cjdata/tumorMask {mask.shape[::-1]} and cjdata/image {image.shape[::-1]}",
    )
    _check(
        label.size == 1 and label.dtype.kind in "iuf" and label.item() in LABELS,
        f"cjdata/label must be one of {', '.join(f'{number} ({meaning})' for number, meaning in LABELS.items())}",
        f"{name} with {label.ravel()[:4].tolist()}",
    )
    return FigShareSlice(image.T, mask.T != 0, LABELS[int(label.item())], _patient(patient, name))


def read_cvind(data: bytes, name: str = CVIND) -> tuple[int, ...]:
    """Reads ``cvind.mat``, MATLAB v7.3 or v5: the fold (1 to 5) of slice 1, of slice 2, ...; ImageError if invalid."""
    opened = contextlib.nullcontext(_matlab_v5(data, name)) if data.startswith(b"MATLAB 5") else _hdf5(data, name)
    with opened as file:
        found = file.get("cvind")
        readable = isinstance(found, h5py.Dataset | np.ndarray) and found.size and found.size <= MAX_PIXELS
        _check(readable, f"{CVIND} must hold the variable cvind", f"{name} with {', '.join(file) or 'no variable'}")
        folds = np.asarray(file["cvind"][()]).ravel()
    _check(
        folds.dtype.kind in "iuf" and np.isin(folds, range(1, FOLDS + 1)).all(),
        f"The folds in {CVIND} must be whole numbers from 1 to {FOLDS}",
        f"{name} with {np.unique(folds)[:8].tolist()}",
    )
    return tuple(map(int, folds))


def _check(valid: object, rule: str, received: str) -> None:
    check(valid, rule, received, "Get the file again, or leave it out")


@contextlib.contextmanager
def _hdf5(data: bytes, name: str) -> Iterator[h5py.File]:
    if not any(data.startswith(_HDF5_MAGIC, start) for start in _HDF5_STARTS):
        if data.startswith(b"MATLAB 7.3"):
            raise damaged(name, "it ends within its header")
        remedy = "Save it in MATLAB with '-v7.3', or get it again"
        raise ImageError(
            "A FigShare file must be MATLAB v7.3 (HDF5)", received=f"{name}, which is {sniff(data)}", remedy=remedy
        )
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except _DAMAGE as error:
        raise damaged(name, error) from error


def _read(file: h5py.File, path: str, name: str) -> NDArray[Any]:
    dataset = file.get(path)
    if not isinstance(dataset, h5py.Dataset):
        fields = ", ".join(f"cjdata/{field}" for field in FIELDS)
        raise ImageError(f"A FigShare slice must have the fields {fields}", received=f"{name} without {path}")
    if dataset.attrs.get("MATLAB_empty") or dataset.shape is None:
        # MATLAB writes an empty array's size where other arrays have their values.
        return np.zeros(0)
    # Compressed HDF5 can announce any size in a few bytes.
    rule = f"A field of a slice must have at most {MAX_PIXELS / 1e6:.0f} million values"
    _check(dataset.size <= MAX_PIXELS, rule, f"{name} with {path} {dataset.shape}")
    return np.asarray(dataset[()])


def _patient(values: NDArray[Any], name: str) -> str:
    is_text = not values.size or (values.dtype.kind == "u" and values.max() <= 0xFFFF)
    _check(is_text, "cjdata/PID must be text (UTF-16 character codes)", f"{name} with {values.dtype} {values.shape}")
    # Transposed back, which matters only if the text has several rows.
    text = values.T.astype("<u2").tobytes(order="F").decode("utf-16-le", errors="replace").strip(" \t\r\n\0")
    valid = text and text.isprintable() and "\ufffd" not in text
    _check(valid, "cjdata/PID must name the patient", f"{name} with {text!r}")
    return text


def _matlab_v5(data: bytes, name: str) -> dict[str, Any]:
    # Slow to import, and only this old kind of file needs it.
    from scipy.io import loadmat

    try:
        variables = loadmat(io.BytesIO(data))
    except _DAMAGE as error:
        raise damaged(name, error) from error
    return {key: value for key, value in variables.items() if not key.startswith("__")}


def download_figshare(folder: str | Path, *, api: str = API, article: int = ARTICLE, retries: int = 5) -> list[Path]:
    """Downloads the files of a FigShare article, about 900 MB for the brain tumour dataset, as a source of ``prepare``.

    A file that is there and has the right checksum is not fetched again; of an interrupted one, ``NAME.part``, only
    the rest is. Progress goes to standard error.

    Args:
        folder: Where the files go; made if missing.
        api: Base address of FigShare's interface.
        article: The article's number, the last part of its DOI.
        retries: How often a file is tried again after a failure, with growing pauses (1, 2, 3, ... seconds).

    Raises:
        DataError: If the server cannot be reached, refuses, or sends something else than it announced.
    """
    # Here and below, because only a download needs it.
    import requests

    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    name = f"the list of files of article {article}"
    try:
        files = _list_files(f"{api}/articles/{article}")
        for file in files:
            name = file.name
            _download(file, target / name, retries)
    except requests.RequestException as error:
        remedy = f"Check the network and type the same again: it goes on where it stopped. {_BY_HAND}"
        raise DataError("The download must get through", received=f"{name}: {error}", remedy=remedy) from error
    return [target / file.name for file in files]


def _list_files(url: str) -> list[_RemoteFile]:
    import requests

    response = requests.get(url, timeout=_TIMEOUT)
    _check_status(response, url)
    try:
        files = [_remote_file(item) for item in response.json()["files"]]
    except (KeyError, TypeError, ValueError) as error:
        rule = "FigShare's list of files must give each one's name, size, MD5 and address"
        raise DataError(rule, received=f"{url} without ({error!r})", remedy=_BY_HAND) from error
    if not files:
        raise DataError("The article must have files", received=f"none at {url}", remedy=_BY_HAND)
    return files


def _remote_file(item: dict[str, Any]) -> _RemoteFile:
    name, md5 = str(item["name"]), str(item["computed_md5"]).lower()
    if name.startswith(".") or re.search(r"[/\\\0]", name) or not re.fullmatch("[0-9a-f]{32}", md5):
        # The name comes from outside and becomes a path here.
        raise ValueError(f"name {name!r}, MD5 {md5!r}")
    return _RemoteFile(name, int(item["size"]), md5, str(item["download_url"]))


def _download(file: _RemoteFile, target: Path, retries: int) -> None:
    import requests

    part = target.with_name(f"{file.name}.part")
    if target.exists() and _md5(target) == file.md5:
        return
    for pause in range(1, retries + 2):
        try:
            start = _fetch(file, part)
        except requests.RequestException:
            if pause > retries:
                raise
            time.sleep(pause)
            continue
        if _md5(part) == file.md5:
            os.replace(part, target)
            return
        part.unlink()
        if start == 0:
            # It came in one piece, so the server has another file.
            break
    raise DataError(
        "A downloaded file must have the size and MD5 that FigShare states",
        received=f"{file.name} with other content than {file.size} bytes of MD5 {file.md5}",
        remedy=f"Try again later. {_BY_HAND}",
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetch(file: _RemoteFile, part: Path) -> int:
    """Fetches what is missing of a file, or more than it has; returns the byte that the server started from."""
    import requests

    start = part.stat().st_size if part.exists() else 0
    if start == file.size and part.exists():
        return start
    start = start if start < file.size else 0
    # Compressed transfer would make the range count bytes that are not the file's.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        # A server that does not know ranges sends everything, with 200 instead of 206.
        begin = start if response.status_code == 206 else 0
        stated = response.headers.get("Content-Range", "")
        if start and (response.status_code == 416 or (begin and not stated.startswith(f"bytes {start}-"))):
            part.unlink()
            raise requests.ConnectionError("the server sent another range than the one asked for")
        _check_status(response, file.name)
        size = _copy(response, part, begin, file)
    if size < file.size:
        raise requests.ConnectionError("the connection ended early")
    return begin if size == file.size else 0


def _copy(response: requests.Response, part: Path, start: int, file: _RemoteFile) -> int:
    """Writes a response from byte ``start`` on; returns the file's size."""
    bar = tqdm(desc=file.name, total=file.size, initial=start, unit="B", unit_scale=True, disable=None)
    with bar, part.open("r+b" if start else "wb") as output:
        output.seek(start)
        for chunk in response.iter_content(_CHUNK):
            output.write(chunk)
            bar.update(len(chunk))
            if output.tell() > file.size:
                # A response without an end would fill the disk.
                break
    return part.stat().st_size


def _check_status(response: requests.Response, name: str) -> None:
    if response.status_code in (408, 429) or response.status_code >= 500:
        # These pass, so they are tried again.
        response.raise_for_status()
    # 202 is how FigShare asks for a browser: an empty response that looks like success.
    if response.status_code not in (200, 206):
        received = f"HTTP {response.status_code} {response.reason} for {name} ({response.url})"
        raise DataError("FigShare must hand the file out", received=received, remedy=_BY_HAND)

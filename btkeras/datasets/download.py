"""Download of the FigShare dataset: goes on where it stopped, tries again, and checks what came.

pooch (of the Fatiando a Terra project; scikit-image, SciPy and MNE get their data through it) keeps the files: it
knows what is already there and right, tries again after a failure, compares the checksum and gives only the right
file its name. What it lacks is resuming, because its downloaders start at the first byte; the one below asks for the
rest of a ``.part`` file through requests. The alternatives do less or cost more: pypdl resumes, but tells its errors
to a log only, prints to standard output and brings an event loop; parfive and fsspec do not resume what an earlier
run began; pycurl leaves trying again and checksums to its user.

Both are imported only when a download is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tqdm import tqdm

from btkeras.errors import DataError

if TYPE_CHECKING:
    import pooch
    import requests


FIGSHARE_API = "https://api.figshare.com/v2"
FIGSHARE_ARTICLE = 1512427

_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of an answer
_CHUNK = 2**18
_BY_HAND = "Or download the files with a browser and give their folder to `btkeras prepare`"


@dataclass(frozen=True)
class _Remote:
    """One file on the server."""

    name: str
    size: int
    md5: str
    url: str


def download_figshare(
    folder: str | Path, *, api: str = FIGSHARE_API, article: int = FIGSHARE_ARTICLE, retries: int = 5
) -> list[Path]:
    """Downloads the files of a FigShare article, about 900 MB for the brain tumour dataset.

    A file that is there and has the right checksum is not fetched again. An interrupted one lies beside the others
    as ``NAME.part``; the next call, or the next try, asks for the rest of it. Progress goes to standard error.

    Args:
        folder: Where the files go; made if missing. Afterwards it is a source for ``prepare``.
        api: Base address of FigShare's interface.
        article: The article's number, the last part of its DOI.
        retries: How often a file is tried again after a failure, with growing pauses (1, 2, 3, ... seconds).

    Returns:
        The files, in FigShare's order.

    Raises:
        DataError: If the server cannot be reached, refuses, or sends something else than it announced.
        OSError: If a file cannot be written.
    """
    import pooch

    target = Path(folder).expanduser()
    with _network_errors(f"the list of files of article {article}"):
        files = _list_files(f"{api.rstrip('/')}/articles/{article}")
    keeper = pooch.create(
        path=target,
        base_url="",
        registry={file.name: f"md5:{file.md5}" for file in files},
        urls={file.name: file.url for file in files},
        retry_if_failed=retries,
    )
    for file in files:
        with _network_errors(file.name):
            _fetch(keeper, file, target / f"{file.name}.part")
    return [target / file.name for file in files]


def _fetch(keeper: pooch.Pooch, file: _Remote, part: Path) -> None:
    import requests

    try:
        keeper.fetch(file.name, downloader=_Resume(file, part))
    except requests.RequestException:
        raise
    except ValueError as error:  # pooch's word for a wrong checksum
        raise _wrong_content(file) from error


class _Resume:
    """A downloader for pooch that goes on with what is in ``part``."""

    def __init__(self, file: _Remote, part: Path) -> None:
        self._file = file
        self._part = part
        self._had_all = False

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Fetches the missing bytes, then gives the whole file to pooch, which deletes it if it is wrong."""
        if self._had_all:
            # Called again after a file that came in one piece: not a bad part, the server has another file.
            raise _wrong_content(self._file)
        start = self._part.stat().st_size if self._part.exists() else 0
        if start > self._file.size:
            start = 0
        if start < self._file.size or not self._part.exists():
            start = self._fetch(url, start)
        self._had_all = not start
        os.replace(self._part, output_file)

    def _fetch(self, url: str, start: int) -> int:
        """Returns the byte that the server really started from."""
        import requests

        # Compressed transfer would make the range count bytes that are not the file's.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            start = self._start(response, start)
            with self._part.open("r+b" if start else "wb") as output:
                output.seek(start)
                self._copy(response, output, start)
        size = self._part.stat().st_size
        if size > self._file.size:
            self._part.unlink()
            raise _wrong_content(self._file)
        if size < self._file.size:
            raise requests.ConnectionError("the connection ended early")
        return start

    def _start(self, response: requests.Response, asked: int) -> int:
        import requests

        # A server that does not know ranges sends everything, with 200 instead of 206.
        start = asked if response.status_code == 206 else 0
        other = start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if other or (asked and response.status_code == 416):
            self._part.unlink()
            raise requests.ConnectionError("the server sent another part than the one asked for")
        _check_status(response, self._file.name)
        return start

    def _copy(self, response: requests.Response, output: IO[bytes], start: int) -> None:
        name, size = self._file.name, self._file.size
        with tqdm(desc=name, total=size, initial=start, unit="B", unit_scale=True, disable=None) as bar:
            for chunk in response.iter_content(_CHUNK):
                output.write(chunk)
                bar.update(len(chunk))
                if output.tell() > size:
                    # An answer without an end would fill the disk.
                    return


def _list_files(url: str) -> list[_Remote]:
    import requests

    response = requests.get(url, timeout=_TIMEOUT)
    _check_status(response, url)
    try:
        files = [_remote(item) for item in response.json()["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "FigShare's list of files must give each one's name, size, MD5 and address",
            received=f"{url} without ({error!r})",
            remedy=_BY_HAND,
        ) from error
    if not files:
        raise DataError("The article must have files", received=f"none at {url}", remedy=_BY_HAND)
    return files


def _remote(item: dict[str, Any]) -> _Remote:
    name, md5 = str(item["name"]), str(item["computed_md5"]).lower()
    if name.startswith(".") or re.search(r"[/\\\0]", name) or not re.fullmatch("[0-9a-f]{32}", md5):
        # The name comes from outside and becomes a path here.
        raise ValueError(f"name {name!r}, MD5 {md5!r}")
    return _Remote(name, int(item["size"]), md5, str(item["download_url"]))


def _check_status(response: requests.Response, name: str) -> None:
    if response.status_code in (200, 206):
        return
    if response.status_code in (408, 429) or response.status_code >= 500:
        # These pass; pooch tries again.
        response.raise_for_status()
    # 202 is how FigShare asks for a browser: an empty answer that looks like success.
    raise DataError(
        "FigShare must hand the file out",
        received=f"HTTP {response.status_code} {response.reason} for {name} ({response.url})",
        remedy=_BY_HAND,
    )


def _wrong_content(file: _Remote) -> DataError:
    return DataError(
        "A downloaded file must have the size and MD5 that FigShare states",
        received=f"{file.name} with other content than {file.size} bytes of MD5 {file.md5}",
        remedy=f"Try again later. {_BY_HAND}",
    )


@contextmanager
def _network_errors(what: str) -> Iterator[None]:
    import requests

    try:
        yield
    except requests.RequestException as error:
        raise DataError(
            "The download must get through",
            received=f"{what}: {error}",
            remedy=f"Check the network and type the same again: it goes on where it stopped. {_BY_HAND}",
        ) from error

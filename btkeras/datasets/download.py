"""Download of the FigShare dataset: resumes, tries again, and checks size and MD5 of what came."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from btkeras.errors import DataError

if TYPE_CHECKING:
    import requests

FIGSHARE_API = "https://api.figshare.com/v2"
FIGSHARE_ARTICLE = 1512427

_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of a response
_CHUNK = 2**18
_BY_HAND = "Or download the files with a browser and give their folder to `btkeras prepare`"


class _RemoteFile(NamedTuple):
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
    import requests

    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    name = f"the list of files of article {article}"
    try:
        files = _list_files(f"{api.rstrip('/')}/articles/{article}")
        for file in files:
            name = file.name
            _download(file, target / name, retries)
    except requests.RequestException as error:
        raise DataError(
            "The download must get through",
            received=f"{name}: {error}",
            remedy=f"Check the network and type the same again: it goes on where it stopped. {_BY_HAND}",
        ) from error
    return [target / file.name for file in files]


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
    raise _wrong_content(file)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetch(file: _RemoteFile, part: Path) -> int:
    """Fetches what is missing of a file; returns the byte that the server started from."""
    import requests

    start = part.stat().st_size if part.exists() else 0
    if start == file.size and part.exists():
        return start
    start = start if start < file.size else 0
    # Compressed transfer would make the range count bytes that are not the file's.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        start = _check_start(response, start, file, part)
        with part.open("r+b" if start else "wb") as output:
            output.seek(start)
            _copy(response, output, start, file)
    size = part.stat().st_size
    if size > file.size:
        part.unlink()
        raise _wrong_content(file)
    if size < file.size:
        raise requests.ConnectionError("the connection ended early")
    return start


def _check_start(response: requests.Response, asked: int, file: _RemoteFile, part: Path) -> int:
    import requests

    # A server that does not know ranges sends everything, with 200 instead of 206.
    start = asked if response.status_code == 206 else 0
    other = start and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if other or (asked and response.status_code == 416):
        part.unlink()
        raise requests.ConnectionError("the server sent another range than the one asked for")
    _check_status(response, file.name)
    return start


def _copy(response: requests.Response, output: IO[bytes], start: int, file: _RemoteFile) -> None:
    with tqdm(desc=file.name, total=file.size, initial=start, unit="B", unit_scale=True, disable=None) as bar:
        for chunk in response.iter_content(_CHUNK):
            output.write(chunk)
            bar.update(len(chunk))
            if output.tell() > file.size:
                # A response without an end would fill the disk.
                return


def _list_files(url: str) -> list[_RemoteFile]:
    import requests

    response = requests.get(url, timeout=_TIMEOUT)
    _check_status(response, url)
    try:
        files = [_remote_file(item) for item in response.json()["files"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "FigShare's list of files must give each one's name, size, MD5 and address",
            received=f"{url} without ({error!r})",
            remedy=_BY_HAND,
        ) from error
    if not files:
        raise DataError("The article must have files", received=f"none at {url}", remedy=_BY_HAND)
    return files


def _remote_file(item: dict[str, Any]) -> _RemoteFile:
    name, md5 = str(item["name"]), str(item["computed_md5"]).lower()
    if name.startswith(".") or re.search(r"[/\\\0]", name) or not re.fullmatch("[0-9a-f]{32}", md5):
        # The name comes from outside and becomes a path here.
        raise ValueError(f"name {name!r}, MD5 {md5!r}")
    return _RemoteFile(name, int(item["size"]), md5, str(item["download_url"]))


def _check_status(response: requests.Response, name: str) -> None:
    if response.status_code in (408, 429) or response.status_code >= 500:
        # These pass, so they are tried again.
        response.raise_for_status()
    # 202 is how FigShare asks for a browser: an empty response that looks like success.
    if response.status_code not in (200, 206):
        received = f"HTTP {response.status_code} {response.reason} for {name} ({response.url})"
        raise DataError("FigShare must hand the file out", received=received, remedy=_BY_HAND)


def _wrong_content(file: _RemoteFile) -> DataError:
    return DataError(
        "A downloaded file must have the size and MD5 that FigShare states",
        received=f"{file.name} with other content than {file.size} bytes of MD5 {file.md5}",
        remedy=f"Try again later. {_BY_HAND}",
    )

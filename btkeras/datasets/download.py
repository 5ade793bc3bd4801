"""Downloads of public collections: from a repository's list of files, with resume and MD5."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from btkeras.errors import DataError

if TYPE_CHECKING:
    import requests

FIGSHARE_API, ZENODO_API = "https://api.figshare.com/v2", "https://zenodo.org/api"

_TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of a response
_CHUNK = 2**18
_BY_HAND = "Or download the files with a browser and give their folder to `btkeras prepare`"


class RemoteFile(NamedTuple):
    """A file of a deposit, as its repository describes it."""

    name: str
    size: int
    md5: str
    url: str


class Deposit(NamedTuple):
    """A collection in a repository: ``url`` is its list of files, ``read`` makes a file of an entry of that list."""

    repository: str
    url: str
    read: Callable[[Mapping[str, Any]], RemoteFile]


def figshare(article: int, api: str = FIGSHARE_API) -> Deposit:
    """An article of FigShare; ``article`` is the last part of its DOI."""
    return Deposit("FigShare", f"{api}/articles/{article}", _figshare_file)


def zenodo(record: int, api: str = ZENODO_API) -> Deposit:
    """A record of Zenodo; ``record`` is the last part of its DOI."""
    return Deposit("Zenodo", f"{api}/records/{record}", _zenodo_file)


def _figshare_file(entry: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(entry["name"], entry["size"], entry["computed_md5"], entry["download_url"])


def _zenodo_file(entry: Mapping[str, Any]) -> RemoteFile:
    return RemoteFile(entry["key"], entry["size"], entry["checksum"].removeprefix("md5:"), entry["links"]["self"])


def download(deposit: Deposit, folder: str | Path, *, retries: int = 5) -> list[Path]:
    """Downloads the files of a deposit, as a source of ``prepare``.

    A file that is there and has the right checksum is not fetched again; of an interrupted one, ``NAME.part``, only
    the rest is. Progress goes to standard error.

    Args:
        deposit: From ``figshare`` or ``zenodo``.
        folder: Where the files go; made if missing.
        retries: How often a file is tried again after a failure, with growing pauses (1, 2, 3, ... seconds).

    Raises:
        DataError: If the server cannot be reached, refuses, or sends something else than it announced.
    """
    # Here and below, because only a download needs it.
    import requests

    target = Path(folder).expanduser()
    target.mkdir(parents=True, exist_ok=True)
    name = f"the list of files at {deposit.url}"
    try:
        files = _list_files(deposit)
        for file in files:
            name = file.name
            _download(file, target / name, deposit.repository, retries)
    except requests.RequestException as error:
        remedy = f"Check the network and type the same again: it goes on where it stopped. {_BY_HAND}"
        raise DataError("The download must get through", received=f"{name}: {error}", remedy=remedy) from error
    return [target / file.name for file in files]


def _list_files(deposit: Deposit) -> list[RemoteFile]:
    import requests

    response = requests.get(deposit.url, timeout=_TIMEOUT)
    _check_status(response, deposit.url, deposit.repository)
    try:
        files = [_checked(deposit.read(entry)) for entry in response.json()["files"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rule = f"{deposit.repository}'s list of files must give each one's name, size, MD5 and address"
        raise DataError(rule, received=f"{deposit.url} without ({error!r})", remedy=_BY_HAND) from error
    if not files:
        raise DataError("The collection must have files", received=f"none at {deposit.url}", remedy=_BY_HAND)
    return files


def _checked(file: RemoteFile) -> RemoteFile:
    name, md5 = str(file.name), str(file.md5).lower()
    if name.startswith(".") or re.search(r"[/\\\0]", name) or not re.fullmatch("[0-9a-f]{32}", md5):
        # The name comes from outside and becomes a path here.
        raise ValueError(f"name {name!r}, MD5 {md5!r}")
    return RemoteFile(name, int(file.size), md5, str(file.url))


def _download(file: RemoteFile, target: Path, repository: str, retries: int) -> None:
    import requests

    part = target.with_name(f"{file.name}.part")
    if target.exists() and _md5(target) == file.md5:
        return
    for pause in range(1, retries + 2):
        try:
            start = _fetch(file, part, repository)
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
        f"A downloaded file must have the size and MD5 that {repository} states",
        received=f"{file.name} with other content than {file.size} bytes of MD5 {file.md5}",
        remedy=f"Try again later. {_BY_HAND}",
    )


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fetch(file: RemoteFile, part: Path, repository: str) -> int:
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
        _check_status(response, file.name, repository)
        size = _copy(response, part, begin, file)
    if size < file.size:
        raise requests.ConnectionError("the connection ended early")
    return begin if size == file.size else 0


def _copy(response: requests.Response, part: Path, start: int, file: RemoteFile) -> int:
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


def _check_status(response: requests.Response, name: str, repository: str) -> None:
    if response.status_code in (408, 429) or response.status_code >= 500:
        # These pass, so they are tried again.
        response.raise_for_status()
    # 202 is how FigShare asks for a browser: an empty response that looks like success.
    if response.status_code not in (200, 206):
        received = f"HTTP {response.status_code} {response.reason} for {name} ({response.url})"
        raise DataError(f"{repository} must hand the file out", received=received, remedy=_BY_HAND)

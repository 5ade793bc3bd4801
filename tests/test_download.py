"""The download of a collection's files, as FigShare and Zenodo list them, against a server on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import run

import pytest

from btkeras.datasets import download as downloads
from btkeras.datasets.download import figshare, zenodo
from btkeras.errors import DataError

NAME = "brainTumorDataPublic_1-766.zip"
CONTENT = bytes(range(256)) * 4000


@dataclass
class Site:
    """What the server has and does, and which ranges it was asked for ("" for the whole file)."""

    content: bytes = CONTENT
    status: list[int] = field(default_factory=list)  # of the next responses, 0 to serve
    cuts: list[int] = field(default_factory=list)  # bytes after which the next responses break off
    ranges: bool = True
    shift: int = 0  # bytes by which the response's range is wrong
    extra: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    api: str = ""


def _figshare(site: Site) -> dict[str, object]:
    md5 = hashlib.md5(CONTENT).hexdigest()
    return {"name": NAME, "size": len(CONTENT), "computed_md5": md5, "download_url": f"{site.api}/files/1"}


def _zenodo(site: Site) -> dict[str, object]:
    checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    return {"key": NAME, "size": len(CONTENT), "checksum": checksum, "links": {"self": f"{site.api}/files/1"}}


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    lists = {"/articles/7": _figshare, "/records/7": _zenodo}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path in lists:
                self._send(200, json.dumps({"files": [lists[self.path](site) | site.extra]}).encode())
            elif self.path == "/files/1":
                self._file()
            else:
                self._send(404, b"")

        def _file(self) -> None:
            wanted = self.headers.get("Range", "")
            site.asked.append(wanted)
            status = site.status.pop(0) if site.status else 0
            start = int(wanted[len("bytes=") : -1]) if wanted and site.ranges else 0
            if status:
                self._send(status, b"")
            elif wanted and site.ranges:
                stated = f"bytes {start + site.shift}-{len(site.content) - 1}/{len(site.content)}"
                self._send(206, site.content[start:], stated)
            else:
                self._send(200, site.content)

        def _send(self, status: int, body: bytes, stated: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if stated:
                self.send_header("Content-Range", stated)
            self.end_headers()
            cut = site.cuts.pop(0) if site.cuts and body and self.path == "/files/1" else None
            self.wfile.write(body[:cut])

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(found)) as server:
        found.api = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btkeras.datasets.download.time.sleep", lambda seconds: None)


def download(site: Site, folder: Path, retries: int = 0) -> list[Path]:
    return downloads.download(figshare(7, site.api), folder, retries=retries)


def test_a_whole_download(site: Site, tmp_path: Path) -> None:
    assert download(site, tmp_path / "new" / "folder") == [tmp_path / "new" / "folder" / NAME]
    assert (tmp_path / "new" / "folder" / NAME).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [NAME]


def test_what_is_there_and_right_is_not_fetched_again(site: Site, tmp_path: Path) -> None:
    download(site, tmp_path)
    download(site, tmp_path)
    assert site.asked == [""]


def test_what_is_there_and_wrong_is_fetched_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"something else")
    download(site, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_the_next_call_asks_for_the_rest_only(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000]
    with pytest.raises(DataError, match=f"get through.*{NAME}.*goes on where it stopped"):
        download(site, tmp_path)
    assert not (tmp_path / NAME).exists()
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < kept <= 300_000
    download(site, tmp_path)
    assert site.asked == ["", f"bytes={kept}-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_cut_connection_is_tried_again_from_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000, 300_000]
    site.status = [503, 0, 429]  # then served, and cut as above
    download(site, tmp_path, retries=4)
    starts = [int(wanted[len("bytes=") : -1]) if wanted else 0 for wanted in site.asked]
    assert starts[:2] == [0, 0] and 0 < starts[2] == starts[3] < starts[4], "503, cut, 429, cut, the rest"
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_part_that_is_complete_needs_no_request(site: Site, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    download(site, tmp_path)
    assert site.asked == []
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_part_of_something_else_heals(site: Site, tmp_path: Path, part: bytes) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(part)
    download(site, tmp_path, retries=1)
    assert site.asked[-1] == ""
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    download(site, tmp_path)
    assert site.asked == ["bytes=1000-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(("shift", "status"), [(5, []), (0, [416])])
def test_a_wrong_range_starts_anew(site: Site, tmp_path: Path, shift: int, status: list[int]) -> None:
    site.shift, site.status = shift, status
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    download(site, tmp_path, retries=1)
    assert site.asked == ["bytes=1000-", ""]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_wrong_content_is_one_error_and_leaves_nothing(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content = content
    with pytest.raises(DataError, match=f"size and MD5.*{NAME}"):
        download(site, tmp_path, retries=3)
    assert site.asked == [""], "a file that came whole is not fetched over and over"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 202])
def test_a_client_error_is_not_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.status = [status] * 9
    with pytest.raises(DataError, match=f"HTTP {status} .*{NAME}.*browser"):
        download(site, tmp_path, retries=3)
    assert len(site.asked) == 1


def test_an_unknown_article(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="HTTP 404"):
        downloads.download(figshare(8, site.api), tmp_path)


@pytest.mark.parametrize("extra", [{"name": "../x"}, {"name": ".bashrc"}, {"computed_md5": ""}, {"size": None}])
def test_an_odd_list_is_an_error(site: Site, tmp_path: Path, extra: dict[str, object]) -> None:
    site.extra = extra
    with pytest.raises(DataError, match="must give each one's name, size, MD5"):
        download(site, tmp_path)
    assert site.asked == []


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape("the list of files at http://127.0.0.1:9/articles/7")):
        downloads.download(figshare(7, "http://127.0.0.1:9"), tmp_path)


def test_requests_is_loaded_only_for_a_download() -> None:
    code = "import sys, btkeras.datasets.download; sys.exit('requests' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_zenodo_s_list_is_read_and_a_cut_download_goes_on(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000]
    with pytest.raises(DataError, match=f"get through.*{NAME}"):
        downloads.download(zenodo(7, site.api), tmp_path, retries=0)
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert downloads.download(zenodo(7, site.api), tmp_path, retries=0) == [tmp_path / NAME]
    assert site.asked == ["", f"bytes={kept}-"]
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404])
def test_the_error_names_the_repository(site: Site, tmp_path: Path, status: int) -> None:
    site.status = [status]
    with pytest.raises(DataError, match=f"Zenodo must hand the file out.*HTTP {status}"):
        downloads.download(zenodo(7, site.api), tmp_path)
    site.content = CONTENT + b"x"
    with pytest.raises(DataError, match="size and MD5 that Zenodo states"):
        downloads.download(zenodo(7, site.api), tmp_path)


@pytest.mark.parametrize("extra", [{"key": "a/b"}, {"checksum": "sha256:00"}, {"checksum": None}, {"links": {}}])
def test_an_odd_list_of_zenodo_is_an_error(site: Site, tmp_path: Path, extra: dict[str, object]) -> None:
    site.extra = extra
    with pytest.raises(DataError, match="Zenodo's list of files must give each one's name, size, MD5"):
        downloads.download(zenodo(7, site.api), tmp_path)
    assert site.asked == []

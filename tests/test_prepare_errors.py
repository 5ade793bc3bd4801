"""Errors of ``prepare``, which then leaves nothing behind."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btkeras.errors import DataError
from tests.mat_files import mat73, slice_mat
from tests.prepare_files import (
    GREY,
    encoded,
    figshare_download,
    prepare,
    put,
    records,
    rows,
    run,
    zipped,
)
from tests.tiff_files import tiff


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two class folders with one image each."""
    return put(tmp_path / "data", {"glioma/a.png": encoded(), "no_tumor/b.jpg": encoded(kind="JPEG")})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def png_header(width: int, height: int) -> bytes:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


BROKEN = {
    "truncated.jpg": encoded(kind="JPEG")[:-200],
    "truncated.png": encoded()[:-60],
    "empty.jpg": b"",
    "text.jpg": b"Not Found",
    "animated.gif": animated("GIF"),
    "animated.png": animated("PNG"),
    "pages.tif": animated("TIFF"),
    "tiny.png": encoded(GREY[:1, :1]),
    "tiny.bmp": encoded(GREY[:1, :1], "BMP"),
    "bomb.png": png_header(20_000, 20_000),
    "bomb.bmp": encoded(GREY, "BMP")[:18] + struct.pack("<ii", 20_000, 20_000) + encoded(GREY, "BMP")[26:],
    "truncated.bmp": encoded(GREY, "BMP")[:-100],
    "float.tif": encoded(np.where(GREY > 9, GREY, np.nan).astype(np.float32), "TIFF"),
    "deep.tif": tiff(np.repeat(GREY[..., None].astype(np.uint16), 3, axis=-1)),
    "truncated.mat": slice_mat()[:-200],
    "label.mat": slice_mat(label=7),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_is_named(data: Path, out: Path, name: str) -> None:
    put(data, {f"glioma/{name}": BROKEN[name]})
    with pytest.raises(DataError, match=f"1 broken of 3.*\n.*glioma/{name}.*\nNothing was written") as caught:
        run(data, out=out)
    assert "--skip-broken" in str(caught.value)
    assert [path.name for path in out.parent.iterdir()] == ["data"], "nothing half-made is left"


def test_many_broken_images_are_one_error(data: Path, out: Path) -> None:
    put(data, {f"glioma/{number}.jpg": b"" for number in range(25)})
    with pytest.raises(DataError, match=r"25 broken of 27.*(\n.*empty file.*){20}\n  and 5 more\n"):
        run(data, out=out)


def test_broken_images_can_be_left_out(data: Path, out: Path) -> None:
    put(data, {f"glioma/{name}": content for name, content in BROKEN.items()})
    report = run(data, out=out, skip_broken=True)
    assert len(records(out)) == 2
    found = rows(out / "left_out.csv")
    assert {Path(row["path"]).name for row in found} == set(BROKEN)
    assert [(row["path"], row["reason"]) for row in found] == [(item.path, item.kind) for item in report.broken]
    assert f"Broken and left out: {len(BROKEN)}, listed in {out}/left_out.csv" in report.summary()


def test_nothing_but_broken_images(tmp_path: Path, out: Path) -> None:
    put(tmp_path / "x", {"glioma/a.jpg": b""})
    with pytest.raises(DataError, match=r"1 broken of 1"):
        run(tmp_path / "x", out=out, skip_broken=True)
    assert not out.exists()


def test_an_unreadable_member_of_a_zip(tmp_path: Path, out: Path) -> None:
    content = bytearray(zipped({"glioma/a.png": encoded(), "no/b.png": encoded()}, zipfile.ZIP_STORED))
    content[60] ^= 255
    put(tmp_path, {"x.zip": bytes(content)})
    with pytest.raises(DataError, match=r"x.zip/glioma/a.png, which is damaged .Bad CRC-32"):
        run(tmp_path / "x.zip", out=out)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, data: Path, out: Path) -> None:
    with (data / "glioma/large.png").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(DataError, match=r"at most 64 MiB.*large.png with 65 MiB"):
        run(data, out=out)


def nested(depth: int) -> bytes:
    content = encoded()
    for _ in range(depth):
        content = zipped({"x.zip": content})
    return content


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "A source must exist"),
        ({"x/readme.txt": b"hello"}, "must hold FigShare slices.*x with 1 other files"),
        ({"x/glioma/.hidden.png": encoded()}, "x, which is empty"),
        ({"x/cvind.mat": mat73({"cvind": np.ones((2, 1))})}, "only cvind.mat"),
        ({"x/a.zip": figshare_download()[:-50]}, "A zip must be whole.*x/a.zip .its table of contents is missing"),
        ({"x/a.zip": figshare_download()[:3000]}, "A zip must be whole.*x/a.zip"),
        ({"x/a.zip": b""}, "A zip must be whole.*x/a.zip"),
        ({"x/a.zip": zipped({"b.zip": figshare_download()[:-50]})}, "A zip must be whole.*x/a.zip/b.zip"),
        ({"x/a.zip": zipped({"readme.txt": b"hello"})}, "must hold FigShare slices"),
        ({"x/a.zip": nested(3)}, "2 deep.*a.zip/x.zip/x.zip"),
        ({"x/a.zip": zipped({"../glioma/a.png": encoded()})}, "must lie inside it.*../glioma/a.png"),
        ({"x/a.zip": zipped({"/glioma/a.png": encoded()})}, "must lie inside it"),
        ({"x/glioma/manifest.csv": b"path,label\na.png,glioma\n"}, "must be given as a source of its own"),
        ({"x/glima/a.png": encoded(), "x/no/b.png": encoded()}, "'glima', where .*a.png lies. Did you mean 'glioma'"),
        ({"x/cyst/a.png": encoded()}, "A class must be one of.*'cyst'.*--classes cyst"),
        (
            {"x/yes/a.png": encoded(), "x/glioma/b.png": encoded()},
            "either kinds of tumours or tumor.*tumor beside glioma",
        ),
        ({"x/a.png": encoded()}, "in a folder named after its class.*x/a.png"),
        ({"x/glioma/no/a.png": encoded()}, "must not lie in each other"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path: Path, out: Path, files: dict[str, bytes], message: str) -> None:
    put(tmp_path, files)
    with pytest.raises(DataError, match=message):
        run(tmp_path / "x", out=out)
    assert not out.exists()


def test_the_new_folder_must_be_new_and_beside_its_sources(data: Path, out: Path) -> None:
    with pytest.raises(DataError, match=r"must not lie in one of its sources"):
        run(data, out=data / "prepared")
    with pytest.raises(DataError, match=r"given, each of them once.*data twice"):
        run(data, data / "../data", out=out)
    with pytest.raises(DataError, match=r"given, each of them once.*none"):
        run(out=out)
    out.mkdir()
    with pytest.raises(DataError, match=r"out, which exists. Remove it"):
        run(data, out=out)


def test_a_full_disk_leaves_nothing(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left"):
        run(data, out=out)
    assert [path.name for path in out.parent.iterdir()] == ["data"]


def test_progress_knows_the_number(data: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    totals = []

    def count(items: Iterable[Any], total: int) -> Iterable[Any]:
        totals.append(total)
        return items

    prepare([data], out, progress=count)
    prepare([data], out.with_name("second"))
    assert totals == [2]
    assert capsys.readouterr().out == ""


def test_a_member_that_unpacks_to_too_much_is_not_read(tmp_path: Path, out: Path) -> None:
    put(tmp_path, {"x.zip": zipped({"glioma/a.png": bytes(65 * 2**20), "no/b.png": encoded()})})
    with pytest.raises(DataError, match=r"at most 64 MiB.*x.zip/glioma/a.png with 65 MiB"):
        run(tmp_path / "x.zip", out=out)


def test_an_encrypted_zip(tmp_path: Path, out: Path) -> None:
    content = zipped({"glioma/a.png": encoded()}, zipfile.ZIP_STORED)
    # Bit 0 of the flags, which stand at byte 6 of a member's header and at byte 8 of its line in the table.
    marked = bytearray(content)
    marked[6] |= 1
    marked[content.index(b"PK\x01\x02") + 8] |= 1
    put(tmp_path, {"x.zip": bytes(marked)})
    with pytest.raises(DataError, match=r"a.png, which is damaged .*encrypted"):
        run(tmp_path / "x.zip", out=out)


def test_a_pipe_is_an_error(data: Path, out: Path) -> None:
    os.mkfifo(data / "glioma/pipe.png")
    with pytest.raises(DataError, match=r"pipe.png .not a regular file"):
        run(data, out=out)

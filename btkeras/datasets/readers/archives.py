"""The files of a source: in folders, in zips, or in zips in zips.

Nothing is extracted: a zip is read where it lies, one member at a time. No name of a member becomes a path on disk.
"""

from __future__ import annotations

import errno
import functools
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from btkeras.datasets.readers import DICOM_SUFFIXES, VOLUME_SUFFIXES, check
from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.image_file import damaged

MAX_BYTES = 64 * 2**20
# Volumes and multi-frame files hold many slices.
MAX_VOLUME_BYTES = 256 * 2**20
MAX_ZIP_DEPTH = 2

# What zipfile raises on a broken, encrypted or unsupported archive.
_ZIP_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error)


class SourceFile(NamedTuple):
    """One file of a source, not read yet.

    Attributes:
        path: Relative to the source, with forward slashes; a zip counts as a folder.
        name: What messages call it: the source's path and ``path``.
        read: Returns the content; raises ImageError if it cannot be read or is too large.
    """

    path: str
    name: str
    read: Callable[[], bytes]

    @property
    def suffix(self) -> str:
        """The name's ending in lower case, with its dot."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def basename(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem


def walk(source: Path, stack: ExitStack) -> list[SourceFile]:
    """Lists a folder, a zip, or a single file; hidden files are left out.

    Files in folders come in natural order (2 before 10), those of a zip in its order, because a compressed zip in a
    zip can only be read forwards. ``stack`` keeps the zips open; files can be read until it closes. DataError if the
    source is missing, cannot be read, or one of its zips is damaged.
    """
    if not source.is_dir() and not source.is_file():
        raise DataError("A source must exist", received=source, remedy="Check the spelling")
    return list(_walk(source, "" if source.is_dir() else source.name, stack))


def file_on_disk(file: Path, path: str) -> SourceFile:
    """A file on disk as a source's file, with the path that it has there."""
    # Names on disk may be bytes that are no text; the manifest must be UTF-8.
    path, name = (text.encode(errors="replace").decode() for text in (path, str(file)))
    return SourceFile(path, name, functools.partial(_read_file, file))


def _natural(path: Path) -> list[int | str]:
    # Text and numbers alternate, so that equal places always compare alike.
    return [int(part) if part.isdecimal() and part.isascii() else part for part in re.split("([0-9]+)", path.name)]


def _hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _walk(file: Path, path: str, stack: ExitStack, above: frozenset[Path] = frozenset()) -> Iterator[SourceFile]:
    """The files of a folder, a zip or a file that has this path in its source, below the folders ``above``."""
    if not file.is_dir():
        if file.suffix.lower() == ".zip":
            yield from _zip(lambda: file.open("rb"), path, str(file), stack)
        else:
            yield file_on_disk(file, path)
        return
    real = file.resolve()
    if real in above:
        raise DataError("A folder must not link to one above it", received=file, remedy="Remove the link")
    try:
        children = sorted(file.iterdir(), key=_natural)
    except OSError as error:
        raise DataError("A source's folders must be readable", received=f"{file} ({error.strerror})") from error
    for child in children:
        if not _hidden([child.name]):
            yield from _walk(child, f"{path}/{child.name}" if path else child.name, stack, above | {real})


def _zip(
    opened: Callable[[], IO[bytes]], path: str, name: str, stack: ExitStack, depth: int = 1
) -> Iterator[SourceFile]:
    if depth > MAX_ZIP_DEPTH:
        raise DataError(f"Zips may lie {MAX_ZIP_DEPTH} deep in each other", received=name, remedy="Unzip the outer one")
    try:
        archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(opened())))
    except _ZIP_DAMAGE as error:
        raise _broken_zip(name, error) from error
    for member, inner in _members(archive, name):
        inner_path, inner_name = (f"{outer}/{inner}".encode(errors="replace").decode() for outer in (path, name))
        if inner.lower().endswith(".zip"):
            yield from _zip(functools.partial(archive.open, member), inner_path, inner_name, stack, depth + 1)
        else:
            yield SourceFile(inner_path, inner_name, functools.partial(_read_member, archive, member, inner_name))


def _members(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """The members that are no folders and not hidden, in their order, with their paths."""
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    if members and members[0].header_offset:
        # Python looks for the last table of contents. Where a cut-off zip holds zips, that is one of theirs.
        raise _broken_zip(name, "its table of contents is missing")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or member.filename.startswith("/"):
            remedy = "Do not trust this file: get it from its authors"
            found = f"{name} with {member.filename!r}"
            raise DataError("The names in a zip must lie inside it", received=found, remedy=remedy)
        if not member.is_dir() and not _hidden(parts):
            yield member, "/".join(parts)


def _broken_zip(name: str, reason: object) -> DataError:
    return DataError("A zip must be whole and not encrypted", received=f"{name} ({reason})", remedy="Download it again")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> bytes:
    # The size is the one that the zip states; zipfile never unpacks more than that.
    _check_size(member.file_size, name)
    try:
        return archive.read(member)
    except _ZIP_DAMAGE as error:
        raise damaged(name, error) from error


def _read_file(file: Path) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe or a device could wait for ever.
            raise OSError(errno.EINVAL, "not a regular file")
        _check_size(status.st_size, str(file))
        return file.read_bytes()
    except OSError as error:
        raise ImageError("An image must be a readable file", received=f"{file} ({error.strerror})") from error


def _check_size(size: int, name: str) -> None:
    limit = MAX_VOLUME_BYTES if name.lower().endswith((*VOLUME_SUFFIXES, *DICOM_SUFFIXES)) else MAX_BYTES
    rule = f"An image's file must have at most {limit // 2**20} MiB"
    check(size <= limit, rule, f"{name} with {size / 2**20:.0f} MiB", "Make the image smaller first")

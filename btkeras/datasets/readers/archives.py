"""The files of a source: in folders, in zips, or in zips in zips.

Nothing is extracted: a zip is read where it lies, one member at a time. No name of a member becomes a path on disk.
"""

from __future__ import annotations

import errno
import functools
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from btkeras.datasets.readers import DICOM_SUFFIXES, VOLUME_SUFFIXES, check
from btkeras.datasets.readers.folders import files_below, is_hidden
from btkeras.errors import DataError, ImageError
from btkeras.preprocessing.image_file import damaged

MAX_BYTES = 64 * 2**20
# Volumes and multi-frame files hold many slices.
MAX_VOLUME_BYTES = 256 * 2**20
MAX_ZIP_DEPTH = 2
# First bytes that tell a file's kind, a NIfTI header behind gzip included.
HEAD = 4096

# What zipfile raises on a broken, encrypted or unsupported archive.
_ZIP_DAMAGE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error)


class SourceFile(NamedTuple):
    """One file of a source, not read yet.

    Attributes:
        path: Relative to the source, with forward slashes; a zip counts as a folder.
        name: What messages call it: the source's path and ``path``.
        read: Returns the content; raises ImageError if it cannot be read or is too large.
        head: Returns the first bytes, ``HEAD`` or as many as are wanted, whatever the size; errors as ``read``.
    """

    path: str
    name: str
    read: Callable[[], bytes]
    head: Callable[..., bytes]

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
    if not source.is_dir():
        return list(_opened(source, source.name, stack))
    files = ((file, file.relative_to(source).as_posix()) for file in files_below(source))
    return [found for file, path in files for found in _opened(file, path, stack)]


def file_on_disk(file: Path, path: str) -> SourceFile:
    """A file on disk as a source's file, with the path that it has there."""
    # Names on disk may be bytes that are no text; the manifest must be UTF-8.
    path, name = (text.encode(errors="replace").decode() for text in (path, str(file)))
    read = functools.partial(_read_file, file)
    return SourceFile(path, name, read, functools.partial(_head, read))


def _opened(file: Path, path: str, stack: ExitStack) -> Iterator[SourceFile]:
    """A file that has this path in its source, or the files of a zip."""
    if file.suffix.lower() == ".zip":
        yield from _zip(lambda: file.open("rb"), path, str(file), stack)
    else:
        yield file_on_disk(file, path)


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
            read = functools.partial(_read_member, archive, member, inner_name)
            yield SourceFile(inner_path, inner_name, read, functools.partial(_head, read))


def _head(read: Callable[[int], bytes], most: int = HEAD) -> bytes:
    return read(most)


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
        if not member.is_dir() and not is_hidden(parts):
            yield member, "/".join(parts)


def _broken_zip(name: str, reason: object) -> DataError:
    return DataError("A zip must be whole and not encrypted", received=f"{name} ({reason})", remedy="Download it again")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, most: int = -1) -> bytes:
    if most < 0:
        # The size is the one that the zip states; zipfile never unpacks more than that.
        _check_size(member.file_size, name)
    try:
        with archive.open(member) as stream:
            return stream.read(most)
    except _ZIP_DAMAGE as error:
        raise damaged(name, error) from error


def _read_file(file: Path, most: int = -1) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            # Reading a pipe or a device could wait for ever.
            raise OSError(errno.EINVAL, "not a regular file")
        if most < 0:
            _check_size(status.st_size, str(file))
        with file.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise ImageError("An image must be a readable file", received=f"{file} ({error.strerror})") from error


def _check_size(size: int, name: str) -> None:
    limit = MAX_VOLUME_BYTES if name.lower().endswith((*VOLUME_SUFFIXES, *DICOM_SUFFIXES)) else MAX_BYTES
    rule = f"An image's file must have at most {limit // 2**20} MiB"
    check(size <= limit, rule, f"{name} with {size / 2**20:.0f} MiB", "Make the image smaller first")

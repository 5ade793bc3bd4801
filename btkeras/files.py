"""Files and folders that appear whole or not at all, and digests of them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from btkeras.errors import RunError


def _temporary(target: Path, suffix: str = "") -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, because a rename is only atomic within one file system.
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")


@contextlib.contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes ``target`` on success and disappears on failure.

    The temporary name ends in the target's suffix, because some writers choose the format by it.
    """
    temporary = _temporary(target, target.suffix)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to ``target``, which must not exist yet."""
    temporary = _temporary(target)
    temporary.mkdir()
    try:
        yield temporary
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_file(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """Writes indented JSON atomically. NaN is refused: JSON has none."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(target: Path, header: Iterable[object], rows: Iterable[Iterable[object]]) -> None:
    """Writes CSV atomically, UTF-8 with Unix line ends."""
    with atomic_file(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read_json(file: Path) -> dict[str, Any]:
    """Reads a JSON object; ``RunError`` if it cannot be read or is something else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} must be readable JSON", received=error) from error
    if not isinstance(document, dict):
        raise RunError(f"{file} must hold a JSON object", received=type(document).__name__)
    return document


def sha256(file: Path) -> str:
    """SHA-256 (hexadecimal) of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest(parts: Iterable[bytes | str]) -> str:
    """SHA-256 (hexadecimal) of a sequence; the parts' lengths count, so ["ab"] differs from ["a", "b"]."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big"))
        sha.update(data)
    return sha.hexdigest()

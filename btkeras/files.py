"""Files and folders that appear whole or not at all, and digests of them."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from btkeras.errors import RunError

# The name of what is being written: its target's, who writes it (machine, process, the process' start), and a random
# number. Earlier versions named the process alone.
_TEMPORARY = re.compile(r"\..+\.(?:([0-9a-f]{6})-)?(\d+)(?:-(\d+))?-[0-9a-f]{8}\.tmp(\.\w+)?")
_DAY = 24 * 3600.0


def _temporary(target: Path, suffix: str = "") -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{_machine()}-{os.getpid()}-{_start_of(os.getpid())}"
    # Beside the target, because a rename is only atomic within one file system.
    return target.with_name(f".{target.name}.{owner}-{secrets.token_hex(4)}.tmp{suffix}")


@functools.cache
def _machine() -> str:
    """Where processes have the same numbers: this boot of this machine, or of this container on it."""
    parts = [platform.node()]
    # Both are Linux'.
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest(parts)[:6]


def _start_of(process: int) -> int:
    """When a process started, in ticks since boot, since numbers are used again; 0 where the system does not say."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    # Before it comes the program's name, in parentheses, which may hold anything.
    return int(text.rpartition(")")[2].split()[19])


def sweep(folder: Path, old_seconds: float = _DAY) -> None:
    """Removes temporary files and folders from a folder whose processes are gone.

    Those of another machine, and of earlier versions, are removed once they have not changed for ``old_seconds``.
    """
    for path in folder.glob(".*.tmp*"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and _is_left_over(path, match, old_seconds):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_left_over(path: Path, match: re.Match[str], old_seconds: float) -> bool:
    machine, process, start = match.group(1, 2, 3)
    if machine == _machine():
        # Imported here because few need it.
        import psutil

        return not psutil.pid_exists(int(process)) or _start_of(int(process)) != int(start or 0)
    try:
        return time.time() - path.stat().st_mtime > old_seconds
    except FileNotFoundError:
        return False


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
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yields a new folder beside ``target``, to be renamed or not, and removes what killed processes left there."""
    temporary = _temporary(target)
    sweep(target.parent)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to ``target``, which must not exist yet."""
    with temporary_folder(target) as temporary:
        yield temporary
        os.rename(temporary, target)


# Yields a temporary path that becomes the target: ``atomic_file``, or what does more than that.
Replacing = Callable[[Path], AbstractContextManager[Path]]


def require_new(path: Path) -> None:
    """Raises ``RunError`` if there is something at ``path``."""
    if path.exists():
        raise _not_new(path)


def _not_new(path: Path) -> RunError:
    return RunError(
        "A new run must have a new folder",
        received=f"{path}, which exists",
        remedy="Choose another --out, or continue it: --resume",
    )


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """As ``files.atomic_folder``; errors as ``require_new``, also if another process makes it meanwhile."""
    require_new(path)
    try:
        with atomic_folder(path) as temporary:
            yield temporary
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _not_new(path) from error
        raise


def write_text(target: Path, text: str, replacing: Replacing = atomic_file) -> None:
    """Writes UTF-8 text atomically."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any, replacing: Replacing = atomic_file) -> None:
    """Writes indented JSON atomically. NaN is refused: JSON has none."""
    write_text(target, json.dumps(value, indent=2, allow_nan=False) + "\n", replacing)


def write_csv(
    target: Path, header: Iterable[object], rows: Iterable[Iterable[object]], replacing: Replacing = atomic_file
) -> None:
    """Writes CSV atomically, UTF-8 with Unix line ends."""
    with replacing(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def read_json(file: Path, remedy: str = "") -> dict[str, Any]:
    """Reads a JSON object; ``RunError`` with the remedy if it cannot be read or is something else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} must be readable JSON", received=json_reason(error), remedy=remedy) from error
    if not isinstance(document, dict):
        raise RunError(f"{file} must hold a JSON object", received=type(document).__name__, remedy=remedy)
    return document


def json_reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read as JSON, in words for its user."""
    if isinstance(error, json.JSONDecodeError):
        return f"something else from line {error.lineno} on" if error.doc else "an empty file"
    return str(error)


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

"""One writer at a time in a folder, also of several machines that share it; the lock ends with its process."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from btkeras.errors import RunError
from btkeras.files import sweep, write_json
from btkeras.logging import logger

# A wait that takes longer is logged.
_PATIENCE_SECONDS = 5
# Of a file system without locks: NFS without a lock service, some FUSE and container mounts.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
# Age of a temporary file of another machine in a folder whose lock is held: only what takes no lock writes there, a
# report for example, and that takes seconds.
_OLD_SECONDS = 600.0
_held: set[Path] = set()

_First = TypeVar("_First")
_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")


def only_writer(
    function: Callable[Concatenate[_First, _Rest], _Result],
) -> Callable[Concatenate[_First, _Rest], _Result]:
    """Decorates a function that writes to a run, its first argument or that one's ``run``; as ``writing``."""

    @functools.wraps(function)
    def exclusive(first: Any, /, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _Result:
        with writing(getattr(first, "run", first).path):
            return function(first, *args, **kwargs)

    return exclusive


@contextlib.contextmanager
def writing(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Makes this process the folder's only writer, and first removes what killed writers left below the folder.

    Blocks may be nested, in one thread. Arguments and errors are as of ``locked``.
    """
    with locked(folder / ".lock", wait=wait) as new:
        if new:
            for below in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
                sweep(below, _OLD_SECONDS)
        yield


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds a lock; yields False where an outer block of this process holds it already.

    It is a lock of the kernel's (``flock``), which is gone when its process is. A file system without these gets a file
    ``NAME.soft`` instead: one of a dead process is removed on the same machine, but not from another.

    Args:
        file: The lock. It stays there, empty; beside it ``NAME.json`` says who holds it.
        wait: Wait for another process, instead of failing.

    Raises:
        RunError: If another process holds it.
    """
    key = file.resolve()
    if key in _held:
        yield False
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    holder = file.with_name(f"{file.name}.json")
    lock = _acquired(file, holder, wait=wait)
    _held.add(key)
    try:
        write_json(holder, _this_process())
        yield True
    finally:
        holder.unlink(missing_ok=True)
        _held.discard(key)
        lock.release()


def _acquired(file: Path, holder: Path, *, wait: bool) -> BaseFileLock:
    try:
        return _waited_for(FileLock(file, fallback_to_soft=False), holder, wait=wait)
    except OSError as error:
        # Timeout is an OSError too, without a number.
        if error.errno not in _UNSUPPORTED:
            raise
    return _waited_for(SoftFileLock(file.with_name(f"{file.name}.soft")), holder, wait=wait)


def _waited_for(lock: BaseFileLock, holder: Path, *, wait: bool) -> BaseFileLock:
    try:
        lock.acquire(timeout=_PATIENCE_SECONDS if wait else 0)
    except Timeout as timeout:
        if not wait:
            raise _busy(Path(lock.lock_file), holder) from timeout
        logger.info(f"waiting for another process, which holds {lock.lock_file}")
        lock.acquire()
    return lock


def _host() -> str:
    return platform.node()


def _this_process() -> dict[str, object]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": _host(), "since": since, "command": shlex.join(["btkeras", *sys.argv[1:]])}


def _busy(file: Path, holder: Path) -> RunError:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        who = "`{command}`, process {process} on {host} since {since}".format(**found)
        elsewhere = found["host"] != _host()
    except (OSError, ValueError, LookupError, TypeError):
        who, elsewhere = "another process", True
    remedy = "Wait until it has ended, or end it"
    if elsewhere:
        remedy += f". If that machine is gone, and with it the process, remove {file}"
    return RunError(f"Only one process at a time may write to {file.parent}", received=who, remedy=remedy)

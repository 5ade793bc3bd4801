"""Which versions of the model are served: the highest ones in its folder, as they come and go.

A new version is loaded and warmed up in a thread beside the one that serves, and takes over when it is ready. One that
cannot be loaded is logged, shown as ``END`` with its error in the status, and tried again once its files have changed;
the one before it serves on. A version whose folder is gone, or that is none of the highest any more, is taken out of
service and dropped when its last request is answered. A folder that cannot be read changes nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from btkeras.errors import BTKerasError
from btkeras.inference.model_folder import SAVED_MODEL
from btkeras.server.logs import log
from btkeras.server.problems import not_found
from btkeras.server.servable import Servable
from btkeras.server.settings import ServerSettings

LOADING, AVAILABLE, UNLOADING, END = "LOADING", "AVAILABLE", "UNLOADING", "END"

# What a version's files look like from outside: their paths, sizes and times.
_Look = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Status:
    """Attributes:
    state: As in TensorFlow Serving: LOADING, AVAILABLE, UNLOADING or END.
    error: Why it could not be loaded; "" if nothing is wrong.
    """

    state: str
    error: str = ""


class Versions:
    """The versions of one model. All but loading and looking happens on the event loop's thread.

    Args:
        settings: Of which ``model``, ``name``, ``keep`` and ``poll_seconds`` are used.
        load: Loads a version's folder and warms it up; runs in a thread.

    Attributes:
        statuses: By number, of every version seen.
        changed: Called after each change.
    """

    def __init__(self, settings: ServerSettings, load: Callable[[Path], Servable]) -> None:
        self._settings = settings
        self._load = load
        self._available: dict[int, Servable] = {}
        self._leases: dict[int, int] = {}
        self._failed: dict[int, _Look] = {}
        self._threads = ThreadPoolExecutor(1, "versions")
        self._readable = True
        self.statuses: dict[int, Status] = {}
        self.changed: Callable[[], None] = lambda: None

    @property
    def latest(self) -> Servable | None:
        """The highest version that can be asked."""
        return self._available[max(self._available)] if self._available else None

    def get(self, number: int | None) -> Servable:
        """A version, or the highest.

        Raises:
            Problem: 404 if it is not served.
        """
        found = self.latest if number is None else self._available.get(number)
        if found is None:
            raise not_found(self._settings.name, number)
        return found

    @contextmanager
    def lease(self, number: int | None) -> Iterator[Servable]:
        """A version that stays loaded until the end of the block; errors as ``get``."""
        servable = self.get(number)
        self._leases[servable.number] = self._leases.get(servable.number, 0) + 1
        try:
            yield servable
        finally:
            self._leases[servable.number] -= 1

    async def watch(self) -> None:
        """Looks at the folder again and again."""
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                await self.poll()
            except Exception as error:  # A look that failed for whatever reason must not be the last.
                log("poll failed", logging.ERROR, failure=error)

    async def poll(self) -> None:
        """Looks at the folder once, and loads and drops what follows from it."""
        loop = asyncio.get_running_loop()
        try:
            looks = await loop.run_in_executor(self._threads, _look, self._settings.model)
        except OSError as error:
            # Said once, and not again at each look.
            if self._readable:
                log("folder unreadable", logging.WARNING, reason=error.strerror)
            self._readable = False
            return
        self._readable = True
        wanted: set[int] = set()
        for number in sorted(looks, reverse=True):
            if len(wanted) == self._settings.keep:
                break
            if number in self._available or await self._loaded(number, looks[number]):
                wanted.add(number)
        for number in sorted(self._available.keys() - wanted):
            await self._drop(number)
        self._forget(looks)

    async def _loaded(self, number: int, look: _Look) -> bool:
        """Loads a version, unless it failed before and has not changed since."""
        if self._failed.get(number) == look:
            return False
        self.statuses[number] = Status(LOADING)
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            servable = await loop.run_in_executor(self._threads, self._load, self._settings.model / str(number))
        except Exception as error:  # TensorFlow raises nearly anything for a damaged model.
            self._failed[number] = look
            self.statuses[number] = Status(END, str(error))
            unexpected = None if isinstance(error, BTKerasError) else error
            log("version failed", logging.ERROR, failure=unexpected, version=number, reason=str(error)[:500])
            self.changed()
            return False
        self._failed.pop(number, None)
        self._available[number] = servable
        self.statuses[number] = Status(AVAILABLE)
        log("version available", version=number, seconds=round(time.perf_counter() - start, 2))
        self.changed()
        return True

    async def _drop(self, number: int) -> None:
        """Takes a version out of service, and out of memory once its requests are answered."""
        del self._available[number]
        self.statuses[number] = Status(UNLOADING)
        self.changed()
        while self._leases.get(number):
            await asyncio.sleep(0.05)
        self._leases.pop(number, None)
        self.statuses[number] = Status(END)
        await asyncio.get_running_loop().run_in_executor(self._threads, _free)
        log("version unloaded", version=number)

    def _forget(self, looks: dict[int, _Look]) -> None:
        """A version that left the folder is no longer spoken of, so that the lists stay short."""
        for number in [n for n in self.statuses if n not in looks and n not in self._available]:
            del self.statuses[number]
            self._failed.pop(number, None)

    def close(self) -> None:
        """Ends the thread."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def has_version(folder: Path) -> bool:
    """Whether a folder holds a version with a SavedModel."""
    try:
        return bool(_look(folder))
    except OSError:
        return False


def _look(folder: Path) -> dict[int, _Look]:
    """The versions in a folder that have a SavedModel."""
    found = {}
    for version in folder.iterdir():
        # "007" would be version 7 a second time.
        if version.name.isdecimal() and str(int(version.name)) == version.name and (version / SAVED_MODEL).is_file():
            found[int(version.name)] = tuple(sorted(map(_file_look, version.rglob("*"))))
    return found


def _file_look(path: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError:
        # It went while we looked.
        return str(path), -1, 0
    return str(path), state.st_size, state.st_mtime_ns


def _free() -> None:
    """Gives a dropped version's memory back to the system, as far as the system can take it."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

"""Files that are written beside the training, by one thread."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from types import TracebackType
from typing import Self


class BackgroundWriter:
    """Writes one thing after another, in the order given; of one thing that waits, the newest content alone.

    As a context manager it ends when all is written. After an error nothing more is written: what comes later may rely
    on it. The error is raised where something is given next, or at the end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "writer")
        self._given: dict[Hashable, Callable[[], None]] = {}
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._lock = Lock()
        self._error: BaseException | None = None

    def give(self, what: Hashable, write: Callable[[], None]) -> None:
        """Takes what is to be written after the next ``start``; raises what an earlier write raised."""
        if self._error:
            raise self._error
        self._given[what] = write

    def start(self) -> None:
        """Lets the thread write what was given, in that order: all at once, so that none is written before another.

        It takes the place of what waits under the same names. What is given is written now, and not while further
        copies are made, which the thread would slow down.
        """
        with self._lock:
            for what, write in self._given.items():
                # To the end: behind what was given before it, and is perhaps what it relies on.
                self._waiting.pop(what, None)
                self._waiting[what] = write
        self._given = {}
        self._pool.submit(self._write)

    def _write(self) -> None:
        while not self._error:
            with self._lock:
                if not self._waiting:
                    return
                write = self._waiting.pop(next(iter(self._waiting)))
            try:
                write()
            except BaseException as error:  # Raised in the training's thread.
                self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.start()
        self._pool.shutdown()
        if self._error and error is not self._error:
            raise self._error

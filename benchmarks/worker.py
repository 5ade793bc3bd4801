"""An engine in a process of its own, which probabilities when it is told to: the far side of ``benchmarks.rounds``.

A process each, since engines in one would wait for each other's threads, and since only so the memory that one needs
can be told.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btkeras.errors import BTKerasError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Call = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


# A call that is asked for again and again within this time is measured without the first, which finds caches that
# other processes have filled.
_LEAST_CALLS = 2


def serve(connection: Connection, entry: str, arguments: Mapping[str, Any]) -> None:
    """Loads an engine and runs its commands until the connection ends.

    Messages are ``(verb, *values)``, with a reply each, which is ``("done", value)`` or ``("failed", words)``:

    - ``("load",)``: what the engine says of itself, and the seconds that loading took, its imports included;
    - ``("predict", images)``: the probabilities of images ``[n, size, size, channels]``, which the turns that follow
      use too, and the seconds that it took;
    - ``("turn", seconds)``: pairs of wall and processor seconds of calls that fill that time;
    - ``("memory",)``: the most bytes of memory that the process has held so far.

    Args:
        connection: To the process that asks.
        entry: ``MODULE:FUNCTION``; the function gives the engine's call and what it says of itself, by name.
        arguments: Its keywords.
    """
    _be_quiet()
    engine = _Engine(entry, arguments)
    while True:
        try:
            verb, *values = connection.recv()
        except (EOFError, OSError):
            return
        try:
            reply = ("done", getattr(engine, verb)(*values))
        except Exception as error:  # Whatever an engine raises is its row's fate, not the others'.
            words = str(error) if isinstance(error, BTKerasError) else f"{type(error).__name__}: {error}"
            reply = ("failed", " ".join(words.split())[:400])
        connection.send(reply)


class _Engine:
    def __init__(self, entry: str, arguments: Mapping[str, Any]) -> None:
        self._entry, self._arguments = entry, arguments
        self._call: Call = _not_loaded
        self._images: Any = None

    def load(self) -> tuple[dict[str, Any], float]:
        begin = time.perf_counter()
        module, function = self._entry.split(":")
        self._call, about = getattr(importlib.import_module(module), function)(**self._arguments)
        return about, time.perf_counter() - begin

    def predict(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        begin = time.perf_counter()
        self._images = images
        return self._call(images), time.perf_counter() - begin

    def turn(self, seconds: float) -> list[tuple[float, float]]:
        taken: list[tuple[float, float]] = []
        end = time.perf_counter() + seconds
        while not taken or time.perf_counter() < end:
            wall, processor = time.perf_counter(), time.process_time()
            self._call(self._images)
            taken.append((time.perf_counter() - wall, time.process_time() - processor))
        return taken[1:] if len(taken) >= _LEAST_CALLS else taken

    def memory(self) -> int:
        return peak_memory()


def _not_loaded(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    raise ModelError("An engine must be loaded before it predicts")


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    try:
        status = Path("/proc/self/status").read_text()
        # Not `ru_maxrss`, which begins with what the parent held when it made this process.
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        import resource  # Not on every system.

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _be_quiet() -> None:
    """Without what engines print on the way; their errors come as replies."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)

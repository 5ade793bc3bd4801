"""Engines measured side by side: each in its process, in rounds of one turn each, in an order drawn anew every round.

So whatever else the machine does meets all of them, and quotients within a round say more than times do.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.worker import serve
from btkeras.errors import ModelError

# Of one engine's turn: long enough for several calls of one image.
TURN_SECONDS = 0.2
# Between turns: threads of the engine before still look for work for some milliseconds.
_PAUSE_SECONDS = 0.02
_END_SECONDS = 5


class EngineError(ModelError):
    """An engine cannot be measured.

    Attributes:
        reason: Its own words.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(rule, received=reason)
        self.reason = reason


@dataclass(frozen=True)
class Engine:
    """What is measured.

    Attributes:
        name: What it is called.
        entry: ``MODULE:FUNCTION``; the function gives a call from images to probabilities, and a dict of what the
            engine says of itself.
        arguments: The function's keywords.
        environment: Variables that its process has besides this one's.
    """

    name: str
    entry: str
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Taken:
    """What calls took, in seconds.

    Attributes:
        wall: Of every call that counts.
        rounds: Medians of each round, ``[rounds, 2]``: wall and processor time, which is that of all threads and hardly
            changes when other processes take cores away.
    """

    wall: NDArray[np.float64]
    rounds: NDArray[np.float64]

    @property
    def median(self) -> float:
        """What a caller waits."""
        return float(np.median(self.wall))

    @property
    def p95(self) -> float:
        """What a caller waits in the slowest of twenty calls."""
        return float(np.quantile(self.wall, 0.95))

    @property
    def processor(self) -> float:
        """Seconds of all threads."""
        return float(np.median(self.rounds[:, 1]))

    def ratios(self, to: Taken) -> tuple[float, float]:
        """Medians of the rounds' quotients with another engine of the same measurement: wall and processor time."""
        wall, processor = np.median(self.rounds / to.rounds, axis=0)
        return float(wall), float(processor)


class Worker:
    """An engine's process, which ends with the ``with`` block."""

    def __init__(self, engine: Engine) -> None:
        # Not forked: a child that inherits threads' locks may wait for ever.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, engine.entry, dict(engine.arguments))
        self._process = context.Process(target=serve, args=arguments, daemon=True)
        with _environment(engine.environment):
            self._process.start()
        other.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(_END_SECONDS if kind is None else 0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def load(self) -> tuple[dict[str, Any], float]:
        """What the engine says of itself, and the seconds that loading took, its imports included."""
        return self._ask("load")

    def predict(self, images: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
        """Probabilities of the images that the turns to come are about, and the seconds until they were there."""
        return self._ask("predict", images)

    def turn(self, seconds: float = TURN_SECONDS) -> list[tuple[float, float]]:
        """Wall and processor seconds of calls that fill that time; of one call if it takes longer."""
        return self._ask("turn", seconds)

    def memory(self) -> int:
        """The most bytes of memory that the engine's process has held."""
        return self._ask("memory")

    def kill(self) -> None:
        """Ends the process at once; what was asked of it fails."""
        self._process.kill()

    def _ask(self, *message: Any) -> Any:
        try:
            self._connection.send(message)
            state, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_END_SECONDS)
            code = self._process.exitcode
            raise EngineError(
                "An engine must not end its process", f"its process ended with exit code {code}"
            ) from error
        if state == "failed":
            raise EngineError("An engine must load the model and predict", value)
        return value


def measure(
    workers: Mapping[str, Worker], rounds: int, done: Callable[[], object] = lambda: None, seed: int = 0
) -> dict[str, Taken]:
    """Measures engines that have been shown their images (``Worker.predict``).

    Args:
        workers: By name.
        rounds: How many.
        done: Called after each.
        seed: Of the order.
    """
    order, turns = list(workers), {name: [] for name in workers}  # type: ignore[var-annotated]
    shuffled = random.Random(seed)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            turns[name].append(workers[name].turn())
            time.sleep(_PAUSE_SECONDS)
        done()
    return {name: _taken(of) for name, of in turns.items()}


def _taken(turns: Sequence[Sequence[tuple[float, float]]]) -> Taken:
    rounds = np.array([np.median(turn, axis=0) for turn in turns])
    return Taken(wall=np.array([wall for turn in turns for wall, _ in turn]), rounds=rounds)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

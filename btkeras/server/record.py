"""What is noted about a request while it is answered, for the log and the metrics."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Record:
    """Attributes:
    identifier: Of the request, as the client gave it or a new one.
    route: Which part of the server answered.
    signature: That was asked for; "" if none.
    version: That answered; 0 if none.
    images: Images in it.
    nbytes: Size of its body, as it came.
    started: When its headers had arrived, on ``time.perf_counter``.
    """

    identifier: str
    route: str = "other"
    signature: str = ""
    version: int = 0
    images: int = 0
    nbytes: int = 0
    started: float = field(default_factory=time.perf_counter)


# Set by `observed.Observed` around each request.
CURRENT: ContextVar[Record | None] = ContextVar("record", default=None)


def note(**facts: int | str) -> None:
    """Notes attributes of the request that is being answered."""
    record = CURRENT.get()
    for name, value in facts.items() if record is not None else ():
        setattr(record, name, value)


def note_images(count: int) -> None:
    """Notes that so many more images were in the request."""
    record = CURRENT.get()
    if record is not None:
        record.images += count

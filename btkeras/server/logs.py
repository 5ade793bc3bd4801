"""Structured logs: one JSON object a line on standard error.

A line about a request holds its path, code, time and sizes, never what was sent: no images, no file names, no
query, no token.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LOGGER = logging.getLogger("btkeras.serve")


class JsonLines(logging.Formatter):
    """One object a line: time, level, event, and what ``extra={"facts": ...}`` adds."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log(event: str, level: int = logging.INFO, *, failure: BaseException | None = None, **facts: object) -> None:
    """Writes a line.

    Args:
        event: What happened, in a word or two.
        level: As in ``logging``.
        failure: An exception whose traceback goes along.
        **facts: Further keys.
    """
    LOGGER.log(level, event, extra={"facts": facts}, exc_info=failure)


def start_logging() -> None:
    """Sends the server's lines, and uvicorn's warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("btkeras.serve", logging.INFO), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)

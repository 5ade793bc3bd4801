"""The package's logger, and how the command line shows it: plain lines on standard error."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("btkeras")


class _Terminal(logging.Handler):
    """Writes to what is standard error at that moment, so that tests and redirections see it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        print(self.format(record), file=sys.stderr, flush=True)


def log_to_terminal() -> None:
    """Shows what the package logs, from INFO on. Called again it changes nothing."""
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal())
        # Else the first `logging.info()` of a library makes a handler there, which shows these lines again.
        logging.getLogger().addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)


def duration(seconds: float) -> str:
    """Seconds in words: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

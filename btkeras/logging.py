"""What is said to the user on the way, on standard error."""

from __future__ import annotations

import sys


def notice(text: str) -> None:
    """Says something to the user."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: ``45 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"

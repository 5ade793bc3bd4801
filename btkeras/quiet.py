"""Loading TensorFlow and the inference engines without what their C++ code prints about itself."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_SILENT = "3"
# How lines of TensorFlow's log and LiteRT's announcements begin. Those before its log is set up, no level hides.
_ANNOUNCED = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:\d\d|WARNING: All log messages before absl::|To enable the following instructions:"
    rb"|INFO: (Created|Initialized) TensorFlow Lite"
)
# Standard error is the whole process's.
_LOCK = threading.RLock()


def load_tensorflow() -> None:
    """Imports Keras and TensorFlow, of whose log only exceptions and fatal errors remain.

    Does nothing where one of them is loaded already, and leaves nothing out where ``TF_CPP_MIN_LOG_LEVEL`` asks for
    the log (0 to 2). The variable is as before afterwards, so that other processes inherit nothing.

    Raises:
        ImportError: If one of them is not installed.
    """
    if not sys.modules.keys().isdisjoint(("keras", "tensorflow")):
        return
    given = os.environ.get(_LEVEL)
    if quiet := given in (None, _SILENT):
        os.environ[_LEVEL] = _SILENT
    try:
        with quiet_engine() if quiet else contextlib.nullcontext():
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    finally:
        if quiet and given is None:
            del os.environ[_LEVEL]


@contextlib.contextmanager
def quiet_engine() -> Iterator[None]:
    """Leaves an engine's announcements, while the block loads it, out of standard error; other lines come after it."""
    # Imported here because most commands do without.
    import tempfile

    with _LOCK, tempfile.TemporaryFile() as printed:
        try:
            stderr = os.dup(2)
        except OSError:
            # A process without standard error shows nothing anyway.
            yield
            return
        _flush()
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            os.write(2, b"".join(line for line in printed if not _ANNOUNCED.match(line)))


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()

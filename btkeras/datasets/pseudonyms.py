"""Pseudonyms of DICOM's ids, by a key that each user has."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from btkeras.errors import DataError

PSEUDONYM_KEY = "BTKERAS_PSEUDONYM_KEY"

_KEY_BYTES = 32
_PSEUDONYM_DIGITS = 16


def pseudonym(text: str, key: bytes, kind: str = "P") -> str:
    """``kind`` and 16 hexadecimal digits for a text; "" for none. Texts of different kinds have nothing in common."""
    if not text:
        return ""
    return kind + hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:_PSEUDONYM_DIGITS]


def load_key() -> bytes:
    """Reads the key of the pseudonyms, or makes it, readable for the user alone; DataError if that cannot be done.

    It lies in ``$BTKERAS_PSEUDONYM_KEY``, or below the user's data folder.
    """
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    file = Path(os.environ.get(PSEUDONYM_KEY) or data / "btkeras/pseudonym.key")
    try:
        if not file.exists():
            _make_key(file)
        key = file.read_bytes()
        reason = f"it has {len(key)} bytes, not {_KEY_BYTES}"
    except OSError as error:
        key, reason = b"", str(error.strerror)
    if len(key) < _KEY_BYTES:
        raise DataError(
            "The key of the patients' pseudonyms must be readable",
            received=f"{file} ({reason})",
            remedy=f"Let {PSEUDONYM_KEY} name a file, which is made if it is not there",
        )
    return key


def _make_key(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written whole before it has its name, which another process may have taken meanwhile.
    with tempfile.NamedTemporaryFile(dir=file.parent) as temporary, contextlib.suppress(FileExistsError):
        temporary.write(secrets.token_bytes(_KEY_BYTES))
        temporary.flush()
        os.link(temporary.name, file)

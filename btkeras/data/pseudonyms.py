"""Patients' ids to names that say nothing, the same for the same id in every dataset that one user prepares.

HMAC-SHA256 with a secret key. A plain hash, or a salt that lies in the dataset, would be no secret: an id has few
digits, and all of them are tried in a second. The key is made once and stays with the user; who has the dataset alone
cannot go back. Another key gives other names.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from btkeras.errors import DataError

VARIABLE = "BTKERAS_PSEUDONYM_KEY"

_KEY_BYTES = 32
_DIGITS = 16


def key_file() -> Path:
    """Where the key lies: ``$BTKERAS_PSEUDONYM_KEY``, or below the user's data folder."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    return Path(os.environ.get(VARIABLE) or Path(data) / "btkeras/pseudonym.key")


def load_key() -> bytes:
    """Reads the key, or makes it, readable for the user alone.

    Raises:
        DataError: If that cannot be done.
    """
    file = key_file()
    try:
        if not file.exists():
            _make(file)
        key = file.read_bytes()
    except OSError as error:
        raise _unusable(file, error.strerror) from error
    if len(key) < _KEY_BYTES:
        raise _unusable(file, f"it has {len(key)} bytes, not {_KEY_BYTES}")
    return key


def pseudonym(text: str, key: bytes, kind: str = "P") -> str:
    """``kind`` and 16 hexadecimal digits for a text; "" for none. Texts of different kinds have nothing in common."""
    if not text:
        return ""
    return kind + hmac.new(key, f"{kind}\0{text}".encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def _make(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written whole before it has its name, which another process may have taken meanwhile.
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()


def _unusable(file: Path, reason: object) -> DataError:
    return DataError(
        "The key that makes patients' ids unrecognisable must be readable",
        received=f"{file} ({reason})",
        remedy=f"Let {VARIABLE} name a file, which is made if it is not there",
    )

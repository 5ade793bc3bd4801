"""The web page's files, read once, under addresses that change with their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

_PAGE = ".html"
_TYPES: Mapping[str, str] = MappingProxyType(
    {
        _PAGE: "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
# Where a page says `{static}`, the folder's address is put in; it is relative, so that a proxy may add a prefix.
_PLACE = b"{static}"


@dataclass(frozen=True)
class PageFiles:
    """Attributes:
    digest: Of all files; part of their addresses, so that browsers may keep them for ever.
    files: Content by name.
    """

    digest: str
    files: Mapping[str, bytes]

    def page(self, name: str) -> bytes:
        """A page with the addresses of its files."""
        return self.files[name].replace(_PLACE, f"static/{self.digest}".encode())

    def served(self) -> list[tuple[str, bytes]]:
        """Name and content of what pages load; they themselves have addresses of their own."""
        return [(name, data) for name, data in self.files.items() if not name.endswith(_PAGE)]


def load_files() -> PageFiles:
    """Reads ``btkeras/serving/web/``."""
    folder = resources.files("btkeras.serving") / "web"
    files = {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}
    known = {name: data for name, data in files.items() if _ending(name) in _TYPES}
    content = hashlib.sha256(b"".join(name.encode() + b"\0" + data for name, data in known.items()))
    return PageFiles(content.hexdigest()[:16], MappingProxyType(known))


def content_type(name: str) -> str:
    """The media type of a file by its name."""
    return _TYPES[_ending(name)]


def _ending(name: str) -> str:
    return name[name.rfind(".") :]

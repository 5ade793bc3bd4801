"""What the images of a split were: size, time and a digest of the pixels of each, so that a replaced one is noticed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from btkeras.checksums import check_file
from btkeras.errors import DataError, ImageError, RunError
from btkeras.files import write_csv
from btkeras.logging import logger
from btkeras.machine import map_in_threads
from btkeras.preprocessing.decode import decode_file, pixel_digest

_NAMED = 5
# Files, with size and time, whose pixels this process found to be as they were.
_unchanged: set[tuple[str, int, int, str]] = set()


class Fingerprint(NamedTuple):
    """Of a file: its size, when it was changed (nanoseconds), and its pixels' digest, "" if it could not be read."""

    bytes: int
    modified: int
    pixels: str


def write_fingerprints(target: Path, root: Path, pixels: Mapping[str, str]) -> None:
    """Writes ``images.csv``: a line for each path in ``root``, with the digest of its pixels."""
    states = {path: (root / path).stat() for path in sorted(pixels)}
    rows = ((path, state.st_size, state.st_mtime_ns, pixels[path]) for path, state in states.items())
    write_csv(target, ("path", *Fingerprint._fields), rows)


def read_fingerprints(source: Path) -> dict[str, Fingerprint]:
    """Reads ``images.csv``; nothing from one that is not there, as in runs of earlier versions."""
    check_file(source)
    if not source.is_file():
        return {}
    try:
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        return {r["path"]: Fingerprint(int(r["bytes"]), int(r["modified"]), r["pixels"]) for r in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{source} must be as it was written", received=repr(error), remedy="Restore it") from error


def check_images(source: Path, root: Path) -> None:
    """Raises ``DataError`` if images below ``root`` are not those in ``images.csv``; see ``changed_images``."""
    refuse(source, root, changed_images(read_fingerprints(source), root))


def check_pixels(source: Path, root: Path, pixels: Mapping[str, str]) -> None:
    """The same for images that have just been decoded, of which ``pixels`` has the digests."""
    known = read_fingerprints(source)
    refuse(source, root, [path for path, digest in pixels.items() if path in known and digest != known[path].pixels])


def refuse(source: Path, root: Path, changed: Sequence[str]) -> None:
    """Raises ``DataError`` if there are changed images, and names some."""
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise DataError(
            f"A dataset's images must be those of {source}",
            received=f"{len(changed)} in {root} that changed: {', '.join(changed[:_NAMED])}{more}",
            remedy="Restore them, or start a new run",
        )


def changed_images(known: Mapping[str, Fingerprint], root: Path) -> list[str]:
    """Paths of the images that are gone, or are no longer what they were.

    Of a file of the same size and time nothing is read; of one of another time the pixels decide, so that a copied
    dataset is the same. Images that could not be read then count as they are.
    """
    changed, doubted = [], list[tuple[str, Path, int]]()
    for path, was in known.items():
        file = root / path
        try:
            state = file.stat()
        except OSError:
            changed.append(path)
            continue
        if was.pixels and state.st_size != was.bytes:
            changed.append(path)
        elif was.pixels and state.st_mtime_ns != was.modified:
            doubted.append((path, file, state.st_mtime_ns))
    doubted = [each for each in doubted if _key(*each[1:], known[each[0]]) not in _unchanged]
    if doubted:
        logger.info(f"comparing {len(doubted):,} images in {root}, whose times differ from those at the split")
    for (path, file, modified), digest in zip(doubted, map_in_threads(_digest, [d[1] for d in doubted]), strict=True):
        if digest == known[path].pixels:
            _unchanged.add(_key(file, modified, known[path]))
        else:
            changed.append(path)
    return sorted(changed)


def _key(file: Path, modified: int, was: Fingerprint) -> tuple[str, int, int, str]:
    return str(file.resolve()), was.bytes, modified, was.pixels


def _digest(file: Path) -> str:
    try:
        return pixel_digest(decode_file(file))
    except ImageError:
        return ""

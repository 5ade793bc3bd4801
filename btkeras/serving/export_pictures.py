"""Which pictures a network was trained, chosen and tested on, so that its test figure can be measured again.

Pictures are known by digests of their files and not by their names: a name may be a patient's, and means nothing where
the files lie elsewhere. Whoever has a file can tell whether it was among them, and nobody else can.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

from btkeras.data.image_file import read_bytes
from btkeras.data.records import Dataset, Record
from btkeras.data.splits import PARTS
from btkeras.errors import DataError
from btkeras.files import write_text
from btkeras.runs import Run
from btkeras.serving.exported import PICTURES

# Hexadecimal digits of SHA-256: two of a million pictures share 16 of them by chance once in 37 million such sets.
DIGITS = 16
_WHAT = f"SHA-256 of the pictures' files, first {DIGITS} hexadecimal digits, sorted"


def picture_digest(dataset: Dataset, record: Record) -> str:
    """What a picture is known by; ImageError if its file cannot be read."""
    return hashlib.sha256(read_bytes(dataset.root / record.path)).hexdigest()[:DIGITS]


def write_pictures(version: Path, run: Run) -> None:
    """Writes ``assets.extra/pictures.json``, by part and class; not if the run's dataset is gone or was changed."""
    try:
        dataset = run.dataset()
        split = run.split(dataset)
    except DataError:
        return
    document: dict[str, object] = {"digests": _WHAT}
    for part in PARTS:
        found: dict[str, list[str]] = defaultdict(list)
        for record in split.part(part):
            found[record.label].append(picture_digest(dataset, record))
        document[part] = {label: sorted(found[label]) for label in run.classes()}
    write_text(version / PICTURES, json.dumps(document, separators=(",", ":")) + "\n")

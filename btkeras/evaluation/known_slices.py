"""Hashes of the slices that a run was trained and validated on: read from it, or made of its dataset."""

from __future__ import annotations

from btkeras.checksums import check_file, recorded_file
from btkeras.errors import DataError, RunError
from btkeras.locks import only_writer
from btkeras.runs import Run
from btkeras.splitting.known_slices import KNOWN_SUBSETS, KnownSlices


def known_slices(run: Run) -> KnownSlices | None:
    """The hashes; None if the run has none and its dataset is gone or changed. ``RunError`` if they are damaged."""
    file = run.hashes_file
    if file.is_file():
        check_file(file)
        try:
            return KnownSlices.read(file)
        except (OSError, ValueError) as error:
            raise RunError(f"{file} must be as it was written", received=error, remedy="Remove it") from error
    try:
        dataset = run.dataset()
        split = run.split(dataset)
    except DataError:
        return None
    return KnownSlices.of({name: [dataset.root / r.path for r in split.subset(name)] for name in KNOWN_SUBSETS})


@only_writer
def save_known_slices(run: Run) -> KnownSlices | None:
    """As ``known_slices``; what was made is kept in the run."""
    found = known_slices(run)
    if found and not run.hashes_file.is_file():
        with recorded_file(run.hashes_file) as temporary:
            found.write(temporary)
    return found

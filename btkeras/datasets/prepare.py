"""Any collection of brain MRI slices to a dataset folder: images, masks and ``manifest.csv``."""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from tqdm import tqdm

from btkeras.datasets.convert import convert_all
from btkeras.datasets.convert_medical import MIDDLE_THIRD, SliceChoice
from btkeras.datasets.dataset import Record, write_manifest
from btkeras.datasets.layout import PreparedImage, SourceImage, plan_dataset
from btkeras.datasets.readers import MissingExtraError
from btkeras.errors import DataError
from btkeras.files import atomic_folder

BROKEN = "broken.csv"

_NAMED = 20
# Characters, of up to four bytes each; file systems allow 255 bytes.
_LONGEST_NAME = 60
# Characters that some file system, shell or CSV reader stumbles over.
_UNWISE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_T = TypeVar("_T")


class Progress(Protocol):
    """Wraps an iterable to show how far it is, given its length."""

    def __call__(self, items: Iterable[_T], total: int, /) -> Iterable[_T]: ...


@dataclass(frozen=True)
class Broken:
    """An image that was left out.

    Attributes:
        path: Where it lies.
        reason: The whole message.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class PrepareReport:
    """What ``prepare`` did.

    Attributes:
        out: The new dataset's folder.
        classes: Number of images per class.
        sources: Number of images per source.
        patients: Number of different patients.
        without_patient: Number of images whose patient is not known.
        repeated: Number of images whose bytes occur earlier in the dataset.
        ignored: Number of files of other kinds among the sources, by their ending.
        broken: The images left out.
    """

    out: Path
    classes: Mapping[str, int]
    sources: Mapping[str, int]
    patients: int
    without_patient: int
    repeated: int
    ignored: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[Broken, ...] = ()

    def summary(self) -> str:
        """Several lines for the terminal, the last one the command to type next."""
        out = shlex.quote(str(self.out))
        lines = [f"{self.out}: {sum(self.classes.values())} images"]
        lines += [f"  {label:<12}{count:>6}" for label, count in self.classes.items()]
        lines += [f"Sources: {', '.join(f'{name} ({count})' for name, count in self.sources.items())}"]
        lines += [f"Patients: {self.patients}; images without a known patient: {self.without_patient}"]
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(self.ignored.items()))
        notes = (
            (self.repeated, f"Copies of other images: {self.repeated}; to see them: btkeras audit {out}"),
            (self.broken, f"Broken and left out: {len(self.broken)}, listed in {self.out / BROKEN}"),
            (others, f"Other files, passed over: {others}"),
            (len(self.classes) == 1, "There is only one class; training needs two, so add a source"),
        )
        lines += [text for holds, text in notes if holds]
        return "\n".join([*lines, f"Next: btkeras train --data {out} --out runs/first"])


def prepare(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    skip_broken: bool = False,
    harmonize: int = 0,
    slices: str = MIDDLE_THIRD,
    progress: Progress | None = None,
) -> PrepareReport:
    """Joins sources into one dataset folder, which appears whole or not at all.

    A source is a FigShare ``.mat`` file, class folders of images, DICOM files or NIfTI volumes, the same within
    ``Training`` and ``Testing``, or a folder, zip, or zip in a zip, of these; or the folder of a dataset with
    ``manifest.csv``.

    PNG and JPEG files that are upright 8-bit grey or RGB keep their bytes; everything else becomes PNG. The manifest
    gets the columns ``original`` (path in the source), ``sha256`` and ``bytes`` (of the stored image), and where
    they are known ``mask``, ``box`` ("x_center y_center width height", fractions), ``subset`` (train, test,
    validation) and ``official_fold`` (the FigShare authors' fold, 1 to 5).

    DICOM frames and slices of volumes become PNG as ``predict`` shows them. Of DICOM nothing in clear text is kept:
    ``patient`` and ``series`` are pseudonyms, of which file names are made too, and ``original`` is left out. A volume
    with ``NAME_seg.nii.gz`` beside it gives its tumour's slices with masks and boxes.

    With ``harmonize`` every image becomes a grey PNG of the head alone, on one scale of intensity, stretched to a
    square (``btkeras.preprocessing.harmonize``); masks and boxes follow, and the column ``harmonized`` says the side.

    Args:
        sources: Folders and files.
        out: The new dataset; must not exist.
        skip_broken: Leave broken images out and list them in ``broken.csv``, instead of failing.
        harmonize: Side of the squares, pixels; 0 keeps the images as they are.
        slices: Which slices of volumes become images: ``middle-third``, ``all`` or ``every-N``; where a mask lies
            beside a volume, all or every N-th of those that show the tumour.
        progress: Wraps the images, given their number; None shows a bar on standard error.

    Raises:
        ConfigError: If ``slices`` is something else.
        DataError: If ``out`` exists, a source is not valid, an image is broken (unless ``skip_broken``), or no
            image is left.
        OSError: If the dataset cannot be written, for example because the disk is full.
    """
    paths, target = [Path(source) for source in sources], Path(out)
    _check_target(target, paths)
    show: Progress = progress or _bar
    choice = SliceChoice(slices)
    with ExitStack() as stack, warnings.catch_warnings():
        # Pillow warns of odd metadata and large images without naming the file; what it cannot read is an error.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        planned = plan_dataset(paths, stack)
        with atomic_folder(target) as folder:
            writer = _Writer(folder)
            broken = []
            for job, found in show(convert_all(planned.jobs, harmonize, choice), len(planned.jobs)):
                if isinstance(found, MissingExtraError):
                    raise found
                if isinstance(found, DataError):
                    broken.append(Broken(job.entry.name, str(found)))
                    continue
                for stored in found:
                    writer.add(job, stored)
            if broken and not (skip_broken and writer.records):
                raise _broken_error(broken, len(planned.jobs))
            writer.finish(broken)
    return _report(target, writer.records, planned.ignored, broken)


def _bar(items: Iterable[_T], total: int) -> Iterable[_T]:
    return tqdm(items, total=total, unit=" images", disable=None)


def _check_target(out: Path, sources: Sequence[Path]) -> None:
    if os.path.lexists(out):
        raise DataError(
            "A new dataset needs a new folder", received=f"{out}, which exists", remedy="Remove it or name another"
        )
    for source in sources:
        if out.resolve().is_relative_to(source.resolve()):
            raise DataError(
                "A new dataset must not lie in one of its sources",
                received=f"{out} in {source}",
                remedy="Name a folder beside it",
            )


def _broken_error(broken: Sequence[Broken], total: int) -> DataError:
    lines = [f"\n  {item.reason}" for item in broken[:_NAMED]]
    more = f"\n  and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    return DataError(
        "Every image must be readable",
        received=f"{len(broken)} broken of {total}:{''.join(lines)}{more}\nNothing was written",
        remedy="Repair or remove them" + (", or use --skip-broken" if len(broken) < total else ""),
    )


class _Writer:
    """Writes images below a dataset's folder, in the order in which they are added."""

    def __init__(self, root: Path) -> None:
        self.records: list[Record] = []
        self._root = root
        self._names: set[tuple[str, str]] = set()
        self._repeats: Counter[tuple[str, str]] = Counter()

    def add(self, job: SourceImage, stored: PreparedImage) -> None:
        """Writes one image and its mask under a name that no other one of its class has."""
        name = self._name(stored.label, stored.name or job.entry.stem)
        path = f"images/{stored.label}/{name}{stored.suffix}"
        self._write(path, stored.data)
        extra = {**stored.extra, "sha256": hashlib.sha256(stored.data).hexdigest(), "bytes": str(len(stored.data))}
        if stored.mask is not None:
            extra["mask"] = f"masks/{stored.label}/{name}.png"
            self._write(extra["mask"], stored.mask)
        self.records.append(Record(path, stored.label, stored.patient, job.source, extra))

    def finish(self, broken: Sequence[Broken]) -> None:
        """Writes the manifest, and the list of what is broken."""
        write_manifest(self._root, self.records)
        if broken:
            with (self._root / BROKEN).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(["path", "reason"])
                writer.writerows([item.path, item.reason] for item in broken)

    def _write(self, path: str, data: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _name(self, label: str, stem: str) -> str:
        # Numbers as in FigShare get four digits, so that sorting by name keeps a patient's slices together.
        stem = stem.zfill(4) if stem.isascii() and stem.isdecimal() else stem
        name = stem = _UNWISE.sub("_", stem)[:_LONGEST_NAME].strip(" .") or "image"
        # Compared without case, because some file systems do not tell a.png from A.png.
        while (label, name.casefold()) in self._names:
            self._repeats[label, stem.casefold()] += 1
            name = f"{stem}-{self._repeats[label, stem.casefold()] + 1}"
        self._names.add((label, name.casefold()))
        return name


def _report(
    out: Path, records: Sequence[Record], ignored: Mapping[str, int], broken: Sequence[Broken]
) -> PrepareReport:
    classes = Counter(record.label for record in records)
    return PrepareReport(
        out=out,
        classes=dict(sorted(classes.items())),
        sources=dict(sorted(Counter(record.source for record in records).items())),
        patients=len({record.patient for record in records if record.patient}),
        without_patient=sum(not record.patient for record in records),
        repeated=len(records) - len({record.extra["sha256"] for record in records}),
        ignored=dict(ignored),
        broken=tuple(broken),
    )

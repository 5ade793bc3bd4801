"""Any collection of brain MRI slices to a dataset folder: images, masks and ``manifest.csv``."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from btkeras.datasets.choice import ANY, SequenceChoice, check_series, is_dicom_image, why_not_chosen
from btkeras.datasets.classes import check_classes, class_name
from btkeras.datasets.collections import known_collections
from btkeras.datasets.convert import PreparedImage, convert_all
from btkeras.datasets.dataset import Record, write_manifest
from btkeras.datasets.layout import find_images
from btkeras.datasets.left_out import LEFT_OUT, left_out_lines, write_left_out
from btkeras.datasets.patients import PUBLISHED_PATIENT, load_patients
from btkeras.datasets.readers import DICOM_SUFFIXES
from btkeras.datasets.readers.selection import LeftOut, left_out_text
from btkeras.datasets.source_image import SourceImage
from btkeras.datasets.volume_slices import MIDDLE_THIRD, volume_slices
from btkeras.errors import DataError
from btkeras.files import atomic_folder, write_csv

# Where the images of published collections are from, and under which licence.
COLLECTIONS_FILE = "collections.csv"

# Broken images that an error lists.
_LISTED = 20
# Characters, of up to four bytes each; file systems allow 255 bytes.
_LONGEST_NAME = 60
# Characters that some file system, shell or CSV reader stumbles over.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')


@dataclass(frozen=True)
class PrepareReport:
    """What ``prepare`` did: the new dataset's folder, and numbers of images.

    ``patients`` is the number of different patients, ``ids`` that of their published ids; ``duplicates`` are images
    whose bytes occur earlier, ``subsets`` those of a published split; ``left_out`` are files that are no images or were
    not chosen, and ``broken`` those that cannot be used, each with the reason.
    """

    out: Path
    classes: Mapping[str, int]
    sources: Mapping[str, int]
    patients: int
    ids: int
    without_patient: int
    duplicates: int
    subsets: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    broken: tuple[LeftOut, ...]

    def summary(self) -> str:
        """Several lines for the terminal, the last one the command to type next."""
        out = shlex.quote(str(self.out))
        lines = [f"{self.out}: {sum(self.classes.values())} images"]
        width = max(12, *(len(label) + 1 for label in self.classes))
        lines += [f"  {label:<{width}}{count:>6}" for label, count in self.classes.items()]
        lines += [f"Sources: {', '.join(f'{name} ({count})' for name, count in self.sources.items())}"]
        lines += [f"  {collection}" for collection in known_collections(self.sources)]
        ids = f" of {self.ids} ids" * (self.ids > self.patients)
        lines += [f"Patients: {self.patients}{ids}; images without a known patient: {self.without_patient}"]
        subsets = ", ".join(f"{name} ({count})" for name, count in self.subsets.items())
        notes = (
            (self.duplicates, f"Duplicates of other images: {self.duplicates}; to see them: btkeras audit {out}"),
            (self.broken, f"Broken and left out: {len(self.broken)}, listed in {self.out / LEFT_OUT}"),
            *((True, line) for line in left_out_lines(self.left_out, self.out)),
            (len(self.subsets) > 1, f"Published split: {subsets}; to test it: --group-by official"),
            (len(self.classes) == 1, "There is only one class; training needs two, so add a source"),
        )
        lines += [text for holds, text in notes if holds]
        return "\n".join([*lines, f"Next: btkeras train --data {out} --out runs/first"])


def prepare(  # noqa: PLR0913
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    skip_broken: bool = False,
    harmonize: int = 0,
    slices: str = MIDDLE_THIRD,
    planes: Sequence[str] = (),
    choice: SequenceChoice = ANY,
    patients: str | Path | None = None,
    classes: Collection[str] = (),
    mri_check: bool = True,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> PrepareReport:
    """Joins sources into one dataset folder, which appears whole or not at all.

    A source is a FigShare ``.mat`` file, class folders of images, DICOM files or NIfTI volumes, also below ``Training``
    and ``Testing``, or a folder, zip, or zip in a zip, of these; or the folder of a dataset with ``manifest.csv``.

    Upright 8-bit PNG and JPEG files keep their bytes; all else becomes PNG. The manifest gets the columns ``original``
    (path in the source), ``sha256`` and ``bytes`` (of the stored image), and where they are known ``mask``, ``box``
    ("x_center y_center width height", fractions), ``subset`` and ``official_fold`` (the FigShare authors', 1 to 5). Of
    DICOM nothing in clear text is stored: ``patient`` and ``series`` are pseudonyms, of which file names are made.
    Names of scans (``btkeras.datasets.naming``) give ``patient``, ``session``, ``sequence`` and ``channel``.
    Published collections (``btkeras.datasets.collections``) are known by their files' names, which also give
    ``source``, ``subset``, ``plane`` and ``sequence``; their reference and licence are in ``collections.csv``.

    Args:
        sources: Folders and files.
        out: The new dataset; must not exist.
        skip_broken: Leave broken images out and list them in ``left_out.csv``, instead of failing.
        harmonize: Side, in pixels, of the grey squares to which images are made, with their masks and boxes
            (``btkeras.preprocessing.harmonize``; column ``harmonized``). 0 leaves the images as they are.
        slices: Which slices of volumes become images: ``middle-third``, ``middle-two-thirds``, ``all`` or
            ``every-N``; where a volume has a mask, all or every N-th of those that show the tumour.
        planes: Of NIfTI volumes: ``axial``, ``coronal``, ``sagittal`` (column ``plane``, and in the images' names);
            without any, the one that was scanned where voxels are more than twice as long across it, else axial.
        choice: Which of several sequences of a case, or of several volumes of a file, becomes images.
        patients: A table of patients (``btkeras.datasets.patients.read_patients``) for all sources; paths in it are
            relative to their source. ``patients.csv`` in a source is read for the images below its folder.
        classes: Names of class folders that are none of the usual ones (``btkeras.datasets.classes``).
        mri_check: Whether images are broken that plainly show no brain MRI slice (``btkeras.preprocessing.mri_check``);
            slices of a volume, of a file of several or of a DICOM series are left out, unless it is all of a file's.
        progress: Wraps the images, given their number; None shows a bar on standard error.

    Raises:
        ConfigError: If ``slices`` or ``planes`` are something else.
        DataError: If ``out`` exists, a source is not valid, an image is broken (unless ``skip_broken``), or no
            image is left.
    """
    paths, target = [Path(source) for source in sources], Path(out)
    progress = progress or (lambda images, total: tqdm(images, total=total, unit=" images", disable=None))
    wanted = volume_slices(slices, planes)
    choice.check()
    own = frozenset(class_name(name, " of --classes") for name in classes)
    _check_target(target, paths)
    table = load_patients(patients) if patients else None
    with ExitStack() as stack, warnings.catch_warnings():
        # Pillow warns of odd metadata and large images without naming the file; what it cannot read is an error.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        items, left_out, found = find_images(paths, stack, choice, table, own)
        with atomic_folder(target) as folder:
            writer = _Writer(folder, left_out, choice.name)
            for item, images in progress(convert_all(items, harmonize, wanted, mri_check), len(items)):
                writer.add(item, images)
            if writer.broken and not (skip_broken and writer.records):
                raise _broken_error(writer.broken, len(items))
            writer.check(found)
            writer.finish()
    return writer.report(target)


def _check_target(out: Path, sources: Sequence[Path]) -> None:
    if os.path.lexists(out):
        rule, remedy = "A new dataset needs a new folder", "Remove it or name another"
        raise DataError(rule, received=f"{out}, which exists", remedy=remedy)
    if inside := [source for source in sources if out.resolve().is_relative_to(source.resolve())]:
        rule, remedy = "A new dataset must not lie in one of its sources", "Name a folder beside it"
        raise DataError(rule, received=f"{out} in {inside[0]}", remedy=remedy)


def _broken_error(broken: Sequence[LeftOut], total: int) -> DataError:
    lines = [f"\n  {item.kind}" for item in broken[:_LISTED]]
    more = f"\n  and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
    return DataError(
        "Every image must be readable",
        received=f"{len(broken)} broken of {total}:{''.join(lines)}{more}\nNothing was written",
        remedy="Repair or remove them" + (", or use --skip-broken" if len(broken) < total else ""),
    )


class _Writer:
    """Writes images below a dataset's folder, in the order in which they are added."""

    def __init__(self, root: Path, left_out: Iterable[LeftOut], sequence: str) -> None:
        self.records: list[Record] = []
        self.broken: list[LeftOut] = []
        self._left_out = list(left_out)
        self._sequence = sequence
        self._private = False
        self._root = root
        self._names: set[tuple[str, str]] = set()
        self._repeats: Counter[tuple[str, str]] = Counter()

    def add(self, item: SourceImage, images: Sequence[PreparedImage] | DataError) -> None:
        if isinstance(images, DataError):
            self.broken.append(LeftOut(item.file.name, str(images)))
            self._private = self._private or item.file.suffix in DICOM_SUFFIXES
            return
        if not images:
            self._left_out.append(LeftOut(item.file.name, "with a mask that shows no tumour"))
            return
        dicom = any(is_dicom_image(image.extra) for image in images)
        self._private = self._private or dicom
        if dicom and (why := why_not_chosen(images[0].extra, self._sequence)):
            self._left_out.append(LeftOut(item.file.name, why))
            return
        for image in images:
            if image.rejection:
                slice_of = f"#{image.extra['slice']}" if "slice" in image.extra else ""
                self._left_out.append(LeftOut(item.file.name + slice_of, f"no slice of a head ({image.rejection})"))
            else:
                self._add(item.source, image)

    def check(self, classes: Collection[str]) -> None:
        """Raises DataError if none of a class is left, classes exclude each other, or the DICOM series of a patient are
        of several sequences.
        """
        lost = sorted(set(classes) - {record.label for record in self.records})
        if lost or not self.records:
            files = left_out_text(self._left_out) if self._left_out else f"{len(self.broken)} are broken"
            raise DataError(
                "Each class of the sources must keep an image",
                received=f"none of {', '.join(lost) or 'any'}; {files}",
                remedy="Choose another sequence, or give the sources without these classes",
            )
        check_classes({record.label for record in self.records}, "the sources")
        check_series(self.records)

    def finish(self) -> None:
        write_manifest(self._root, self.records)
        if collections := known_collections(sorted({record.source for record in self.records})):
            columns = ("name", "title", "reference", "license")
            rows = ([getattr(collection, column) for column in columns] for collection in collections)
            write_csv(self._root / COLLECTIONS_FILE, columns, rows)
        write_left_out(self._root, [*self.broken, *self._left_out], private=self._private)

    def report(self, out: Path) -> PrepareReport:
        counts = [Counter(getattr(record, key) for record in self.records) for key in ("label", "source")]
        classes, sources = (dict(sorted(counter.items())) for counter in counts)
        patients = [record.patient for record in self.records]
        duplicates = len(patients) - len({record.extra["sha256"] for record in self.records})
        known, unknown = len({*patients} - {""}), patients.count("")
        ids = len({record.extra.get(PUBLISHED_PATIENT) or record.patient for record in self.records} - {""})
        left_out = tuple(self._left_out), tuple(self.broken)
        counter = Counter(value for record in self.records if (value := record.extra.get("subset", "")))
        subsets = dict(sorted(counter.items()))
        return PrepareReport(out, classes, sources, known, ids, unknown, duplicates, subsets, *left_out)

    def _add(self, source: str, image: PreparedImage) -> None:
        name = self._name(image.label, image.name)
        path = f"images/{image.label}/{name}{image.suffix}"
        self._write(path, image.data)
        extra = {**image.extra, "sha256": hashlib.sha256(image.data).hexdigest(), "bytes": str(len(image.data))}
        if image.mask is not None:
            extra["mask"] = f"masks/{image.label}/{name}.png"
            self._write(extra["mask"], image.mask)
        self.records.append(Record(path, image.label, image.patient, source, extra))

    def _write(self, path: str, data: bytes) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def _name(self, label: str, stem: str) -> str:
        """A file name that no other image of the class has."""
        # FigShare's numbers get four digits, so that a patient's slices stay together when sorted by name.
        stem = stem.zfill(4) if stem.isascii() and stem.isdecimal() else stem
        name = stem = _UNSAFE.sub("_", stem)[:_LONGEST_NAME].strip(" .") or "image"
        # Compared without case, because some file systems do not tell a.png from A.png.
        while (label, name.casefold()) in self._names:
            self._repeats[label, stem.casefold()] += 1
            name = f"{stem}-{self._repeats[label, stem.casefold()] + 1}"
        self._names.add((label, name.casefold()))
        return name

"""The built-in synthetic dataset: patients with a scan and at most one tumour each, as a dataset folder.

Everything but the tumour has the same distribution in every class, and all slices lie where a pituitary tumour could
be seen: otherwise brightness or level would tell the class. A patient's slices share head, scan and tumour, so a split
by image leaks as with real data.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from btkeras.config import PhantomConfig
from btkeras.datasets.classes import CLASSES
from btkeras.datasets.dataset import MANIFEST, Dataset, Record, load_dataset, write_manifest
from btkeras.datasets.phantom.head import Array, CrossSection, Head, vector, waves
from btkeras.errors import DataError
from btkeras.files import atomic_folder, digest

PHANTOM_VERSION = 1  # raised with every change of what is drawn, so that no cache holds the old images

Mask = NDArray[np.bool_]
Point = tuple[float, float, float]
Range = tuple[float, float]

DIFFICULTIES = (0.0, 1.0, 2.0)  # between them by interpolation
NOISE = (0.005, 0.018, 0.07)  # standard deviation, on the scale of ``TISSUES``
VISIBILITY = (1.0, 0.9, 0.4)  # opacity of tumours
CORE_SIGNAL, OEDEMA_SIGNAL = 0.12, 0.24
DURAL_TAIL = 1.5  # half of its thickness
SELLA: Point = (0.0, 5.0, -30.0)
SELLA_CLEARANCE = 16.0  # between the sella and the surface of other tumours


class Finding(NamedTuple):
    """A kind of tumour; lengths in mm."""

    radius: Range
    depth: Range | None  # of its centre below the dura, in radii; None for a tumour of the sella
    signal: Range  # of what takes up contrast agent
    irregularity: float  # largest indentation of its surface, as a fraction of the radius
    unevenness: float  # standard deviation of its signal, as a fraction
    margin: float = 0.0  # between it and the dura
    rim: float = 0.0  # thickness of the wall around a necrotic core; 0 for a solid tumour
    oedema: float = 0.0  # radius of the oedema, in radii
    tail: float = 0.0  # reach of the enhancing dura beside it, in radii


# Large for their kinds, so that they are still 7 to 14 pixels wide in an image of 64.
FINDINGS = {
    "glioma": Finding((20, 28), (0.9, 9), (0.97, 1.12), 0.25, 0.10, margin=4.0, rim=7.5, oedema=1.6),
    "meningioma": Finding((19, 26), (0.35, 0.65), (0.97, 1.12), 0.10, 0.02, tail=1.5),
    "pituitary": Finding((15, 21), None, (0.92, 1.07), 0.12, 0.05),
}
# In mm: directions of growing columns, rows and levels, the image's middle at level 0, the range of the middle slice's
# level, and the range of the distance from there to the outermost slice.
VIEWS: dict[str, tuple[Point, Point, Point, Point, Range, Range]] = {
    "axial": ((-1, 0, 0), (0, -1, 0), (0, 0, 1), (0, -14, 0), (-27, -11), (3, 7)),
    "coronal": ((-1, 0, 0), (0, 0, -1), (0, 1, 0), (0, 0, -16), (-3, 13), (3, 7)),
    "sagittal": ((0, -1, 0), (0, 0, -1), (1, 0, 0), (0, -6, -22), (-6, 6), (3, 6)),
}


class PhantomSlice(NamedTuple):
    """One synthetic slice."""

    image: NDArray[np.uint8]  # [size, size], grey levels
    mask: Mask  # [size, size], the tumour; empty without one
    brain: Mask  # [size, size], everything inside the dura
    label: str  # one of ``btkeras.datasets.CLASSES``
    view: str  # a name in ``VIEWS``
    patient: str  # such as ``phantom-0007``


def write_phantom(config: PhantomConfig, folder: Path) -> Dataset:
    """Draws all patients into a new folder, which appears whole or not at all.

    It holds ``images/<label>/<patient>_<slice>.png`` (8-bit grey), ``masks/...`` of the same names (0 or 255, only for
    slices with a tumour) and ``manifest.csv``, with the further columns ``view``, ``mask`` (the mask's path or "") and
    ``box`` (``x_center y_center width height`` of the tumour as fractions of the image, or "").

    Raises:
        DataError: If ``folder`` exists.
        OSError: If it cannot be written.
    """
    if folder.exists():
        raise DataError("The synthetic dataset needs a new folder", received=folder, remedy="Remove it or name another")
    with atomic_folder(folder) as temporary:
        records = [
            _write_slice(temporary, drawn, number)
            for patient in range(config.patients)
            for number, drawn in enumerate(draw_patient(config, patient))
        ]
        write_manifest(temporary, records)
    return load_dataset(folder)


def cached_phantom(config: PhantomConfig, cache: Path) -> Dataset:
    """Returns the synthetic dataset from a folder ``phantom-<digest>`` of the cache, drawing it if it is not there.

    Of processes that draw the same one at the same time, the first to finish is kept.

    Raises:
        DataError: If the dataset cannot be written.
    """
    settings = asdict(config) | {"difficulty": float(config.difficulty), "version": PHANTOM_VERSION}
    folder = cache / f"phantom-{digest([json.dumps(settings, sort_keys=True)])[:12]}"
    try:
        return load_dataset(folder) if (folder / MANIFEST).is_file() else write_phantom(config, folder)
    except (OSError, DataError) as error:
        # Another process may have been faster.
        if (folder / MANIFEST).is_file():
            return load_dataset(folder)
        raise DataError(
            "The synthetic dataset must be writable in the cache",
            received=f"{folder} ({getattr(error, 'strerror', None) or error})",
            remedy="Make room there, or let BTKERAS_CACHE name another folder",
        ) from error


def draw_patient(config: PhantomConfig, patient: int) -> list[PhantomSlice]:
    """Draws all ``config.slices`` slices of one patient, in order: one head, one view, at most one tumour.

    They depend on the patient's number but not on how many patients there are. The same configuration gives the same
    bytes; on another kind of processor a few pixels in a million may differ by one grey level.

    Args:
        config: Size, number of slices, seed and difficulty.
        patient: Number of the patient, from 0; its remainder by 4 is the class.

    Raises:
        DataError: If there is no such patient.
    """
    if not 0 <= patient < config.patients:
        raise DataError(f"A patient's number must be between 0 and {config.patients - 1}", received=patient)
    label, view = CLASSES[patient % len(CLASSES)], tuple(VIEWS)[patient // len(CLASSES) % len(VIEWS)]
    anatomy, tumor, noise = np.random.default_rng([config.seed, patient]).spawn(3)
    head, scan = Head(anatomy), _Scan(anatomy, view, config)
    sections = [CrossSection(head, plane, scan.pixel) for plane in scan.planes]
    masks = [np.zeros(section.image.shape, bool) for section in sections]
    if label in FINDINGS:
        lesion = _Lesion(tumor, FINDINGS[label], sections)
        visibility = float(np.interp(config.difficulty, DIFFICULTIES, VISIBILITY))
        masks = [lesion.paint(section, visibility) for section in sections]
    name = f"phantom-{patient:04d}"
    return [
        PhantomSlice(scan.acquire(section.image, plane, noise), mask, section.depth > 0, label, view, name)
        for section, plane, mask in zip(sections, scan.planes, masks, strict=True)
    ]


class _Scan:
    """How one patient is scanned: ``pixel`` in mm, and each slice's ``planes``, float32 ``[3, h, w]`` in scanner mm."""

    def __init__(self, rng: np.random.Generator, view: str, config: PhantomConfig) -> None:
        *axes, levels, spans = VIEWS[view]
        side, size = rng.uniform(225, 265), config.image_size
        shift, level, span = rng.normal(0, 5, 2), rng.uniform(*levels), rng.uniform(*spans)
        self._gain, self._gamma = rng.uniform(0.5, 0.85), rng.uniform(0.85, 1.15)
        self._noise = float(rng.uniform(0.5, 1.5) * np.interp(config.difficulty, DIFFICULTIES, NOISE))
        self._bias, self._inhomogeneity = waves(rng, 260, 6), rng.uniform(0.05, 0.15)
        self.pixel = side / size
        grid = (np.arange(size) - (size - 1) / 2) * side / size
        columns, rows = np.meshgrid(grid + shift[0], grid + shift[1])
        across, down, through, center = np.array(axes, float)[..., None, None]
        offsets = np.linspace(-span, span, config.slices) if config.slices > 1 else np.zeros(1)
        flat = center + across * columns + down * rows
        self.planes = [(flat + through * (level + offset)).astype(np.float32) for offset in offsets]

    def acquire(self, signal: Array, plane: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The image (uint8 ``[h, w]``) of a signal (float32 ``[h, w]``), with bias field and Rician noise."""
        lit = np.clip(signal, 0, None) * np.exp(self._inhomogeneity * self._bias(plane))
        real, imaginary = rng.normal(0, self._noise, (2, *signal.shape))
        magnitude = np.hypot(lit**self._gamma + real, imaginary)
        return np.clip(np.rint(255 * self._gain * magnitude), 0, 255).astype(np.uint8)


class _Lesion:
    """One tumour, drawn so that every one of a patient's parallel slices cuts it."""

    def __init__(self, rng: np.random.Generator, finding: Finding, sections: list[CrossSection]) -> None:
        radius = rng.uniform(*finding.radius)
        center = _center(rng, finding.depth, radius, sections)
        radii = radius * rng.uniform(0.85, 1.15, 3)
        # Wide enough along the slices' normal that the outer slices cut it too.
        across, down = (np.diff(sections[0].points, axis=axis).mean((1, 2)) for axis in (2, 1))
        nearest = max(_level(section, center, radii).min() for section in sections)
        radii[np.abs(np.cross(across, down)).argmax()] *= max(1.0, nearest / 0.7)
        self._finding, self._center, self._radii = finding, center.astype(np.float32), radii.astype(np.float32)
        self._signal = rng.uniform(*finding.signal)
        self._surface, self._interior = waves(rng, 1.1 * radius), waves(rng, 0.9 * radius)

    def paint(self, section: CrossSection, visibility: float) -> Mask:
        """Paints the tumour into a slice, opaque by ``visibility``; its mask is wall and core."""
        finding, radius = self._finding, float(self._radii.mean())
        level, interior = _level(section, self._center, self._radii), self._interior(section.points)
        surface = 1 - finding.irregularity * (0.5 + 0.5 * np.tanh(self._surface(section.points)))
        distance = _confined((level - surface) * radius, finding, section)
        if finding.oedema:
            extent = (level - finding.oedema * (surface + 0.12 * interior)) * radius
            section.paint(extent, OEDEMA_SIGNAL, softness=4, opacity=visibility * section.white)
        if finding.tail:
            tail = np.maximum((level - finding.tail) * radius, np.abs(section.depth) - DURAL_TAIL)
            section.paint(tail, self._signal, opacity=visibility)
        section.paint(distance, self._signal * (1 + finding.unevenness * interior), opacity=visibility)
        if finding.rim:
            section.paint(distance + finding.rim * (1 + 0.3 * interior), CORE_SIGNAL, opacity=visibility)
        return distance < 0


def _center(rng: np.random.Generator, depth: Range | None, radius: float, sections: list[CrossSection]) -> Array:
    """In the sella, half-way towards the middle slice; or in that slice, where the depth fits best in all slices."""
    points = sections[len(sections) // 2].points
    if depth is None:
        center = np.add(SELLA, [*rng.normal(0, 1.5, 2), 0.5 * radius])
        nearest = np.linalg.norm(points - center[:, None, None], axis=0).argmin()
        return (center + points.reshape(3, -1)[:, nearest]) / 2
    in_plane = [section.pixel * ndimage.distance_transform_edt(section.depth > 0) for section in sections]
    misfits = [
        np.max(in_plane, axis=0) - depth[1] * radius,
        depth[0] * radius - np.min(in_plane, axis=0),
        radius + SELLA_CLEARANCE - np.linalg.norm(points - vector(SELLA), axis=0),
        min(depth[0], 0.5) * radius - np.min([section.depth for section in sections], axis=0),
    ]
    misfit = np.max(misfits, axis=0)
    best = np.argwhere(misfit <= max(0.0, misfit.min() + 0.5))
    row, column = best[rng.integers(len(best))]
    return points[:, row, column]


def _level(section: CrossSection, center: Array, radii: Array) -> Array:
    """0 at the centre and 1 on the ellipsoid, growing linearly outwards; float32 ``[h, w]``."""
    return np.linalg.norm((section.points - center[:, None, None]) / radii[:, None, None], axis=0).astype(np.float32)


def _confined(distance: Array, finding: Finding, section: CrossSection) -> Array:
    """Keeps a tumour of the brain inside the dura, and any tumour in one piece: not on the falx's other side too."""
    if finding.depth:
        distance = np.maximum(distance, finding.margin - section.depth)
    regions, count = ndimage.label(distance < 0)
    if count < 2:
        return distance
    largest = 1 + np.bincount(regions.ravel())[1:].argmax()
    return np.where((regions == 0) | (regions == largest), distance, np.float32(section.pixel))


def _write_slice(root: Path, drawn: PhantomSlice, number: int) -> Record:
    name = f"{drawn.label}/{drawn.patient}_{number:03d}.png"
    files = {"images": drawn.image} | ({"masks": drawn.mask * np.uint8(255)} if drawn.mask.any() else {})
    for kind, pixels in files.items():
        path = root / kind / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    mask, box = (f"masks/{name}", _box(drawn.mask)) if "masks" in files else ("", "")
    extra = {"view": drawn.view, "mask": mask, "box": box}
    return Record(f"images/{name}", drawn.label, drawn.patient, "phantom", extra)


def _box(mask: Mask) -> str:
    """The smallest box around a mask that is not empty: centre and size as fractions of the image."""
    low, high = (end(np.argwhere(mask), axis=0) for end in (np.min, np.max))
    (top, left), (bottom, right) = low / mask.shape, (high + 1) / mask.shape
    return f"{(left + right) / 2:.4f} {(top + bottom) / 2:.4f} {right - left:.4f} {bottom - top:.4f}"

"""One synthetic patient: scan parameters, tumour and slices.

Everything but the tumour has the same distribution in every class, and all slices lie where a pituitary tumour could
be seen: otherwise brightness or level would tell the class. A patient's slices share head, scan and tumour, so a split
by image leaks as with real data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import CLASSES
from btkeras.datasets.phantom.head import Array, CrossSection, Head, Point, Waves, vector
from btkeras.errors import DataError

Mask = NDArray[np.bool_]
Range = tuple[float, float]

# At difficulty 0, 1 and 2; between them by interpolation.
DIFFICULTIES = (0.0, 1.0, 2.0)
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


class View(NamedTuple):
    """Directions of growing columns, rows and levels, the image's middle at level 0, and ranges of levels, in mm."""

    across: Point
    down: Point
    through: Point
    center: Point
    levels: Range  # of the middle slice
    spans: Range  # from the middle slice to the outermost


VIEWS = {
    "axial": View((-1, 0, 0), (0, -1, 0), (0, 0, 1), (0, -14, 0), (-27, -11), (3, 7)),
    "coronal": View((-1, 0, 0), (0, 0, -1), (0, 1, 0), (0, 0, -16), (-3, 13), (3, 7)),
    "sagittal": View((0, -1, 0), (0, 0, -1), (1, 0, 0), (0, -6, -22), (-6, 6), (3, 6)),
}


class PhantomSlice(NamedTuple):
    """One synthetic slice."""

    image: NDArray[np.uint8]  # [size, size], grey levels
    mask: Mask  # [size, size], the tumour; empty without one
    brain: Mask  # [size, size], everything inside the dura
    label: str  # one of ``btkeras.datasets.CLASSES``
    view: str  # a name in ``VIEWS``
    patient: str  # such as ``phantom-0007``


class Scan:
    """How one patient is scanned in ``view``; ``field_of_view`` is the image's side in mm."""

    def __init__(self, rng: np.random.Generator, view: View, difficulty: float) -> None:
        self._view = view
        self.field_of_view = float(rng.uniform(225, 265))
        self._shift = float(rng.normal(0, 5)), float(rng.normal(0, 5))
        self._level = float(rng.uniform(*view.levels))
        self._span = float(rng.uniform(*view.spans))
        self._gain = float(rng.uniform(0.5, 0.85))
        self._gamma = float(rng.uniform(0.85, 1.15))
        self._noise = float(rng.uniform(0.5, 1.5) * np.interp(difficulty, DIFFICULTIES, NOISE))
        self._bias = Waves(rng, 260, 6)
        self._inhomogeneity = float(rng.uniform(0.05, 0.15))

    def planes(self, slices: int, pixels: int) -> list[Array]:
        """Returns the scanner coordinates of each slice's pixels, float32 ``[3, pixels, pixels]``."""
        grid = (np.arange(pixels) - (pixels - 1) / 2) * self.field_of_view / pixels
        columns, rows = np.meshgrid(grid + self._shift[0], grid + self._shift[1])
        offsets = np.linspace(-self._span, self._span, slices) if slices > 1 else np.zeros(1)
        across, down, through, center = (np.array(point, np.float64)[:, None, None] for point in self._view[:4])
        flat = center + across * columns + down * rows
        return [(flat + through * (self._level + offset)).astype(np.float32) for offset in offsets]

    def acquire(self, signal: Array, plane: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Returns the image (uint8 ``[h, w]``) of a signal (float32 ``[h, w]``), with bias field and Rician noise."""
        lit = np.clip(signal, 0, None) * np.exp(self._inhomogeneity * self._bias.at(plane))
        real, imaginary = rng.normal(0, self._noise, (2, *signal.shape))
        magnitude = np.hypot(lit**self._gamma + real, imaginary)
        image: NDArray[np.uint8] = np.clip(np.rint(255 * self._gain * magnitude), 0, 255).astype(np.uint8)
        return image


class Lesion:
    """One tumour, drawn so that every one of a patient's parallel slices cuts it."""

    def __init__(self, rng: np.random.Generator, finding: Finding, sections: list[CrossSection]) -> None:
        self._finding = finding
        radius = rng.uniform(*finding.radius)
        center = (
            _below_dura(rng, finding.depth, radius, sections) if finding.depth else _in_sella(rng, radius, sections)
        )
        radii = radius * rng.uniform(0.85, 1.15, 3)
        # Wide enough along the slices' normal that the outer slices cut it too.
        across, down = (np.diff(sections[0].points, axis=axis).mean((1, 2)) for axis in (2, 1))
        nearest = max(_level(section, center, radii).min() for section in sections)
        radii[np.abs(np.cross(across, down)).argmax()] *= max(1.0, nearest / 0.7)
        self._center, self._radii = center.astype(np.float32), radii.astype(np.float32)
        self._signal = float(rng.uniform(*finding.signal))
        self._surface, self._interior = Waves(rng, 1.1 * radius), Waves(rng, 0.9 * radius)

    def paint(self, section: CrossSection, visibility: float) -> Mask:
        """Paints the tumour into a slice, opaque by ``visibility``; its mask is wall and core."""
        finding, radius = self._finding, float(self._radii.mean())
        level, interior = _level(section, self._center, self._radii), self._interior.at(section.points)
        surface = 1 - finding.irregularity * (0.5 + 0.5 * np.tanh(self._surface.at(section.points)))
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


def _in_sella(rng: np.random.Generator, radius: float, sections: list[CrossSection]) -> Array:
    """Returns a point above the sella, half-way towards the middle slice."""
    points = sections[len(sections) // 2].points
    center = np.array(SELLA) + np.array([rng.normal(0, 1.5), rng.normal(0, 1.5), 0.5 * radius])
    distance = np.linalg.norm(points - center[:, None, None], axis=0)
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    halfway: Array = (center + points[:, row, column]) / 2
    return halfway


def _below_dura(rng: np.random.Generator, depth: Range, radius: float, sections: list[CrossSection]) -> Array:
    """Returns a point of the middle slice whose depth fits in the plane of every slice, or the one that fits best."""
    points = sections[len(sections) // 2].points
    in_plane = [section.pixel * ndimage.distance_transform_edt(section.depth > 0) for section in sections]
    in_space = np.min([section.depth for section in sections], axis=0)
    from_sella = np.linalg.norm(points - vector(SELLA), axis=0)
    misfit = np.maximum(np.max(in_plane, axis=0) - depth[1] * radius, depth[0] * radius - np.min(in_plane, axis=0))
    misfit = np.maximum(misfit, radius + SELLA_CLEARANCE - from_sella)
    misfit = np.maximum(misfit, min(depth[0], 0.5) * radius - in_space)
    best = np.argwhere(misfit <= max(0.0, misfit.min() + 0.5))
    row, column = best[rng.integers(len(best))]
    return points[:, row, column]


def _level(section: CrossSection, center: Array, radii: Array) -> Array:
    """Returns 0 at the centre and 1 on the ellipsoid, growing linearly outwards; float32 ``[h, w]``."""
    offsets = (section.points - center[:, None, None]) / radii[:, None, None]
    level: Array = np.sqrt(np.square(offsets).sum(axis=0)).astype(np.float32)
    return level


def _confined(distance: Array, finding: Finding, section: CrossSection) -> Array:
    """Keeps a tumour of the brain inside the dura, and any tumour in one piece: not on the falx's other side too."""
    if finding.depth is not None:
        distance = np.maximum(distance, finding.margin - section.depth)
    regions, count = ndimage.label(distance < 0)
    if count < 2:
        return distance
    largest = 1 + np.bincount(regions.ravel())[1:].argmax()
    return np.where((regions == 0) | (regions == largest), distance, np.float32(section.pixel))


def draw_patient(config: PhantomConfig, patient: int) -> list[PhantomSlice]:
    """Draws all slices of one patient, in order: one head, one view, at most one tumour.

    They depend on the patient's number but not on how many patients there are. The same configuration gives the same
    bytes; on another kind of processor a few pixels in a million may differ by one grey level.

    Args:
        config: Size, number of slices, seed and difficulty.
        patient: Number of the patient, from 0; its remainder by 4 is the class.

    Returns:
        ``config.slices`` slices.

    Raises:
        DataError: If there is no such patient.
    """
    if not 0 <= patient < config.patients:
        raise DataError(f"A patient's number must be between 0 and {config.patients - 1}", received=patient)
    label, view = CLASSES[patient % len(CLASSES)], tuple(VIEWS)[patient // len(CLASSES) % len(VIEWS)]
    anatomy, tumor, noise = np.random.default_rng([config.seed, patient]).spawn(3)
    head, scan = Head(anatomy), Scan(anatomy, VIEWS[view], config.difficulty)
    planes = scan.planes(config.slices, config.image_size)
    sections = [CrossSection(head, plane, scan.field_of_view / config.image_size) for plane in planes]
    masks = [np.zeros(section.image.shape, bool) for section in sections]
    if label in FINDINGS:
        lesion = Lesion(tumor, FINDINGS[label], sections)
        visibility = float(np.interp(config.difficulty, DIFFICULTIES, VISIBILITY))
        masks = [lesion.paint(section, visibility) for section in sections]
    return [
        PhantomSlice(
            scan.acquire(section.image, plane, noise), mask, section.depth > 0, label, view, f"phantom-{patient:04d}"
        )
        for section, plane, mask in zip(sections, planes, masks, strict=True)
    ]

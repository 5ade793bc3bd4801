"""Tumours of the synthetic heads: how each kind looks, where it grows, and how it is painted into a slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from btkeras.datasets.phantom.anatomy import SELLA, Array, Waves, vector
from btkeras.datasets.phantom.head import Section

Mask = NDArray[np.bool_]
Range = tuple[float, float]

CORE_SIGNAL = 0.12
OEDEMA_SIGNAL = 0.24
DURAL_TAIL = 1.5  # half of its thickness, mm
SELLA_CLEARANCE = 16.0  # mm between the sella and the surface of other tumours


@dataclass(frozen=True)
class Finding:
    """A kind of tumour.

    Attributes:
        radius: Smallest and largest radius in mm.
        depth: Where its centre lies below the dura, as multiples of the radius, lowest and highest; None for a
            tumour of the sella.
        signal: Lowest and highest signal of what takes up contrast agent, on the scale of ``TISSUES``.
        irregularity: Largest indentation of its surface, as a fraction of the radius.
        unevenness: Standard deviation of its signal, as a fraction.
        margin: Distance in mm that it keeps from the dura; without meaning in the sella.
        rim: Thickness of its wall around a necrotic core in mm; 0 for a solid tumour.
        oedema: Radius of the oedema as a multiple of the tumour's; 0 for none.
        tail: Reach of the enhancing dura beside it, as a multiple of the radius; 0 for none.
    """

    radius: Range
    depth: Range | None
    signal: Range
    irregularity: float
    unevenness: float
    margin: float = 0.0
    rim: float = 0.0
    oedema: float = 0.0
    tail: float = 0.0


# Large for their kinds, so that they are still 7 to 14 pixels wide in an image of 64.
FINDINGS = {
    "glioma": Finding((20, 28), (0.9, 9), (0.97, 1.12), 0.25, 0.10, margin=4.0, rim=7.5, oedema=1.6),
    "meningioma": Finding((19, 26), (0.35, 0.65), (0.97, 1.12), 0.10, 0.02, tail=1.5),
    "pituitary": Finding((15, 21), None, (0.92, 1.07), 0.12, 0.05),
}


@dataclass(frozen=True)
class Lesion:
    """One tumour, in head coordinates.

    Attributes:
        finding: Its kind.
        center: float32 ``[3]``, mm.
        radii: float32 ``[3]``, mm.
        signal: Its mean signal.
        surface: The field that indents its surface.
        interior: The field that makes its wall and signal uneven.
    """

    finding: Finding
    center: Array
    radii: Array
    signal: float
    surface: Waves
    interior: Waves

    def level(self, section: Section) -> Array:
        """Returns 0 at the centre and 1 on the ellipsoid, growing linearly outwards; float32 ``[h, w]``."""
        return _level(section, self.center, self.radii)


def grow(rng: np.random.Generator, finding: Finding, sections: list[Section]) -> Lesion:
    """Draws a tumour that every one of a patient's parallel slices cuts.

    Args:
        rng: Source of randomness.
        finding: Its kind.
        sections: The slices in order, without tumour.
    """
    radius = rng.uniform(*finding.radius)
    if finding.depth is None:
        center = _in_sella(rng, radius, sections[len(sections) // 2])
    else:
        center = _below_dura(rng, finding.depth, radius, sections)
    radii = radius * rng.uniform(0.85, 1.15, 3)
    return Lesion(
        finding=finding,
        center=center.astype(np.float32),
        radii=_reaching(sections, center, radii).astype(np.float32),
        signal=float(rng.uniform(*finding.signal)),
        surface=Waves.draw(rng, 1.1 * radius),
        interior=Waves.draw(rng, 0.9 * radius),
    )


def _in_sella(rng: np.random.Generator, radius: float, middle: Section) -> Array:
    """Returns a point above the sella, half-way towards the middle slice."""
    center = np.array(SELLA) + np.array([rng.normal(0, 1.5), rng.normal(0, 1.5), 0.5 * radius])
    distance = np.linalg.norm(middle.points - center[:, None, None], axis=0)
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    halfway: Array = (center + middle.points[:, row, column]) / 2
    return halfway


def _below_dura(rng: np.random.Generator, depth: Range, radius: float, sections: list[Section]) -> Array:
    """Returns a point of the middle slice whose depth fits in the plane of every slice, or the one that fits best."""
    middle = sections[len(sections) // 2]
    in_plane = [section.pixel * ndimage.distance_transform_edt(section.depth > 0) for section in sections]
    in_space = np.min([section.depth for section in sections], axis=0)
    from_sella = np.linalg.norm(middle.points - vector(SELLA), axis=0)
    misfit = np.maximum(np.max(in_plane, axis=0) - depth[1] * radius, depth[0] * radius - np.min(in_plane, axis=0))
    misfit = np.maximum(misfit, radius + SELLA_CLEARANCE - from_sella)
    misfit = np.maximum(misfit, min(depth[0], 0.5) * radius - in_space)
    best = np.argwhere(misfit <= max(0.0, misfit.min() + 0.5))
    row, column = best[rng.integers(len(best))]
    return middle.points[:, row, column]


def _reaching(sections: list[Section], center: Array, radii: Array) -> Array:
    """Returns the radii, widened along the slices' normal until the outer slices cut the tumour too."""
    across, down = (np.diff(sections[0].points, axis=axis).mean((1, 2)) for axis in (2, 1))
    normal = np.abs(np.cross(across, down)).argmax()
    nearest = max(_level(section, center, radii).min() for section in sections)
    widened = radii.copy()
    widened[normal] *= max(1.0, nearest / 0.7)
    return widened


def _level(section: Section, center: Array, radii: Array) -> Array:
    offsets = (section.points - center[:, None, None]) / radii[:, None, None]
    level: Array = np.sqrt(np.square(offsets).sum(axis=0)).astype(np.float32)
    return level


def paint_lesion(section: Section, lesion: Lesion, visibility: float) -> Mask:
    """Paints a tumour into a slice and returns its mask: wall and core, without oedema and dural tail.

    Args:
        section: The slice; its image is changed.
        lesion: The tumour.
        visibility: Opacity of everything painted, in [0, 1].

    Returns:
        bool ``[h, w]``.
    """
    finding, radius = lesion.finding, float(lesion.radii.mean())
    level, interior = lesion.level(section), lesion.interior.at(section.points)
    surface = 1 - finding.irregularity * (0.5 + 0.5 * np.tanh(lesion.surface.at(section.points)))
    distance = _confined((level - surface) * radius, finding, section)
    if finding.oedema:
        extent = (level - finding.oedema * (surface + 0.12 * interior)) * radius
        section.paint(extent, OEDEMA_SIGNAL, softness=4, opacity=visibility * section.white)
    if finding.tail:
        tail = np.maximum((level - finding.tail) * radius, np.abs(section.depth) - DURAL_TAIL)
        section.paint(tail, lesion.signal, opacity=visibility)
    section.paint(distance, lesion.signal * (1 + finding.unevenness * interior), opacity=visibility)
    if finding.rim:
        section.paint(distance + finding.rim * (1 + 0.3 * interior), CORE_SIGNAL, opacity=visibility)
    return distance < 0


def _confined(distance: Array, finding: Finding, section: Section) -> Array:
    """Keeps a tumour of the brain inside the dura, and any tumour in one piece."""
    if finding.depth is not None:
        distance = np.maximum(distance, finding.margin - section.depth)
    parts, count = ndimage.label(distance < 0)
    if count < 2:
        return distance
    # Without this a tumour beside the falx would reappear on the other side.
    largest = 1 + np.bincount(parts.ravel())[1:].argmax()
    return np.where((parts == 0) | (parts == largest), distance, np.float32(section.pixel))

"""One patient's head, and how a plane through it is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.phantom.anatomy import (
    BRAIN_CENTRE,
    BRAIN_RADII,
    BRAIN_STRUCTURES,
    CAVITY,
    FACE,
    FACE_STRUCTURES,
    FALX,
    FALX_FREE_EDGE,
    SKULL_BASE,
    SLICE_THICKNESS,
    TISSUES,
    Array,
    Waves,
    coverage,
    distance_to,
    smooth_minimum,
    union,
    vector,
)


@dataclass(frozen=True)
class Head:
    """One patient's anatomy.

    Attributes:
        to_head: float32 ``[3, 3]``: scanner coordinates to head coordinates (rotation, then size).
        warp: A displacement field, one component per axis.
        displacement: Its standard deviation in mm.
        gyri: The field on the unit sphere whose zero lines are the sulci.
        mottle: The field that makes tissue uneven.
        skull: Thickness of the skull in mm.
        scalp: Thickness of the scalp in mm.
        atrophy: Width of the sulci and of the gap below the skull, 1 on average.
        ventricles: Width of the ventricles, 1 on average.
        tissues: Signal per tissue.
    """

    to_head: Array
    warp: tuple[Waves, Waves, Waves]
    displacement: float
    gyri: Waves
    mottle: Waves
    skull: float
    scalp: float
    atrophy: float
    ventricles: float
    tissues: dict[str, float]

    @staticmethod
    def draw(rng: np.random.Generator) -> Head:
        """Draws a patient's anatomy."""
        yaw, pitch, roll = np.radians(rng.normal(0, (4, 6, 4)))
        size = rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, (3, 1))
        contrast = rng.uniform(0.7, 1.3)
        middle = (TISSUES["grey"] + TISSUES["white"]) / 2
        tissues = {name: value * rng.uniform(0.93, 1.07) for name, value in TISSUES.items()}
        tissues["fat"] *= rng.uniform(0.8, 1.25)
        tissues["vessel"] *= rng.uniform(0.8, 1.2)
        for name in ("grey", "white"):
            tissues[name] = middle + contrast * (TISSUES[name] - middle)
        return Head(
            to_head=(_rotation(yaw, pitch, roll) / size).astype(np.float32),
            warp=(Waves.draw(rng, 110, 8), Waves.draw(rng, 110, 8), Waves.draw(rng, 110, 8)),
            displacement=float(rng.uniform(1.5, 3)),
            gyri=Waves.draw(rng, 0.34, 16),
            mottle=Waves.draw(rng, 20, 10),
            skull=float(rng.uniform(5, 8)),
            scalp=float(rng.uniform(4, 8)),
            atrophy=float(rng.uniform(0.6, 1.5)),
            ventricles=float(rng.uniform(0.75, 1.45)),
            tissues=tissues,
        )

    def locate(self, scanner: Array) -> Array:
        """Returns head coordinates in mm of scanner coordinates; both float32 ``[3, h, w]``."""
        points = np.einsum("ij,jhw->ihw", self.to_head, scanner)
        located: Array = points + np.stack([self.displacement * wave.at(points) for wave in self.warp])
        return located


def _rotation(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    cz, sz, cx, sx, cy, sy = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rotation: NDArray[np.float64] = about_z @ about_x @ about_y
    return rotation


@dataclass
class Section:
    """What one plane shows of a head; painting changes ``image``.

    Attributes:
        points: float32 ``[3, h, w]``, head coordinates in mm.
        pixel: Side of a pixel in mm.
        image: float32 ``[h, w]``, signal; 0 is none and 1 that of fat, roughly.
        depth: float32 ``[h, w]``, mm below the dura (the skull's inner table or the falx); negative outside of it.
        white: float32 ``[h, w]``, fraction of white matter in [0, 1].
    """

    points: Array
    pixel: float
    image: Array
    depth: Array
    white: Array

    def paint(
        self, distance: Array, signal: float | Array, softness: float = 0.0, opacity: float | Array = 1.0
    ) -> Array:
        """Paints where a signed distance is negative, and returns what fraction of each pixel was painted.

        Args:
            distance: float32 ``[h, w]``, mm.
            signal: What is painted; one number or one per pixel.
            softness: Width of the edge in mm; it is at least a pixel wide.
            opacity: In [0, 1]; one number or one per pixel.
        """
        painted = coverage(distance, max(self.pixel, softness)) * opacity
        self.image += painted * (signal - self.image)
        return painted


def cut(head: Head, scanner: Array, pixel: float) -> Section:
    """Paints the plane of scanner coordinates ``scanner`` (float32 ``[3, h, w]``, mm) through a head."""
    points = head.locate(scanner)
    cavity = -smooth_minimum(-union(CAVITY, points, 8), union(SKULL_BASE, points, 6), 6)
    image = np.full(cavity.shape, TISSUES["air"], np.float32)
    section = Section(points, pixel, image, -cavity, np.zeros_like(image))
    mottle = head.mottle.at(points)
    _paint_outside(section, head, mottle)
    _paint_brain(section, head, mottle)
    for structure in BRAIN_STRUCTURES:
        scale = head.ventricles if structure.ventricular else 1.0
        signal = head.tissues[structure.tissue]
        painted = section.paint(np.maximum(distance_to(structure, points, scale), cavity), signal, 2)
        section.white *= 1 - painted * (structure.tissue != "white")
    _paint_midline(section, head)
    return section


def _paint_outside(section: Section, head: Head, mottle: Array) -> None:
    tissues = head.tissues
    cavity = -section.depth
    skin = smooth_minimum(cavity - head.skull - head.scalp, union(FACE, section.points, 12), 10)
    section.paint(skin, tissues["fat"])
    flesh = tissues["muscle"] + (tissues["fat"] - tissues["muscle"]) * np.clip(mottle - 0.6, 0, 1) * 0.2
    section.paint(skin + head.scalp, flesh, 3)
    for structure in FACE_STRUCTURES:
        section.paint(np.maximum(distance_to(structure, section.points), skin + 3), tissues[structure.tissue], 2)
    section.paint(cavity - head.skull, tissues["bone"])
    section.paint(np.abs(cavity - head.skull / 2) - head.skull / 6, tissues["marrow"], opacity=0.6)


def _paint_brain(section: Section, head: Head, mottle: Array) -> None:
    tissues = head.tissues
    section.paint(-section.depth, tissues["fluid"])
    gap = 1.2 * head.atrophy
    direction = (section.points - vector(BRAIN_CENTRE)) / vector(BRAIN_RADII)
    direction /= np.linalg.norm(direction, axis=0) + np.float32(1e-6)
    fold = np.abs(head.gyri.at(direction) + 0.4 * mottle)
    medial = np.maximum(np.abs(section.points[0]), _beyond_falx(section.points))
    fade = np.clip(1.25 - np.minimum(section.depth, medial + 3) / 16, 0, 1)
    sulcus = coverage(fold - 0.3 * head.atrophy * fade, 0.35) * fade
    beside_sulcus = coverage(fold - 0.3 - 0.7 * fade, 0.5) * np.minimum(1, 2 * fade)
    section.white = 1 - np.maximum(coverage(section.depth - gap - 5, 4), beside_sulcus)
    tissue = tissues["grey"] + section.white * (tissues["white"] - tissues["grey"])
    tissue = tissue * (1 + 0.03 * mottle)
    section.paint(gap - section.depth, tissue + sulcus * (tissues["fluid"] - tissue))


def _paint_midline(section: Section, head: Head) -> None:
    tissues = head.tissues
    middle, inside = np.abs(section.points[0]), -section.depth
    sinus = np.maximum(np.maximum(middle - 4, section.depth - 5), -section.points[2] - 15)
    slope = np.hypot(*np.gradient(section.points[0], section.pixel)).mean()
    blur = SLICE_THICKNESS * float(np.sqrt(max(0.0, 1 - slope * slope)))
    visible = min(1.0, 2 * FALX / max(blur, FALX))
    falx = np.maximum(middle - FALX, _beyond_falx(section.points))
    section.paint(np.maximum(falx - 1.5, inside), tissues["fluid"], max(2, blur), visible)
    section.paint(np.maximum(falx, inside), tissues["dura"], max(2, blur), visible)
    section.paint(np.maximum(sinus, inside - 1), tissues["vessel"], 2)
    if visible == 1:
        thick = np.maximum(middle - max(FALX, 0.6 * section.pixel), _beyond_falx(section.points))
        section.depth = np.minimum(section.depth, thick)


def _beyond_falx(points: Array) -> Array:
    """Returns the signed distance in mm to where the falx ends, negative where it is."""
    distance: Array = np.maximum(-distance_to(FALX_FREE_EDGE, points), -points[2] - 22)
    return distance

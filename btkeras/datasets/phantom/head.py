"""The synthetic head: ellipsoids (``anatomy.csv``), one patient's variation of them, and how a plane is painted.

Lengths are millimetres, angles degrees. Points are ``(right, anterior, superior)`` from near the anterior commissure,
as in the MNI atlas. The head is symmetric: an ellipsoid beside the midline stands for both sides.
"""

from __future__ import annotations

import csv
import functools
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 where nothing else is said
Point = tuple[float, float, float]


class Ellipsoid(NamedTuple):
    """A structure of one tissue; positive pitch raises its front."""

    center: Point
    radii: Point
    tissue: str = ""
    pitch: float = 0.0
    ventricular: bool = False  # whether it widens with the patient's ventricles


# Signal of contrast-enhanced T1: fat and what takes up contrast agent are bright; fluid, bone and air are dark.
TISSUES = {"air": 0.03, "bone": 0.08, "marrow": 0.42, "fat": 0.90, "muscle": 0.36, "fluid": 0.17}
TISSUES |= {"grey": 0.41, "white": 0.53, "dura": 0.60, "vessel": 0.90, "gland": 0.66}
BRAIN_CENTER, BRAIN_RADII = (0.0, -17.0, 14.0), (69.0, 89.0, 62.0)
FALX = 1.0  # half of its thickness
FALX_FREE_EDGE = Ellipsoid((0, -18, 4), (60, 58, 40))
SLICE_THICKNESS = 5.0  # what is thinner fades where it lies along the slice (partial volume)


def _structures() -> dict[str, tuple[Ellipsoid, ...]]:
    """The groups of ``anatomy.csv``; later rows are painted over earlier ones."""
    groups: dict[str, tuple[Ellipsoid, ...]] = {}
    with (resources.files(__package__) / "anatomy.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            x, y, z, a, b, c = (float(value) for value in list(row.values())[2:8])
            ellipsoid = Ellipsoid(
                (x, y, z), (a, b, c), row["tissue"], float(row["pitch"]), ventricular=bool(row["ventricular"])
            )
            groups[row["group"]] = (*groups.get(row["group"], ()), ellipsoid)
    return groups


STRUCTURES = _structures()


class Waves:
    """A smooth random field: a sum of plane waves of ``wavelength`` +-30 %, with zero mean and unit variance."""

    def __init__(self, rng: np.random.Generator, wavelength: float, count: int = 12) -> None:
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        frequencies = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.3, (count, 1)))
        self._phases = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
        self._vectors = (directions * frequencies).astype(np.float32)

    def at(self, points: Array) -> Array:
        """Returns the field at points ``[3, h, w]`` as float32 ``[h, w]``."""
        total = np.zeros(points.shape[1:], np.float32)
        for (x, y, z), phase in zip(self._vectors, self._phases, strict=True):
            total += np.cos(points[0] * x + points[1] * y + points[2] * z + phase)
        total *= np.float32(np.sqrt(2 / len(self._phases)))
        return total


class Head:
    """One patient's anatomy."""

    def __init__(self, rng: np.random.Generator) -> None:
        angles = np.radians(rng.normal(0, (4, 6, 4)))
        size = rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, (3, 1))
        contrast = rng.uniform(0.7, 1.3)
        middle = (TISSUES["grey"] + TISSUES["white"]) / 2
        self.tissues = {name: value * rng.uniform(0.93, 1.07) for name, value in TISSUES.items()}
        self.tissues["fat"] *= rng.uniform(0.8, 1.25)
        self.tissues["vessel"] *= rng.uniform(0.8, 1.2)
        self.tissues |= {name: middle + contrast * (TISSUES[name] - middle) for name in ("grey", "white")}
        self._to_head = (_rotation(*angles) / size).astype(np.float32)
        self._warp = [Waves(rng, 110, 8) for _ in range(3)]
        self._displacement = float(rng.uniform(1.5, 3))
        # On the unit sphere; the sulci are where it is zero.
        self.gyri = Waves(rng, 0.34, 16)
        self.mottle = Waves(rng, 20, 10)
        self.skull = float(rng.uniform(5, 8))
        self.scalp = float(rng.uniform(4, 8))
        # Width of the sulci and of the gap below the skull, and of the ventricles; 1 on average.
        self.atrophy = float(rng.uniform(0.6, 1.5))
        self.ventricles = float(rng.uniform(0.75, 1.45))

    def locate(self, scanner: Array) -> Array:
        """Returns head coordinates of scanner coordinates; both float32 ``[3, h, w]``."""
        points = np.einsum("ij,jhw->ihw", self._to_head, scanner)
        located: Array = points + np.stack([self._displacement * wave.at(points) for wave in self._warp])
        return located


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    cz, sz, cx, sx, cy, sy = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    rotation: Array = about_z @ about_x @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return rotation


class CrossSection:
    """What one plane shows of a head.

    Args:
        head: The head.
        scanner: float32 ``[3, h, w]``, scanner coordinates.
        pixel: Side of a pixel.

    Attributes:
        points: float32 ``[3, h, w]``, head coordinates.
        image: float32 ``[h, w]``, signal; 0 is none and 1 that of fat, roughly. Painting changes it.
        depth: float32 ``[h, w]``, below the dura (the skull's inner table or the falx); negative outside of it.
        white: float32 ``[h, w]``, fraction of white matter.
    """

    def __init__(self, head: Head, scanner: Array, pixel: float) -> None:
        self._head, self.pixel, self.points = head, pixel, head.locate(scanner)
        base = _union(STRUCTURES["skull_base"], self.points, 6)
        self.depth = _smooth_minimum(-_union(STRUCTURES["cavity"], self.points, 8), base, 6)
        self.image = np.full(self.depth.shape, TISSUES["air"], np.float32)
        mottle = head.mottle.at(self.points)
        self._paint_outside(mottle)
        self._paint_brain(mottle)
        for structure in STRUCTURES["brain_structures"]:
            distance = _distance(structure, self.points, head.ventricles if structure.ventricular else 1.0)
            painted = self.paint(np.maximum(distance, -self.depth), head.tissues[structure.tissue], 2)
            self.white *= 1 - painted * (structure.tissue != "white")
        self._paint_midline()

    def paint(
        self, distance: Array, signal: float | Array, softness: float = 0.0, opacity: float | Array = 1.0
    ) -> Array:
        """Paints where a signed distance is negative, with an edge of ``softness`` or a pixel.

        Returns:
            What fraction of each pixel was painted, float32 ``[h, w]``.
        """
        painted = _coverage(distance, max(self.pixel, softness)) * opacity
        self.image += painted * (signal - self.image)
        return painted

    def _paint_outside(self, mottle: Array) -> None:
        head, tissues, cavity = self._head, self._head.tissues, -self.depth
        skin = _smooth_minimum(cavity - head.skull - head.scalp, _union(STRUCTURES["face"], self.points, 12), 10)
        self.paint(skin, tissues["fat"])
        flesh = tissues["muscle"] + (tissues["fat"] - tissues["muscle"]) * np.clip(mottle - 0.6, 0, 1) * 0.2
        self.paint(skin + head.scalp, flesh, 3)
        for structure in STRUCTURES["face_structures"]:
            self.paint(np.maximum(_distance(structure, self.points), skin + 3), tissues[structure.tissue], 2)
        self.paint(cavity - head.skull, tissues["bone"])
        self.paint(np.abs(cavity - head.skull / 2) - head.skull / 6, tissues["marrow"], opacity=0.6)

    def _paint_brain(self, mottle: Array) -> None:
        head, tissues, depth = self._head, self._head.tissues, self.depth
        self.paint(-depth, tissues["fluid"])
        gap = 1.2 * head.atrophy
        direction = (self.points - vector(BRAIN_CENTER)) / vector(BRAIN_RADII)
        direction /= np.linalg.norm(direction, axis=0) + np.float32(1e-6)
        fold = np.abs(head.gyri.at(direction) + 0.4 * mottle)
        medial = np.maximum(np.abs(self.points[0]), _beyond_falx(self.points))
        fade = np.clip(1.25 - np.minimum(depth, medial + 3) / 16, 0, 1)
        sulcus = _coverage(fold - 0.3 * head.atrophy * fade, 0.35) * fade
        beside_sulcus = _coverage(fold - 0.3 - 0.7 * fade, 0.5) * np.minimum(1, 2 * fade)
        self.white = 1 - np.maximum(_coverage(depth - gap - 5, 4), beside_sulcus)
        tissue = tissues["grey"] + self.white * (tissues["white"] - tissues["grey"])
        tissue = tissue * (1 + 0.03 * mottle)
        self.paint(gap - depth, tissue + sulcus * (tissues["fluid"] - tissue))

    def _paint_midline(self) -> None:
        tissues, middle, inside = self._head.tissues, np.abs(self.points[0]), -self.depth
        sinus = np.maximum(np.maximum(middle - 4, self.depth - 5), -self.points[2] - 15)
        slope = np.hypot(*np.gradient(self.points[0], self.pixel)).mean()
        blur = SLICE_THICKNESS * float(np.sqrt(max(0.0, 1 - slope * slope)))
        visible = min(1.0, 2 * FALX / max(blur, FALX))
        beyond = _beyond_falx(self.points)
        falx = np.maximum(middle - FALX, beyond)
        self.paint(np.maximum(falx - 1.5, inside), tissues["fluid"], max(2, blur), visible)
        self.paint(np.maximum(falx, inside), tissues["dura"], max(2, blur), visible)
        self.paint(np.maximum(sinus, inside - 1), tissues["vessel"], 2)
        if visible == 1:
            self.depth = np.minimum(self.depth, np.maximum(middle - max(FALX, 0.6 * self.pixel), beyond))


def vector(point: Point) -> Array:
    """Returns a point as float32 ``[3, 1, 1]``, which broadcasts with points ``[3, h, w]``."""
    return np.array(point, np.float32)[:, None, None]


def _coverage(distance: Array, width: float) -> Array:
    """Returns 1 inside, 0 outside and a ramp of ``width`` between, at a signed distance."""
    fraction: Array = np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)
    return fraction


def _distance(ellipsoid: Ellipsoid, points: Array, scale: float = 1.0) -> Array:
    """Returns the signed distance to an ellipsoid's surface, negative inside; of first order beside the surface."""
    x = np.abs(points[0]) - np.float32(ellipsoid.center[0])
    y, z = (points[axis] - np.float32(ellipsoid.center[axis]) for axis in (1, 2))
    if ellipsoid.pitch:
        cos, sin = (np.float32(f(np.radians(ellipsoid.pitch))) for f in (np.cos, np.sin))
        y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (np.float32(scale * radius) for radius in ellipsoid.radii)
    x, y, z = x / a, y / b, z / c
    level = np.sqrt(x * x + y * y + z * z)
    slope = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    distance: Array = level * (level - 1) / (slope + np.float32(1e-6))
    return distance


def _union(ellipsoids: tuple[Ellipsoid, ...], points: Array, blend: float) -> Array:
    """Returns the distance to ellipsoids that merge over ``blend``."""
    distances = (_distance(ellipsoid, points) for ellipsoid in ellipsoids)
    return functools.reduce(lambda total, distance: _smooth_minimum(total, distance, blend), distances)


def _smooth_minimum(first: Array, second: Array, blend: float) -> Array:
    """Returns the smaller of two distances, rounded off where they differ by less than ``blend``."""
    overlap = np.clip(1 - np.abs(first - second) / np.float32(blend), 0, None)
    least: Array = np.minimum(first, second) - overlap * overlap * np.float32(blend / 4)
    return least


def _beyond_falx(points: Array) -> Array:
    """Returns the signed distance to where the falx ends, negative where it is."""
    distance: Array = np.maximum(-_distance(FALX_FREE_EDGE, points), -points[2] - 22)
    return distance

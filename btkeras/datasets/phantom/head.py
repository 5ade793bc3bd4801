"""The synthetic head: ellipsoids (``anatomy.csv``), one patient's variation of them, and how a plane is painted.

Lengths are millimetres, angles degrees; positive pitch raises the front. Points are ``(right, anterior, superior)``
from near the anterior commissure, as in the MNI atlas. The head is symmetric: an ellipsoid beside the midline stands
for both sides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from importlib import resources

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.floating]  # float32 where nothing else is said
Field = Callable[[Array], Array]

# Signal of contrast-enhanced T1: fat and what takes up contrast agent are bright; fluid, bone and air are dark.
TISSUES = {"air": 0.03, "bone": 0.08, "marrow": 0.42, "fat": 0.90, "muscle": 0.36, "fluid": 0.17}
TISSUES |= {"grey": 0.41, "white": 0.53, "dura": 0.60, "vessel": 0.90, "gland": 0.66}
FALX = 1.0  # half of its thickness
SLICE_THICKNESS = 5.0  # what is thinner fades where it lies along the slice (partial volume)

_COLUMNS = [("group", "U20"), ("structure", "U50"), ("center", "f4", 3), ("radii", "f8", 3)]
_COLUMNS += [("tissue", "U10"), ("pitch", "f8"), ("ventricular", "?")]  # the last: widens with the ventricles
with (resources.files(__package__) / "anatomy.csv").open(encoding="utf-8") as _file:
    # Later rows are painted over earlier ones.
    _ANATOMY = np.loadtxt(_file, _COLUMNS, delimiter=",", skiprows=1)


def waves(rng: np.random.Generator, wavelength: float, count: int = 12) -> Field:
    """Draws a smooth random field: a sum of plane waves of ``wavelength`` +-30 %, with zero mean and unit variance.

    Returns:
        A function of points ``[3, h, w]`` to float32 ``[h, w]``.
    """
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = (directions * (2 * np.pi / (wavelength * rng.uniform(0.7, 1.3, (count, 1))))).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, count).astype(np.float32)

    def field(points: Array) -> Array:
        total = np.zeros(points.shape[1:], np.float32)
        for (x, y, z), phase in zip(vectors, phases, strict=True):
            total += np.cos(points[0] * x + points[1] * y + points[2] * z + phase)
        return total * math.sqrt(2 / count)

    return field


class Head:
    """One patient's anatomy."""

    def __init__(self, rng: np.random.Generator) -> None:
        angles = rng.normal(0, (4, 6, 4))  # yaw, pitch, roll
        size = rng.uniform(0.93, 1.07) * rng.uniform(0.97, 1.03, (3, 1))
        contrast, middle = rng.uniform(0.7, 1.3), (TISSUES["grey"] + TISSUES["white"]) / 2
        self.tissues = {name: value * rng.uniform(0.93, 1.07) for name, value in TISSUES.items()}
        self.tissues["fat"] *= rng.uniform(0.8, 1.25)
        self.tissues["vessel"] *= rng.uniform(0.8, 1.2)
        self.tissues |= {name: middle + contrast * (TISSUES[name] - middle) for name in ("grey", "white")}
        self._to_head = (Rotation.from_euler("ZXY", angles, degrees=True).as_matrix() / size).astype(np.float32)
        self._warp = [waves(rng, 110, 8) for _ in range(3)]
        self._displacement = rng.uniform(1.5, 3)
        # On the unit sphere; the sulci are where it is zero.
        self.gyri = waves(rng, 0.34, 16)
        self.mottle = waves(rng, 20, 10)
        self.skull, self.scalp = rng.uniform(5, 8), rng.uniform(4, 8)
        # Width of the sulci and of the gap below the skull, and of the ventricles; 1 on average.
        self.atrophy, self.ventricles = rng.uniform(0.6, 1.5), rng.uniform(0.75, 1.45)

    def locate(self, scanner: Array) -> Array:
        """Returns head coordinates of scanner coordinates; both float32 ``[3, h, w]``."""
        points = np.einsum("ij,jhw->ihw", self._to_head, scanner)
        return points + np.stack([self._displacement * wave(points) for wave in self._warp])


class CrossSection:
    """What one plane of scanner coordinates, float32 ``[3, h, w]``, shows of a head; ``pixel`` is a pixel's side.

    Attributes:
        points: float32 ``[3, h, w]``, head coordinates.
        image: float32 ``[h, w]``, signal; 0 is none and 1 that of fat, roughly. Painting changes it.
        depth: float32 ``[h, w]``, below the dura (the skull's inner table or the falx); negative outside of it.
        white: float32 ``[h, w]``, fraction of white matter.
    """

    def __init__(self, head: Head, scanner: Array, pixel: float) -> None:
        self._head, self.pixel, self.points = head, pixel, head.locate(scanner)
        self.depth = _smooth_minimum(-self._union("cavity", 8), self._union("skull_base", 6), 6)
        self.image = np.full(self.depth.shape, TISSUES["air"], np.float32)
        mottle = head.mottle(self.points)
        self._paint_outside(mottle)
        self._paint_brain(mottle)
        self._paint_midline()

    def paint(
        self, distance: Array, signal: float | Array, softness: float = 0.0, opacity: float | Array = 1.0
    ) -> Array:
        """Paints where a distance is negative, its edge ``softness`` or a pixel wide; returns the fractions painted."""
        painted = _coverage(distance, max(self.pixel, softness)) * opacity
        self.image += painted * (signal - self.image)
        return painted

    def _union(self, group: str, blend: float) -> Array:
        """The distance to a group's ellipsoids, which merge over ``blend``."""
        distances = (_distance(ellipsoid, self.points) for ellipsoid in _group(group))
        return functools.reduce(lambda total, distance: _smooth_minimum(total, distance, blend), distances)

    def _paint_outside(self, mottle: Array) -> None:
        head, tissues, cavity = self._head, self._head.tissues, -self.depth
        skin = _smooth_minimum(cavity - head.skull - head.scalp, self._union("face", 12), 10)
        self.paint(skin, tissues["fat"])
        flesh = tissues["muscle"] + (tissues["fat"] - tissues["muscle"]) * np.clip(mottle - 0.6, 0, 1) * 0.2
        self.paint(skin + head.scalp, flesh, 3)
        for structure in _group("face_structures"):
            self.paint(np.maximum(_distance(structure, self.points), skin + 3), tissues[structure["tissue"]], 2)
        self.paint(cavity - head.skull, tissues["bone"])
        self.paint(np.abs(cavity - head.skull / 2) - head.skull / 6, tissues["marrow"], opacity=0.6)

    def _paint_brain(self, mottle: Array) -> None:
        head, tissues, depth = self._head, self._head.tissues, self.depth
        self.paint(-depth, tissues["fluid"])
        gap = 1.2 * head.atrophy
        brain = _group("cavity")[0]
        direction = (self.points - vector(brain["center"])) / vector(brain["radii"])
        direction /= np.linalg.norm(direction, axis=0) + np.float32(1e-6)
        fold = np.abs(head.gyri(direction) + 0.4 * mottle)
        medial = np.maximum(np.abs(self.points[0]), self._beyond_falx())
        fade = np.clip(1.25 - np.minimum(depth, medial + 3) / 16, 0, 1)
        sulcus = _coverage(fold - 0.3 * head.atrophy * fade, 0.35) * fade
        beside_sulcus = _coverage(fold - 0.3 - 0.7 * fade, 0.5) * np.minimum(1, 2 * fade)
        self.white = 1 - np.maximum(_coverage(depth - gap - 5, 4), beside_sulcus)
        tissue = (tissues["grey"] + self.white * (tissues["white"] - tissues["grey"])) * (1 + 0.03 * mottle)
        self.paint(gap - depth, tissue + sulcus * (tissues["fluid"] - tissue))
        for structure in _group("brain_structures"):
            distance = _distance(structure, self.points, head.ventricles if structure["ventricular"] else 1.0)
            painted = self.paint(np.maximum(distance, -depth), tissues[structure["tissue"]], 2)
            self.white *= 1 - painted * (structure["tissue"] != "white")

    def _paint_midline(self) -> None:
        tissues, middle, inside = self._head.tissues, np.abs(self.points[0]), -self.depth
        sinus = np.maximum(np.maximum(middle - 4, self.depth - 5), -self.points[2] - 15)
        slope = np.hypot(*np.gradient(self.points[0], self.pixel)).mean()
        blur = SLICE_THICKNESS * math.sqrt(max(0.0, 1 - slope * slope))
        visible = min(1.0, 2 * FALX / max(blur, FALX))
        beyond = self._beyond_falx()
        falx = np.maximum(middle - FALX, beyond)
        self.paint(np.maximum(falx - 1.5, inside), tissues["fluid"], max(2, blur), visible)
        self.paint(np.maximum(falx, inside), tissues["dura"], max(2, blur), visible)
        self.paint(np.maximum(sinus, inside - 1), tissues["vessel"], 2)
        if visible == 1:
            self.depth = np.minimum(self.depth, np.maximum(middle - max(FALX, 0.6 * self.pixel), beyond))

    def _beyond_falx(self) -> Array:
        """The signed distance to where the falx ends, negative where it is."""
        return np.maximum(-_distance(_group("falx")[0], self.points), -self.points[2] - 22)


def vector(point: ArrayLike) -> Array:
    """Returns a point as float32 ``[3, 1, 1]``, which broadcasts with points ``[3, h, w]``."""
    return np.array(point, np.float32)[:, None, None]


def _group(name: str) -> NDArray[np.void]:
    return _ANATOMY[_ANATOMY["group"] == name]


def _coverage(distance: Array, width: float) -> Array:
    """1 inside, 0 outside and a ramp of ``width`` between, at a signed distance."""
    return np.clip(0.5 - distance / width, 0, 1)


def _distance(ellipsoid: np.void, points: Array, scale: float = 1.0) -> Array:
    """The signed distance to an ellipsoid's surface, negative inside; of first order beside the surface."""
    x, y, z = np.stack([np.abs(points[0]), points[1], points[2]]) - vector(ellipsoid["center"])
    if pitch := math.radians(ellipsoid["pitch"]):
        cos, sin = math.cos(pitch), math.sin(pitch)
        y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (scale * ellipsoid["radii"]).astype(np.float32)
    x, y, z = x / a, y / b, z / c
    level = np.sqrt(x * x + y * y + z * z)
    return level * (level - 1) / (np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + 1e-6)


def _smooth_minimum(first: Array, second: Array, blend: float) -> Array:
    """The smaller of two distances, rounded off where they differ by less than ``blend``."""
    overlap = np.clip(1 - np.abs(first - second) / blend, 0, None)
    return np.minimum(first, second) - overlap * overlap * (blend / 4)

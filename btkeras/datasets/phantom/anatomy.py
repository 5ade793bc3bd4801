"""The synthetic head as tables of ellipsoids, and the geometry to evaluate them.

Lengths are millimetres, angles degrees. Points are ``(right, anterior, superior)`` with the origin near the
anterior commissure, as in the MNI atlas, from which positions and sizes are taken roughly. The head is symmetric
before the patient's own warp: a structure beside the midline stands for both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]  # float32 where nothing else is said
Point = tuple[float, float, float]

# Signal of contrast-enhanced T1: fat and what takes up contrast agent are bright; fluid, bone and air are dark.
TISSUES = {
    "air": 0.03,
    "bone": 0.08,
    "marrow": 0.42,
    "fat": 0.90,
    "muscle": 0.36,
    "fluid": 0.17,
    "grey": 0.41,
    "white": 0.53,
    "dura": 0.60,
    "vessel": 0.90,
    "gland": 0.66,
}


@dataclass(frozen=True)
class Structure:
    """An ellipsoid of one tissue, on both sides of the midline.

    Attributes:
        center: Right, anterior, superior in mm.
        radii: The same axes, in mm, before pitching.
        tissue: A name in ``TISSUES``.
        pitch: Rotation about the left-right axis in degrees; positive raises the front.
        ventricular: Whether it widens with the patient's ventricles.
    """

    center: Point
    radii: Point
    tissue: str = ""
    pitch: float = 0.0
    ventricular: bool = False


# === Outlines ===
BRAIN_CENTRE = (0.0, -17.0, 14.0)
BRAIN_RADII = (69.0, 89.0, 62.0)
SELLA = (0.0, 5.0, -30.0)
FALX = 1.0  # half of its thickness, mm
FALX_FREE_EDGE = Structure((0, -18, 4), (60, 58, 40))
SLICE_THICKNESS = 5.0  # mm; what is thinner fades where it lies along the slice (partial volume)

CAVITY = (
    Structure(BRAIN_CENTRE, BRAIN_RADII),  # the cerebrum
    Structure((42, -10, -24), (27, 34, 22)),  # the temporal lobes in the middle fossa
    Structure((0, -58, -38), (52, 42, 30)),  # the posterior fossa
)
SKULL_BASE = (
    Structure((0, 34, -50), (22, 40, 28)),  # the sphenoid below the sella
    Structure((36, 60, -46), (34, 44, 30)),  # the roofs of the orbits
)
FACE = (
    Structure((0, 24, -66), (68, 62, 72)),
    Structure((0, 28, -32), (72, 54, 44)),  # the temples
    Structure((0, 90, -56), (15, 20, 24), pitch=-30),  # the nose
    Structure((0, -22, -140), (56, 62, 90)),  # the neck
)

# === Painted in this order, later over earlier ===
FACE_STRUCTURES = (
    Structure((30, 66, -34), (21, 22, 18), "fat"),  # the orbits
    Structure((31, 72, -34), (12, 12, 12), "fluid"),  # the eyes
    Structure((26, 50, -34), (4, 18, 4), "muscle"),  # the optic nerves and eye muscles
    Structure((36, 55, -66), (14, 14, 14), "air"),  # the maxillary sinuses
    Structure((13, 58, -52), (5, 24, 16), "air"),  # the nasal cavities
    Structure((0, 58, -50), (3, 26, 20), "muscle"),  # the nasal septum
    Structure((0, 66, -6), (12, 6, 10), "air"),  # the frontal sinus
    Structure((0, 46, -78), (26, 30, 4), "bone"),  # the hard palate
    Structure((0, 40, -100), (24, 30, 18), "muscle"),  # the tongue
    Structure((0, 2, -88), (9, 7, 30), "air", pitch=8),  # the pharynx
    Structure((46, 8, -88), (7, 14, 36), "bone"),  # the branches of the jaw
    Structure((46, 8, -88), (4, 11, 32), "marrow"),
    Structure((0, -10, -44), (15, 8, 24), "marrow", pitch=-35),  # the clivus
    Structure((0, 24, -44), (14, 15, 10), "air"),  # the sphenoid sinus
    Structure((48, -32, -46), (16, 12, 10), "air"),  # the mastoid cells
    Structure((0, -26, -92), (12, 9, 14), "marrow"),  # the vertebrae
    Structure((0, -28, -118), (12, 10, 9), "marrow"),
    Structure((0, -31, -139), (12, 10, 9), "marrow"),
    Structure((0, -46, -115), (10, 9, 60), "fluid", pitch=4),  # the spinal canal
    Structure((0, -46, -115), (6, 5, 60), "white", pitch=4),  # the spinal cord
)
BRAIN_STRUCTURES = (
    Structure((0, -8, 12), (20, 40, 17), "white"),  # the corpus callosum, seen as the rim that stays visible
    Structure((8, 6, 9), (7, 25, 10), "fluid", -8, True),  # frontal horns
    Structure((11, -18, 18), (7, 28, 6), "fluid", -6, True),  # bodies of the lateral ventricles
    Structure((27, -44, 8), (8, 14, 11), "fluid", 0, True),  # atria
    Structure((33, -18, -17), (4, 20, 4), "fluid", 15, True),  # temporal horns
    Structure((14, 12, 8), (5, 14, 9), "grey"),  # caudate nuclei
    Structure((25, 2, 1), (7, 18, 10), "grey"),  # lentiform nuclei
    Structure((11, -19, 6), (9, 14, 9), "grey"),  # thalami
    Structure((0, -12, 0), (2.5, 14, 10), "fluid", 0, True),  # third ventricle
    Structure((25, -44, 9), (3, 9, 4), "vessel"),  # choroid plexus
    Structure((46, 0, -3), (16, 24, 3.5), "fluid", 18),  # Sylvian fissures
    Structure((0, -2, -19), (17, 15, 9), "fluid"),  # suprasellar cistern
    Structure((0, -15, -40), (14, 9, 22), "fluid", -20),  # prepontine cistern
    Structure((0, -40, -8), (18, 9, 8), "fluid"),  # quadrigeminal cistern
    Structure((0, -64, -38), (51, 35, 26), "fluid", -12),  # the cleft around the cerebellum
    Structure((0, -64, -39), (48, 32, 23), "grey", -12),  # cerebellum
    Structure((0, -56, -40), (28, 16, 10), "white"),  # its white matter
    Structure((0, -27, -11), (16, 12, 12), "white"),  # midbrain
    Structure((0, -27, -32), (16, 13, 15), "white"),  # pons
    Structure((0, -38, -60), (9, 8, 24), "white", 12),  # medulla
    Structure((0, -44, -33), (8, 5, 10), "fluid", 0, True),  # fourth ventricle
    Structure((0, 4, -17), (9, 3, 2.5), "white"),  # optic chiasm
    Structure((13, 2, -29), (4, 8, 4), "vessel"),  # cavernous sinuses with the carotid arteries
    Structure((19, 5, -18), (9, 3, 2.5), "vessel"),  # middle cerebral arteries
    Structure((0, -17, -30), (2, 2, 14), "vessel", -10),  # basilar artery
    Structure((0, -52, 2), (2.5, 12, 3), "vessel", 30),  # the vein of Galen and the straight sinus
    Structure((0, 5, -31), (6.5, 5, 4), "gland"),  # the normal pituitary gland
)


@dataclass(frozen=True)
class Waves:
    """A smooth random field in space: a sum of plane waves of about one wavelength, with zero mean and unit variance.

    Attributes:
        vectors: float32 ``[n, 3]``, radians per unit of length.
        phases: float32 ``[n]``, radians.
    """

    vectors: Array
    phases: Array

    @staticmethod
    def draw(rng: np.random.Generator, wavelength: float, count: int = 12) -> Waves:
        """Draws a field whose wavelength is within 30 % of ``wavelength``, which is in the unit of the points."""
        directions = rng.normal(size=(count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        frequencies = 2 * np.pi / (wavelength * rng.uniform(0.7, 1.3, (count, 1)))
        phases = rng.uniform(0, 2 * np.pi, count)
        return Waves((directions * frequencies).astype(np.float32), phases.astype(np.float32))

    def at(self, points: Array) -> Array:
        """Returns the field at points ``[3, h, w]`` as float32 ``[h, w]``."""
        total = np.zeros(points.shape[1:], np.float32)
        for (x, y, z), phase in zip(self.vectors, self.phases, strict=True):
            total += np.cos(points[0] * x + points[1] * y + points[2] * z + phase)
        total *= np.float32(np.sqrt(2 / len(self.phases)))
        return total


def vector(point: Point) -> Array:
    """Returns a point as float32 ``[3, 1, 1]``, which broadcasts with points ``[3, h, w]``."""
    return np.array(point, np.float32)[:, None, None]


def coverage(distance: Array, width: float) -> Array:
    """Returns 1 inside, 0 outside and a ramp of ``width`` mm between, at a signed distance in mm."""
    fraction: Array = np.clip(np.float32(0.5) - distance / np.float32(width), 0, 1)
    return fraction


def distance_to(structure: Structure, points: Array, scale: float = 1.0) -> Array:
    """Returns the signed distance in mm to an ellipsoid's surface, negative inside; float32 ``[h, w]``.

    It is exact on the surface and of first order beside it.
    """
    x = np.abs(points[0]) - np.float32(structure.center[0])
    y = points[1] - np.float32(structure.center[1])
    z = points[2] - np.float32(structure.center[2])
    if structure.pitch:
        cos, sin = (np.float32(f(np.radians(structure.pitch))) for f in (np.cos, np.sin))
        y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (np.float32(scale * radius) for radius in structure.radii)
    x, y, z = x / a, y / b, z / c
    level = np.sqrt(x * x + y * y + z * z)
    slope = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    distance: Array = level * (level - 1) / (slope + np.float32(1e-6))
    return distance


def union(structures: tuple[Structure, ...], points: Array, blend: float) -> Array:
    """Returns the distance to several ellipsoids that merge over ``blend`` mm."""
    total = distance_to(structures[0], points)
    for structure in structures[1:]:
        total = smooth_minimum(total, distance_to(structure, points), blend)
    return total


def smooth_minimum(first: Array, second: Array, blend: float) -> Array:
    """Returns the smaller of two distances, rounded off where they differ by less than ``blend`` mm."""
    overlap = np.clip(1 - np.abs(first - second) / np.float32(blend), 0, None)
    least: Array = np.minimum(first, second) - overlap * overlap * np.float32(blend / 4)
    return least

"""The built-in synthetic dataset: patients drawn from a parametrised head, slice by slice.

Class and view are assigned in turn, and everything but the tumour is drawn without looking at the class: the size of
the head, its position, the slices' levels, the scanner's gain, bias field and noise have the same distribution in
every class. All slices lie where a pituitary tumour could be seen, because else the level alone would tell classes
apart. Slices of one patient share all of this, so a split by image leaks as it does with real data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btkeras.config import PhantomConfig
from btkeras.datasets.dataset import CLASSES
from btkeras.datasets.phantom.anatomy import Array, Point, Waves
from btkeras.datasets.phantom.head import Head, Section, cut
from btkeras.datasets.phantom.lesions import FINDINGS, Mask, Range, grow, paint_lesion
from btkeras.errors import DataError

# At difficulty 0, 1 and 2; between them by interpolation.
DIFFICULTIES = (0.0, 1.0, 2.0)
NOISE = (0.005, 0.018, 0.07)  # standard deviation, on the scale of ``TISSUES``
VISIBILITY = (1.0, 0.9, 0.4)  # opacity of tumours


@dataclass(frozen=True)
class PhantomSlice:
    """One synthetic slice.

    Attributes:
        image: uint8 ``[size, size]``, grey values.
        mask: bool ``[size, size]``, the tumour; empty without one.
        brain: bool ``[size, size]``, everything inside the dura.
        label: One of ``btkeras.data.CLASSES``.
        view: ``axial``, ``coronal`` or ``sagittal``.
        patient: Identifier such as ``phantom-0007``.
    """

    image: NDArray[np.uint8]
    mask: Mask
    brain: Mask
    label: str
    view: str
    patient: str


@dataclass(frozen=True)
class View:
    """How the slices of one orientation lie in scanner coordinates (right, anterior, superior).

    Attributes:
        across: Direction of growing columns.
        down: Direction of growing rows.
        through: Direction of growing levels.
        center: The image's middle at level 0, in mm.
        levels: Lowest and highest level of a patient's middle slice, in mm.
        spans: Smallest and largest distance from the middle slice to the outermost, in mm.
    """

    across: Point
    down: Point
    through: Point
    center: Point
    levels: Range
    spans: Range


VIEWS = {
    "axial": View((-1, 0, 0), (0, -1, 0), (0, 0, 1), (0, -14, 0), (-27, -11), (3, 7)),
    "coronal": View((-1, 0, 0), (0, 0, -1), (0, 1, 0), (0, 0, -16), (-3, 13), (3, 7)),
    "sagittal": View((0, -1, 0), (0, 0, -1), (1, 0, 0), (0, -6, -22), (-6, 6), (3, 6)),
}


@dataclass(frozen=True)
class Scan:
    """How one patient was scanned.

    Attributes:
        field_of_view: Side of the image in mm.
        shift: Displacement of the image in its plane, columns and rows, in mm.
        level: Level of the middle slice in mm.
        span: Distance from the middle slice to the outermost in mm.
        gain: Factor on what is measured.
        gamma: Exponent on the signal.
        noise: Standard deviation of the noise in the real and in the imaginary channel.
        bias: The field whose exponential multiplies the signal.
        inhomogeneity: Standard deviation of that exponent.
    """

    field_of_view: float
    shift: tuple[float, float]
    level: float
    span: float
    gain: float
    gamma: float
    noise: float
    bias: Waves
    inhomogeneity: float

    @staticmethod
    def draw(rng: np.random.Generator, view: View, difficulty: float) -> Scan:
        """Draws how a patient is scanned in ``view``."""
        return Scan(
            field_of_view=float(rng.uniform(225, 265)),
            shift=(float(rng.normal(0, 5)), float(rng.normal(0, 5))),
            level=float(rng.uniform(*view.levels)),
            span=float(rng.uniform(*view.spans)),
            gain=float(rng.uniform(0.5, 0.85)),
            gamma=float(rng.uniform(0.85, 1.15)),
            noise=float(rng.uniform(0.5, 1.5) * np.interp(difficulty, DIFFICULTIES, NOISE)),
            bias=Waves.draw(rng, 260, 6),
            inhomogeneity=float(rng.uniform(0.05, 0.15)),
        )

    def planes(self, view: View, slices: int, pixels: int) -> list[Array]:
        """Returns the scanner coordinates in mm of each slice's pixels, float32 ``[3, pixels, pixels]``."""
        grid = (np.arange(pixels) - (pixels - 1) / 2) * self.field_of_view / pixels
        columns, rows = np.meshgrid(grid + self.shift[0], grid + self.shift[1])
        offsets = np.linspace(-self.span, self.span, slices) if slices > 1 else np.zeros(1)
        across, down, through, center = (
            np.array(vector, np.float64)[:, None, None]
            for vector in (view.across, view.down, view.through, view.center)
        )
        flat = center + across * columns + down * rows
        return [(flat + through * (self.level + offset)).astype(np.float32) for offset in offsets]

    def acquire(self, signal: Array, plane: Array, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Returns the image (uint8 ``[h, w]``) of a signal (float32 ``[h, w]``), with bias field and Rician noise."""
        lit = np.clip(signal, 0, None) * np.exp(self.inhomogeneity * self.bias.at(plane))
        real, imaginary = rng.normal(0, self.noise, (2, *signal.shape))
        magnitude = np.hypot(lit**self.gamma + real, imaginary)
        image: NDArray[np.uint8] = np.clip(np.rint(255 * self.gain * magnitude), 0, 255).astype(np.uint8)
        return image


def draw_patient(config: PhantomConfig, patient: int) -> list[PhantomSlice]:
    """Draws all slices of one patient, in order.

    They show one head and at most one tumour, in one view. They depend on the patient's number but not on how many
    patients there are. The same configuration gives the same bytes; on another kind of processor a few pixels in a
    million may differ by one grey level.

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
    head, scan = Head.draw(anatomy), Scan.draw(anatomy, VIEWS[view], config.difficulty)
    planes = scan.planes(VIEWS[view], config.slices, config.image_size)
    sections = [cut(head, plane, scan.field_of_view / config.image_size) for plane in planes]
    masks = _add_tumor(sections, label, config.difficulty, tumor)
    images = [scan.acquire(section.image, plane, noise) for section, plane in zip(sections, planes, strict=True)]
    return [
        PhantomSlice(image, mask, section.depth > 0, label, view, f"phantom-{patient:04d}")
        for image, mask, section in zip(images, masks, sections, strict=True)
    ]


def _add_tumor(sections: list[Section], label: str, difficulty: float, rng: np.random.Generator) -> list[Mask]:
    if label not in FINDINGS:
        return [np.zeros(section.image.shape, bool) for section in sections]
    lesion = grow(rng, FINDINGS[label], sections)
    visibility = float(np.interp(difficulty, DIFFICULTIES, VISIBILITY))
    return [paint_lesion(section, lesion, visibility) for section in sections]

"""The input guard: says of a picture, before any network sees it, why it is no brain MRI slice.

A classifier gives one of its classes to whatever it is shown. The guard refuses what is plainly something else, by a
few measures that can be explained (``guard_measures``), and lets the rest pass: what is no slice and looks like one is
left to the out-of-distribution score (``btkeras.evaluation.outliers``).

Quantiles on 4,564 real slices (FigShare's T1 with contrast in three views; Br35H's T1, T2 and FLAIR from the web), of
which none is refused, beside the limits. These are generous, for other collections look different:

| measure | refused | lowest | 0.1 % | 0.5 % | median | 99.5 % | 99.9 % | highest |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
| brightest | < 20 | 85 | 94 | 108 | 185 | 255 | 255 | 255 |
| contrast | < 12 | 85 | 94 | 108 | 185 | 255 | 255 | 255 |
| levels | < 24 | 129 | 139 | 172 | 251 | 256 | 256 | 256 |
| colour | > 0.15 | 0 | 0 | 0 | 0 | 0.003 | 0.039 | 0.039 |
| likeness | < 0.35 | 0.46 | 0.48 | 0.53 | 0.86 | 0.96 | 0.97 | 0.97 |
| ramp | > 0.9 | 0.03 | 0.03 | 0.05 | 0.22 | 0.64 | 0.72 | 0.75 |
| stripes | > 4 | 1.0 | 1.0 | 1.0 | 1.3 | 2.1 | 2.3 | 2.6 |
| corner | > 0.2, and dark_edge < 0.5 | 0 | 0 | 0 | 0.006 | 0.07 | 0.12 | 0.14 |
| dark_edge | < 0.28 | 0.46 | 0.48 | 0.48 | 0.84 | 0.97 | 0.99 | 1.00 |
| main | < 0.7 | 0.88 | 0.93 | 0.98 | 1 | 1 | 1 | 1 |
| ellipse | < 0.65 | 0.70 | 0.78 | 0.83 | 0.95 | 0.99 | 0.99 | 0.99 |
| longer | > 2.5 | 1.0 | 1.0 | 1.0 | 1.2 | 1.6 | 1.7 | 2.1 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btkeras.data.guard_measures import Look


@dataclass(frozen=True)
class Rule:
    """Attributes:
    reason: Why a picture is refused, in plain words.
    refuses: Whether it is, by the picture's measures.
    """

    reason: str
    refuses: Callable[[Look], bool]


# In this order, since the later measures mean little on what the earlier rules refuse.
RULES = (
    Rule("it is nearly black", lambda look: look.brightest < 20),
    Rule("it is blank: one grey level or colour", lambda look: look.contrast < 12),
    Rule("it has only a few grey levels, as drawings and codes have", lambda look: look.levels < 24),
    Rule("it is in colour", lambda look: look.colour > 0.15),
    Rule("it is noise: neighbouring pixels are not alike", lambda look: look.likeness < 0.35),
    Rule("it is a smooth gradient without structure", lambda look: look.ramp > 0.9),
    Rule("it consists of stripes or of lines in one direction", lambda look: look.stripes > 4),
    Rule("its background is bright: inverted, or a document", lambda look: look.corner > 0.7 and look.dark_edge < 0.4),
    Rule("no dark background surrounds a head", lambda look: look.corner > 0.2 and look.dark_edge < 0.5),
    Rule("no dark background surrounds a head", lambda look: look.dark_edge < 0.28),
    Rule("it shows several things instead of one head", lambda look: look.main < 0.7),
    Rule("nothing in it has the outline of a head", lambda look: look.ellipse < 0.65 or look.longer > 2.5),
)


def check_slice(image: NDArray[np.uint8]) -> str | None:
    """Says why a picture is no brain MRI slice.

    Args:
        image: uint8 ``[height, width]`` or ``[height, width, 1 or 3]``, of any size, as it was decoded: before any
            resizing, harmonising or change to grey.

    Returns:
        The reason in plain words, or None if it may be a slice.
    """
    look = Look(image)
    return next((rule.reason for rule in RULES if rule.refuses(look)), None)

"""From what is known of a picture to an answer: a class, ``uncertain`` or ``refused``, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.errors import ConfigError
from btkeras.evaluation.calibration import Calibration
from btkeras.evaluation.outliers import Reference

UNCERTAIN, REFUSED = "uncertain", "refused"
COVERAGE = 0.95

Floats = NDArray[np.floating]


def check_coverage(coverage: float) -> None:
    """Checks a wanted coverage.

    Raises:
        ConfigError: If it is not above 0 and below 1.
    """
    if not 0 < coverage < 1:
        raise ConfigError("A coverage must be above 0 and below 1", received=coverage, remedy="Give 0.95, say")


@dataclass(frozen=True)
class Verdict:
    """Attributes:
    answer: A class name, ``uncertain`` or ``refused``.
    set: The classes that cannot be ruled out at the wanted coverage; None if the network was not calibrated.
    outlier: Percent of the validation slices that are at most as unlike the training slices; None if not known.
    reasons: Why there is no class as the answer, in plain words.
    """

    answer: str
    set: tuple[str, ...] | None
    outlier: float | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judge:
    """The rules, in this order: what the guard refuses is refused; an outlier is uncertain, and so is a picture whose
    prediction set has not exactly one class; else the answer is the most probable class.

    Attributes:
        classes: Names, in the order of the probabilities.
        calibration: Gives the prediction sets; None leaves that rule out.
        reference: Gives the scores a meaning; None leaves that rule out.
        coverage: Of the prediction sets, above 0 and below 1.
    """

    classes: tuple[str, ...]
    calibration: Calibration | None
    reference: Reference | None
    coverage: float = COVERAGE

    def verdicts(self, probabilities: Floats, scores: Floats | None, refusals: Sequence[str | None]) -> list[Verdict]:
        """Judges pictures.

        Args:
            probabilities: ``[n, classes]``.
            scores: ``[n]`` of ``Outliers.score``; None if they are not known.
            refusals: What the guard says of each.

        Raises:
            ConfigError: If the coverage is out of range.
        """
        unknown = [None] * len(refusals)
        sets = self.calibration.sets(probabilities, self.coverage) if self.calibration else unknown
        percentiles: Sequence[Any] | NDArray[np.float64] = unknown
        beyond: Sequence[Any] | NDArray[np.bool_] = unknown
        if self.reference is not None and scores is not None:
            percentiles, beyond = self.reference.percentile(scores), self.reference.outliers(scores)
        return [self._verdict(*facts) for facts in zip(probabilities, sets, percentiles, beyond, refusals, strict=True)]

    def _verdict(
        self,
        probabilities: Floats,
        members: NDArray[np.bool_] | None,
        percentile: float | None,
        beyond: bool | None,
        refusal: str | None,
    ) -> Verdict:
        names = None if members is None else tuple(n for n, m in zip(self.classes, members, strict=True) if m)
        outlier = None if percentile is None else round(float(percentile), 2)
        if refusal is not None:
            return Verdict(REFUSED, names, outlier, (f"no brain MRI slice: {refusal}",))
        reasons: tuple[str, ...] = ("unlike the training slices",) if beyond else ()
        if names is not None and len(names) != 1:
            several = f"{' or '.join(names)} at {self.coverage:.0%} coverage"
            reasons += (several if names else f"no class is probable enough for {self.coverage:.0%} coverage",)
        return Verdict(UNCERTAIN if reasons else self.classes[int(probabilities.argmax())], names, outlier, reasons)

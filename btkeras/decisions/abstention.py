"""From which highest probability on a class is the decision, and what was tested for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from btkeras.errors import ConfigError

METHOD = "Learn then Test, fixed sequence of thresholds, exact binomial test"
# Shares of wrong classes among the decisions, of which the smallest that can be kept is taken; the confidence level.
RISKS, LEVEL = (0.05, 0.1, 0.2), 0.9
# What the threshold is fitted on unless a dataset is named.
VALIDATION = "validation slices with none to three corruptions"


@dataclass(frozen=True)
class Abstention:
    """A threshold of the highest probability, fitted by ``metrics.risk_control.control_risk``."""

    threshold: float | None  # least highest probability of a decision; None if no threshold keeps the risk
    risk: float  # largest share of wrong decisions, above 0 and below 1
    level: float  # confidence level of that, above 0 and below 1
    images: int  # that were tested: brain MRI slices that are not out of distribution
    covered: int  # of these, at or above the threshold; without one, the surest that were tested
    wrong: int  # of the covered
    bound: float  # upper confidence bound of the risk among them
    data: str  # which images: ``VALIDATION``, or a dataset's name
    method: str = METHOD

    def to_json(self) -> dict[str, Any]:
        """The part ``abstention`` of ``calibration.json``."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Abstention:
        """Reads what ``to_json`` made; raises KeyError, TypeError or ValueError if it is something else."""
        found = Abstention(**document)
        # NaN is in no range.
        shares = (found.risk, found.level, *([] if found.threshold is None else [found.threshold]))
        if not all(0 <= share <= 1 for share in shares) or not 0 <= found.wrong <= found.covered <= found.images:
            raise ValueError("an abstention threshold or its counts out of range")
        return found

    def __str__(self) -> str:
        """What was found, without a full stop."""
        if not self.images:
            return f"no threshold, since the MRI check or the OOD score turns all {self.data} away"
        wrong = (
            f"of {self.images:,} images ({self.data}, without those turned away), "
            f"{self.wrong:,} of the surest {self.covered:,} are wrong, at most {100 * self.bound:.1f} % with "
            f"{100 * self.level:g} % confidence ({100 * self.risk:g} % allowed)"
        )
        if self.threshold is None:
            return f"every slice is uncertain, since no threshold keeps the risk low enough: {wrong}"
        least = f"{self.threshold:.{decimals(self.threshold)}f}"
        return f"uncertain where the highest probability is below {least}: {wrong}"


def decimals(threshold: float, other: float = 1.0) -> int:
    """Decimals, three or more, in which a threshold differs from 1 and from another probability."""
    told = (count for count in range(3, 8) if round(threshold, count) not in (1.0, round(other, count)))
    return next(told, 3)


def check_risk(risk: float | None, level: float) -> None:
    """Raises ``ConfigError`` unless a risk, if there is one, and a confidence level are above 0 and below 1."""
    for name, value, example in (("risk", risk, RISKS[0]), ("confidence level", level, LEVEL)):
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"A {name} must be above 0 and below 1", received=value, remedy=f"Give {example}, say")

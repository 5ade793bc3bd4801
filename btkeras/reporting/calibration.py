"""Whether probabilities mean what they say, before and after calibration, and what leaving answers out gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.metrics.calibration import (
    ESTIMATOR,
    calibrated_error,
    calibration_scores,
    risk_coverage_area,
    without_temperature,
)
from btkeras.metrics.conformal import prediction_sets, set_metrics
from btkeras.reporting.calibration_plots import reliability_panel, risk_panel
from btkeras.reporting.document import Block, Cell, Column, Figure, Table
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.numbers import UNKNOWN, percent, percent_cell, scaled_cell
from btkeras.reporting.sources import TrainedRun

_STAGES = ("before", "after")
_ERROR_NOTE = (
    f'ECE in percent ({ESTIMATOR}). It is biased upwards: "if perfect" is what a perfectly calibrated network with '
    "these confidences would get on average. The Brier score is 0 to 2, the log loss in nats, AURC the mean percentage "
    "of wrong answers over all shares of answers kept; of all of them, lower is better."
)
_SET_NOTE = (
    "Percent, but for the classes a set. A set holds the classes that cannot be ruled out (split conformal prediction, "
    "score 1 - p). What is wanted is promised for images like the validation part's, over all of them and not within "
    "each class, where it may be less. An empty set says that no class is as probable as the true one nearly always "
    "was. The answer is uncertain then, as with several classes."
)
_RELIABILITY_NOTE = (
    f"{ESTIMATOR[0].upper()}{ESTIMATOR[1:]}; bars are 95 % Wilson intervals. The scales differ: each plot shows where "
    "its points lie."
)


@dataclass(frozen=True)
class CalibrationResult:
    """A network's answers to all test images.

    Attributes:
        network: Whose.
        labels: ``[n]`` class indices.
        stages: Probabilities ``[n, classes]``: ``before`` the calibration and, where every training had one, ``after``.
        temperatures: Of the trainings; empty where not every one was calibrated.
        sets: ``[n, classes]`` by wanted coverage; empty likewise.
    """

    network: ReportedModel
    labels: NDArray[np.int64]
    stages: Mapping[str, NDArray[np.float64]]
    temperatures: tuple[float, ...]
    sets: Mapping[float, NDArray[np.bool_]]

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """As the network gives them: of the last stage."""
        return self.stages.get("after", self.stages["before"])


def calibration_blocks(evidence: ReportData) -> list[Block]:
    """Tables of calibration errors and of prediction sets, reliability diagrams and risk-coverage curves."""
    found = [_trust(network) for network in evidence.networks]
    of = evidence.pooled
    sets = _set_table(found, of)
    return [
        _error_table(found, of),
        *([sets] if sets.rows else []),
        Figure(
            "reliability",
            f"Reliability diagrams of {of}: how often the most probable class is right, against its probability",
            tuple(reliability_panel(item.network, item.labels, item.stages) for item in found),
            (_RELIABILITY_NOTE,),
        ),
        Figure(
            "risk-coverage",
            f"Risk-coverage curves of {of}: what is wrong of the answers kept where the least sure are left out",
            tuple(risk_panel(item.network, item.labels, item.probabilities) for item in found),
            ("Grey: the best that any order of the same answers could do.",),
        ),
    ]


def _trust(network: ReportedModel) -> CalibrationResult:
    results = [run.result for run in network.runs]
    labels = np.concatenate([result.labels for result in results])
    known = [_known(run) for run in network.runs]
    temperatures = tuple(float(figures.get("temperature", 1)) for figures in known)
    before = [without_temperature(r.probabilities, t) for r, t in zip(results, temperatures, strict=True)]
    if not all(figures.get("conformal") for figures in known):
        return CalibrationResult(network, labels, {"before": np.concatenate(before)}, (), {})
    stages = {"before": np.concatenate(before), "after": np.concatenate([r.probabilities for r in results])}
    # Each training has thresholds of its own.
    thresholds = [{row["coverage"]: row["threshold"] for row in figures["conformal"]["sets"]} for figures in known]
    sets = {
        coverage: np.concatenate(
            [prediction_sets(r.probabilities, own[coverage]) for r, own in zip(results, thresholds, strict=True)]
        )
        for coverage in thresholds[0]
    }
    return CalibrationResult(network, labels, stages, temperatures, sets)


def _known(run: TrainedRun) -> Mapping[str, Any]:
    """The calibration figures of a run's evaluation; none of runs of before there were any."""
    # Not calibration.json: this is written with the predictions, and kept where weights are not.
    found: Mapping[str, Any] = run.run.metrics().get("calibration", {}) if run.run.metrics_file.is_file() else {}
    return found


def _error_table(found: Sequence[CalibrationResult], of: str) -> Table:
    stages = [Column(stage, title) for title in ("ECE", "Brier score", "log loss") for stage in ("before", "after")]
    stages.insert(2, Column("if perfect", "ECE"))
    return Table(
        name="calibration-errors",
        caption=f"Calibration of {of}, before and after the temperature",
        columns=(Column("network", numeric=False), Column("temperature"), *stages, Column("AURC")),
        rows=tuple(map(_error_row, found)),
        notes=(_ERROR_NOTE,),
    )


def _error_row(answers: CalibrationResult) -> tuple[Cell, ...]:
    scores = {stage: calibration_scores(answers.labels, p) for stage, p in answers.stages.items()}

    def pair(name: str) -> list[Cell]:
        values = [scores.get(stage, {}).get(name) for stage in _STAGES]
        return [percent_cell(value) if name == "ece" else scaled_cell(value, 1, 4) for value in values]

    return (
        Cell(answers.network.name, answers.network.name),
        _temperature_cell(answers.temperatures),
        *pair("ece"),
        percent_cell(calibrated_error(answers.probabilities)[0]),
        *pair("brier"),
        *pair("nll"),
        Cell(percent(area := risk_coverage_area(answers.labels, answers.probabilities), 3), area),
    )


def _temperature_cell(temperatures: Sequence[float]) -> Cell:
    if not temperatures:
        return UNKNOWN
    ends = sorted({f"{end:.3f}" for end in (min(temperatures), max(temperatures))}, key=float)
    return Cell("\N{EN DASH}".join(ends), list(temperatures))


def _set_table(found: Sequence[CalibrationResult], of: str) -> Table:
    columns = (
        "wanted",
        "held",
        "held, least covered class",
        "classes a set",
        "empty",
        "of one class",
        "of those right",
    )
    return Table(
        name="prediction-sets",
        caption=f"Prediction sets of {of}: how often they hold the true class",
        columns=(Column("network", numeric=False), *(Column(title) for title in columns)),
        rows=tuple(
            _set_row(answers.network, coverage, set_metrics(answers.labels, sets))
            for answers in found
            for coverage, sets in answers.sets.items()
        ),
        notes=(_SET_NOTE,),
    )


def _set_row(network: ReportedModel, coverage: float, figures: Mapping[str, Any]) -> tuple[Cell, ...]:
    names = network.source.summary["classes"]
    shares = {name: share for name, share in zip(names, figures["covered_by_class"], strict=True) if share is not None}
    least = min(shares, key=lambda name: shares[name])
    return (
        Cell(network.name, network.name),
        Cell(f"{100 * coverage:g}", coverage),
        percent_cell(figures["covered"]),
        Cell(f"{percent(shares[least])} ({least})", {"class": least, "value": shares[least]}),
        scaled_cell(figures["mean_size"], 1, 2),
        percent_cell(figures["empty"]),
        percent_cell(figures["single"]),
        percent_cell(figures["single_right"]),
    )

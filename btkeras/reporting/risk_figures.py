"""A report's risk-coverage curves: of the test subset, and of other datasets that a run was evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from btkeras.checksums import read_document, remedy
from btkeras.errors import RunError
from btkeras.metrics.calibration import risk_coverage
from btkeras.reporting.document import Block, Figure, Panel, percent, slug
from btkeras.reporting.plots import BLUE, GREY, RED, Line, draw_lines
from btkeras.reporting.report_data import ReportData, ReportedModel
from btkeras.reporting.sources import TrainedRun

_Json = Mapping[str, Any]
# More points of a curve nobody sees.
_POINTS = 200
_NOTE = "Grey: the best that any order of the same predictions could do. Red: where the decisions work."


def risk_figure(data: ReportData) -> Figure:
    """The curves of the models on their test subsets, with a working point for each training that has one."""
    caption = f"Risk-coverage curves of {data.pooled}: the share that is wrong where the least sure are left out"
    return Figure("risk-coverage", caption, tuple(map(_model_panel, data.models)), (_NOTE,))


def _model_panel(model: ReportedModel) -> Panel:
    coverage, risk = risk_coverage(model.labels, model.probabilities)
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    curve = {"aurc": float(risk.mean()), "coverage": coverage[shown], "risk": risk[shown]}
    points = [run.risk_coverage.get("working_point") for run in model.runs]
    return _panel(f"risk-coverage-{model.slug}", model.name, {"model": model.name}, curve, points)


def other_dataset_blocks(data: ReportData) -> list[Block]:
    """A panel for each other dataset that a run was evaluated on; nothing where there is none."""
    panels = tuple(panel for model in data.models for run in model.runs for panel in _other_panels(model, run))
    caption = "Risk-coverage curves on other datasets: the share that is wrong where the least sure are left out"
    return [Figure("risk-coverage-elsewhere", caption, panels, (_NOTE,))] if panels else []


def _other_panels(model: ReportedModel, run: TrainedRun) -> Iterator[Panel]:
    for folder in sorted(path.parent for path in run.run.evaluations.glob("*/metrics.json")):
        metrics = read_document(folder / "metrics.json")
        # Evaluations of older versions have no curve, those of the run's own subsets are no other dataset.
        if metrics.get("split") != "all" or "risk_coverage" not in metrics:
            continue
        which = f", seed {run.seed}, fold {run.fold}" if len(model.runs) > 1 else ""
        name = f"risk-coverage-{model.slug}-{run.seed}-{run.fold}-{slug(folder.name)}"
        about = {"model": model.name, "seed": run.seed, "fold": run.fold, "dataset": folder.name}
        try:
            found = metrics["risk_coverage"]
            yield _panel(name, f"{model.name}{which}: {folder.name}", about, found, [found["working_point"]])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            rule = f"{folder / 'metrics.json'} must be as `btkeras evaluate` writes it"
            raise RunError(rule, received=error, remedy=remedy(folder / "metrics.json")) from error


def _panel(name: str, title: str, about: _Json, curve: _Json, points: Sequence[_Json | None]) -> Panel:
    """A curve of ``coverage``, ``risk`` and ``aurc``, and the working points that have a risk."""
    coverage, risk = (np.asarray(curve[key], np.float64) for key in ("coverage", "risk"))
    # The least that is wrong at a coverage: all that is right comes first.
    least, aurc = np.maximum(0, coverage - (1 - risk[-1])) / coverage, float(curve["aurc"])
    known = [point for point in points if point and point["risk"] is not None]
    working = {key: [float(point[key]) for point in known] for key in ("coverage", "risk")}
    area = f"{percent(aurc, 3)} %"
    lines: list[Line] = [
        (100 * coverage, 100 * least, GREY),
        (100 * coverage, 100 * risk, {"color": BLUE, "label": f"AURC {area}"}),
    ]
    alt = f"{title}: area under the risk-coverage curve {area}"
    if known:
        at = ", ".join(
            f"coverage {percent(point['coverage'])} % with {percent(point['risk'])} % wrong" for point in known
        )
        style = {"color": RED, "marker": "o", "linestyle": "", "label": "decisions"}
        lines.append((np.multiply(100, working["coverage"]), np.multiply(100, working["risk"]), style))
        alt += f"; decisions: {at}"
    axes, limits = ("coverage, %", "wrong among the covered, %"), ((0, 102), (0, None))
    draw = partial(draw_lines, title, axes, lines, limits=limits)
    curves = {"aurc": aurc, "coverage": coverage.tolist(), "risk": risk.tolist(), "least_risk": least.tolist()}
    return Panel(name, alt, draw, {**about, **curves, "decisions": working})

"""How networks hold under corruption: the sheets of the runs that have one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from btkeras.evaluation.robustness_sheet import read_sheet
from btkeras.reporting import drawing
from btkeras.reporting.document import Block, Cell, Column, Figure, Panel, Table
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.numbers import percent
from btkeras.reporting.sources import TrainedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_SIZE = (460, 340)
_MEANS = {"accuracy": "mean", "balanced_accuracy": "balanced", "confidence": "confidence", "ece": "ECE"}


def robustness_blocks(evidence: ReportData) -> list[Block]:
    """A table for each sheet, and a panel each; nothing where no run has one."""
    found = [(network, run, read_sheet(run.run)) for network in evidence.networks for run in network.runs]
    sheets = [(*_names(network, run), sheet) for network, run, sheet in found if sheet]
    if not sheets:
        return []
    caption = "Accuracy by strength of corruption: 0 is the image as it is"
    panels = tuple(_panel(title, slug, sheet) for title, slug, sheet in sheets)
    return [*(sheet_table(title, slug, sheet) for title, slug, sheet in sheets), Figure("robustness", caption, panels)]


def _names(network: ReportedModel, run: TrainedRun) -> tuple[str, str]:
    if len(network.runs) == 1:
        return network.name, network.slug
    return f"{network.name}, seed {run.seed}, fold {run.fold}", f"{network.slug}-{run.seed}-{run.fold}"


def sheet_table(title: str, slug: str, sheet: Mapping[str, Any]) -> Table:
    """A sheet as a table.

    Args:
        title: Whose.
        slug: The same, of letters, digits and hyphens.
        sheet: As ``robustness_sheet.read_sheet`` gives it.
    """
    levels = [level["level"] for level in sheet["corruptions"][0]["levels"]]
    units = ". ".join(map(_unit, sheet["corruptions"]))
    return Table(
        name=f"robustness-table-{slug}",
        caption=f"{title}: accuracy in percent on {sheet['images']:,} of {sheet['of']:,} images, by strength",
        columns=(
            Column("corruption", numeric=False),
            *(Column(str(level), "accuracy") for level in levels),
            Column("mean", "accuracy"),
            *(Column(name, "means over the strengths") for name in tuple(_MEANS.values())[1:]),
        ),
        rows=(
            *(
                _row(row["name"], [one["accuracy"] for one in row["levels"]], row["mean"])
                for row in sheet["corruptions"]
            ),
            _row("all of them", [None] * len(levels), sheet["mean"]),
            _row("as they are", [None] * len(levels), sheet["clean"]),
        ),
        notes=(f"{units}.", _uncertainty(sheet)),
    )


def _unit(row: Mapping[str, Any]) -> str:
    strengths = ", ".join(f"{level['strength']:g}" for level in row["levels"])
    return f"{row['name']}: {row['title']}; {row['unit']} {strengths}"


def _uncertainty(sheet: Mapping[str, Any]) -> str:
    errors = sheet["sampling_error"]
    if sheet["images"] == sheet["of"]:
        return "All images of the test part; the same image gets the same change each time."
    return (
        f"Drawn at random from each class (seed {sheet['seed']}): an accuracy may be off by "
        f"{percent(errors['clean'], 1)} points where it is as of the images as they are, and by "
        f"{percent(errors['largest'], 1)} near 50 % (95 % confidence)."
    )


def _row(name: str, values: list[float | None], means: Mapping[str, float]) -> tuple[Cell, ...]:
    cells = [Cell("" if value is None else percent(value, 1), value) for value in values]
    return (Cell(name, name), *cells, *(Cell(percent(means[key], 1), means[key]) for key in _MEANS))


def _panel(title: str, slug: str, sheet: Mapping[str, Any]) -> Panel:
    curves = {
        row["name"]: {
            "levels": [0, *(one["level"] for one in row["levels"])],
            "accuracy": [sheet["clean"]["accuracy"], *(one["accuracy"] for one in row["levels"])],
        }
        for row in sheet["corruptions"]
    }
    lowest = min(sheet["corruptions"], key=lambda row: row["mean"]["accuracy"])
    return Panel(
        name=f"robustness-{slug}",
        alt=f"{title}: mean accuracy {percent(sheet['mean']['accuracy'], 1)} % over all corruptions, lowest under "
        f"{lowest['name']} with {percent(lowest['mean']['accuracy'], 1)} %",
        draw=functools.partial(_draw, title, curves),
        data={"network": title, "corruptions": curves},
    )


def _draw(title: str, curves: Mapping[str, Mapping[str, list[float]]]) -> Drawing:
    drawn, area = drawing.axes(*_SIZE, title=title)
    colors = len(drawing.COLOURS)
    for number, (name, curve) in enumerate(curves.items()):
        dash = drawing.DASHES[number // colors % len(drawing.DASHES)]
        values = [100 * value for value in curve["accuracy"]]
        area.plot(curve["levels"], values, color=drawing.COLOURS[number % colors], linestyle=dash, label=name)
    area.set_ylim(0, 101)
    area.set_xlabel("strength")
    area.set_ylabel("accuracy, %")
    area.grid(visible=True)
    area.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return drawn

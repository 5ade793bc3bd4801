"""Table 4: how large and how fast each network is."""

from __future__ import annotations

from statistics import fmean

from btkeras.reporting.document import Cell, Column, Table
from btkeras.reporting.evidence import ReportData, ReportedModel
from btkeras.reporting.figure_tables import published_cell
from btkeras.reporting.numbers import UNKNOWN, scaled_cell, spread_cell

_SPEEDS = ("training_images_per_second", "evaluation_images_per_second")


def size_table(evidence: ReportData) -> Table:
    """Parameters, multiplications, speed and accuracy of every network."""
    return Table(
        name="table-4",
        caption="Table 4. Size and speed",
        columns=(
            Column("network", numeric=False),
            Column("here", "parameters, millions"),
            Column("paper", "parameters, millions"),
            Column("trainable, millions"),
            Column("MACs, billions"),
            Column("training", "images per second"),
            Column("testing", "images per second"),
            Column("device", numeric=False),
            Column("here", "accuracy"),
            Column("paper", "accuracy"),
        ),
        rows=tuple(_row(network) for network in evidence.networks),
        notes=(
            "MACs are multiplications with an addition, for one image of the size that was trained with (see "
            "Provenance). Speeds are means over the folds; they compare only between networks that had the same device "
            "to themselves. A dash where nothing was recorded.",
        ),
    )


def _row(network: ReportedModel) -> tuple[Cell, ...]:
    figures = network.figures
    deviation = (figures["std"] or {}).get("accuracy")
    return (
        Cell(network.name, network.name),
        scaled_cell(figures.get("parameters"), 1e6, 2),
        published_cell(network.model, "parameters"),
        scaled_cell(figures.get("trainable_parameters"), 1e6, 2),
        scaled_cell(figures.get("macs"), 1e9, 2),
        *(_speed(network, key) for key in _SPEEDS),
        _device(network),
        spread_cell(figures["mean"]["accuracy"], deviation),
        published_cell(network.model, "accuracy"),
    )


def _speed(network: ReportedModel, key: str) -> Cell:
    values = network.known(key)
    return scaled_cell(fmean(values), 1, 1) if values else UNKNOWN


def _device(network: ReportedModel) -> Cell:
    devices = sorted(set(map(str, network.known("device"))))
    return Cell(", ".join(devices), devices) if devices else UNKNOWN

"""The table that docs/trust.md begins with: what recipes are worth for known patients, new ones, and other hospitals.

A cell comes from a cross-validation's ``summary.json`` or a run's ``metrics.json`` below docs/results; a folder that is
not there gives "not measured yet".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from btkeras.files import read_json
from btkeras.metrics.intervals import Resampling, recall_metrics, wilson
from btkeras.metrics.tumor_classes import tumor_class_metrics
from scripts.results.tables import RESULTS, commands, rewritten, table_of

_Json = Mapping[str, Any]

_OTHER = "external_dev"
# Each column's `data.group_by`; the last is another dataset.
COLUMNS = {"image-wise": "image", "official folds": "official", "strict patients": "patient", "another hospital": ""}
_MISSING = "not measured yet"
_FIGURES = (
    "accuracy",
    "macro recall",
    "tumour classes alone",
    "patients",
    "coverage; right of these",
)


@dataclass(frozen=True)
class Recipe:
    """A row of the table: a network of a configuration, and the folders below docs/results that measure it."""

    name: str
    network: str  # of the cross-validations
    folders: tuple[str, ...]  # runs and cross-validations; a column shows the first that is split so
    other: str  # the run that was evaluated on another hospital's slices


RECIPES = (
    Recipe(
        "`cpu.yaml`, `improved_resnet34`",
        "improved_resnet34",
        ("five", "official", "patient"),
        "patient/improved_resnet34/fold_0",
    ),
    Recipe("`cpu.yaml`, `resnet34`", "resnet34", ("five", "official", "patient"), "patient/resnet34/fold_0"),
    Recipe(
        "pretrained model",
        "improved_resnet34",
        ("pretrained", "pretrained_image", "pretrained_official"),
        "pretrained",
    ),
)


def with_table(text: str, results: Path = RESULTS) -> str:
    """The page with the table and its commands."""
    return rewritten(text, "recipes", f"{table(results)}\n\n{command_lines(results)}")


def table(results: Path = RESULTS) -> str:
    """Figures of each recipe, in percent, a column per split."""
    rows = [row for recipe in RECIPES for row in _rows(recipe, results)]
    return table_of(("", "percent (95 % interval)", *COLUMNS), rows)


def command_lines(results: Path = RESULTS) -> str:
    """The commands behind the cells that are there, each once."""
    shown = [_shown(recipe, group_by, results) for recipe in RECIPES for group_by in COLUMNS.values()]
    kept = dict.fromkeys(folder.relative_to(results) for folder in shown if folder)
    trained = [str(folder) for folder in kept if folder.name != _OTHER]
    evaluated = [f"btkeras evaluate {folder.parents[1]} --data {_OTHER}" for folder in kept if folder.name == _OTHER]
    return "\n".join([commands(*trained, results=results).removesuffix("\n```"), *evaluated, "```"])


def _shown(recipe: Recipe, group_by: str, results: Path) -> Path | None:
    """The folder that a cell is from."""
    if not group_by:
        other = results / recipe.other / "evaluations" / _OTHER
        return other if other.is_dir() else None
    return next((results / name for name in recipe.folders if _split(results / name, recipe.network) == group_by), None)


def _split(folder: Path, network: str) -> str | None:
    """What the subsets of a run or cross-validation are grouped by; None if there is none of the network."""
    if not (folder / "config.yaml").is_file():
        return None
    summary = folder / "summary.json"
    if summary.is_file() and network not in read_json(summary)["models"]:
        return None
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    # Configurations of before there were groups have no word for it.
    return str(config["data"].get("group_by", "image"))


def _rows(recipe: Recipe, results: Path) -> Iterable[Sequence[str]]:
    shown = [_shown(recipe, group_by, results) for group_by in COLUMNS.values()]
    cells = [_cells(folder, recipe.network) if folder else [_MISSING] * len(_FIGURES) for folder in shown]
    names = [recipe.name, *[""] * (len(_FIGURES) - 1)]
    yield from zip(names, _FIGURES, *cells, strict=True)


def _cells(folder: Path, network: str) -> Sequence[str]:
    """The column of a folder, a text per figure."""
    if (folder / "summary.json").is_file():
        found = read_json(folder / "summary.json")["models"][network]
        folds = [read_json(file) for file in sorted((folder / network).glob("*/metrics.json"))]
        intervals = found["intervals"]
        return _texts(
            {**found["pooled"], **found, "intervals": {**intervals, "macro_recall": intervals["recall"]}}, folds
        )
    metrics = read_json(folder / "metrics.json")
    rest = metrics.get("without_near_duplicates") or {}
    # An image that the model was trained on is no other hospital's.
    if folder.name == _OTHER and rest.get("near_duplicates") and rest["images"]:
        metrics = rest | {"selective": {**metrics.get("selective", {}), **rest.get("selective", {})}}
    return _texts(metrics, [metrics])


def _texts(metrics: _Json, evaluations: Sequence[_Json]) -> Sequence[str]:
    found = metrics if "tumor_classes" in metrics else _drawn(metrics)
    ends, tumors = found["intervals"], found["tumor_classes"]
    return [
        _share(metrics["accuracy"], ends["accuracy"]),
        _share(metrics["macro"]["recall"], ends["macro_recall"]),
        _share(tumors["accuracy"], tumors["intervals"]["accuracy"]),
        _patients(metrics.get("per_patient")),
        _decided(evaluations),
    ]


def _share(value: float, ends: Sequence[float]) -> str:
    return f"{100 * value:.1f} ({100 * ends[0]:.1f}\N{EN DASH}{100 * ends[1]:.1f})"


def _drawn(metrics: _Json) -> dict[str, Any]:
    """Intervals that draw images, from the confusion matrix: of files that have none."""
    matrix, classes = np.array(metrics["confusion_matrix"]), metrics["classes"]
    labels, predictions = (np.repeat(index.ravel(), matrix.ravel()) for index in np.indices(matrix.shape))
    numbers = np.arange(len(labels))
    found = recall_metrics(labels, predictions, numbers, classes, Resampling())
    probabilities = np.eye(len(classes))[predictions]
    return found | {"tumor_classes": tumor_class_metrics(labels, probabilities, numbers, classes, Resampling())}


def _patients(found: _Json | None) -> str:
    if not found:
        return ""
    metrics = found["rules"][found["rule"]]
    return f"{_share(metrics['accuracy'], metrics['intervals']['accuracy_wilson'])} of {found['groups']}"


def _decided(evaluations: Sequence[_Json]) -> str:
    """Coverage, and accuracy of the decisions; a dagger where prediction sets decided, as in versions of before."""
    found = [each["selective"] for each in evaluations if each.get("selective")]
    if not found or len(found) < len(evaluations):
        return ""
    covered = [round(each["images"] * each["coverage"]) for each in found]
    right = sum(round(count * (each["accuracy"] or 0)) for count, each in zip(covered, found, strict=True))
    share = f"{100 * sum(covered) / sum(each['images'] for each in found):.1f}"
    dagger = "" if all(each.get("abstention") for each in found) else " †"
    accuracy = _share(right / sum(covered), wilson(right, sum(covered))) if any(covered) else "none"
    return f"{share}; {accuracy}{dagger}"

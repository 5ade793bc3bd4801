"""Tables of docs/results.md about another hospital: what was tried, from docs/results/other_hospital_trials.json.

A trial's ``settings`` are those of its training, its ``figures`` fractions on the slices of `external_dev` that have no
near-duplicate in the training set. A macro recall was predicted before the training where it is given.
"""

from __future__ import annotations

from pathlib import Path

from btkeras.files import read_json
from scripts.results.tables import RESULTS, table_of

FILE = "other_hospital_trials.json"
COLUMNS = ("trial", "predicted", "macro recall", "surest half right", "at home", "verdict")


def table(results: Path = RESULTS) -> str:
    """A row per trial, in percent."""
    return table_of(
        COLUMNS,
        [
            (
                trial["change"],
                _percent(trial.get("predicted_macro_recall")),
                *(_percent(trial["figures"].get(name)) for name in ("macro_recall", "surest_half", "at_home")),
                trial["verdict"],
            )
            for trial in read_json(results / FILE)["trials"]
        ],
    )


def shares_table(results: Path = RESULTS) -> str:
    """Of the mean of two networks' weights, a row per share of the second."""
    trial = next(trial for trial in read_json(results / FILE)["trials"] if "shares_tried" in trial["settings"])
    tried, image_wise = (trial["settings"][name] for name in ("shares_tried", "image_wise"))
    rows = [
        (
            share,
            *(_percent(figures[name]) for name in ("macro_recall", "surest_half", "at_home")),
            _percent(image_wise["accuracy_by_share"].get(share)),
        )
        for share, figures in tried.items()
    ]
    return table_of(("share", *COLUMNS[2:5], "image-wise"), rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"

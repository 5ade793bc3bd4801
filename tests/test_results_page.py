"""The page of results says what the files behind it say, and names nothing that is not there."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from btkeras.config_io import load_config
from scripts.results import speed, tables
from scripts.results.__main__ import PAGE, page

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"


def test_the_page_is_what_the_files_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m scripts.results"


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page()):
        assert (PAGE.parent / target).exists(), target


def test_every_result_that_is_kept_is_on_it() -> None:
    linked = set(re.findall(r"\(results/([\w.]+)", page()))
    # Told of in docs/performance.md and docs/trust.md.
    elsewhere = {"benchmark_inference_int8.json", "benchmark_pipeline_busy.json", "other_hospital_trials.json"}
    assert {path.name for path in RESULTS.iterdir()} - elsewhere <= linked


def test_no_metrics_name_a_folder_of_a_machine() -> None:
    named = {
        file: json.loads(file.read_text(encoding="utf-8")).get("dataset") for file in RESULTS.rglob("metrics.json")
    }
    assert not [file for file, dataset in named.items() if Path(dataset).name != dataset]


def test_a_figure_of_the_run_table_is_that_of_the_answers() -> None:
    """Counted again from the answers, not from the figures that the table is made of."""
    answers = (RESULTS / "cpu/predictions.csv").read_text(encoding="utf-8").splitlines()
    columns = answers[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in answers[1:]]
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert f"{100 * right / len(rows):.2f} % ({right} of {len(rows)})" in tables.run_table("cpu")


KEPT = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/manifest.json"))
}
ENSEMBLES = [name for name, manifest in KEPT.items() if "ensemble" in manifest]


@pytest.mark.parametrize("name", ENSEMBLES)
def test_the_trainings_of_an_ensemble_are_kept(name: str) -> None:
    runs = KEPT[name]["ensemble"]["runs"]
    assert KEPT[name]["command"][1 : 1 + len(runs)] == [run["run"] for run in runs]
    assert all(KEPT[run["run"]]["command"] == run["command"] for run in runs)


@pytest.mark.parametrize("name", [name for name in KEPT if name not in ENSEMBLES])
def test_the_command_that_is_shown_gives_the_settings_that_were_used(name: str) -> None:
    # The page shows the command as it was typed, with a setting that has been renamed since.
    words = [word.replace("refine.", "cooldown.") for word in KEPT[name]["command"]]
    given = list(pairwise(words))
    shown = load_config(
        [ROOT / value for option, value in given if option == "--config"],
        [value for option, value in given if option == "--set"],
    )
    used = load_config(RESULTS / name / "config.yaml")
    assert (shown.data.image_size, shown.data.channels) == (used.data.image_size, used.data.channels)
    assert (shown.train, shown.augment, shown.intensity, shown.cooldown) == (
        used.train,
        used.augment,
        used.intensity,
        used.cooldown,
    )


def test_the_speed_table_has_every_benchmark() -> None:
    assert all(file in speed.table() for file in speed.BENCHMARKS)

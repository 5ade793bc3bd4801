"""The tables of docs/results.md that come from runs and cross-validations."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from btkeras.evaluation.results import read_predictions
from btkeras.experiments.summary import FoldResult, summarize_experiment
from btkeras.files import read_json
from btkeras.metrics.intervals import wilson
from btkeras.reporting.published import ABLATION, FAULTS, NETWORKS, PAPER, PARAMETERS

RESULTS = Path(__file__).parents[2] / "docs/results"

_Json = Mapping[str, Any]


def table_of(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rewritten(text: str, name: str, content: str) -> str:
    """A page with this between the comment that begins what is named so, and the next that ends it."""
    begin, end = f"<!-- {name}: python -m scripts.results -->", "<!-- until here -->"
    page, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{content}\n\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"a page must have {begin} once, and {end} behind it")
    return page


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def published() -> str:
    """The paper's accuracies, none of them measured here."""
    rows = [
        (f"`{name}`", _percent(row["accuracy"]), _parameters(name), f"table {2 if name in ABLATION else 5}")
        for name, row in {**ABLATION, **NETWORKS}.items()
    ]
    return f"{PAPER}:\n\n" + table_of(("model", "accuracy", "parameters", "where"), rows)


def faults() -> str:
    """What does not fit in the paper's tables and protocol."""
    return "\n".join(f"- {fault}" for fault in FAULTS)


def _parameters(model: str) -> str:
    return f"{PARAMETERS[model] / 1e6:.1f} M" if model in PARAMETERS else ""


def run_table(*names: str) -> str:
    """Test figures of single runs, a row each."""
    return table_of(
        ("run", "network", "input, epochs", "split", "test accuracy", "95 % interval (Wilson)", "macro F1", "training"),
        [_run_row(name) for name in names],
    )


def _run_row(name: str) -> Sequence[str]:
    folder = RESULTS / name
    metrics, manifest, config = read_json(folder / "metrics.json"), read_json(folder / "manifest.json"), _config(folder)
    right = round(metrics["accuracy"] * metrics["images"])
    low, high = wilson(right, metrics["images"])
    precision = manifest["precision"].removeprefix("mixed_")
    return (
        f"[{name}](results/{name})",
        f"`{config['model']['name']}`",
        _input(config, trained="ensemble" not in manifest),
        config["data"].get("group_by", "image"),
        f"{_percent(metrics['accuracy'])} ({right} of {metrics['images']})",
        f"{100 * low:.2f} to {100 * high:.2f}",
        _percent(metrics["macro"]["f1"]),
        f"{manifest['training_seconds'] / 60:.0f} min, {manifest['device'].removeprefix('tensorflow: ')}, {precision}",
    )


def _config(folder: Path) -> _Json:
    config: _Json = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return config


def _input(config: _Json, *, trained: bool) -> str:
    data = config["data"]
    harmonized = ", harmonized" if data.get("harmonize") else ""
    epochs = f", {config['train']['epochs']}" if trained else ""
    return f"{data['image_size']} x {data['image_size']} x {data['channels']}{harmonized}{epochs}"


def cv_table(name: str, baseline: str = "resnet34") -> str:
    """Figures of a cross-validation, a row per network, the best first."""
    summary = read_json(RESULTS / name / "summary.json")
    models = sorted(summary["models"].items(), key=lambda item: -item[1]["mean"]["accuracy"])
    rows = [
        (
            f"`{model}`",
            f"{found['trainable_parameters'] / 1e6:.1f} M",
            f"{_percent(found['mean']['accuracy'])} ± {100 * found['std']['accuracy']:.2f}",
            " to ".join(f"{100 * end:.2f}" for end in found["intervals"]["accuracy"]),
            f"{_percent(found['mean']['f1'])} ± {100 * found['std']['f1']:.2f}",
            _against(summary["comparisons"], model, baseline),
        )
        for model, found in models
    ]
    known = any(found.get("per_patient") for _, found in models)
    compared = [f"against `{baseline}` (95 % interval; p, Holm)"] * (baseline in summary["models"])
    drawn = "patient" if known else summary["protocol"]["group_by"]
    pooled = f"95 % interval, all {summary['bootstrap']['images']:,} images (bootstrap by {drawn})"
    columns = ("network", "trainable parameters", "accuracy, mean ± deviation of the folds", pooled, "macro F1")
    return table_of((*columns, *compared), [row[: len(columns) + len(compared)] for row in rows])


def average_table(single: str, *averages: str) -> str:
    """Averages of networks or views beside one network that they are of, on the same test images.

    Intervals draw what the averages' splits keep together.
    """
    folders = [RESULTS / name for name in (single, *averages)]
    manifests = [read_json(folder / "manifest.json") for folder in folders]
    classes, names = manifests[0]["classes"], [_config(folder)["model"]["name"] for folder in folders]
    results = [
        FoldResult(name, 0, 0, *read_predictions(folder / "predictions.csv", classes), {})
        for name, folder in zip(names, folders, strict=True)
    ]
    groups = read_json(folders[-1] / "splits.json")["groups"]
    summary = summarize_experiment(results, classes, groups=groups, test="rotating")
    rows = [
        (
            f"[`{name}`](results/{folder.relative_to(RESULTS)})",
            _percent(summary["models"][name]["pooled"]["accuracy"]),
            _against(summary["comparisons"], name, names[0]),
            f"{summary['models'][name]['pooled']['negative_log_likelihood']:.3f}",
            f"{manifest['macs'] / manifests[0]['macs']:.0f}",
        )
        for name, folder, manifest in zip(names, folders, manifests, strict=True)
    ]
    against = f"against `{names[0]}` (95 % interval; p, Holm)"
    return table_of(("network", "accuracy", against, "log loss", "times the multiply-adds"), rows)


def kept(*names: str) -> list[str]:
    """Those of these folders that are there."""
    return [name for name in names if (RESULTS / name).is_dir()]


def any_table(name: str) -> str:
    """The table of a cross-validation or of a run."""
    return cv_table(name) if (RESULTS / name / "summary.json").is_file() else run_table(name)


def _against(comparisons: Iterable[_Json], model: str, baseline: str) -> str:
    found = next((each for each in comparisons if set(each["models"]) == {model, baseline}), None)
    if found is None:
        return ""
    sign = 1 if found["models"][0] == model else -1
    low, high = sorted(100 * sign * end for end in found["interval"])
    p = found["bootstrap_p_adjusted"]
    noise = "more than noise" if p < 0.05 else "may be noise"
    return f"{100 * sign * found['difference']:+.2f} ({low:.2f} to {high:.2f}; {p:.2g}): {noise}"


def hours(name: str) -> str:
    """The hours of training of a cross-validation, all folds in a row."""
    folds = (RESULTS / name).glob("*/fold_*/manifest.json")
    return f"{sum(read_json(file)['training_seconds'] for file in folds) / 3600:.1f}"


def commands(*names: str, results: Path = RESULTS) -> str:
    """How runs and cross-validations were started, as they were, with names in place of folders."""
    lines = []
    for name in names:
        manifest = read_json(results / name / "manifest.json")
        words = shlex.join(["btkeras", *manifest["command"]])
        lines.append(f"{words}    # at {manifest['git_revision'].removesuffix('-dirty')}")
    return "\n".join(["```bash", *lines, "```"])


def trust_table(*names: str) -> str:
    """What a test accuracy does not say, a column per run."""
    found = [_trust(RESULTS / name) for name in names]
    rows = [(what, *(each[what] for each in found)) for what in found[0]]
    return table_of(("", *(f"[{name}](results/{name})" for name in names)), rows)


def _trust(folder: Path) -> dict[str, str]:
    sheet, maps = read_json(folder / "robustness.json"), read_json(folder / "explanations.json")
    shown = {row["name"]: row for row in read_json(folder / "shortcuts.json")["rows"]}
    layercam = next(row for row in maps["rows"] if row.get("method") == "layercam" and row["network"] == "trained")
    low, high = layercam["pointing_interval"]
    calibration = read_json(folder / "metrics.json")["calibration"]
    put_in, taken_out = shown["network, tumour put in"], shown["network, tumour taken out"]
    return {
        "mean accuracy under 45 changes (`robustness.json`)": _percent(sheet["mean"]["accuracy"]),
        "the same images as they are": _percent(sheet["clean"]["accuracy"]),
        "a tumour put into a tumour-free slice is detected (`shortcuts.json`)": _percent(put_in["detection_accuracy"]),
        "and classified correctly": _percent(put_in["accuracy"]),
        "a tumour taken out: none is detected": _percent(taken_out["accuracy"]),
        "tumour's box hidden: the class is still right": _percent(shown["network, box hidden"]["accuracy"]),
        "LayerCAM's maximum lies in the tumour's box (`explanations.json`)": (
            f"{_percent(layercam['pointing'])} ({100 * low:.1f} to {100 * high:.1f})"
        ),
        "ECE of the test subset, calibrated (`metrics.json`)": _percent(calibration["after"]["ece"]),
    }

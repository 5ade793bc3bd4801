"""The table of docs/results.md that says how fast: one row per benchmark whose file lies in docs/results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from btkeras.files import read_json
from scripts.results.tables import RESULTS, table_of

_Json = Mapping[str, Any]


def _training(measured: _Json) -> str:
    case = measured["cases"][0]
    rows = [row for row in case["rows"] if "bfloat16" in row["way"]]
    rates = ", ".join(f"{row['way']} {row['images_per_second']:.1f}" for row in rows)
    return f"training, {case['size']} x {case['size']} x {case['channels']}, batch {case['batch']}, images/s: {rates}"


def _start(measured: _Json) -> str:
    return "from a cold process: " + ", ".join(f"{row['case']} {row['wall']:.2f} s" for row in measured["rows"])


def _pipeline(measured: _Json) -> str:
    rates = [f"{case['config']} {case['stages'][-1]['training_rates']:.0f}" for case in measured["cases"]]
    return f"input pipeline alone, times the training's rate: {', '.join(rates)}"


def _scale(measured: _Json) -> str:
    parts = [
        f"{case['images']:,} files {case['to_first_batch']:.0f} s, {case['peak_anonymous'] / 1e6:.0f} MB"
        for case in measured["cases"]
        if case["start"] == 1
    ]
    return f"first batch of a training: {'; '.join(parts)}"


def _memory(measured: _Json) -> str:
    peaks = ", ".join(f"{case} {found['anonymous_mb']:,.0f} MB" for case, found in measured["cases"].items())
    return f"training's peak memory, batch {measured['batch']}: {peaks}"


def _inference(measured: _Json) -> str:
    cases = [case for case in measured["cases"] if case["batch"] == 16 and case["precision"] != "int8"]
    return f"16 images of 224 px predicted as one batch, processor time: {'; '.join(map(_fastest, cases))}"


def _fastest(case: _Json) -> str:
    """The best engine that an export of btkeras runs in, and the best of those that PyTorch compiles."""
    rows = sorted(case["rows"], key=lambda row: row["processor"])
    # A frozen graph is made by the benchmark, and is nothing that a user gets.
    ours = next(row for row in rows if row["form"] != "trained" and "frozen" not in row["engine"])
    peer = next(row for row in rows if "PyTorch compiled" in row["engine"])
    return (
        f"{case['precision']} {ours['engine']} {ours['processor']:.0f} ms, {peer['engine']} {peer['processor']:.0f} ms "
        f"({ours['processor'] / peer['processor']:.2f})"
    )


def _predict(measured: _Json) -> str:
    rows = [f"{row['case']} {row['processor']:.1f} s ({row['processor_speed']:.2f})" for row in measured["rows"]]
    return (
        f"`btkeras predict` of {measured['images']:,} slices, pretrained model, processor time and how many times as "
        f"fast: {', '.join(rows)}"
    )


def _commands(measured: _Json) -> str:
    rows = [
        f"`{row['case']}` {row['wall']:.0f} s ({row['wall_speed']:.1f})"
        for row in measured["rows"]
        if not row["case"].startswith("before")
    ]
    return f"whole commands on {measured['images']:,} slices, and how many times as fast as before: {', '.join(rows)}"


# By file: the command that writes it, and its summary.
BENCHMARKS: Mapping[str, tuple[str, Callable[[_Json], str]]] = {
    "benchmark_training.json": ("python -m benchmarks.training", _training),
    "benchmark_training_112.json": (
        "python -m benchmarks.training --sizes 112 --channels 1 --batch 32",
        _training,
    ),
    "benchmark_inference.json": (
        "BTKERAS_THREADS=1 python -m benchmarks.inference --networks improved_resnet34 --rounds 5",
        _inference,
    ),
    "benchmark_start.json": ("python -m benchmarks.cold_start SLICE --run RUN --version EXPORT", _start),
    "benchmark_predict.json": ("python -m benchmarks.predict FOLDER --other CHECKOUT_OF_1ADE451", _predict),
    "benchmark_commands.json": (
        "python -m benchmarks.commands DATASET --new external_dev --other CHECKOUT_OF_1ADE451",
        _commands,
    ),
    "benchmark_pipeline.json": ("python -m benchmarks.pipeline --training-rates 224=24 112=90", _pipeline),
    "benchmark_scale.json": ("python -m benchmarks.scale --side 128 --cache disk --again", _scale),
    "benchmark_memory.json": ("python -m benchmarks.memory --rounds 1", _memory),
}


def table() -> str:
    """What came out, the command, the hardware, the file."""
    rows = []
    for file, (command, summarize) in BENCHMARKS.items():
        measured = read_json(RESULTS / file)
        machine = measured["machine"]
        hardware = f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load']}"
        rows.append((summarize(measured), f"`{command}`", hardware, f"[{file}](results/{file})"))
    return table_of(("what came out", "command", "hardware", "file"), rows)

"""Times trainings on a GPU, and says how much of it they use: steps, epochs, whole trainings, PyTorch, and the limits.

    KERAS_BACKEND=jax python -m benchmarks.gpu --out gpu.json
    python -m benchmarks.gpu --size 48 --batch 4 --steps 1 --images 60 --rounds 2    # small, for a processor

Each way has a process of its own. First all get ready side by side, which is mostly compiling; then they are measured
in turns, one at a time, in an order that is drawn anew for each round. `btkeras train` itself is timed on drawn slices:
within the steps of an epoch, and all in, with validation and files.

Said are images a second, and beside them: `step` is the share of the rate that a step alone has; `of the matrices` that
of the rate at which the device multiplies bfloat16 matrices, counting three times an image's multiply-accumulates as a
step's; `memory` is the most that was used of the device's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rounds import Engine, EngineError, Worker, measure
from btkeras.files import write_json
from btkeras.machine import describe
from btkeras.models.architectures import RESNET34_VARIANTS

_WAYS = "benchmarks.gpu_ways"
# JAX would take most of the device's memory at once, and leave none to the others.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
OURS, KERAS, EAGER, COMPILED = "btkeras", "Keras", "PyTorch", "PyTorch compiled"
STEPS = (OURS, KERAS, EAGER, COMPILED)
MATRICES, MEMORY, TRAINING = "matrices", "memory", "btkeras train"
_NOTHING = np.zeros(0, np.uint8)


def engines(options: argparse.Namespace) -> dict[str, Engine]:
    """What is measured, by name."""
    case = {name: getattr(options, name) for name in ("network", "size", "channels", "batch")}
    steps = {**case, "steps": options.steps}
    ways = {
        OURS: ("keras_steps", {**steps, "ours": True}),
        KERAS: ("keras_steps", {**steps, "ours": False}),
        EAGER: ("torch_steps", {**steps, "compiled": False}),
        COMPILED: ("torch_steps", {**steps, "compiled": True}),
        MATRICES: ("matrices", {}),
        MEMORY: ("memory", {}),
        TRAINING: ("training", {**case, "images": options.images, "epochs": options.epochs}),
    }
    return {name: Engine(name, f"{_WAYS}:{entry}", keywords, _ENVIRONMENT) for name, (entry, keywords) in ways.items()}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures, JSON-ready; of what failed, why."""
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(engine)) for name, engine in engines(options).items()}
        about = loaded(workers, options.wait, failed)
        trained = workers[TRAINING].predict(_NOTHING)[0].tolist() if TRAINING in about else []
        others = {name: workers[name] for name in about if name != TRAINING}
        for worker in others.values():
            worker.predict(_NOTHING)
        seconds = {name: taken.median for name, taken in measure(others, options.rounds).items()}
    rates = {f"{name}, step alone": options.steps * options.batch / seconds[name] for name in STEPS if name in seconds}
    rates |= dict(zip((f"{TRAINING}, within an epoch", f"{TRAINING}, all in"), trained, strict=False))
    limits = {name: about[name]["work"] / seconds[name] for name in (MATRICES, MEMORY) if name in seconds}
    return {"images_per_second": rates, "limits": limits, "about": about, "failed": failed}


def loaded(workers: Mapping[str, Worker], wait: float, failed: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What each says of itself, when all are ready, which they get side by side; PyTorch's compiler has ``wait`` s."""
    about, end = {}, time.monotonic() + wait
    with ThreadPoolExecutor(len(workers)) as pool:
        futures = {name: pool.submit(worker.load) for name, worker in workers.items()}
        for name, future in futures.items():
            try:
                found, ready = future.result(max(end - time.monotonic(), 0) if name == COMPILED else None)
            except TimeoutError:
                workers[name].kill()
                failed[name] = f"compiling took more than {wait:g} s"
            except EngineError as error:
                failed[name] = error.reason
            else:
                about[name] = {**found, "ready_seconds": round(ready, 1)}
    return about


def table(report: Mapping[str, Any]) -> str:
    """The figures in Markdown."""
    rates, about, limits = report["images_per_second"], report["about"], report["limits"]
    step, macs = rates.get(f"{OURS}, step alone"), about.get(OURS, {}).get("macs")
    lines = [["way", "images/s", "step", "of the matrices", "memory, MB"], ["---"] * 5]
    for way, rate in rates.items():
        share = f"{rate / step:.2f}" if step else ""
        of_matrices = f"{3 * macs * rate / limits[MATRICES]:.0%}" if macs and MATRICES in limits else ""
        memory = about[way.split(", ")[0]].get("device_memory_mb")
        lines.append([way, f"{rate:,.0f}", share, of_matrices, f"{memory:,}" if memory else ""])
    said = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*said, "", *(f"{way}: no figure, {why}" for way, why in report["failed"].items())])


def main() -> None:
    """Reads the command line, measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=RESNET34_VARIANTS, default="improved_resnet34")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="in a call")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=4564, help="of btkeras train, its validation and test ones too")
    parser.add_argument("--epochs", type=int, default=3, help="of btkeras train that are timed")
    parser.add_argument("--wait", type=float, default=60, help="seconds for PyTorch's compiler")
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    options = parser.parse_args()
    begin = time.perf_counter()
    report = measured(options)
    report["seconds"] = round(time.perf_counter() - begin, 1)
    report["machine"] = describe(["keras", "jax", "tensorflow", "torch"])
    report["case"] = {name: value for name, value in vars(options).items() if name != "out"}
    limits = report["limits"]
    if limits:
        print(f"limits: {limits[MATRICES] / 1e12:.4g} T MACs/s in bfloat16, {limits[MEMORY] / 1e9:.4g} GB/s\n")
    print(f"{table(report)}\n\n{report['seconds']} s in all")
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

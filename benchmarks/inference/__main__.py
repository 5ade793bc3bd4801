"""Times the predictions of btkeras' networks beside PyTorch, ONNX Runtime, OpenVINO, LiteRT and TensorFlow.

    pip install -e '.[benchmark]'
    python -m benchmarks.inference --out benchmark.json
    python -m benchmarks.inference --networks improved_resnet34 --precisions bfloat16 --batches 16 --rounds 31

Each engine has a process of its own, which also says how much memory it takes to load the network and predict. All
compute the same network: the weights are carried over, and an engine whose probabilities are further from the trained
network's than its precision allows is left out. They are measured in rounds of one turn each, in an order that is drawn
anew for each round; so whatever else the machine does meets all of them. ``ratio`` is to the first engine, the median
of the rounds' quotients; ``processor`` are the seconds of all threads, which hardly change when other processes take
cores away. ``BTKERAS_THREADS=1`` gives each engine one thread: the fairest on a machine that others use too, since
threads of one engine then never wait for each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference.constants import SIDE
from benchmarks.inference.engines import ENTRANTS, TOLERANCES, Entrant, matrix_engines
from benchmarks.inference.rows import row, table
from benchmarks.matrices import SIDE as NUMPY_SIDE
from benchmarks.matrices import matrix_engine
from benchmarks.rounds import Engine, EngineError, Worker, measure
from btkeras.files import write_json
from btkeras.machine import describe, load

_PACKAGES = ("btkeras", "keras", "tensorflow", "torch", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
_MATRIX_ROUNDS = 9


def main() -> None:
    """Reads the command line, measures, prints tables and writes JSON."""
    options = _options()
    report: dict[str, Any] = {"machine": describe(_PACKAGES), "rounds": options.rounds, "rates": {}, "cases": []}
    print(report["machine"])
    for precision in options.precisions:
        rates = matrix_rates(precision)
        report["rates"][precision] = rates
        said = ", ".join(f"{library} {rate / 1e9:.0f}" for library, rate in rates.items())
        print(f"Matrices in {precision}, G multiply-accumulates a second of processor time: {said or 'not measured'}")
    with tempfile.TemporaryDirectory() as scratch:
        for network in options.networks:
            folder = (options.work or Path(scratch)) / f"{network}_{options.size}"
            macs = prepared(network, options.size, folder)
            for precision in options.precisions:
                entrants = [
                    entrant
                    for entrant in ENTRANTS
                    if entrant.precision == precision and any(wanted in entrant.name for wanted in options.engines)
                ]
                rate = max(report["rates"][precision].values(), default=None)
                for case in cases(network, folder, entrants, options, (macs, rate)):
                    report["cases"].append({"network": network, "size": options.size, "precision": precision, **case})
    report["load_after"] = load()
    if options.out:
        write_json(options.out, report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--networks", nargs="+", default=["improved_resnet34", "resnet34"])
    parser.add_argument("--size", type=int, default=224, help="side of the images")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--precisions", nargs="+", choices=TOLERANCES, default=list(TOLERANCES))
    parser.add_argument("--engines", nargs="+", default=[""], help="parts of the names of those that are wanted")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--work", type=Path, help="where prepared networks are kept for the next time")
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    return parser.parse_args()


def prepared(network: str, size: int, folder: Path) -> dict[str, int]:
    """Writes the network in all forms and formats unless they are there; the multiply-accumulates of each form."""
    done = folder / "macs.npz"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _say(f"preparing {network}, {size} pixels")
        arguments = {"network": network, "size": size, "folder": str(folder)}
        with Worker(Engine("prepare", "benchmarks.inference.prepare:prepare", arguments)) as worker:
            macs, _ = worker.load()
        np.savez(done, **macs)
    with np.load(done) as found:
        return {name: int(found[name]) for name in found}


def matrix_rates(precision: str) -> dict[str, float]:
    """Multiply-accumulates a second of one core in the product of large square matrices, by library."""
    engines = {library: (engine, SIDE) for library, engine in matrix_engines(precision, SIDE).items()}
    if precision == "float32":
        engines["NumPy"] = (matrix_engine(), NUMPY_SIDE)
    with ExitStack() as stack:
        workers = {library: stack.enter_context(Worker(engine)) for library, (engine, _) in engines.items()}
        for worker in workers.values():
            worker.load()
            worker.predict(np.zeros(1))
        taken = measure(workers, _MATRIX_ROUNDS) if workers else {}
    return {library: engines[library][1] ** 3 / of.processor for library, of in taken.items()}


def cases(
    network: str,
    folder: Path,
    entrants: Sequence[Entrant],
    options: argparse.Namespace,
    limits: tuple[Mapping[str, int], float | None],
) -> list[dict[str, Any]]:
    """Measures engines of one precision at each batch.

    Args:
        network: Its name.
        folder: Where it was prepared.
        entrants: The engines.
        options: Of the command line.
        limits: Multiply-accumulates of each form, and of a core a second.
    """
    images, probabilities = np.load(folder / "images.npy"), np.load(folder / "probabilities.npy")
    macs, rate = limits
    found: list[dict[str, Any]] = []
    memory: dict[str, int] = {}
    loading: dict[str, float] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for entrant in entrants:
            workers[entrant.name] = stack.enter_context(Worker(entrant.engine(str(folder), network)))
        for batch in options.batches:
            for entrant in [entrant for entrant in entrants if entrant.name in workers]:
                worker = workers[entrant.name]
                try:
                    if entrant.name not in loading:
                        _, loading[entrant.name] = worker.load()
                    _check(entrant, worker, images[:batch], probabilities[:batch])
                    memory[entrant.name] = round(worker.memory() / 2**20)
                except (EngineError, AssertionError) as error:
                    _say(f"{entrant.name} is left out: {error}")
                    del workers[entrant.name]
            taken = measure(workers, options.rounds)
            rows = [
                row(entrant, batch, taken, macs[entrant.form], rate) for entrant in entrants if entrant.name in taken
            ]
            title = f"{network}, {options.size} pixels, batch {batch}, {entrants[0].precision}"
            print(f"\n{title}, load {load()}\n\n{table(rows)}", flush=True)
            found.append({"batch": batch, "load": load(), "rows": [asdict(item) for item in rows]})
    said = ", ".join(f"{name} {value} ({loading[name]:.1f} s)" for name, value in memory.items())
    print(f"\nPeak memory of a process, MiB, and how long loading took: {said}", flush=True)
    return [case | {"mebibytes": memory, "loading_seconds": loading} for case in found]


def _check(entrant: Entrant, worker: Worker, grey: np.ndarray, probabilities: np.ndarray) -> None:
    found, _ = worker.predict(np.repeat(grey, entrant.channels, axis=-1))
    difference = np.abs(found - probabilities).max()
    assert difference <= TOLERANCES[entrant.precision], f"its probabilities differ by {difference:.2g}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

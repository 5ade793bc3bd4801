"""Times ``btkeras predict`` of many images, by the engines that are installed, and by another checkout.

    python -m benchmarks.predict FOLDER
    python -m benchmarks.predict FOLDER --other ../btkeras-of-before --rounds 5 --out predict.json

All by the pretrained model. Rounds take each once, in an order that is drawn anew each time. Said are medians of the
seconds that the caller waits and of processor time, both also as how many times faster than the other checkout, or than
LiteRT in float32, in the same round.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cold_start import Taken, rounds
from btkeras.files import write_json
from btkeras.inference.backends.single_file import ENGINE
from btkeras.machine import describe

OTHER, FLOAT32 = "other checkout", "litert"
PACKAGES = ("ai-edge-litert", "openvino", "numpy", "pillow")


@dataclass(frozen=True)
class Row:
    """Medians over the rounds; a speed is the reference's time in the same round over this one's."""

    case: str
    wall: float
    wall_speed: float
    processor: float
    processor_speed: float
    memory_mib: float


def cases(folder: Path, other: Path | None) -> dict[str, list[str]]:
    """Commands by what they measure."""
    predict = [sys.executable, "-m", "btkeras", "predict", str(folder.resolve()), "--json"]
    engines = [FLOAT32, "litert-mixed", *(["openvino-mixed"] if find_spec("openvino") else [])]
    found = {name: ["env", f"{ENGINE}={name}", *predict] for name in engines}
    # Python looks into the folder that it is started in first.
    before = ["env", "-C", str(other), f"PYTHONPATH={other.resolve()}", *predict] if other else []
    return {OTHER: before, **found} if other else found


def row(case: str, taken: list[Taken], reference: list[Taken]) -> Row:
    """A case beside the reference."""
    found, known = np.array(taken), np.array(reference)
    wall, processor, memory = (float(value) for value in np.median(found, axis=0))
    speeds = np.median(known[:, :2] / found[:, :2], axis=0)
    return Row(case, wall, float(speeds[0]), processor, float(speeds[1]), memory)


def say(rows: list[Row], machine: dict[str, Any], count: int, images: int, out: Path | None) -> None:
    """Prints the rows of so many rounds, a line each, and writes them to a JSON file if one is wanted."""
    for each in rows:
        print(
            f"{each.case:<18}{each.wall:7.1f} s ({each.wall_speed:.2f} times as fast)"
            f"{each.processor:7.1f} s of processor time ({each.processor_speed:.2f}){each.memory_mib:6.0f} MiB"
        )
    if out:
        write_json(
            out, {"machine": machine, "rounds": count, "images": images, "rows": [asdict(each) for each in rows]}
        )


def main() -> None:
    """Parses, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="images, some hundred or more")
    parser.add_argument("--other", type=Path, help="a checkout of btkeras with its pretrained model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    machine, images = describe(PACKAGES), sum(path.is_file() for path in options.folder.rglob("*"))
    taken = rounds(cases(options.folder, options.other), options.rounds)
    rows = [row(name, found, taken[OTHER if options.other else FLOAT32]) for name, found in taken.items()]
    say(rows, machine, options.rounds, images, options.out)


if __name__ == "__main__":
    main()

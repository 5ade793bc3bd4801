"""Times the command line from a cold process: what a user waits for the prediction of one image.

    python -m benchmarks.cold_start slice.png --run runs/first --version saved_models/first/1
    python -m benchmarks.cold_start slice.png --run runs/first --version saved_models/first/1 --out start.json

Against a plain script that imports Keras, loads the run's network and predicts (PLAIN below): `btkeras predict`
with the run and with each format of the exported version, `btkeras --help`, and Python doing nothing. Rounds take each
once, in an order that is drawn anew each time, so that whatever else the machine does meets all of them; one round
before them fills the disk's cache. Said are medians of what the caller waits and of processor time (all threads), both
also as ratios to the plain script of the same round, and the peak of memory (at least that of this script: the system
counts from before the new program was loaded).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from btkeras.files import write_json
from btkeras.inference.model_folder import FILES
from btkeras.machine import describe, load

PLAIN = """
import sys
import keras
import numpy as np
from PIL import Image

model = keras.models.load_model(sys.argv[1], compile=False)
height, width, channels = model.input_shape[1:]
image = Image.open(sys.argv[2]).convert("L" if channels == 1 else "RGB").resize((width, height))
pixels = np.asarray(image, "float32").reshape(1, height, width, channels)
print(model.predict(pixels, verbose=0))
"""
PLAIN_NAME = "plain Keras script"
PACKAGES = ("keras", "tensorflow", "ai-edge-litert", "onnxruntime", "numpy", "pillow")


class Taken(NamedTuple):
    """Of one process: seconds until it ended, seconds of processor time, and its peak of memory in MiB."""

    wall: float
    processor: float
    memory: float


@dataclass(frozen=True)
class Row:
    """Medians over the rounds; ratios are to the plain script of the same round."""

    case: str
    wall: float
    wall_quartiles: tuple[float, float]
    wall_ratio: float
    processor: float
    processor_ratio: float
    memory_mib: float


def cases(image: Path, run: Path, version: Path) -> dict[str, list[str]]:
    """Commands by what they measure; formats that the version has not are left out."""
    btkeras = [sys.executable, "-m", "btkeras"]
    predict = [*btkeras, "predict", str(image), "--model"]
    files = {form: version / name for form, name in FILES.items()}
    return {
        PLAIN_NAME: [sys.executable, "-c", PLAIN, str(run / "best.keras"), str(image)],
        "btkeras predict, run": [*predict, str(run)],
        **{f"btkeras predict, {form}": [*predict, str(file)] for form, file in files.items() if file.is_file()},
        "btkeras --help": [*btkeras, "--help"],
        "python, nothing": [sys.executable, "-c", "pass"],
    }


def timed(command: Sequence[str]) -> Taken:
    """Runs a command to its end.

    Raises:
        SystemExit: If it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    # Few lines are written, so no pipe fills up before the process ends.
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed: {said.decode(errors='replace')}")
    # Linux tells KiB, macOS bytes.
    return Taken(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20))


def rounds(commands: Mapping[str, Sequence[str]], count: int, seed: int = 0) -> dict[str, list[Taken]]:
    """What each command took in each round."""
    drawn, taken = random.Random(seed), {name: [] for name in commands}
    for number in range(count + 1):
        for name in drawn.sample(list(commands), len(commands)):
            found = timed(commands[name])
            if number:
                taken[name].append(found)
        print(f"round {number} of {count}, load {load()}", file=sys.stderr)
    return taken


def rows(taken: Mapping[str, Sequence[Taken]]) -> list[Row]:
    """A row for each command."""
    plain = np.array(taken[PLAIN_NAME])
    return [_row(name, np.array(found), plain) for name, found in taken.items()]


def _row(name: str, found: np.ndarray, plain: np.ndarray) -> Row:
    wall, processor, memory = (float(value) for value in np.median(found, axis=0))
    low, high = (float(value) for value in np.quantile(found[:, 0], [0.25, 0.75]))
    wall_ratio, processor_ratio = (float(value) for value in np.median(found[:, :2] / plain[:, :2], axis=0))
    return Row(name, wall, (low, high), wall_ratio, processor, processor_ratio, memory)


def table(found: Sequence[Row]) -> str:
    """The rows as text."""
    head = f"{'':<30}{'wall s':>8}{'(quartiles)':>14}{'ratio':>8}{'CPU s':>8}{'ratio':>8}{'MiB':>7}"
    lines = [
        f"{row.case:<30}{row.wall:8.2f}{'({:.2f}-{:.2f})'.format(*row.wall_quartiles):>14}{row.wall_ratio:8.3f}"
        f"{row.processor:8.2f}{row.processor_ratio:8.3f}{row.memory_mib:7.0f}"
        for row in found
    ]
    return "\n".join([head, *lines])


def main() -> None:
    """Parses, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a finished run")
    parser.add_argument("--version", type=Path, required=True, help="a version that was exported from it")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    machine: dict[str, Any] = describe(PACKAGES)
    found = rows(rounds(cases(options.image, options.run, options.version), options.rounds))
    print(table(found))
    if options.out:
        write_json(options.out, {"machine": machine, "rounds": options.rounds, "rows": [asdict(row) for row in found]})


if __name__ == "__main__":
    main()

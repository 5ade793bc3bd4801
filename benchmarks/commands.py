"""Times ``prepare`` and ``audit`` of a whole dataset, and ``evaluate``, by this checkout and by another one.

    python -m benchmarks.commands DATASET --new OTHER_HOSPITAL --other ../btkeras-of-before --out commands.json

``evaluate`` is of each checkout's own pretrained model, on images that both do not know. Rounds and rows are those of
``benchmarks.predict``, beside the other checkout's command of the same name. ``prepare`` writes to a temporary folder.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.cold_start import Taken, rounds
from benchmarks.predict import PACKAGES, Row, row, say
from btkeras.machine import describe

_MODEL = "saved_models/brain_tumour_mri"
BEFORE = "before: "


def cases(dataset: Path, new: Path, checkout: Path, scratch: Path) -> dict[str, list[str]]:
    """Commands of a checkout by their names; ``evaluate`` is of the ``new`` images."""
    data, out = str(dataset.resolve()), str(scratch.resolve() / "made")
    arguments = {
        "prepare": [data, "--out", out],
        "audit": [data],
        "evaluate": [_MODEL, "--data", str(new.resolve()), "--json"],
    }
    return {name: _in(checkout, out, [name, *given]) for name, given in arguments.items()}


def _in(checkout: Path, out: str, arguments: list[str]) -> list[str]:
    """A command of a checkout, after removing what ``prepare`` made."""
    command = shlex.join([sys.executable, "-m", "btkeras", *arguments])
    # 1: the audit found something.
    script = f"rm -rf {shlex.quote(out)}; {command}; test $? -le {int(arguments[0] == 'audit')}"
    # Python looks into the folder that it is started in first.
    return ["env", "-C", str(checkout), f"PYTHONPATH={checkout.resolve()}", "sh", "-c", script]


def compared(taken: Mapping[str, list[Taken]]) -> list[Row]:
    """A row for each command of this checkout and of the other, beside the latter."""
    return [row(name, found, taken[BEFORE + name.removeprefix(BEFORE)]) for name, found in taken.items()]


def main() -> None:
    """Parses, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="class folders of images")
    parser.add_argument("--new", type=Path, required=True, help="class folders of images that no model was trained on")
    parser.add_argument("--other", type=Path, required=True, help="a checkout of btkeras with its pretrained model")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    machine = describe(PACKAGES)
    images, new = (sum(path.is_file() for path in each.rglob("*.*")) for each in (options.dataset, options.new))
    with tempfile.TemporaryDirectory() as folder:
        given = (options.dataset, options.new)
        ours = cases(*given, Path(), Path(folder))
        theirs = {BEFORE + name: command for name, command in cases(*given, options.other, Path(folder)).items()}
        rows = compared(rounds(ours | theirs, options.rounds))
    rows = [replace(each, case=each.case.replace("evaluate", f"evaluate of {new}")) for each in rows]
    say(rows, machine, options.rounds, images, options.out)


if __name__ == "__main__":
    main()

"""The notebooks of examples/: what is kept in them, and that they run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MOST_BYTES = 300_000


def outputs(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_is_small_has_pictures_and_nothing_of_the_machine(notebook: Path) -> None:
    text, found = notebook.read_text(encoding="utf-8"), outputs(notebook)
    assert len(text) <= MOST_BYTES
    assert any(kind.startswith("image/") for output in found for kind in output.get("data", ()))
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in found)
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", str(ROOT)))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs_from_beginning_to_end(notebook: Path, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    command = [sys.executable, str(ROOT / "scripts/notebooks.py"), str(notebook), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = [[*output.get("data", ())] for output in outputs(tmp_path / notebook.name)]
    assert sum(kind.startswith("image/") for each in kinds for kind in each) == sum(
        kind.startswith("image/") for output in outputs(notebook) for kind in output.get("data", ())
    )

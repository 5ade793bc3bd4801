"""Runs the notebooks of examples/ from beginning to end, each in an empty folder, and keeps their outputs.

    python scripts/notebooks.py [NOTEBOOK...] [--out FOLDER]

Needs the extra ``test``. Without FOLDER the notebooks are written in place, which is done before they are committed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
_TIMEOUT = 600  # seconds, for a cell


def run(notebook: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs; an exception if a cell fails."""
    node = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # So that what a cell shows of files lies below one's own folder.
        os.environ["BTKERAS_CACHE"] = str(Path(folder, ".cache"))
        where = {"metadata": {"path": folder}}
        NotebookClient(node, timeout=_TIMEOUT, resources=where, record_timing=False, coalesce_streams=True).execute()
    for cell in node.cells:
        if cell.cell_type == "code":
            # The other stream is what TensorFlow says of the machine.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output.text = output.text.replace(f"{ROOT}/", "")
    return node


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, default=sorted(EXAMPLES.glob("*.ipynb")))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    # The commands in cells are this installation's.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for notebook in arguments.notebooks:
        start = time.perf_counter()
        node = run(notebook)
        target = (arguments.out or notebook.parent) / notebook.name
        nbformat.write(node, target)
        print(f"{target}: {time.perf_counter() - start:.0f} s, {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()

"""What benchmarks, scripts and tests import of btkeras is there, also where no test runs them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "scripts", "tests")


def imported(file: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import of btkeras in a file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "btkeras":
            yield from ((str(node.module), alias.name) for alias in node.names)


def is_there(module: str, name: str) -> bool:
    found = importlib.import_module(module)
    return hasattr(found, name) or (hasattr(found, "__path__") and bool(importlib.util.find_spec(f"{module}.{name}")))


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_imported_is_there(folder: str) -> None:
    pairs = {pair for file in (ROOT / folder).rglob("*.py") for pair in imported(file)}
    assert not [pair for pair in sorted(pairs) if not is_there(*pair)]

"""The rules of docs/architecture.md that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "btkeras"
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import what stands before it; modules of one row never import each other's part.
LAYERS = (
    ("errors", "files", "console", "machine", "config", "config_io"),
    ("data", "models", "metrics"),
    ("runs",),
    ("training",),
    ("evaluation",),
    ("experiments",),
    ("reporting",),
    ("serving",),
    ("cli",),
)
LEVEL = {part: level for level, row in enumerate(LAYERS) for part in row}
# Within the first row, one may build on another.
FREE = set(LAYERS[0])


def part_of(module: str) -> str:
    """``btkeras.splitting.splits`` -> ``data``."""
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if own in ("__init__", "__main__"):
        return
    for module in imports(path):
        other = part_of(module) if module.startswith("btkeras.") else ""
        if other not in LEVEL or other == own:
            continue
        allowed = LEVEL[other] < LEVEL[own] or (own in FREE and other in FREE)
        assert allowed, f"{own} imports {module}"


def test_only_the_command_line_knows_click() -> None:
    users = {path.relative_to(PACKAGE).parts[0] for path in FILES if "click" in imports(path)}
    assert users == {"cli"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert not body or body[-1].end_lineno - body[0].lineno < 50, node.name

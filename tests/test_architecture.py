"""The rules of docs/architecture.md that a machine can check; run as a module it prints the diagram of the folders."""

from __future__ import annotations

import ast
import graphlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "btkeras"
FILES = sorted(PACKAGE.rglob("*.py"))

# A folder, or a module beside the folders, may import what is in an earlier row. The first row is drawn as one.
BASE = (
    *("errors", "files", "locks", "checksums", "logging", "machine", "keras_settings"),
    *("config_rules", "config", "config_io", "lazy", "quiet"),
)
LAYERS = (
    BASE,
    ("models", "metrics"),
    ("preprocessing",),
    ("datasets",),
    ("augmentation", "splitting"),
    ("provenance",),
    ("runs",),
    ("decisions",),
    ("training",),
    ("evaluation",),
    ("explain", "audit"),
    ("experiments",),
    ("reporting",),
    ("inference",),
    ("export",),
    ("server",),
    ("cli",),
)
LEVEL = {folder: level for level, row in enumerate(LAYERS) for folder in row}
# Names that are imported on first use: of `btkeras` the predictor, of `btkeras.datasets` the function for tf.data. And
# what Keras is to know is imported with Keras.
FACADE = ("btkeras", "btkeras.__main__", "btkeras.datasets", "btkeras.registration")


def module_of(path: Path) -> str:
    """``btkeras/splitting/splits.py`` -> ``btkeras.splitting.splits``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it; names of packages are followed to their modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


GRAPH = {
    module: {name for name in imports(path) if name in MODULES and name not in (module, *FACADE)}
    for module, path in MODULES.items()
    if module not in FACADE
}


def folder_of(module: str) -> str:
    """``btkeras.splitting.splits`` -> ``splitting``."""
    return module.split(".")[1]


def folder_graph() -> dict[str, set[str]]:
    """The folders that each folder imports."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, others in GRAPH.items():
        graph[folder_of(module)] |= {folder_of(other) for other in others} - {folder_of(module)}
    return dict(graph)


def mermaid() -> str:
    """The folders' graph as Mermaid text, without arrows that follow from others."""
    graph: dict[str, set[str]] = defaultdict(set)
    for folder, others in folder_graph().items():
        name = "base" if folder in BASE else folder
        graph[name] |= {"base" if other in BASE else other for other in others} - {name}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    below: dict[str, set[str]] = {}
    for folder in order:
        below[folder] = graph[folder].union(*(below[other] for other in graph[folder]))
    lines = ["graph TD"]
    for folder in reversed(order):
        implied = set().union(*(below[other] for other in graph[folder]))
        lines += [f"    {folder} --> {other}" for other in sorted(graph[folder] - implied)]
    return "\n".join([lines[0], *sorted(lines[1:], key=lambda line: (-rank(line.split()[0]), line))])


def rank(name: str) -> int:
    return 0 if name == "base" else LEVEL[name]


def test_every_folder_has_a_layer() -> None:
    assert set(folder_graph()) == set(LEVEL)


@pytest.mark.parametrize("module", GRAPH)
def test_imports_run_one_way(module: str) -> None:
    own = folder_of(module)
    for other in {folder_of(name) for name in GRAPH[module]} - {own}:
        assert LEVEL[other] < LEVEL[own] or {own, other} <= set(BASE), f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()
    graphlib.TopologicalSorter(folder_graph()).prepare()


def test_only_the_command_line_knows_click() -> None:
    assert {folder_of(name) for name in GRAPH if "click" in imports(MODULES[name])} == {"cli"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            assert not body or body[-1].end_lineno - body[0].lineno < 45, node.name


def test_class_names_are_unique() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(module)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


def test_the_documents_diagram_is_that_of_the_code() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    diagrams = re.findall(r"```mermaid\n(graph TD\n.*?)\n```", text, re.S)
    assert mermaid() in diagrams, "paste the output of: python -m tests.test_architecture"


if __name__ == "__main__":
    print(mermaid())

"""A report into a file, in the format that its name or the user says."""

from __future__ import annotations

import importlib
from pathlib import Path

from btkeras.errors import ConfigError
from btkeras.files import atomic_file, write_text
from btkeras.reporting.document import Rendered, Report

# Endings of a format's files; the first is what a file is given that has no name yet.
FORMATS = {
    "html": (".html", ".htm"),
    "markdown": (".md", ".markdown"),
    "latex": (".tex",),
    "json": (".json",),
}


def format_of(out: Path) -> str:
    """The format that a file's ending means.

    Raises:
        ConfigError: If it means none.
    """
    for name, endings in FORMATS.items():
        if out.suffix.lower() in endings:
            return name
    known = ", ".join(ending for endings in FORMATS.values() for ending in endings)
    raise ConfigError(f"A report's file must end in {known}", received=out, remedy="Rename it, or say the --format")


def write_report(report: Report, out: Path, format_name: str) -> None:
    """Writes a report; its plots first, into ``NAME_files/`` beside it, where the format keeps them in files.

    Args:
        report: What to say.
        out: The file, which is replaced.
        format_name: A key of ``FORMATS``.
    """
    # Each format needs other packages.
    module = importlib.import_module(f"btkeras.reporting.to_{format_name}")
    folder = out.with_name(f"{out.stem}_files")
    rendered: Rendered = module.render(report, folder.name)
    for name, content in rendered.files:
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    write_text(out, rendered.text)

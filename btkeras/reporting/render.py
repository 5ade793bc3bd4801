"""A report as HTML, Markdown, LaTeX (texts and tables) or JSON, and into files; Jinja templates but for JSON."""

from __future__ import annotations

import base64
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from btkeras import __version__
from btkeras.errors import ConfigError
from btkeras.files import atomic_file, write_text
from btkeras.reporting.document import Column, Figure, Gallery, GalleryImage, Report, Table, Text, percent, slug
from btkeras.reporting.plots import to_svg

# Endings of a format's files; the first is its template's too, and what a file is given that has no name yet.
FORMATS = {"html": (".html", ".htm"), "markdown": (".md", ".markdown"), "latex": (".tex",), "json": (".json",)}


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
        report: What to write.
        out: The file, which is replaced.
        format_name: A key of ``FORMATS``.
    """
    folder = out.with_name(f"{out.stem}_files")
    for name, content in _files(report, format_name):
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    write_text(out, render(report, format_name, folder.name))


def render(report: Report, format_name: str, folder: str = "") -> str:
    """A report's text; ``folder`` is that of its plots and images, as the text refers to it."""
    # A paper has its own figures: LaTeX is for the tables.
    shown = Text | Table if format_name == "latex" else object
    sections = {
        title: [block for block in blocks if isinstance(block, shown)] for title, blocks in report.sections.items()
    }
    sections = {title: blocks for title, blocks in sections.items() if blocks}
    if format_name == "json":
        listed = [{"name": slug(title), "title": title, "blocks": blocks} for title, blocks in sections.items()]
        document = _json({"title": report.title, "sections": listed})
        return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    values = {"report": report, "sections": sections, "version": __version__, "folder": folder}
    # In HTML, whatever a file name or a label holds is text; the others escape in their templates.
    return fill(f"report{FORMATS[format_name][0]}.jinja", values, autoescape=format_name == "html").rstrip() + "\n"


def fill(name: str, values: Mapping[str, Any], *, autoescape: bool = False) -> str:
    """Fills ``templates/NAME``; a value that it asks for and does not get is an error."""
    environment = Environment(
        loader=PackageLoader("btkeras.reporting"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template(name).render(values)


def _files(report: Report, format_name: str) -> Iterator[tuple[str, bytes]]:
    for block in report.blocks if format_name == "markdown" else ():
        if isinstance(block, Gallery):
            yield from ((f"{image.name}.jpg", image.jpeg) for image in block.images if image.jpeg)
        elif isinstance(block, Figure):
            yield from ((f"{panel.name}.svg", to_svg(panel, standalone=True).encode()) for panel in block.panels)


def _json(value: Any) -> Any:
    """A report's parts as JSON has them: no drawings, and None in place of NaN and infinity."""
    if isinstance(value, Column):
        return value.full_title
    if isinstance(value, GalleryImage):
        return _json(value.data)
    if is_dataclass(value):
        shown = {field.name: getattr(value, field.name) for field in fields(value) if field.name != "draw"}
        return {"kind": _kind(value)} | _json(shown)
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kind(block: Any) -> str:
    return type(block).__name__.lower()


def _breakable(text: str) -> Markup:
    """A name that may be broken after its underscores and slashes, and is copied without a trace of that."""
    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(text))))


def _estimate(text: str) -> Markup:
    """A cell whose interval in brackets is as wide as any, so that the numbers before it stand below each other."""
    number, bracket, interval = text.partition(" (")
    return Markup('{} <span class="interval">({}</span>').format(number, interval) if bracket else Markup(escape(text))


def _lead(text: str) -> Markup:
    """A caption whose first sentence stands out; the others say what to see."""
    first, stop, rest = text.partition(". ")
    return Markup("<b>{}{}</b> {}").format(first, "." * bool(stop), rest)


def _markdown(text: str) -> str:
    """Text as text, on one line; no line begins with a text that comes from a file."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", text)


_LATEX = {
    **{character: rf"\{character}" for character in "{}$&#%"},
    **{"_": r"\_\allowbreak{}", "/": r"/\allowbreak{}", "\\": r"\textbackslash{}", "^": r"\textasciicircum{}"},
    **{"~": r"\textasciitilde{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}", '"': r"\textquotedbl{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "—": "---", "\N{EN DASH}": "--"},
    **{"\N{MINUS SIGN}": "$-$", "±": r"$\pm$", "≈": r"$\approx$", "\N{MULTIPLICATION SIGN}": r"$\times$"},
    **{"✓": r"$\checkmark$", "“": "``", "”": "''", "\N{NO-BREAK SPACE}": "~"},
}


def _latex(text: str) -> str:
    """Text as text; what pdfLaTeX's fonts, which are Latin, have no letter for becomes its number in Unicode."""
    return "".join(map(_latex_letter, " ".join(text.split())))


def _latex_letter(character: str) -> str:
    is_latin = unicodedata.name(character, "").startswith("LATIN ") and ord(character) < 0x180
    known = character if is_latin or (character.isascii() and character.isprintable()) else None
    return _LATEX.get(character) or known or f"[U+{ord(character):04X}]"


_FILTERS: dict[str, Callable[..., Any]] = {
    "kind": _kind,
    # Matplotlib escapes what it draws.
    "svg": lambda panel: Markup(to_svg(panel)),
    "jpeg": lambda data: f"data:image/jpeg;base64,{base64.b64encode(data).decode()}",
    "breakable": _breakable,
    "estimate": _estimate,
    "lead": _lead,
    # Numbers keep their percent sign on the line.
    "flowing": lambda text: re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text),
    "md": _markdown,
    "tex": _latex,
    "quote": quote,
    "slug": slug,
    "percent": percent,
}

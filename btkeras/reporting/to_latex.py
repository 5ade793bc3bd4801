r"""A report as a LaTeX document that compiles, with its plots and images in files beside it.

A table can be copied into a paper: it needs ``booktabs``, ``graphicx`` and the ``\fitted`` of the preamble.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from btkeras.reporting.document import Block, Cell, Column, Figure, Gallery, Rendered, Report, Table, header_groups
from btkeras.reporting.drawing import to_pdf

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",
    "/": r"/\allowbreak{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "—": "---",
    "\N{EN DASH}": "--",
    "\N{MINUS SIGN}": "$-$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "✓": r"$\checkmark$",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
}
_PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{amssymb}
\usepackage{booktabs}
\usepackage{caption}
% The captions have the paper's numbers.
\captionsetup{labelformat=empty}
\usepackage{graphicx}
\usepackage[margin=20mm]{geometry}
% A table that is too wide for the page is made smaller, another one left alone.
\newsavebox{\fittedbox}
\newcommand{\fitted}[1]{\sbox{\fittedbox}{#1}%
  \ifdim\wd\fittedbox>\linewidth\resizebox{\linewidth}{!}{\usebox{\fittedbox}}\else\usebox{\fittedbox}\fi}
\setlength{\parindent}{0pt}
\setlength{\parskip}{6pt}
\emergencystretch=3em
"""
# Of the plots, whose text is 8 to 9 points; and an image's part of a line.
_SCALE, _IMAGE = 0.7, 0.14
_LONG_ROWS = 40


def render(report: Report, folder: str) -> Rendered:
    """Writes a document for pdfLaTeX and its like.

    Args:
        report: What to say.
        folder: Of the plots and images, as the text refers to it.
    """
    lines = [_PREAMBLE, rf"\graphicspath{{{{{folder}/}}}}", r"\begin{document}", ""]
    lines += [rf"\section*{{{escape(report.title)}}}", ""]
    for section in report.sections:
        lines += [rf"\section{{{escape(section.title)}}}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    lines.append(r"\end{document}")
    return Rendered("\n".join(lines) + "\n", tuple(_files(report)))


def escape(text: str) -> str:
    """Text as text; what pdfLaTeX has no letter for becomes its number in Unicode."""
    return "".join(_SPECIAL.get(character) or _letter(character) for character in " ".join(text.split()))


def _letter(character: str) -> str:
    # Combining accents are put together with their letter; the fonts have Latin letters only.
    if character.isascii() and character.isprintable():
        return character
    name = unicodedata.name(character, "")
    is_latin = name.startswith("LATIN ") and ord(character) < 0x180
    return character if is_latin else f"[U+{ord(character):04X}]"


def _block(block: Block) -> Iterable[str]:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, Gallery):
        return _images(block)
    if block.role == "list":
        return [r"\begin{itemize}", *(rf"\item {escape(line)}" for line in block.lines), r"\end{itemize}"]
    marks = {"headline": r"\textbf{\large %s}", "warning": r"\fbox{\parbox{0.95\linewidth}{\textbf{Warning:} %s}}"}
    return [marks.get(block.role, "%s").replace("%s", escape(line)) + "\n" for line in block.lines]


def _table(table: Table) -> Iterator[str]:
    for start in range(0, len(table.rows), _LONG_ROWS):
        yield from _part(table, table.rows[start : start + _LONG_ROWS], number=start // _LONG_ROWS)


def _part(table: Table, rows: Sequence[Sequence[Cell]], number: int) -> Iterator[str]:
    """A table, or what of a long one fits a page."""
    more = " (continued)" if number else ""
    label = f"tab:{table.name}" + (f"-{number + 1}" if number else "")
    yield from (r"\begin{table}[htbp]", r"\centering", rf"\caption{{{escape(table.caption)}{more}}}")
    yield rf"\label{{{label}}}"
    yield rf"\fitted{{\begin{{tabular}}{{{''.join(map(_alignment, table.columns))}}}"
    yield from (r"\toprule", *_header(table.columns), r"\midrule")
    for row in rows:
        yield " & ".join(map(_cell, row, table.columns)) + r" \\"
    yield from (r"\bottomrule", r"\end{tabular}}")
    for note in table.notes:
        yield rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(note)}}}"
    yield r"\end{table}"


def _alignment(column: Column) -> str:
    return "r" if column.numeric else "l"


def _cell(cell: Cell, column: Column) -> str:
    # A long text would make the whole table tiny; a paragraph cannot stand in an ordinary column.
    if not column.numeric and len(cell.text) > 60:
        return rf"\parbox[t]{{0.7\linewidth}}{{\raggedright {escape(cell.text)}\strut}}"
    return escape(cell.text)


def _header(columns: Sequence[Column]) -> Iterator[str]:
    groups = header_groups(columns)
    if any(group for group, _ in groups):
        above = [rf"\multicolumn{{{len(members)}}}{{c}}{{{escape(group)}}}" for group, members in groups]
        yield " & ".join(above) + r" \\"
        yield from _rules(groups)
    yield " & ".join(escape(column.title) for column in columns) + r" \\"


def _rules(groups: Sequence[tuple[str, Sequence[Column]]]) -> Iterator[str]:
    first = 1
    for group, members in groups:
        last = first + len(members) - 1
        if group:
            yield rf"\cmidrule(lr){{{first}-{last}}}"
        first = last + 1


def _figure(figure: Figure) -> Iterator[str]:
    # Not floating: LaTeX cannot cut a figure that is longer than a page, but it can break lines of plots. Ragged, since
    # plots do not stretch.
    yield from _caption(figure)
    yield r"{\raggedright\noindent"
    for panel in figure.panels:
        yield rf"\includegraphics[scale={_SCALE}]{{{panel.name}.pdf}}\hspace{{0pt}}"
    yield r"\par}"


def _caption(block: Figure | Gallery) -> Iterator[str]:
    notes = "".join(rf"\par {{\footnotesize {escape(note)}}}" for note in block.notes)
    # In a box, for else a page may end within it.
    yield rf"\par\medskip\noindent\parbox{{\linewidth}}{{\textbf{{{escape(block.caption)}}}{notes}}}\par\nopagebreak"


def _images(block: Gallery) -> Iterator[str]:
    yield from _caption(block)
    for item in block.images:
        lines = r"\par ".join(escape(line) for line in item.lines)
        image = rf"\includegraphics[width={_IMAGE}\linewidth]{{{item.name}.jpg}}" if item.jpeg else ""
        beside = rf"\parbox[b]{{{0.95 - _IMAGE:.2f}\linewidth}}{{\raggedright\footnotesize {lines}}}"
        yield rf"\par\noindent\makebox[{_IMAGE}\linewidth][l]{{{image}}}\hfill{beside}\par\medskip"


def _files(report: Report) -> Iterator[tuple[str, bytes]]:
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield from ((f"{panel.name}.pdf", to_pdf(panel)) for panel in block.panels)
            elif isinstance(block, Gallery):
                yield from ((f"{item.name}.jpg", item.jpeg) for item in block.images if item.jpeg)

"""An audit as one HTML file: what was found in words and tables, and the groups of copies as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from btkeras.audit.audit import Audit, DuplicateGroup, GroupMember
from btkeras.audit.format import duplicates_by_class, format_group, format_leakage, format_notes
from btkeras.files import write_text
from btkeras.reporting.document import Block, Cell, Column, Gallery, GalleryImage, Report, Section, Table, Text
from btkeras.reporting.mistakes import thumbnail
from btkeras.reporting.to_html import render

_GROUPS = 24  # shown as images, of each kind
_MEMBERS = 5  # shown of a group
_LINES = 200  # of a list


def write_audit_page(audit: Audit, target: Path) -> None:
    """Writes the page; the file needs nothing else.

    Raises:
        OSError: If it cannot be written.
    """
    sections = [
        _section("findings", "Findings", _findings(audit)),
        *_group_sections(audit),
        _section("statistics", "What the classes' files have in common", [_statistics_table(audit)]),
        _section("files", "Broken files and patients", _lists(audit)),
        _section("provenance", "Provenance", [Text(_provenance(audit), "list")]),
    ]
    report = Report(f"Audit of {Path(audit.dataset).name or audit.dataset}", tuple(s for s in sections if s.blocks))
    write_text(target, render(report, "").text)


def _section(name: str, title: str, blocks: Sequence[Block]) -> Section:
    return Section(name, title, tuple(blocks))


def _findings(audit: Audit) -> list[Block]:
    leaks = tuple(format_leakage(audit))
    first = Text(leaks, "warning") if leaks else Text(("No leakage and no broken file was found.",), "headline")
    return [first, Text(tuple(format_notes(audit)), "list"), _copies_table(audit)]


def _group_sections(audit: Audit) -> list[Section]:
    kinds = (
        ("conflicts", "Copies with different labels", audit.conflicts),
        ("across", "Copies on both sides of the split", audit.across),
        ("overlap", f"Copies in {audit.against}", audit.overlap),
        ("copies", "All copies in the dataset, the largest groups first", audit.own_groups),
    )
    return [_section(name, title, _images(audit, name, groups)) for name, title, groups in kinds if groups]


def _images(audit: Audit, kind: str, groups: Sequence[DuplicateGroup]) -> list[Block]:
    if kind == "copies":
        groups = sorted(groups, key=lambda group: -len(group.own))
    blocks: list[Block] = [
        Gallery(
            f"{kind}-{number}",
            f"{number}. {format_group(group)}",
            tuple(_image(audit, f"{kind}-{number}-{i}", member) for i, member in enumerate(_chosen(group), start=1)),
            (f"and {len(group.members) - _MEMBERS:,} more",) if group.members[_MEMBERS:] else (),
        )
        for number, group in enumerate(groups[:_GROUPS], start=1)
    ]
    if groups[_GROUPS:]:
        blocks.append(Text((f"And {len(groups) - _GROUPS:,} more groups; --json lists all.",)))
    return blocks


def _chosen(group: DuplicateGroup) -> list[GroupMember]:
    """The members to show: first one of each part, class and dataset, then the others."""
    seen: set[tuple[str, str, bool]] = set()
    first: list[GroupMember] = []
    others: list[GroupMember] = []
    for member in group.members:
        key = (member.subset, member.label, member.other)
        (others if key in seen else first).append(member)
        seen.add(key)
    return (first + others)[:_MEMBERS]


def _image(audit: Audit, name: str, member: GroupMember) -> GalleryImage:
    jpeg, problem = thumbnail(Path(audit.against if member.other else audit.dataset), member.path)
    where = f"in {audit.against}" if member.other else member.subset
    lines = (member.path, member.label, where, problem)
    return GalleryImage(name, jpeg, f"Slice of class {member.label}", tuple(line for line in lines if line), None)


def _copies_table(audit: Audit) -> Table:
    titles = ("images", "groups of equal pixels", "groups of near-copies", "in groups", "largest group", "distinct")
    return Table(
        name="copies-table",
        caption="Copies per class",
        columns=(Column("class", numeric=False), *map(Column, titles)),
        rows=tuple(
            (Cell(label), *(Cell(f"{value:,}", value) for value in row.values()))
            for label, row in duplicates_by_class(audit).items()
        ),
        notes=("Distinct: images, with a group counted once.",),
    )


def _statistics_table(audit: Audit) -> Table:
    titles = (
        "different sizes",
        "commonest size",
        "its share",
        "shortest side",
        "longest side",
        "border",
        "dark border",
    )
    levels = ("mean", "spread", "contrast")
    rows = []
    for row in audit.statistics:
        size = f"{row.commonest_size[0]} x {row.commonest_size[1]}"
        texts = [f"{row.sizes:,}", size, f"{row.commonest_share:.1%}", str(row.smallest), str(row.largest)]
        texts += [f"{row.border:.1f}", f"{row.dark_border:.1%}"]
        texts += [f"{value:.1f}" for value in (row.mean, row.mean_spread, row.contrast)]
        modes = ", ".join(f"{mode} {count:,}" for mode, count in row.modes.items())
        rows.append((Cell(row.label), *map(Cell, texts), Cell(modes)))
    return Table(
        name="statistics-table",
        caption="Sizes in pixels, border and grey levels (0 to 255), and modes of the files",
        columns=(
            Column("class", numeric=False),
            *map(Column, titles),
            *(Column(title, "grey levels") for title in levels),
            Column("modes", numeric=False),
        ),
        rows=tuple(rows),
        notes=(
            "Border: median grey level of the outermost 2 %; dark: below 8. Mean and its spread between images; "
            "contrast: the standard deviation within an image.",
            "What differs between classes here can be learnt instead of tumours.",
        ),
    )


def _lists(audit: Audit) -> list[Block]:
    broken = [f"{path}: {why}" for path, why in audit.unreadable.items()]
    patients = [f"Patient {patient}: {', '.join(subsets)}" for patient, subsets in audit.patients_across.items()]
    return [Text(_cut(lines), "list") for lines in (broken, patients) if lines]


def _cut(lines: list[str]) -> tuple[str, ...]:
    more = [f"and {len(lines) - _LINES:,} more"] if lines[_LINES:] else []
    return (*lines[:_LINES], *more)


def _provenance(audit: Audit) -> tuple[str, ...]:
    lines = [f"Dataset: {audit.dataset}, {sum(audit.counts.values()):,} images"]
    if audit.split:
        lines.append("Split: " + ", ".join(f"{count:,} {subset}" for subset, count in audit.subset_sizes.items()))
    if audit.against:
        lines.append(f"Held against: {audit.against}")
    return tuple(lines)

"""An audit as one HTML file: its findings and tables, and the groups of duplicates as images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from btkeras.audit.audit import Audit, DuplicateGroup, GroupMember
from btkeras.audit.format import duplicates_by_class, format_group, format_leakage, format_notes
from btkeras.files import write_text
from btkeras.reporting.document import (
    Block,
    Column,
    Gallery,
    GalleryImage,
    Report,
    Table,
    Text,
    count,
    decimals,
    tenths,
)
from btkeras.reporting.render import render
from btkeras.reporting.report import thumbnail

_GROUPS = 24  # shown as images, of each kind
_MEMBERS = 5  # shown of a group
_LINES = 200  # of a list
_SIDE = 200  # longest side of an image, pixels


def write_audit_page(audit: Audit, target: Path) -> None:
    """Writes the page; the file needs nothing else.

    Raises:
        OSError: If it cannot be written.
    """
    leaks, largest = tuple(format_leakage(audit)), sorted(audit.groups, key=lambda group: -len(group.members))
    summary = Text(leaks, "warning") if leaks else Text(("No leakage and no broken file was found.",), "summary")
    sections: dict[str, Sequence[Block]] = {
        "Findings": [summary, Text(tuple(format_notes(audit)), "list"), _duplicate_table(audit)],
        "Duplicates with different labels": _galleries(audit, audit.conflicts, "conflict"),
        "Duplicates across the subsets": _galleries(audit, audit.across, "across"),
        f"Duplicates in {audit.against}": _galleries(audit, audit.overlap, "overlap"),
        "All duplicates, the largest groups first": _galleries(audit, largest, "group"),
        "What the classes' files have in common": [_statistics_table(audit)],
        "Broken files and patients": _lists(audit),
        "Provenance": [Text(_provenance(audit), "list")],
    }
    report = Report(f"Audit of {Path(audit.dataset).name or audit.dataset}", sections)
    write_text(target, render(report, "html"))


def _galleries(audit: Audit, groups: Sequence[DuplicateGroup], name: str) -> list[Block]:
    blocks: list[Block] = [
        Gallery(
            f"{name}-{number}",
            f"{number}. {format_group(group)}",
            tuple(_image(audit, member, f"{name}-{number}-{i}") for i, member in enumerate(_chosen(group), start=1)),
            (f"and {len(group.members) - _MEMBERS:,} more",) if group.members[_MEMBERS:] else (),
        )
        for number, group in enumerate(groups[:_GROUPS], start=1)
    ]
    more = Text((f"And {len(groups) - _GROUPS:,} more groups; --json lists all.",))
    return [*blocks, *([more] if groups[_GROUPS:] else [])]


def _chosen(group: DuplicateGroup) -> list[GroupMember]:
    """The members to show: first one of each subset, class and dataset, then the others."""
    first = {(member.subset, member.label, member.other): member for member in reversed(group.members)}
    return sorted(group.members, key=lambda member: member not in first.values())[:_MEMBERS]


def _image(audit: Audit, member: GroupMember, name: str) -> GalleryImage:
    jpeg, problem = thumbnail(Path(audit.against if member.other else audit.dataset), member.path, _SIDE)
    where = f"in {audit.against}" if member.other else member.subset
    lines = tuple(filter(None, (member.path, member.label, where, problem)))
    return GalleryImage(name, jpeg, f"Slice of class {member.label}", lines)


def _duplicate_table(audit: Audit) -> Table:
    titles = ("images", "groups of equal pixels", "groups of near-duplicates", "in groups", "largest group", "distinct")
    rows = [(label, *row.values()) for label, row in duplicates_by_class(audit).items()]
    note = "Distinct: images, with a group counted once."
    columns = (Column("class"), *Column.several(titles, count))
    return Table.from_rows("duplicates-table", "Duplicates per class", columns, rows, note)


def _statistics_table(audit: Audit) -> Table:
    sides = {"different sizes": "sizes", "shortest side": "smallest", "longest side": "largest"}
    columns = (
        Column("class", key="label"),
        Column("commonest size", key=lambda row: "{} x {}".format(*row.commonest_size)),
        *Column.several({"its share, %": "commonest_share", "dark border, %": "dark_border"}, tenths),
        *Column.several(sides, count),
        Column("border", decimals(1)),
        *Column.several({"mean": "mean", "spread": "mean_spread", "contrast": "contrast"}, decimals(1), "grey levels"),
        Column("modes", key=lambda row: ", ".join(f"{mode} {images:,}" for mode, images in row.modes.items())),
    )
    return Table.from_rows(
        "statistics-table",
        "Sizes in pixels, border and grey levels (0 to 255), and modes of the files",
        columns,
        audit.statistics,
        "Border: median grey level of the outermost 2 %; dark: below 8. Mean and its spread between images; contrast: "
        "the standard deviation within an image.",
        "What differs between classes here can be learnt instead of tumours.",
    )


def _lists(audit: Audit) -> list[Block]:
    broken = [f"{path}: {why}" for path, why in audit.unreadable.items()]
    broken += [f"{audit.against}/{path}: {why}" for path, why in audit.unreadable_there.items()]
    patients = [f"Patient {patient}: {', '.join(subsets)}" for patient, subsets in audit.patients_across.items()]
    return [
        Text((*lines[:_LINES], *([f"and {len(lines) - _LINES:,} more"] if lines[_LINES:] else [])), "list")
        for lines in (broken, patients)
        if lines
    ]


def _provenance(audit: Audit) -> tuple[str, ...]:
    lines = [f"Dataset: {audit.dataset}, {sum(audit.counts.values()):,} images"]
    if audit.split:
        lines.append("Split: " + ", ".join(f"{images:,} {subset}" for subset, images in audit.subset_sizes.items()))
    if audit.against:
        lines.append(f"Compared with: {audit.against}")
    return tuple(lines)

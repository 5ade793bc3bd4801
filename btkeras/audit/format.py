"""An audit in words, as a table, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from btkeras.audit.audit import Audit, DuplicateGroup

_SHOWN = 10


def format_leakage(audit: Audit) -> list[str]:
    """What makes figures too good, and broken files; empty if there is nothing of that."""
    lines = []
    if audit.conflicts:
        images = sum(len(group.members) for group in audit.conflicts)
        lines.append(
            f"CONFLICTING LABELS: {_count(len(audit.conflicts), 'group')} of copies ({images:,} images) with more "
            "than one class. At most one label of each group is right."
        )
    if audit.across:
        lines.append(
            f"COPIES ACROSS THE SPLIT: {_count(len(audit.across), 'group')} of copies on both sides of the split; "
            f"{_seen(audit, 'test')} and {_seen(audit, 'validation')} images have a copy in training."
        )
    if audit.patients_across:
        lines.append(
            f"PATIENTS ACROSS THE SPLIT: {len(audit.patients_across):,} of {audit.patients:,} patients have slices in "
            "more than one part."
        )
    if audit.overlap:
        own = sum(len(group.own) for group in audit.overlap)
        total = sum(audit.counts.values())
        lines.append(
            f"OVERLAP: {own:,} of {total:,} images ({own / total:.1%}) have a copy in {audit.against}. What is "
            "learnt from one must not be judged on the other."
        )
    if audit.unreadable:
        lines.append(f"BROKEN FILES: {len(audit.unreadable):,} cannot be read.")
    return lines


def format_notes(audit: Audit) -> list[str]:
    """What else should be known."""
    lines = [copies_line(audit)]
    if not audit.split:
        lines.append("No split was looked at: give one with --splits RUN/splits.json.")
    if audit.patients is None:
        lines.append("No image names its patient, so patients on both sides of a split cannot be seen.")
    if len({statistic.commonest_size for statistic in audit.statistics}) > 1 or _modes_differ(audit):
        lines.append("Classes differ in size or mode of their files: a network may learn that. See btkeras shortcuts.")
    return lines


def copies_line(audit: Audit) -> str:
    """How many copies there are, in a sentence."""
    groups = audit.own_groups
    if not groups:
        return "No image is a copy of another."
    exact = sum(group.exact for group in groups)
    images = sum(len(group.own) for group in groups)
    return (
        f"{images:,} of {sum(audit.counts.values()):,} images are in {_count(len(groups), 'group')} of copies "
        f"({exact:,} of equal pixels throughout, {len(groups) - exact:,} of near-copies; the largest has "
        f"{max(len(group.own) for group in groups):,}). {images - len(groups):,} images show nothing new, "
        f"{sum(group.exact_duplicates for group in groups):,} of them pixel for pixel."
    )


def duplicates_by_class(audit: Audit) -> dict[str, dict[str, int]]:
    """By class: its groups of exact and of near-copies, the images in them, the largest, and what is left."""
    found = {}
    for label, count in audit.counts.items():
        own = [[member for member in group.own if member.label == label] for group in audit.own_groups]
        pairs = [(group, mine) for group, mine in zip(audit.own_groups, own, strict=True) if mine]
        images = sum(len(mine) for _, mine in pairs)
        found[label] = {
            "images": count,
            "exact_groups": sum(group.exact for group, _ in pairs),
            "near_groups": sum(not group.exact for group, _ in pairs),
            "in_groups": images,
            "largest": max((len(mine) for _, mine in pairs), default=0),
            "distinct": count - images + len(pairs),
        }
    return found


def format_group(group: DuplicateGroup) -> str:
    """A group's kind in a few words."""
    kind = "equal pixels" if group.exact else f"correlation {group.correlation:.3f} and more"
    turns = f"; {', '.join(group.orientations)}" if group.orientations else ""
    subsets = f"; in {', '.join(group.subsets)}" if group.subsets else ""
    return f"{len(group.members):,} images, {kind}{turns}; {', '.join(group.labels)}{subsets}"


def format_audit(audit: Audit) -> str:
    """The audit for a terminal."""
    leaks = format_leakage(audit)
    blocks = [f"{audit.dataset}: {sum(audit.counts.values()):,} images, {len(audit.counts)} classes"]
    blocks += ["\n".join(f"! {line}" for line in leaks)] if leaks else ["No leakage and no broken file was found."]
    blocks += ["\n".join(format_notes(audit)), _copies_table(audit), _statistics_table(audit), *_lists(audit)]
    return "\n\n".join(block for block in blocks if block)


def audit_json(audit: Audit) -> dict[str, Any]:
    """The audit as JSON-ready values: every group with every path."""
    return {
        "dataset": audit.dataset,
        "against": audit.against or None,
        "failed": audit.failed,
        "leakage": audit.leaks,
        "findings": format_leakage(audit),
        "notes": format_notes(audit),
        "counts": dict(audit.counts),
        "patients": audit.patients,
        "duplicates": duplicates_by_class(audit),
        "split": {
            "images": dict(audit.subset_sizes),
            "groups_across": len(audit.across),
            "test_with_duplicate_in_training": audit.duplicated_in_training("test"),
            "validation_with_duplicate_in_training": audit.duplicated_in_training("validation"),
            "patients_across": {patient: list(subsets) for patient, subsets in audit.patients_across.items()},
        }
        if audit.split
        else None,
        "unreadable": dict(audit.unreadable),
        "groups": [_group_json(group) for group in audit.groups],
        "statistics": [asdict(statistic) for statistic in audit.statistics],
    }


def _group_json(group: DuplicateGroup) -> dict[str, Any]:
    return {
        "exact": group.exact,
        "exact_duplicates": group.exact_duplicates,
        "lowest_correlation": group.correlation,
        "orientations": list(group.orientations),
        "across_split": group.across,
        "conflicting": group.conflicting,
        "overlapping": group.overlapping,
        "members": [asdict(member) for member in group.members],
    }


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _seen(audit: Audit, subset: str) -> str:
    return f"{audit.duplicated_in_training(subset):,} of {audit.subset_sizes[subset]:,} {subset}"


def _modes_differ(audit: Audit) -> bool:
    return len({next(iter(statistic.modes)) for statistic in audit.statistics}) > 1


def _copies_table(audit: Audit) -> str:
    head = f"{'class':<12}{'images':>10}{'exact groups':>14}{'near groups':>13}{'in groups':>11}{'largest':>9}"
    rows = [
        f"{label:<12}" + "".join(f"{value:>{width},}" for value, width in zip(row.values(), _WIDTHS, strict=True))
        for label, row in duplicates_by_class(audit).items()
    ]
    return "\n".join([f"{head}{'distinct':>10}", *rows])


_WIDTHS = (10, 14, 13, 11, 9, 10)


def _statistics_table(audit: Audit) -> str:
    head = f"{'class':<12}{'sizes':>7}{'commonest':>19}{'sides':>12}{'border':>8}{'mean':>7}{'+-':>6}{'contrast':>10}"
    rows = []
    for row in audit.statistics:
        common = f"{row.commonest_size[0]}x{row.commonest_size[1]} ({row.commonest_share:.0%})"
        modes = ", ".join(f"{mode} {count:,}" for mode, count in row.modes.items())
        rows.append(
            f"{row.label:<12}{row.sizes:>7,}{common:>19}{f'{row.smallest}-{row.largest}':>12}{row.border:>8.1f}"
            f"{row.mean:>7.1f}{row.mean_spread:>6.1f}{row.contrast:>10.1f}  {modes}"
        )
    return "\n".join([f"{head}  modes", *rows])


def _lists(audit: Audit) -> list[str]:
    """What to mend, by name, as far as it can be read; --json and --html have all."""
    found = []
    if audit.unreadable:
        found.append(_list("Broken files", [f"{path}: {why}" for path, why in audit.unreadable.items()]))
    for title, groups in (
        ("Conflicting labels", audit.conflicts),
        ("Copies across the split", audit.across),
        (f"Copies in {audit.against}", audit.overlap),
    ):
        if groups:
            found.append(_list(title, [_members(group) for group in groups]))
    if audit.patients_across:
        lines = [f"{patient}: {', '.join(subsets)}" for patient, subsets in audit.patients_across.items()]
        found.append(_list("Patients across the split", lines))
    return found


def _members(group: DuplicateGroup) -> str:
    names = [f"{member.path} ({member.subset or member.label})" for member in group.members[:4]]
    return ", ".join(names) + (f" and {len(group.members) - 4:,} more" if group.members[4:] else "")


def _list(title: str, lines: list[str]) -> str:
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    more = [f"  and {len(lines) - _SHOWN:,} more"] if lines[_SHOWN:] else []
    return "\n".join([f"{title}:", *shown, *more])

"""An audit as text and as JSON, and shortcuts as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from btkeras.audit.audit import Audit, DuplicateGroup
from btkeras.audit.recognition import Recognized
from btkeras.splitting.published import DividedPatients

if TYPE_CHECKING:
    # It loads scikit-learn, which an audit does without.
    from btkeras.audit.shortcuts import ShortcutRow, Shortcuts

_SHOWN = 10
# Features that are no sign of a tumour, whatever they predict.
_OUTSIDE = ("size", "border", "file size")


def format_leakage(audit: Audit) -> list[str]:
    """A line per kind of leakage, and one on broken files; empty if there is none of either."""
    lines = []
    if audit.conflicts:
        images = sum(len(group.members) for group in audit.conflicts)
        lines.append(
            f"CONFLICTING LABELS: {_groups(audit.conflicts)} of duplicates ({images:,} images) with more than one "
            "class. At most one label of each group is right."
        )
    if audit.across:
        lines.append(_format_across(audit))
    if audit.patients_across:
        lines.append(f"PATIENTS ACROSS THE SPLIT: {audit.divided} have slices in several subsets.")
    if audit.overlap:
        lines.append(_format_overlap(audit))
    if audit.unreadable:
        lines.append(f"BROKEN FILES: {len(audit.unreadable):,} cannot be read.")
    if audit.unreadable_there:
        lines.append(f"BROKEN FILES in {audit.against}: {len(audit.unreadable_there):,} could not be compared.")
    return lines


def _format_across(audit: Audit) -> str:
    found = f"DUPLICATES ACROSS THE SPLIT: {_groups(audit.across)} in several"
    if "train" not in audit.subset_sizes:
        images = sum(bool(member.subset) for group in audit.across for member in group.own)
        return f"{found} folds; {images:,} of {sum(audit.subset_sizes.values()):,} images have a duplicate in another."
    test, validation = (
        f"{audit.duplicated_in_training(subset):,} of {audit.subset_sizes[subset]:,} {subset}"
        for subset in ("test", "validation")
    )
    return f"{found} subsets of the split; {test} and {validation} images have a duplicate in training."


def _format_overlap(audit: Audit) -> str:
    own, total = sum(len(group.own) for group in audit.overlap), sum(audit.counts.values())
    otherwise = sum(len(group.own) for group in audit.overlap if group.conflicting)
    labels = f" In {_groups([g for g in audit.overlap if g.conflicting])} ({otherwise:,} images) the class differs."
    return (
        f"OVERLAP: {own:,} of {total:,} images ({own / total:.1%}) have a duplicate in {audit.against}. A network that "
        f"was trained on one must not be tested on the other.{labels * bool(otherwise)}"
    )


def format_notes(audit: Audit) -> list[str]:
    """Sentences on duplicates within the dataset, on what was not audited, and on differences between classes."""
    lines = [_format_duplicates(audit), *(_format_recognized(audit, found) for found in audit.recognized)]
    if not audit.split:
        lines.append("No split was audited: give one with --splits RUN/splits.json or --split-column NAME.")
    if audit.official.parts:
        lines.append(
            f"The published folds (official_fold) divide {audit.official}: what is measured with --group-by official "
            "is too good, with --group-by patient it is not."
        )
    if audit.patients is None:
        lines.append("No image names its patient, so patients in several subsets of a split cannot be found.")
    commonest = [(row.commonest_size, next(iter(row.modes))) for row in audit.statistics]
    if len(set(commonest)) > 1:
        lines.append("Classes differ in size or mode of their files: a network may learn that. See btkeras shortcuts.")
    return lines


def _format_duplicates(audit: Audit) -> str:
    groups = audit.groups
    if not groups:
        return "No image is a duplicate of another."
    exact = sum(group.exact for group in groups)
    images = sum(len(group.members) for group in groups)
    return (
        f"{images:,} of {sum(audit.counts.values()):,} images are in {_groups(groups)} of duplicates ({exact:,} with "
        f"equal pixels throughout, {len(groups) - exact:,} of near-duplicates; the largest has "
        f"{max(len(group.members) for group in groups):,}). {images - len(groups):,} images are redundant, "
        f"{sum(group.exact_duplicates for group in groups):,} of them pixel for pixel."
    )


def _format_recognized(audit: Audit, found: Recognized) -> str:
    turned = f", {found.turned:,} of them flipped or rotated" * bool(found.turned)
    return (
        f"{found.images:,} of {sum(audit.counts.values()):,} images are {found.name}'s ({found.published}){turned}: "
        f"with {found.name} in training they are no test."
    )


def duplicates_by_class(audit: Audit) -> dict[str, dict[str, int]]:
    """Counts by class: images, groups of exact and of near-duplicates, images in them, the largest, distinct images."""
    found = {}
    for label, count in audit.counts.items():
        groups = [(group.exact, sum(member.label == label for member in group.members)) for group in audit.groups]
        groups = [(exact, images) for exact, images in groups if images]
        images = sum(images for _, images in groups)
        found[label] = {
            "images": count,
            "exact_groups": sum(exact for exact, _ in groups),
            "near_groups": sum(not exact for exact, _ in groups),
            "in_groups": images,
            "largest": max((images for _, images in groups), default=0),
            "distinct": count - images + len(groups),
        }
    return found


def format_group(group: DuplicateGroup) -> str:
    """Size, kind, orientations, classes and subsets of a group, in a line."""
    kind = "equal pixels" if group.exact else f"correlation {group.correlation:.3f} and more"
    orientations = f"; {', '.join(group.orientations)}" if group.orientations else ""
    subsets = f"; in {', '.join(group.subsets)}" if group.subsets else ""
    return f"{len(group.members):,} images, {kind}{orientations}; {', '.join(group.labels)}{subsets}"


def format_audit(audit: Audit) -> str:
    """The audit for a terminal."""
    leaks = [f"! {line}" for line in format_leakage(audit)] or ["No leakage and no broken file was found."]
    head = f"{audit.dataset}: {sum(audit.counts.values()):,} images, {len(audit.counts)} classes"
    tables = (_duplicates_table(audit), _statistics_table(audit), *_lists(audit))
    return "\n\n".join([head, "\n".join(leaks), "\n".join(format_notes(audit)), *tables])


def audit_json(audit: Audit) -> dict[str, Any]:
    """The audit as JSON-ready values: every group with every path."""
    split = {
        "images": dict(audit.subset_sizes),
        "groups_across": len(audit.across),
        "test_with_duplicate_in_training": audit.duplicated_in_training("test"),
        "validation_with_duplicate_in_training": audit.duplicated_in_training("validation"),
        "divided": _divided_json(audit.divided),
        "patients_across": {patient: list(subsets) for patient, subsets in audit.patients_across.items()},
    }
    return {
        "dataset": audit.dataset,
        "against": audit.against or None,
        "failed": audit.failed,
        "leakage": audit.leaks,
        "findings": format_leakage(audit),
        "notes": format_notes(audit),
        "counts": dict(audit.counts),
        "patients": audit.patients,
        "official_folds_divide": _divided_json(audit.official) if audit.official.images else None,
        "duplicates": duplicates_by_class(audit),
        "recognized": [asdict(found) for found in audit.recognized],
        "split": split if audit.split else None,
        "unreadable": dict(audit.unreadable),
        "unreadable_there": dict(audit.unreadable_there),
        "groups": [_group_json(group) for group in audit.groups],
        "overlap": [_group_json(group) for group in audit.overlap],
        "statistics": [asdict(statistic) for statistic in audit.statistics],
    }


def _divided_json(divided: DividedPatients) -> dict[str, Any]:
    counts = {name: getattr(divided, name) for name in ("ids", "slices")}
    return {"patients": len(divided.parts), **counts, "of_patients": divided.patients, "of_slices": divided.images}


def _group_json(group: DuplicateGroup) -> dict[str, Any]:
    return asdict(group) | {"exact": group.exact, "across_split": group.across, "conflicting": group.conflicting}


def _groups(groups: Sequence[DuplicateGroup]) -> str:
    return f"{len(groups):,} group" + ("" if len(groups) == 1 else "s")


def _width(classes: Iterable[str]) -> int:
    """Of a column of class names."""
    return max(12, *(len(name) + 1 for name in classes))


def _duplicates_table(audit: Audit) -> str:
    titles = ("images", "exact groups", "near groups", "in groups", "largest", "distinct")
    rows = {label: [f"{value:,}" for value in row.values()] for label, row in duplicates_by_class(audit).items()}
    lines = [("class", titles), *rows.items()]
    width = _width(rows)
    return "\n".join(f"{label:<{width}}" + "".join(f"{cell:>14}" for cell in cells) for label, cells in lines)


def _statistics_table(audit: Audit) -> str:
    width = _width(row.label for row in audit.statistics)
    head = (
        f"{'class':<{width}}{'sizes':>7}{'commonest':>19}{'sides':>12}{'border':>8}{'mean':>7}{'+-':>6}{'contrast':>10}"
    )
    rows = []
    for row in audit.statistics:
        common = f"{row.commonest_size[0]}x{row.commonest_size[1]} ({row.commonest_share:.0%})"
        modes = ", ".join(f"{mode} {count:,}" for mode, count in row.modes.items())
        rows.append(
            f"{row.label:<{width}}{row.sizes:>7,}{common:>19}{f'{row.smallest}-{row.largest}':>12}{row.border:>8.1f}"
            f"{row.mean:>7.1f}{row.mean_spread:>6.1f}{row.contrast:>10.1f}  {modes}"
        )
    return "\n".join([f"{head}  modes", *rows])


def _lists(audit: Audit) -> list[str]:
    """What to mend, by name, shortened to be readable; --json and --html have all."""
    found = {
        "Broken files": [f"{path}: {reason}" for path, reason in audit.unreadable.items()],
        f"Broken files in {audit.against}": [f"{path}: {why}" for path, why in audit.unreadable_there.items()],
        "Conflicting labels": [_members(group) for group in audit.conflicts],
        "Duplicates across the split": [_members(group) for group in audit.across],
        f"Duplicates in {audit.against}": [_members(group) for group in audit.overlap],
        "Patients across the split": [f"{name}: {', '.join(found)}" for name, found in audit.patients_across.items()],
    }
    for lines in found.values():
        lines[_SHOWN:] = [f"and {len(lines) - _SHOWN:,} more"] if lines[_SHOWN:] else []
    return ["\n  ".join([f"{title}:", *lines]) for title, lines in found.items() if lines]


def _members(group: DuplicateGroup) -> str:
    names = [f"{member.path} ({member.subset or member.label})" for member in group.members[:4]]
    return ", ".join(names) + (f" and {len(group.members) - 4:,} more" if group.members[4:] else "")


def format_shortcuts(found: Shortcuts) -> str:
    """A table of percentages, and sentences that say what they mean."""
    width = max(len(row.name) for row in found.rows) + 2
    head = (
        f"{'shown':{width}}{'accuracy':>9}{'chance':>8}{'balanced':>10}{'tumour or not':>15}{'chance':>8}  predicted by"
    )
    lines = [f"{found.dataset}, split by {found.group_by}, {found.rows[0].images:,} test images; percent", "", head]
    for row in found.rows:
        cells = f"{_percent(row.accuracy):>9}{_percent(row.chance):>8}{_percent(row.balanced_accuracy):>10}"
        cells += f"{_percent(row.detection_accuracy):>15}{_percent(row.detection_chance):>8}"
        lines.append(f"{row.name:{width}}{cells}  {row.predicted_by}: {row.shows}")
    broken = [f"{found.broken} images could not be read and were left out."] if found.broken else []
    return "\n".join([*lines, "", *_outside_sentences(found), *_tumor_sentences(found), *broken])


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _outside_sentences(found: Shortcuts) -> list[str]:
    outside = [row for row in found.rows if row.name in _OUTSIDE]
    sentences = []
    if detecting := [row for row in outside if row.detects_tumors]:
        best = max(detecting, key=lambda row: row.detection_accuracy or 0)
        sentences.append(
            f"The {best.name} alone tells tumour from no tumour in {_percent(best.detection_accuracy)} % "
            f"(always the same prediction: {_percent(best.detection_chance)} %), and is no sign of a tumour."
        )
    if predicting := [row for row in outside if row.beats_chance]:
        best = max(predicting, key=lambda row: row.accuracy)
        sentences.append(f"The {best.name} alone predicts the class in {_percent(best.accuracy)} % ({_most(best)}).")
    names = ", ".join(row.name for row in outside)
    return sentences or [f"None of {names} predicts more than chance: no shortcut was found in them."]


def _tumor_sentences(found: Shortcuts) -> list[str]:
    rows = {row.name: row for row in found.rows}
    sentences = []
    if hidden := rows.get("box hidden"):
        sentences.append(
            f"With the tumour's box filled, a thumbnail of 16 x 16 still predicts the class in "
            f"{_percent(hidden.accuracy)} % ({_most(hidden)}; the box's place alone: "
            f"{_percent(rows['box alone'].accuracy)} %)."
        )
    whole, without = rows.get("network"), rows.get("network, box hidden")
    if whole and without:
        sentences.append(
            f"The network is right in {_percent(whole.accuracy)} %, and without the tumour still in "
            f"{_percent(without.accuracy)} %: so much of its accuracy does not need the tumour."
        )
    put_in, taken_out = (rows.get(name) for name in ("network, tumour put in", "network, tumour taken out"))
    if put_in and taken_out:
        sentences.append(
            f"Tumours exchanged between slices: {_percent(put_in.detection_accuracy)} % of those put in are detected, "
            f"{_percent(taken_out.detection_accuracy)} % of those taken out are gone. Near 0 % the network goes by the "
            "slice around the tumour, near 100 % by the tumour."
        )
    return sentences


def _most(row: ShortcutRow) -> str:
    return f"always the most frequent class: {_percent(row.chance)} %"

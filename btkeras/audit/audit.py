"""What is wrong with a dataset before anything is trained: broken files, copies, leakage, conflicts, overlap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from btkeras.datasets.dataset import Dataset, Record
from btkeras.splitting.duplicates import Duplicates, ImageStats, Progress, match_duplicates, scan_images
from btkeras.splitting.splits import SUBSETS, Split


@dataclass(frozen=True)
class ClassStatistics:
    """Of one class, over the images that could be read.

    Attributes:
        label: The class.
        count: Number of images.
        sizes: Number of different sizes.
        commonest_size: Width and height that most have.
        commonest_share: Share of the images that have it, 0..1.
        smallest: Shortest side of any, in pixels.
        largest: Longest side of any, in pixels.
        modes: Number of images by Pillow's mode, the commonest first.
        border: Median grey level of the outermost 2 %, 0..255.
        dark_border: Share of images whose border is darker than 8, 0..1.
        mean: Mean over the images of their mean grey level, 0..255.
        mean_spread: Standard deviation of that between images.
        contrast: Mean over the images of their grey levels' standard deviation.
    """

    label: str
    count: int
    sizes: int
    commonest_size: tuple[int, int]
    commonest_share: float
    smallest: int
    largest: int
    modes: dict[str, int]
    border: float
    dark_border: float
    mean: float
    mean_spread: float
    contrast: float


_DARK = 8


def class_statistics(records: Sequence[Record], facts: Sequence[ImageStats | str]) -> tuple[ClassStatistics, ...]:
    """Statistics of each class, by name; a class without a readable image has none.

    Args:
        records: The images.
        facts: What is known of each, or why it could not be read.
    """
    members: dict[str, list[ImageStats]] = {}
    for record, fact in zip(records, facts, strict=True):
        if isinstance(fact, ImageStats):
            members.setdefault(record.label, []).append(fact)
    return tuple(_statistics(label, members[label]) for label in sorted(members))


def _statistics(label: str, facts: Sequence[ImageStats]) -> ClassStatistics:
    sizes = Counter((fact.width, fact.height) for fact in facts)
    size, count = sizes.most_common(1)[0]
    means, borders = np.array([fact.mean for fact in facts]), np.array([fact.border for fact in facts])
    return ClassStatistics(
        label=label,
        count=len(facts),
        sizes=len(sizes),
        commonest_size=size,
        commonest_share=count / len(facts),
        smallest=min(min(pair) for pair in sizes),
        largest=max(max(pair) for pair in sizes),
        modes=dict(Counter(fact.mode for fact in facts).most_common()),
        border=float(np.median(borders)),
        dark_border=float((borders < _DARK).mean()),
        mean=float(means.mean()),
        mean_spread=float(means.std()),
        contrast=float(np.mean([fact.deviation for fact in facts])),
    )


@dataclass(frozen=True)
class GroupMember:
    """An image of a group.

    Attributes:
        path: Relative to its dataset's folder.
        label: Its class.
        subset: One of ``PARTS``, "" without a split or where the split leaves it out.
        other: Whether it is of the other dataset.
    """

    path: str
    label: str
    subset: str = ""
    other: bool = False


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are copies of each other, directly or through others.

    Attributes:
        members: Two and more, by dataset and path.
        exact: Whether all have equal pixels.
        exact_duplicates: Number of images whose pixels equal those of an earlier one.
        correlation: The lowest of the links that join them.
        orientations: What was done to copies besides, in words: flips and rotations.
    """

    members: tuple[GroupMember, ...]
    exact: bool
    exact_duplicates: int
    correlation: float
    orientations: tuple[str, ...]

    @property
    def own(self) -> tuple[GroupMember, ...]:
        """Members that are of the audited dataset."""
        return tuple(member for member in self.members if not member.other)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The parts of the split in which it has images, in order."""
        present = {member.subset for member in self.own}
        return tuple(subset for subset in SUBSETS if subset in present)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that its images have, sorted."""
        return tuple(sorted({member.label for member in self.members}))

    @property
    def across(self) -> bool:
        """Whether it is on both sides of a split."""
        return len(self.subsets) > 1

    @property
    def conflicting(self) -> bool:
        """Whether its images disagree about the class."""
        return len(self.labels) > 1

    @property
    def overlapping(self) -> bool:
        """Whether it has images in both datasets."""
        return 0 < len(self.own) < len(self.members)


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        dataset: The folder.
        against: The other dataset's folder, "" without one.
        split: Whether a split was looked at.
        counts: Images per class.
        patients: Number of patients that are named, or None.
        unreadable: Why, by path; those of the other dataset begin with its folder.
        groups: Copies, those that matter most first.
        patients_across: Parts by patient, for those on both sides of the split.
        statistics: Of each class.
        subset_sizes: Images per part of the split.
    """

    dataset: str
    against: str
    split: bool
    counts: Mapping[str, int]
    patients: int | None
    unreadable: Mapping[str, str]
    groups: tuple[DuplicateGroup, ...]
    patients_across: Mapping[str, tuple[str, ...]]
    statistics: tuple[ClassStatistics, ...]
    subset_sizes: Mapping[str, int]

    @property
    def across(self) -> tuple[DuplicateGroup, ...]:
        """Groups on both sides of the split."""
        return tuple(group for group in self.groups if group.across)

    @property
    def conflicts(self) -> tuple[DuplicateGroup, ...]:
        """Groups whose images have several classes."""
        return tuple(group for group in self.groups if group.conflicting)

    @property
    def overlap(self) -> tuple[DuplicateGroup, ...]:
        """Groups with images in both datasets."""
        return tuple(group for group in self.groups if group.overlapping)

    @property
    def own_groups(self) -> tuple[DuplicateGroup, ...]:
        """Groups of two and more images of the dataset itself."""
        return tuple(group for group in self.groups if len(group.own) > 1)

    @property
    def leaks(self) -> bool:
        """Whether figures measured with this dataset and split would be too good."""
        return bool(self.across or self.patients_across or self.conflicts or self.overlap)

    @property
    def failed(self) -> bool:
        """Whether anything must be mended: leakage or broken files."""
        return self.leaks or bool(self.unreadable)

    def duplicated_in_training(self, subset: str) -> int:
        """Number of a part's images that have a copy in the training part."""
        return sum(member.subset == subset for group in self.across if "train" in group.subsets for member in group.own)


def audit(
    dataset: Dataset,
    split: Split | None = None,
    against: Dataset | None = None,
    progress: Progress = lambda paths: paths,
) -> Audit:
    """Looks at every image of a dataset.

    Args:
        dataset: The images.
        split: Their use, to be searched for copies and patients on both sides.
        against: Another dataset, to be searched for copies of this one's images.
        progress: Wraps the files while they are read.
    """
    others = against.records if against else ()
    files = [dataset.root / record.path for record in dataset.records]
    files += [against.root / record.path for record in others] if against else []
    facts = list(scan_images(files, progress))
    found = match_duplicates(files, facts)
    subset_of = {record.path: subset for subset in SUBSETS for record in split.subset(subset)} if split else {}
    members = [GroupMember(record.path, record.label, subset_of.get(record.path, "")) for record in dataset.records]
    members += [GroupMember(record.path, record.label, other=True) for record in others]
    own_count = len(dataset.records)
    return Audit(
        dataset=str(dataset.root),
        against=str(against.root) if against else "",
        split=split is not None,
        counts=dataset.counts(),
        patients=len({_patient(record) for record in dataset.records if record.patient}) or None,
        unreadable={_name(members[i], files[i]): why for i, why in found.unreadable.items()},
        groups=_groups(found, members),
        patients_across=_patients_across(dataset.records, subset_of),
        statistics=class_statistics(dataset.records, facts[:own_count]),
        subset_sizes={subset: len(split.subset(subset)) for subset in SUBSETS} if split else {},
    )


def _name(member: GroupMember, file: Path) -> str:
    return str(file) if member.other else member.path


def _patient(record: Record) -> str:
    # Ids are only unique within their collection.
    return f"{record.source} {record.patient}".strip()


def _patients_across(records: Sequence[Record], subset_of: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    subsets: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.patient and record.path in subset_of:
            subsets[_patient(record)].add(subset_of[record.path])
    found = {patient: tuple(subset for subset in SUBSETS if subset in subsets[patient]) for patient in sorted(subsets)}
    return {patient: where for patient, where in found.items() if len(where) > 1}


def _groups(found: Duplicates, members: Sequence[GroupMember]) -> tuple[DuplicateGroup, ...]:
    group_of = {i: number for number, group in enumerate(found.index_groups()) for i in group}
    links = defaultdict(list)
    for link in found.pairs:
        links[group_of[link.first]].append(link)
    groups = [
        DuplicateGroup(
            members=tuple(sorted((members[i] for i in group), key=lambda member: (member.other, member.path))),
            exact=all(link.exact for link in links[number]),
            exact_duplicates=sum(link.exact for link in links[number]),
            correlation=min(link.correlation for link in links[number]),
            orientations=tuple(sorted({link.orientation for link in links[number]} - {"as it is"})),
        )
        for number, group in enumerate(found.index_groups())
    ]
    return tuple(sorted(groups, key=_importance))


def _importance(group: DuplicateGroup) -> tuple[object, ...]:
    return (
        not group.conflicting,
        not group.across,
        not group.overlapping,
        -len(group.members),
        group.members[0].path,
    )

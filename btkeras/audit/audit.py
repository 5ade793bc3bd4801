"""Audit of a dataset before training: broken files, duplicates, leakage, conflicting labels, overlap."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from btkeras.audit.recognition import Recognized, recognize
from btkeras.datasets.dataset import Dataset, Record
from btkeras.splitting.duplicates import DuplicatePair, Duplicates, ImageStats, Progress, match_duplicates, scan_images
from btkeras.splitting.published import DividedPatients, divided_patients, fold_parts
from btkeras.splitting.splits import SUBSETS

_DARK = 8  # grey level


@dataclass(frozen=True)
class ClassStatistics:
    """Statistics of a class's readable images."""

    label: str
    count: int  # number of images
    sizes: int  # number of different sizes
    commonest_size: tuple[int, int]  # width and height that most have
    commonest_share: float  # share of the images that have it, 0..1
    smallest: int  # shortest side of any, in pixels
    largest: int  # longest side of any, in pixels
    modes: dict[str, int]  # number of images by Pillow's mode, the commonest first
    border: float  # median grey level of the outermost 2 %, 0..255
    dark_border: float  # share of images whose border is darker than 8, 0..1
    mean: float  # mean over the images of their mean grey level, 0..255
    mean_spread: float  # standard deviation of that between images
    contrast: float  # mean over the images of their grey levels' standard deviation


@dataclass(frozen=True)
class GroupMember:
    """An image of a group of duplicates."""

    path: str  # relative to its dataset's folder
    label: str
    subset: str = ""  # one of ``SUBSETS``, or ``fold N``; "" without a split or where the split leaves it out
    other: bool = False  # whether it is of the other dataset


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that are duplicates of each other, directly or through others."""

    members: tuple[GroupMember, ...]  # two and more, by dataset and path
    exact_duplicates: int  # number of images whose pixels equal those of an earlier one
    correlation: float  # the lowest of the pairs that connect them
    orientations: tuple[str, ...]  # flips and rotations that make one look like another

    @property
    def exact(self) -> bool:
        """Whether all have equal pixels."""
        return self.exact_duplicates == len(self.members) - 1

    @property
    def own(self) -> tuple[GroupMember, ...]:
        """Members that are of the audited dataset."""
        return tuple(member for member in self.members if not member.other)

    @property
    def subsets(self) -> tuple[str, ...]:
        """The subsets of the split in which it has images, in order."""
        present = {member.subset for member in self.own} - {""}
        return tuple(sorted(present, key=lambda name: (SUBSETS.index(name) if name in SUBSETS else 0, name)))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({member.label for member in self.members}))

    @property
    def across(self) -> bool:
        """Whether it has images in several subsets of the split."""
        return len(self.subsets) > 1

    @property
    def conflicting(self) -> bool:
        return len(self.labels) > 1


@dataclass(frozen=True)
class Audit:
    """What was found; all of it is about the dataset's own images, but for what names the other one."""

    dataset: str  # its folder
    against: str  # the other dataset's folder, "" without one
    split: bool  # whether a split was audited too
    counts: Mapping[str, int]  # images per class
    patients: int | None  # number of patients that are named, or None
    unreadable: Mapping[str, str]  # why, by path
    unreadable_there: Mapping[str, str]  # the same of the other dataset
    groups: tuple[DuplicateGroup, ...]  # groups of the dataset's duplicates, those that matter most first
    overlap: tuple[DuplicateGroup, ...]  # groups with images in both datasets
    divided: DividedPatients  # patients in several subsets of the split
    official: DividedPatients  # patients in several folds of the column ``official_fold``, whatever the split is
    statistics: tuple[ClassStatistics, ...]  # of each class, by name; a class without a readable image has none
    subset_sizes: Mapping[str, int]  # images per subset of the split
    recognized: tuple[Recognized, ...]  # known collections that it has copies of

    @property
    def patients_across(self) -> Mapping[str, tuple[str, ...]]:
        """Subsets by patient, for patients in several."""
        return self.divided.parts

    @property
    def across(self) -> tuple[DuplicateGroup, ...]:
        return tuple(group for group in self.groups if group.across)

    @property
    def conflicts(self) -> tuple[DuplicateGroup, ...]:
        return tuple(group for group in self.groups if group.conflicting)

    @property
    def leaks(self) -> bool:
        """Whether metrics measured with this dataset and split would be too good."""
        return bool(self.across or self.patients_across or self.conflicts or self.overlap)

    @property
    def failed(self) -> bool:
        """Whether there is leakage or a broken file."""
        return self.leaks or bool(self.unreadable or self.unreadable_there)

    def duplicated_in_training(self, subset: str) -> int:
        """Number of a subset's images that have a duplicate in training."""
        return sum(member.subset == subset for group in self.across if "train" in group.subsets for member in group.own)


def audit(
    dataset: Dataset,
    subset_of: Mapping[str, str] | None = None,
    against: Dataset | None = None,
    progress: Progress = lambda paths: paths,
) -> Audit:
    """Audits every image of a dataset; ``progress`` wraps the files while they are read.

    A split, each image's subset or fold by its path, is searched for duplicates and patients in several of them, the
    dataset ``against`` for duplicates.
    """
    split, subset_of = subset_of is not None, subset_of or {}
    members = [GroupMember(record.path, record.label, subset_of.get(record.path, "")) for record in dataset.records]
    others = [GroupMember(record.path, record.label, other=True) for record in (against.records if against else ())]
    files = [source.root / record.path for source in (dataset, against) if source for record in source.records]
    images = list(scan_images(files, progress))
    own = images[: len(members)]
    found = match_duplicates(files[: len(own)], own)
    readable: dict[str, list[ImageStats]] = defaultdict(list)
    for record, image in zip(dataset.records, own, strict=True):
        if isinstance(image, ImageStats):
            readable[record.label].append(image)
    return Audit(
        dataset=str(dataset.root),
        against=str(against.root) if against else "",
        split=split,
        counts=dataset.counts(),
        patients=len({_patient(record) for record in dataset.records if record.patient}) or None,
        unreadable=_unreadable(members, own),
        unreadable_there=_unreadable(others, images[len(members) :]),
        groups=_groups(found, members),
        overlap=_overlap(match_duplicates(files, images, found), members + others) if others else (),
        divided=divided_patients(dataset.records, subset_of),
        official=divided_patients(dataset.records, fold_parts(dataset.records)),
        statistics=tuple(_statistics(label, stats) for label, stats in sorted(readable.items())),
        subset_sizes=_sizes(subset_of),
        recognized=recognize([image.thumbnail for image in own if isinstance(image, ImageStats)]),
    )


def _unreadable(members: Sequence[GroupMember], images: Sequence[ImageStats | str]) -> dict[str, str]:
    return {member.path: image for member, image in zip(members, images, strict=True) if isinstance(image, str)}


def _patient(record: Record) -> str:
    # Ids are only unique within their collection.
    return f"{record.source} {record.patient}".strip()


def _sizes(subset_of: Mapping[str, str]) -> dict[str, int]:
    """Images of each subset, of all three unless the split has folds."""
    sizes = Counter(subset_of.values())
    return {name: sizes[name] for name in (SUBSETS if sizes.keys() <= {*SUBSETS} else sizes)} if sizes else {}


def _groups(found: Duplicates, members: Sequence[GroupMember]) -> tuple[DuplicateGroup, ...]:
    indices = found.index_groups()
    group_of = {i: number for number, group in enumerate(indices) for i in group}
    pairs = defaultdict(list)
    for pair in found.pairs:
        pairs[group_of[pair.first]].append(pair)
    groups = [_group([members[i] for i in group], pairs[number]) for number, group in enumerate(indices)]
    return tuple(sorted(groups, key=_importance))


def _overlap(found: Duplicates, members: Sequence[GroupMember]) -> tuple[DuplicateGroup, ...]:
    # Duplicates inside the other dataset are its own business.
    return tuple(group for group in _groups(found, members) if 0 < len(group.own) < len(group.members))


def _group(members: Sequence[GroupMember], pairs: Sequence[DuplicatePair]) -> DuplicateGroup:
    return DuplicateGroup(
        members=tuple(sorted(members, key=lambda member: (member.other, member.path))),
        exact_duplicates=sum(pair.exact for pair in pairs),
        correlation=min(pair.correlation for pair in pairs),
        orientations=tuple(sorted({pair.orientation for pair in pairs} - {"as it is"})),
    )


def _importance(group: DuplicateGroup) -> tuple[object, ...]:
    return (not group.conflicting, not group.across, -len(group.members), group.members[0].path)


def _statistics(label: str, images: Sequence[ImageStats]) -> ClassStatistics:
    sizes = Counter((image.width, image.height) for image in images)
    size, count = sizes.most_common(1)[0]
    means, borders, deviations = np.array([(image.mean, image.border, image.deviation) for image in images]).T
    return ClassStatistics(
        label=label,
        count=len(images),
        sizes=len(sizes),
        commonest_size=size,
        commonest_share=count / len(images),
        smallest=min(map(min, sizes)),
        largest=max(map(max, sizes)),
        modes=dict(Counter(image.mode for image in images).most_common()),
        border=float(np.median(borders)),
        dark_border=float((borders < _DARK).mean()),
        mean=float(means.mean()),
        mean_spread=float(means.std()),
        contrast=float(deviations.mean()),
    )

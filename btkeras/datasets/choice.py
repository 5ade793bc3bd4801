"""One sequence of each case: the one that is chosen, never several in silence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from btkeras.datasets.dataset import Record
from btkeras.datasets.readers.selection import LeftOut
from btkeras.datasets.sequences import SEQUENCES, canonical
from btkeras.datasets.source_image import SourceImage
from btkeras.errors import ConfigError, DataError

_LISTED = 5
_RENAMED = "NAME_t1c.nii.gz, a mask NAME_seg.nii.gz"
_NUMBERS = "; if the numbers are patients, write them with other than four digits"


class SequenceChoice(NamedTuple):
    """What of several scans of a case is taken: a sequence, or a channel by number or name; "" where none is chosen."""

    sequence: str = ""
    channel: str = ""

    @property
    def number(self) -> int | None:
        """The channel's number; None if it has a name, or none is chosen."""
        return int(self.channel) if self.channel.isascii() and self.channel.isdecimal() else None

    @property
    def name(self) -> str:
        """The sequence's name as of ``sequences``; ``channel N`` of a number."""
        return canonical(self.sequence or self.channel) if self.number is None else f"channel {self.number}"

    def check(self) -> None:
        """Raises ConfigError if both are chosen, or what is chosen is no name."""
        given = [text for text in self if text]
        if len(given) > 1 or (given and not self.name):
            rule = "One sequence or one channel can be chosen, by its name or the channel's number"
            raise ConfigError(rule, received=" and ".join(map(repr, given)))


ANY = SequenceChoice()


class ChosenImages(NamedTuple):
    """Images of one sequence of each case, and the others' files."""

    images: list[SourceImage]
    left_out: list[LeftOut]


def choose_sequence(images: Sequence[SourceImage], choice: SequenceChoice) -> ChosenImages:
    """Takes one sequence of each case of a source; images whose names say nothing of a scan pass.

    Raises:
        DataError: If a case has several sequences without a choice, or with one several versions of it or none that is
            named.
    """
    cases: dict[tuple[object, ...], list[SourceImage]] = defaultdict(list)
    for image in images:
        if image.case is not None:
            cases[image.case].append(image)
    if not choice.name:
        _check_single(cases)
        return ChosenImages(list(images), [])
    taken: dict[str, SourceImage] = {}
    for found in cases.values():
        of_case = _of_sequence(found, choice.name) if choice.number is None else _of_channel(found, choice.number)
        taken |= {image.file.path: image for image in of_case}
    kept, left_out = [], []
    for image in images:
        if image.case is None or image.file.path in taken:
            kept.append(taken.get(image.file.path, image))
        else:
            some = any(other.file.path in taken for other in cases[image.case])
            why = f"of {_kind(_names(image)[0])}" if some else f"of a case without {choice.name}"
            left_out.append(LeftOut(image.file.name, why))
    return ChosenImages(kept, left_out)


def _names(image: SourceImage) -> list[str]:
    """The sequences in a file; "" of an unknown one."""
    number = image.extra.get("channel", "")
    return list(image.channels) or [image.extra.get("sequence", f"channel {number}" if number else "")]


def _kind(name: str) -> str:
    return name if name.startswith("channel ") else f"sequence {name}"


def _with_channel(image: SourceImage, number: int) -> SourceImage:
    extra = {**image.extra, "channel": str(number)}
    if number < len(image.channels):
        extra["sequence"] = image.channels[number]
    return replace(image, channel=number, extra=extra)


def _of_channel(found: Sequence[SourceImage], number: int) -> list[SourceImage]:
    """The file of a channel; or of a file without a number, which may have several volumes, the one of the number."""
    own = str(number)
    return [
        image if "channel" in image.extra else _with_channel(image, number)
        for image in found
        if image.extra.get("channel", own) == own
    ]


def _of_sequence(found: Sequence[SourceImage], wanted: str) -> list[SourceImage]:
    """The scans of a case that are of a sequence; where none is called so alone, its only version: ``t1c_bias``."""
    if unknown := [image for image in found if "" in _names(image)]:
        raise DataError(
            "The name of each volume must say its sequence, where one is chosen",
            received=unknown[0].file.name,
            remedy=f"Rename it (NAME_{wanted}.nii.gz, a mask NAME_seg.nii.gz), or prepare it alone without a choice",
        )
    names = {name for image in found for name in _names(image)}
    versions = sorted(name for name in names if name.startswith(f"{wanted}_"))
    if wanted not in names and len(versions) > 1:
        raise _several_error("cases", [_case_text(found)], Counter(versions))
    name = wanted if wanted in names else next(iter(versions), "")
    return [
        _with_channel(image, image.channels.index(name)) if image.channels else image
        for image in found
        if name in _names(image)
    ]


def _check_single(cases: Mapping[tuple[object, ...], Sequence[SourceImage]]) -> None:
    several = [found for found in cases.values() if len({name for image in found for name in _names(image)}) > 1]
    if several:
        counts = Counter(name for found in several for image in found for name in _names(image))
        raise _several_error("cases", list(map(_case_text, several)), counts)


def _several_error(kind: str, lines: Sequence[str], counts: Counter[str]) -> DataError:
    listed = "".join(f"\n  {line}" for line in lines[:_LISTED])
    more = f"\n  and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    numbered = next((name for name in sorted(counts) if name.startswith("channel ")), "")
    known = [name for name in (*SEQUENCES, *sorted(counts)) if name in counts and name]
    chosen = f"Choose one, for instance --{_kind(numbered or next(iter(known), ''))}"
    if "" in counts and not numbered:
        chosen = f"Remove what is no scan, rename the others ({_RENAMED}), and choose one: --sequence t1c"
    return DataError(
        "Of several sequences of a case one must be chosen",
        received=f"{len(lines)} such {kind}:{listed}{more}\nIn them: {_counts_text(counts)}",
        remedy=f"{chosen}{_NUMBERS * bool(numbered)}",
    )


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name or 'of unknown sequence'}" for name, count in sorted(counts.items()))


def _case_text(found: Sequence[SourceImage]) -> str:
    case = " ".join(filter(None, [found[0].patient or found[0].file.name, found[0].extra.get("session", "")]))
    names = sorted({name or image.file.name for image in found for name in _names(image)})
    return f"{case}: {', '.join(names)}"


def is_dicom_image(extra: Mapping[str, str]) -> bool:
    """Whether an image was made of DICOM, of whose path nothing is stored."""
    return "original" not in extra


def why_not_chosen(extra: Mapping[str, str], wanted: str) -> str:
    """Why a DICOM image with these columns is left out, where a sequence is wanted; a channel says nothing of it."""
    sequence = extra.get("sequence", "")
    chosen = sequence == wanted or not wanted or wanted.startswith("channel ")
    return "" if chosen else f"of sequence {sequence or 'unknown by its header'}"


def check_series(records: Iterable[Record]) -> None:
    """Raises DataError if the DICOM series of a patient and class are of several sequences."""
    series: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        if is_dicom_image(record.extra) and record.patient:
            series[record.source, record.label, record.patient][record.extra.get("sequence", "")] += 1
    several = {case: counter for case, counter in series.items() if len(counter) > 1}
    if several:
        lines = [f"{case[2]}: {_counts_text(counter)}" for case, counter in several.items()]
        raise _several_error("patients", lines, sum(several.values(), Counter()))

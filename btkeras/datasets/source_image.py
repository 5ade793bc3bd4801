"""One image of a source: its file, and what names and tables say of it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from btkeras.datasets.masks import case_of
from btkeras.datasets.naming import ScanName, is_volume_path
from btkeras.datasets.readers.archives import SourceFile
from btkeras.datasets.readers.dicom_series import SeriesPlace
from btkeras.datasets.sequences import canonical
from btkeras.errors import DataError

# What nnU-Net and the Medical Segmentation Decathlon call the table of their channels.
DATASET_JSON = "dataset.json"
_FEWEST_CHANNELS = 2


@dataclass(frozen=True)
class SourceImage:
    """One file of an image, or of several slices; class and patient are "" where the file itself has to say them.

    Attributes:
        file: The file.
        source: Name of the collection.
        label: The class.
        patient: The patient.
        extra: Further columns of the manifest.
        mask: The tumour's mask.
        case: What the scans of one patient at one time have in common; None where names say nothing of scans.
        channels: The names of the volumes in the file, where a table says that it has several.
        channel: Which of them is read; None of a file with one.
        place: Of a DICOM file, whose it is and where in its series.
    """

    file: SourceFile
    source: str
    label: str = ""
    patient: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)
    mask: SourceFile | None = None
    case: tuple[object, ...] | None = None
    channels: tuple[str, ...] = ()
    channel: int | None = None
    place: SeriesPlace | None = None


def named_image(
    image: SourceImage, name: ScanName, mask: SourceFile | None, tables: Mapping[str, tuple[str, ...]]
) -> SourceImage:
    """Adds to an image what its name, and the tables of ``channel_names``, say."""
    path = image.file.path
    # Channels may be 2-D images, too.
    scan = is_volume_path(path) or name.channel is not None
    channels = next((tables[folder] for folder in _above(path) if folder in tables), ()) if scan else ()
    sequence, several = name.sequence, name.channel is None and len(channels) >= _FEWEST_CHANNELS
    if name.channel is not None and name.channel < len(channels):
        sequence = channels[name.channel]
    number = "" if name.channel is None else str(name.channel)
    # The name of a published collection's image may say the sequence too.
    shown = sequence or image.extra.get("sequence", "")
    extra = {**image.extra, "session": name.session, "sequence": shown, "channel": number}
    return replace(
        image,
        patient=name.patient,
        extra={key: value for key, value in extra.items() if value},
        mask=mask,
        case=case_of(path, name) if scan or sequence else None,
        channels=channels if several else (),
    )


def channel_names(files: Iterable[SourceFile]) -> dict[str, tuple[str, ...]]:
    """The channels' names of each ``dataset.json`` among files, as sequences, by the folder it lies in.

    Raises:
        DataError: If one is no JSON object, or numbers its channels in another way than 0, 1, ...
    """
    return {posixpath.dirname(file.path): _channels(file) for file in files if file.basename.lower() == DATASET_JSON}


def _channels(file: SourceFile) -> tuple[str, ...]:
    rule = f"{DATASET_JSON} must name its channels as nnU-Net's: channel_names or modality, by numbers from 0"
    try:
        table = json.loads(file.read())
        # "modality" is that of nnU-Net's first version and of the Decathlon.
        names = table.get("channel_names", table.get("modality", {}))
        numbered = {int(number): canonical(str(name)) for number, name in names.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(rule, received=f"{file.name} ({error})", remedy="Mend it, or remove it") from error
    if sorted(numbered) != list(range(len(numbered))):
        raise DataError(rule, received=f"{file.name} with {', '.join(names)}", remedy="Mend it, or remove it")
    return tuple(numbered[number] for number in range(len(numbered)))


def _above(path: str) -> Iterable[str]:
    """The folders above a file, the nearest first."""
    while path:
        path = posixpath.dirname(path)
        yield path

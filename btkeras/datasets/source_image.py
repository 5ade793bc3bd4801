"""One image of a source: its file, and what names and tables say of it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from btkeras.datasets.masks import case_of
from btkeras.datasets.naming import ScanName, in_channel_folder, is_volume_path
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
        listed: What a table of patients says of it: columns of ``patients.read_patients``.
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
    listed: Mapping[str, str] = field(default_factory=dict)


def named_image(
    image: SourceImage, name: ScanName, mask: SourceFile | None, tables: Mapping[str, tuple[str, ...]]
) -> SourceImage:
    """Adds to an image what its name, and the tables of ``channel_names``, say."""
    path = image.file.path
    # Channels may be 2-D images, too.
    scan = is_volume_path(path) or name.channel is not None
    channels = next((tables[folder] for folder in _above(path) if folder in tables), ()) if scan else ()
    several = name.channel is None and in_channel_folder(path) and len(channels) >= _FEWEST_CHANNELS
    sequence = name.sequence
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
    """The channels' names in each ``dataset.json`` of nnU-Net among files, as sequences, by the folder it lies in.

    Names that are not different (``MRI``, ``MRI``) say nothing. Files of that name that are something else are not
    among them.

    Raises:
        DataError: If one numbers its channels in another way than 0, 1, ...
    """
    tables = (
        (posixpath.dirname(file.path), _channels(file)) for file in files if file.basename.lower() == DATASET_JSON
    )
    return {folder: names for folder, names in tables if names is not None}


def _channels(file: SourceFile) -> tuple[str, ...] | None:
    try:
        table = json.loads(file.read())
    except (ValueError, DataError):
        return None
    # "modality" is that of nnU-Net's first version and of the Decathlon.
    names = table.get("channel_names", table.get("modality")) if isinstance(table, dict) else None
    if not isinstance(names, dict):
        return None
    if sorted(names) != sorted(str(number) for number in range(len(names))):
        rule = f"{DATASET_JSON} must number its channels 0, 1, ..."
        raise DataError(rule, received=f"{file.name} with {', '.join(names)}", remedy="Mend it, or remove it")
    found = tuple(canonical(str(names[str(number)])) for number in range(len(names)))
    return found if len(set(found)) == len(found) else ()


def _above(path: str) -> Iterable[str]:
    """The folders above a file, the nearest first."""
    while path:
        path = posixpath.dirname(path)
        yield path

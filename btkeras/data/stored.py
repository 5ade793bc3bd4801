"""A picture as a dataset will hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Stored:
    """A picture as it will be written.

    Attributes:
        label: Its class.
        patient: Its patient, "" where unknown.
        data: Encoded PNG or JPEG.
        suffix: ``.png`` or ``.jpg``.
        mask: Encoded PNG of the tumour (0 and 255), as large as the picture; None where there is none.
        extra: Further columns of the manifest.
        name: Of its file, without ending; "" for that of the source's file.
    """

    label: str
    patient: str
    data: bytes
    suffix: str
    mask: bytes | None
    extra: Mapping[str, str]
    name: str = ""

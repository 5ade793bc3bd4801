"""The stored values of one frame of a DICOM file, whatever its transfer syntax.

pydicom finds and decodes frames. Before a compressed one reaches a decoder, the size in its own header is compared with
the file's: a decoder allocates what that header says.
"""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import gdcm_process
from btkeras.datasets.readers.base import quiet, require
from btkeras.errors import ImageError
from btkeras.preprocessing.image_file import damaged

# In this order. GDCM, which JPEG Lossless needs, crashes on broken files and gets a process of its own.
_DECODERS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_2000 = b"\xff\x4f\xff\x51"
_RLE = "1.2.840.10008.1.2.5"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
# How Python names an object that has no name.
_OBJECT = re.compile(r"<\S+ object at 0x[0-9a-f]+>")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NEEDED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
_UNCOMPRESSED = MappingProxyType({(True, True): _IMPLICIT, (False, True): _EXPLICIT, (False, False): _BIG_ENDIAN})


def transfer_syntax(dataset: Any) -> str:
    """The UID that says how a dataset's pixels are encoded; of a file without one, what its elements were read as."""
    meta = getattr(dataset, "file_meta", None)
    stated = str(meta.get("TransferSyntaxUID", "") or "") if meta is not None else ""
    return stated or _UNCOMPRESSED.get(dataset.original_encoding, _EXPLICIT)


def stored_values(dataset: Any, index: int, name: str) -> NDArray[Any]:
    """Decodes a frame.

    Args:
        dataset: With the image pixel module and ``PixelData``.
        index: Of the frame, from 0.
        name: What error messages call the file.

    Returns:
        ``[rows, columns]`` integers with their sign, or ``[rows, columns, 3]`` RGB.

    Raises:
        ImageError: If its content is broken, or no installed decoder knows its compression.
    """
    pixels = require("pydicom.pixels", "DICOM")
    with quiet():
        syntax = transfer_syntax(dataset)
        try:
            decoder = pixels.get_decoder(syntax)
        except NotImplementedError as error:
            raise _unknown(syntax, name) from error
    try:
        values = _decoded(decoder, dataset, index, syntax, name)
    except ImageError:
        raise
    except Exception as error:  # What decoders raise on broken bytes has no list.
        reason = _reason(error)
        # 12-bit JPEG, for instance.
        raise _unknown(syntax, name) if "does not support" in reason else damaged(name, reason) from error
    expected = (int(dataset.Rows), int(dataset.Columns))
    if values.shape[:2] != expected:
        raise damaged(name, f"frame {index} has the shape {values.shape}")
    return values


def _decoded(decoder: Any, dataset: Any, index: int, syntax: str, name: str) -> NDArray[Any]:
    plugins: list[str | None] = [plugin for plugin in _DECODERS if plugin in decoder.available_plugins]
    with quiet():
        if decoder.is_encapsulated and syntax != _RLE:
            frame = _frame(dataset, index)
            _check_frame(frame, dataset, name)
        elif not decoder.is_encapsulated:
            plugins = [None]
        for place, plugin in enumerate(plugins, start=1):
            try:
                options = {"decoding_plugin": plugin} if plugin else {}
                return np.asarray(decoder.as_array(dataset, index=index, **options)[0])
            except RuntimeError:
                # Pillow lacks some kinds of JPEG 2000, for instance.
                if place == len(plugins):
                    raise
    if "gdcm" not in decoder.available_plugins:
        raise _unknown(syntax, name)
    return _by_gdcm(dataset, frame, syntax, name)


def _by_gdcm(dataset: Any, frame: bytes, syntax: str, name: str) -> NDArray[Any]:
    """Decodes a compressed frame in a process of its own."""
    command = [sys.executable, "-P", str(Path(gdcm_process.__file__))]
    try:
        done = subprocess.run(
            command, input=_alone(dataset, frame, syntax), capture_output=True, timeout=gdcm_process.SECONDS, check=True
        )
        return np.asarray(np.load(io.BytesIO(done.stdout), allow_pickle=False))
    except (OSError, ValueError, EOFError, subprocess.SubprocessError) as error:
        raise damaged(name, "its JPEG Lossless frame cannot be decoded") from error


def _alone(dataset: Any, frame: bytes, syntax: str) -> bytes:
    """A DICOM file of one frame and what it takes to decode it."""
    pydicom, encaps = require("pydicom", "DICOM"), require("pydicom.encaps", "DICOM")
    made, buffer = pydicom.Dataset(), io.BytesIO()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID, made.SOPInstanceUID = _SECONDARY_CAPTURE, _SECONDARY_CAPTURE
    for key in _NEEDED:
        if key in dataset:
            made[key] = dataset[key]
    made.PixelData = encaps.encapsulate([frame])
    with quiet():
        made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _frame(dataset: Any, index: int) -> bytes:
    encaps = require("pydicom.encaps", "DICOM")
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    return bytes(
        encaps.get_frame(
            dataset.PixelData,
            index,
            number_of_frames=int(dataset.get("NumberOfFrames") or 1),
            extended_offsets=offsets if all(offsets) else None,
        )
    )


def _check_frame(data: bytes, dataset: Any, name: str) -> None:
    """Compares the size in a compressed frame's header with the file's."""
    found = _size(data)
    expected = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    if found != expected:
        raise damaged(name, f"a frame of {_words(found)} in a file of {_words(expected)}")


def _words(size: tuple[int, int, int] | None) -> str:
    return "no known size" if size is None else f"{size[0]} x {size[1]} x {size[2]}"


def _size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG, JPEG-LS or JPEG 2000 codestream; None if they are not found."""
    start = data.find(_JPEG_2000, 0, 4096)
    try:
        if start >= 0:
            right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
            (components,) = struct.unpack_from(">H", data, start + 40)
            return bottom - top, right - left, components
        return _jpeg_size(data)
    except struct.error:
        return None


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    position = 2
    while data[position : position + 1] == b"\xff":
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker in _JPEG_FRAMES:
            rows, columns, components = struct.unpack_from(">HHB", data, position + 5)
            return rows, columns, components
        # A marker may be padded with more of its first byte.
        position += 1 if marker == 0xFF else 2 + length
    return None


def _unknown(syntax: str, name: str) -> ImageError:
    with quiet():
        uid = require("pydicom.uid", "DICOM")
        named = uid.UID(syntax).name[:80]
    return ImageError(
        "A DICOM file's pixels must be compressed in a way that an installed decoder knows",
        received=f"{name} with {named!r}",
        remedy="Install them, pip install 'btkeras[medical]', or store it uncompressed first (dcmdjpeg of DCMTK does)",
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _OBJECT.sub("", lines[-1])[:120].rstrip(". ") if lines else type(error).__name__

"""The stored values of one frame of a DICOM file, whatever its transfer syntax.

pydicom finds and decodes frames. Before a compressed one reaches a decoder, the size in its own header is compared with
the file's: a decoder allocates what that header says.
"""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.data.image_file import damaged
from btkeras.data.medical import quiet, require
from btkeras.errors import ImageError

# In this order: maintained beside pydicom first; GDCM is the one that has JPEG Lossless.
_DECODERS = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_2000 = b"\xff\x4f\xff\x51"
_RLE = "1.2.840.10008.1.2.5"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
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
    syntax = transfer_syntax(dataset)
    with quiet():
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
    return np.asarray(values)


def _decoded(decoder: Any, dataset: Any, index: int, syntax: str, name: str) -> NDArray[Any]:
    if not decoder.is_encapsulated:
        return decoder.as_array(dataset, index=index)[0]
    plugins = [plugin for plugin in _DECODERS if plugin in decoder.available_plugins]
    if not plugins:
        raise _unknown(syntax, name)
    if syntax != _RLE:
        _check_frame(_frame(dataset, index), dataset, name)
    for plugin in plugins[:-1]:
        try:
            return decoder.as_array(dataset, index=index, decoding_plugin=plugin)[0]
        except RuntimeError:
            # Pillow lacks some kinds of JPEG 2000, for instance.
            continue
    return decoder.as_array(dataset, index=index, decoding_plugin=plugins[-1])[0]


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
    uid = require("pydicom.uid", "DICOM")
    return ImageError(
        "A DICOM file's pixels must be compressed in a way that an installed decoder knows",
        received=f"{name} with {uid.UID(syntax).name[:80]!r}",
        remedy="Install them, pip install 'btkeras[medical]', or store it uncompressed first (dcmdjpeg of DCMTK does)",
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:120].rstrip(". ") if lines else type(error).__name__

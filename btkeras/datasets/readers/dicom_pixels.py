"""The stored values of one frame of a DICOM file, whatever its transfer syntax.

pydicom finds and decodes frames. A decoder allocates what a compressed frame's own header says, so that size is first
compared with the file's. JPEG Lossless needs GDCM, which broken files crash: it gets a process of its own, ``python -m
btkeras.datasets.readers.dicom_pixels``.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.datasets.readers import MissingExtraError, describe, require
from btkeras.errors import ImageError
from btkeras.machine import thread_environment
from btkeras.preprocessing.image_file import damaged

# Their packages, but for those of btkeras and pydicom themselves.
_DECODER_MODULES = ("pylibjpeg", "openjpeg", "jpeg_ls", "gdcm")
_DECODERS = ("pylibjpeg", "pyjpegls", "pillow", "pydicom")
_GDCM_BYTES, _GDCM_SECONDS = 2 * 2**30, 60
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_2000 = b"\xff\x4f\xff\x51"
_RLE, _SECONDARY_CAPTURE = "1.2.840.10008.1.2.5", "1.2.840.10008.5.1.4.1.1.7"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_UNCOMPRESSED = MappingProxyType({(True, True): _IMPLICIT, (False, True): _EXPLICIT, (False, False): _BIG_ENDIAN})
_NEEDED_TO_DECODE = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
# How Python names an object that has no name.
_OBJECT = re.compile(r"<\S+ object at 0x[0-9a-f]+>")
# Silencing warnings changes the whole process, so one thread does it at a time, and for these modules only.
_QUIET = r"(pydicom|PIL|openjpeg|pylibjpeg|btkeras\.datasets\.readers)"
_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg")
_lock = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Lets one thread at a time use pydicom, without its warnings and its log, which may quote a header."""
    with _lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_QUIET)
        # The loggers of single modules are below these and take their level.
        levels = {logger: logger.level for logger in map(logging.getLogger, _LOGGERS)}
        try:
            for logger in levels:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in levels.items():
                logger.setLevel(level)


def stored_values(dataset: Any, index: int, name: str) -> NDArray[Any]:
    """Decodes frame ``index`` of a pydicom dataset to integers ``[rows, columns]`` or RGB ``[rows, columns, 3]``.

    Raises:
        ImageError: If its content is broken, or no installed decoder knows its compression; it calls the file ``name``.
    """
    with quiet():
        # Without a statement of it, pixels are encoded as the elements were.
        stated = str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "") or "")
        syntax = stated or _UNCOMPRESSED.get(dataset.original_encoding, _EXPLICIT)
        try:
            values = _decode(_pydicom("pixels").get_decoder(syntax), dataset, index, syntax, name)
        except (ImageError, MissingExtraError):
            raise
        except Exception as error:  # What decoders raise on broken bytes has no list.
            reason = _reason(error)
            # No decoder at all, or 12-bit JPEG, for instance.
            unknown = isinstance(error, NotImplementedError) or "does not support" in reason
            raise _no_decoder(syntax, name) if unknown else damaged(name, reason) from error
    if isinstance(values, bytes):
        values = _decode_by_gdcm(dataset, values, syntax, name)
    if values.shape[:2] != (int(dataset.Rows), int(dataset.Columns)):
        raise damaged(name, f"frame {index} has the shape {values.shape}")
    return values


def _pydicom(module: str) -> Any:
    return require(f"pydicom.{module}", "DICOM")


def _decode(decoder: Any, dataset: Any, index: int, syntax: str, name: str) -> NDArray[Any] | bytes:
    """The values of a frame, or the encoded frame where GDCM alone can decode it."""
    plugins: list[str | None] = [plugin for plugin in _DECODERS if plugin in decoder.available_plugins]
    if decoder.is_encapsulated and syntax != _RLE:
        frame = _frame(dataset, index)
        _check_frame_size(frame, dataset, name)
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
        raise _no_decoder(syntax, name)
    return frame


def _decode_by_gdcm(dataset: Any, frame: bytes, syntax: str, name: str) -> NDArray[Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "btkeras.datasets.readers.dicom_pixels"],
            input=_one_frame_file(dataset, frame, syntax),
            capture_output=True,
            timeout=_GDCM_SECONDS,
            check=True,
            env=os.environ | thread_environment(1) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return np.asarray(np.load(io.BytesIO(done.stdout), allow_pickle=False))
    except (OSError, ValueError, EOFError, subprocess.SubprocessError) as error:
        raise damaged(name, "its JPEG Lossless frame cannot be decoded") from error


def _one_frame_file(dataset: Any, frame: bytes, syntax: str) -> bytes:
    """A DICOM file of one frame and what it takes to decode it."""
    datasets, buffer = _pydicom("dataset"), io.BytesIO()
    single = datasets.Dataset()
    single.file_meta = datasets.FileMetaDataset()
    single.file_meta.TransferSyntaxUID = syntax
    single.SOPClassUID = single.SOPInstanceUID = _SECONDARY_CAPTURE
    for key in filter(dataset.__contains__, _NEEDED_TO_DECODE):
        single[key] = dataset[key]
    single.PixelData = _pydicom("encaps").encapsulate([frame])
    with quiet():
        single.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _frame(dataset: Any, index: int) -> bytes:
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    count, offsets_given = int(dataset.get("NumberOfFrames") or 1), offsets if all(offsets) else None
    get_frame = _pydicom("encaps").get_frame
    return bytes(get_frame(dataset.PixelData, index, number_of_frames=count, extended_offsets=offsets_given))


def _check_frame_size(frame: bytes, dataset: Any, name: str) -> None:
    """Compares the size in a compressed frame's header with the file's."""
    found = _frame_size(frame)
    expected = (int(dataset.Rows), int(dataset.Columns), int(dataset.SamplesPerPixel))
    if found != expected:
        stated = " x ".join(map(str, found or ())) or "no known size"
        raise damaged(name, f"a frame of {stated} in a file of {' x '.join(map(str, expected))}")


def _frame_size(data: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a JPEG, JPEG-LS or JPEG 2000 codestream; None if they are not found."""
    start = data.find(_JPEG_2000, 0, 4096)
    try:
        if start < 0:
            return _jpeg_size(data)
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        (components,) = struct.unpack_from(">H", data, start + 40)
    except struct.error:
        return None
    return bottom - top, right - left, components


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


def _no_decoder(syntax: str, name: str) -> ImageError:
    named = _pydicom("uid").UID(syntax).name[:80]
    return ImageError(
        "A DICOM file's pixels must be compressed in a way that an installed decoder knows",
        received=f"{name} with {named!r}{_broken_decoders()}",
        remedy="Install them, pip install 'btkeras[medical]', or store it uncompressed first (dcmdjpeg of DCMTK does)",
    )


def _broken_decoders() -> str:
    """Names decoders that are installed and cannot be imported, which pydicom takes for missing."""
    found = []
    for module in _DECODER_MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            # Missing itself, or a package that it needs.
            found += [] if error.name == module else [f"; {module} fails ({describe(error)})"]
        except Exception as error:
            found.append(f"; {module} fails ({describe(error)})")
    return "".join(found)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _OBJECT.sub("", lines[-1])[:120].rstrip(". ") if lines else type(error).__name__


def _limit_process() -> None:
    """Bounds memory and time where the system can."""
    with contextlib.suppress(ImportError):
        import resource

        for name, limit in (("AS", _GDCM_BYTES), ("CPU", _GDCM_SECONDS), ("CORE", 0)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _main() -> None:
    """Decodes a DICOM file on standard input by GDCM, to NumPy's format on standard output."""
    _limit_process()
    dataset = require("pydicom", "DICOM").dcmread(io.BytesIO(sys.stdin.buffer.read()))
    decoder = _pydicom("pixels").get_decoder(dataset.file_meta.TransferSyntaxUID)
    np.save(sys.stdout.buffer, decoder.as_array(dataset, decoding_plugin="gdcm")[0])


if __name__ == "__main__":
    _main()

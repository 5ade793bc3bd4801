"""A process that decodes one frame with GDCM: a DICOM file on standard input, NumPy's format on standard output.

GDCM alone decodes JPEG Lossless, and broken files crash it. In a process of its own that is an error message. Run by
its path, so that it loads nothing but what it needs.
"""

from __future__ import annotations

import io
import sys

MAX_BYTES = 2 * 2**30
SECONDS = 60


def _limit() -> None:
    """Bounds memory and time where the system can."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Decodes."""
    _limit()
    import numpy as np
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder

    dataset = dcmread(io.BytesIO(sys.stdin.buffer.read()))
    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    np.save(sys.stdout.buffer, decoder.as_array(dataset, decoding_plugin="gdcm")[0])


if __name__ == "__main__":
    main()

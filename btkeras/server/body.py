"""A request's body, as it was before it was compressed."""

from __future__ import annotations

import zlib

from starlette.requests import Request

from btkeras.server.problems import HTTPError, invalid


async def read_body(request: Request, most_bytes: int) -> bytes:
    """Reads a body, whose size and time ``bounded.Bounded`` watches; gzip is unpacked, as in TensorFlow Serving.

    Raises:
        Problem: 400 if it is damaged, 413 if it is larger unpacked than it may be, 415 for other encodings.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise HTTPError(415, f"A body must be plain or gzip. Received: {encoding[:40]}", {"Accept-Encoding": "gzip"})
    body = await request.body()
    if encoding == "identity":
        return body
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise invalid(f"The body must be valid gzip ({error})") from error
    if len(plain) > most_bytes:
        raise HTTPError(413, f"A request must have at most {most_bytes} bytes, unpacked")
    if not unpacker.eof:
        raise invalid("The body must be valid gzip (it ends too early)")
    return plain

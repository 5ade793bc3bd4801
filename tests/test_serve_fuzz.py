"""Malformed requests: each is refused (4xx, or the connection is closed), and the server stays as it was."""

from __future__ import annotations

import gzip
import json
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import httpx
import numpy as np
import psutil
import pytest

from btkeras.server.limits import Limits
from btkeras.server.served_model import ServedModel
from btkeras.server.settings import ServerSettings
from tests.serve_tools import PREDICT, b64, noise, png, quarters_backend, running, until

LIMITS = Limits(body_bytes=200_000, values=20_000, body_seconds=0.3, instances=8)
PNG, JPEG = png(noise(0, 48, 40)), png(noise(1, 48, 40, 3), "JPEG")


class Case(NamedTuple):
    """Attributes:
    data: What is sent.
    harmless: Whether it may be answered after all: a byte was changed that says nothing.
    """

    data: bytes
    harmless: bool = False


def post(body: bytes, *headers: str, path: str = PREDICT) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def image(data: bytes) -> bytes:
    return json.dumps({"instances": [b64(data)]}).encode()


def value(rng: random.Random, depth: int = 3) -> object:
    """Any JSON value."""
    kind = rng.randrange(9 if depth else 6)
    if kind < 6:
        return (None, True, rng.randrange(-(10**9), 10**9), rng.random() * 10**9, "text" * rng.randrange(3), -0.0)[kind]
    if kind == 6:
        return {rng.choice(("b64", "image_bytes", "x", "")): value(rng, depth - 1) for _ in range(rng.randrange(3))}
    return [value(rng, depth - 1) for _ in range(rng.randrange(4))]


def bad_json(rng: random.Random) -> Case:
    whole = image(PNG)
    return Case(post(rng.choice((whole[: rng.randrange(len(whole))], rng.randbytes(rng.randrange(200))))))


def changed_json(rng: random.Random) -> Case:
    body = bytearray(image(PNG))
    for _ in range(rng.randrange(1, 4)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return Case(post(bytes(body)), harmless=True)


def wrong_types(rng: random.Random) -> Case:
    key = rng.choice(("instances", "inputs"))
    document = {key: value(rng), "signature_name": rng.choice(("serving_default", "serving_pixels", value(rng)))}
    return Case(post(json.dumps(document).encode()))


def wrong_shapes(rng: random.Random) -> Case:
    shape = [rng.choice((0, 1, 2, 3, 5)) for _ in range(rng.randrange(6))]
    if shape[3:] in ([1], [3]) and 0 not in shape:
        # The one form of pixels that is right.
        shape[3] = 2
    document = {"signature_name": "serving_pixels", rng.choice(("instances", "inputs")): np.zeros(shape, int).tolist()}
    return Case(post(json.dumps(document).encode()))


def truncated(rng: random.Random) -> Case:
    whole = rng.choice((PNG, JPEG))
    return Case(post(image(whole[: rng.randrange(len(whole) * 9 // 10)])))


def changed_image(rng: random.Random) -> Case:
    data = bytearray(rng.choice((PNG, JPEG)))
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return Case(post(image(bytes(data))), harmless=True)


def bomb(rng: random.Random) -> Case:
    if rng.random() < 0.3:
        return Case(post(gzip.compress(b" " * 3_000_000), "Content-Encoding: gzip"))
    width, height = rng.choice(((60_000, 60_000), (2**31 - 1, 1), (4_000, 4_000), (2**31 - 1, 2**31 - 1)))
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(10**6))))
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in (*chunks, (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return Case(post(image(data)))


def huge(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        return Case(post(b" " * rng.randrange(200_001, 400_000)))
    many = [0] * rng.randrange(20_001, 60_000)
    return Case(post(json.dumps({"signature_name": "serving_pixels", "instances": many}).encode()))


def deep(rng: random.Random) -> Case:
    depth = rng.randrange(1000, 5000)
    start = rng.choice((b'{"instances":', b"", b'{"inputs":{"image_bytes":'))
    return Case(post(start + rng.choice((b"[", b'{"a":')) * depth))


def slow(rng: random.Random) -> Case:
    """Stops in the middle of the body."""
    whole = post(image(PNG))
    return Case(whole[: rng.randrange(whole.index(b"\r\n\r\n") + 4, len(whole) - 1)])


def bad_chunks(rng: random.Random) -> Case:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    bad = (b"zz\r\nab\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"f" * 40 + b"\r\n", rng.randbytes(20) + b"\r\n")
    return Case(head + rng.choice(bad))


def bad_http(rng: random.Random) -> Case:
    bad = (
        rng.randbytes(rng.randrange(1, 400)) + b"\r\n\r\n",
        b"GET " + b"/" * rng.randrange(1, 100_000) + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/models/quarters:predict HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"BREW /v1/models/quarters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /v1/models/quarters%00/..%2f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        post(image(PNG), "Content-Encoding: " + rng.choice(("gzip", "br", "x" * 99))),
        post(image(PNG), path=f"/v1/models/quarters/versions/{rng.randrange(2, 10**30)}:predict"),
        post(b'{"signature_name": "' + b"s" * rng.randrange(9, 999) + b'", "instances": [1]}'),
        post(json.dumps({"instances": [b64(PNG)] * 9}).encode()),
        post(b'{"instances": [{"b64": "\\ud800"}]}'),
    )
    return Case(rng.choice(bad))


QUICK: tuple[Callable[[random.Random], Case], ...] = (
    bad_json,
    changed_json,
    wrong_types,
    wrong_shapes,
    truncated,
    changed_image,
    bomb,
    huge,
    deep,
    bad_chunks,
    bad_http,
)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[httpx.Client, ServedModel]]:
    with running(quarters_backend(), ServerSettings(limits=LIMITS)) as both:
        yield both


def answer(client: httpx.Client, data: bytes) -> bytes:
    """All that comes back."""
    received = b""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                received += part
                # What comes after the answer is of no interest.
                if b"\r\n\r\n" in received:
                    break
        except (ConnectionResetError, BrokenPipeError):
            pass
    return received


def check(client: httpx.Client, case: Case) -> str:
    """Sends a request; returns its code."""
    received = answer(client, case.data)
    code = received[9:12].decode() if received else "closed"
    good = code == "closed" or code.startswith("4") or (case.harmless and code == "200")
    assert good, (code, case.data[:300], received[:600])
    return code


def unharmed(client: httpx.Client, served: ServedModel) -> None:
    until(lambda: served.admission.images == served.admission.nbytes == 0)
    until(lambda: client.post(PREDICT, content=image(PNG)).status_code == 200)


def test_200_malformed_requests(server: tuple[httpx.Client, ServedModel]) -> None:
    rng = random.Random(0)
    codes = [check(server[0], QUICK[number % len(QUICK)](rng)) for number in range(200)]
    codes += [check(server[0], slow(rng)) for _ in range(3)]
    # Most see why.
    assert codes.count("closed") < 30 and {"400", "408", "413", "415"} <= set(codes)
    unharmed(*server)


@pytest.mark.slow
def test_5000_malformed_requests_leave_no_memory_behind(server: tuple[httpx.Client, ServedModel]) -> None:
    rng, memory = random.Random(1), []
    for number in range(5000):
        make = slow if number % 200 == 0 else QUICK[number % len(QUICK)]
        check(server[0], make(rng))
        if number % 500 == 499:
            unharmed(*server)
            memory.append(round(psutil.Process().memory_info().rss / 2**20))
    # The first thousand fill caches and pools.
    assert max(memory[2:]) - memory[1] < 60, memory

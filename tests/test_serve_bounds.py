"""`btkeras serve` keeps within its bounds: size, number, time, queue, connections; who may ask; what is logged."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from btkeras.server.engine import Engine
from btkeras.server.logs import JsonLines
from btkeras.server.problems import HTTPError
from btkeras.server.servable import Servable, check_image
from btkeras.server.settings import Batching, Limits, ServerSettings
from tests.serve_tools import b64, noise, png, running, until, write_half_plus_two

PREDICT = "/v1/models/half:predict"
TINY = "/v1/models/tiny:predict"
SMALL = Limits(
    body_bytes=20_000,
    instances=3,
    values=500,
    pixels=10_000,
    queued_images=8,
    queued_bytes=50_000,
    connections=20,
    header_seconds=0.5,
    body_seconds=1.0,
    request_seconds=3.0,
    idle_seconds=2.0,
)


@pytest.fixture(scope="module")
def half_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "half"
    write_half_plus_two(folder, 1)
    return folder


@pytest.fixture(scope="module")
def server(half_folder: Path) -> Iterator[tuple[httpx.Client, Engine]]:
    with running(ServerSettings(half_folder, limits=SMALL)) as both:
        yield both


@pytest.fixture(scope="module")
def client(server: tuple[httpx.Client, Engine]) -> httpx.Client:
    return server[0]


@pytest.fixture
def slow(server: tuple[httpx.Client, Engine], monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A network that answers only when it is told to, and reports when it was asked."""
    go, run = threading.Event(), Servable.run

    def wait(self: Servable, signature: str, inputs: Any) -> Any:
        go.wait(20)
        return run(self, signature, inputs)

    monkeypatch.setattr(Servable, "run", wait)
    yield go
    go.set()
    until(lambda: not server[1].admission.images)


def chunks(size: int, wait: float = 0.0) -> Iterator[bytes]:
    """A body whose size is not announced."""
    for _ in range(0, size, 1000):
        yield b" " * 1000
        time.sleep(wait)


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def received(connection: socket.socket) -> bytes:
    """All until the server closes."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


def test_large_requests_are_refused_by_size_number_and_values(client: httpx.Client) -> None:
    announced = client.post(PREDICT, content=b" " * 20_001)
    assert announced.status_code == 413 and "at most 20000 bytes" in announced.json()["error"]
    assert client.post(PREDICT, content=chunks(30_000)).status_code == 413
    assert client.post(PREDICT, json={"instances": [1, 2, 3, 4]}).status_code == 413
    many = client.post(PREDICT, json={"instances": [1] * 501})
    assert many.status_code == 413 and "values" in many.json()["error"]
    assert client.post(PREDICT, json={"instances": [1, 2, 3]}).status_code == 200


def test_a_body_far_beyond_the_limit_gets_its_answer_before_it_is_sent(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_unpacked_bodies_count_too(client: httpx.Client) -> None:
    import gzip

    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 20_000
    assert client.post(PREDICT, content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413


def test_slow_headers_and_slow_bodies_end(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost:")
        assert received(connection).startswith(b"HTTP/1.1 408")
    start = time.monotonic()
    with connect(client) as connection:
        # Drop by drop: the time is for the whole, and begins with the connection.
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"A")
                time.sleep(0.05)
        assert time.monotonic() - start < 5
    answer = client.post(PREDICT, content=chunks(10_000, wait=0.3))
    assert answer.status_code == 408 and answer.headers["connection"] == "close"
    with connect(client) as connection:
        connection.sendall(b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert received(connection).startswith(b"HTTP/1.1 408")


def test_idle_connections_end(client: httpx.Client) -> None:
    with connect(client) as connection:
        assert received(connection)[:12] in (b"", b"HTTP/1.1 408")
    with connect(client) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        start = time.monotonic()
        assert received(connection).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - start < 10


def test_too_many_connections_are_refused_and_the_others_are_served(client: httpx.Client) -> None:
    client.get("/healthz")
    many = [connect(client) for _ in range(30)]
    try:
        time.sleep(0.2)
        assert client.get("/healthz").status_code == 200
        assert received(many[-1]).startswith(b"HTTP/1.1 503")
    finally:
        for connection in many:
            connection.close()


def test_a_full_queue_is_503_and_late_answers_are_504(
    server: tuple[httpx.Client, Engine], slow: threading.Event
) -> None:
    client, engine = server
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post(PREDICT, json={"instances": [1, 2]}), range(12)))
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) == {503, 504}
    # Two images each, eight in the queue.
    assert 4 <= codes.count(503) <= 11
    busy = next(answer for answer in answers if answer.status_code == 503)
    assert busy.headers["retry-after"] == "1" and "busy" in busy.json()["error"]
    # Work that nobody waits for any more still has its place, for it is still in memory.
    assert engine.admission.images > 0
    slow.set()
    until(lambda: not engine.admission.images)
    assert engine.admission.nbytes == 0
    assert client.post(PREDICT, json={"instances": [1]}).status_code == 200


def test_announced_bytes_are_counted_before_they_come(server: tuple[httpx.Client, Engine]) -> None:
    client, engine = server
    head = b"POST " + PREDICT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n"
    with connect(client) as first, connect(client) as second:
        first.sendall(head)
        second.sendall(head)
        until(lambda: engine.admission.nbytes == 40_000)
        assert client.post(PREDICT, content=b" " * 15_000).status_code == 503
    until(lambda: not engine.admission.nbytes)


def test_a_failure_of_ours_is_500_and_the_server_goes_on(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(Servable, "run", fail)
        answer = client.post(PREDICT, json={"instances": [1]})
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "secret detail" in caplog.text
    assert client.post(PREDICT, json={"instances": [1]}).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/x.y\r\nHost: x\r\n\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/half:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"\0" * 1000,
    ],
    ids=["words", "version", "chunk", "negative", "twice", "header", "no-host", "tls", "zeros"],
)
def test_what_is_no_http_is_400_or_closed(client: httpx.Client, request_bytes: bytes) -> None:
    with connect(client) as connection:
        try:
            connection.sendall(request_bytes)
        except OSError:
            return
        assert received(connection)[:10] in (b"HTTP/1.1 4", b"")
    assert client.get("/healthz").status_code == 200


def test_health_metrics_and_headers(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "version": "1"}
    assert client.get("/nothing").status_code == 404
    answer = client.post(PREDICT, json={"instances": [1]}, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in client.get("/healthz", headers={"Origin": "https://a.org"}).headers
    text = client.get("/metrics").text
    assert client.get("/monitoring/prometheus/metrics").status_code == 200
    for line in (
        'btkeras_requests_total{code="200",route="predict",signature="serving_default"}',
        "btkeras_model_version 1.0",
        "btkeras_queue_images 0.0",
        'btkeras_request_seconds_bucket{le="0.1",route="predict"}',
        "btkeras_images_total",
        'btkeras_model_loads_total{result="ok"} 1.0',
    ):
        assert line in text


def test_a_line_a_request_without_what_was_sent(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = "c2VjcmV0IHBhdGllbnQ="
    path = f"{PREDICT}?patient=Smith"
    client.post(path, json={"instances": [{"b64": secret}]}, headers={"X-Request-Id": "bad id\twith tab"})
    until(lambda: any(record.getMessage() == "request" for record in caplog.records))
    text = JsonLines().format(next(record for record in caplog.records if record.getMessage() == "request"))
    line = json.loads(text)
    assert {"id", "method", "path", "code", "ms", "images", "bytes", "version"} <= set(line)
    assert (line["path"], line["code"], line["method"]) == (PREDICT, 400, "POST")
    assert line["bytes"] > len(secret)
    for hidden in ("Smith", secret, "secret", "bad id"):
        assert hidden not in text


def test_a_client_that_does_not_read_its_answer_is_cut_off(half_folder: Path) -> None:
    limits = Limits(request_seconds=2.0)
    with running(ServerSettings(half_folder, limits=limits)) as (client, _):
        row = {"pair": [1, 2], "text": "x" * 8_000_000, "yes": True}
        body = json.dumps({"signature_name": "mixed", "instances": [row]}).encode()
        with connect(client) as connection:
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            time.sleep(5)
            # Text, and text in base64, would be 18 million bytes.
            assert len(received(connection)) < 15_000_000
        assert client.post(PREDICT, json={"instances": [1.0]}).status_code == 200


def test_a_server_may_wait_for_its_model(tmp_path: Path) -> None:
    with running(ServerSettings(tmp_path / "half", wait=True, poll_seconds=0.1)) as (client, _):
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post(PREDICT, json={"instances": [1.0]}).status_code == 404
        write_half_plus_two(tmp_path / "half", 1)
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.post(PREDICT, json={"instances": [1.0]}).json() == {"predictions": [2.5]}


def test_token_and_cors(half_folder: Path) -> None:
    settings = ServerSettings(half_folder, token="sesame", origins=("https://viewer.example",))
    with running(settings) as (client, _):
        body = {"instances": [1.0]}
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic sesame"},
            {"Authorization": ""},
        ):
            answer = client.post(PREDICT, json=body, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics").status_code == 401
        assert client.get("/v1/models/half").status_code == 401
        assert client.get("/api/model").status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        answer = client.post(PREDICT, json=body, headers={"Authorization": "bearer sesame"})
        assert answer.json() == {"predictions": [2.5]}
        preflight = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "POST"}
        answer = client.options(PREDICT, headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
        answer = client.options(PREDICT, headers=preflight | {"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in answer.headers


def test_large_images_are_refused_before_they_are_decoded(exported_model: Path) -> None:
    limits = Limits(pixels=10_000, request_seconds=60)
    with running(ServerSettings(exported_model, limits=limits, batching=Batching(max_images=4))) as (client, engine):
        large, right = png(np.zeros((101, 100), np.uint8)), png(noise(0, 100, 100))
        answer = client.post(TINY, json={"instances": [b64(large)]})
        assert answer.status_code == 400 and "at most 10000 pixels" in answer.json()["error"]
        assert client.post(TINY, json={"instances": [b64(right)]}).status_code == 200
        pixels = {"signature_name": "serving_pixels", "instances": np.zeros((1, 101, 100, 1), int).tolist()}
        assert "at most 10000 pixels" in client.post(TINY, json=pixels).json()["error"]
        # Few pixels, and long: what preprocessing takes grows with the longer side.
        with pytest.raises(HTTPError, match="16384 on a side"):
            check_image(png(np.zeros((16, 20_000), np.uint8)), "the image", 10**6)
        # The same limit where the SavedModel's own graph decodes.
        decoder = engine.versions.get(None).decoder
        engine.versions.get(None).decoder = None
        assert client.post(TINY, json={"instances": [b64(large)]}).status_code == 400
        assert client.post(TINY, json={"instances": [b64(right)]}).status_code == 200
        engine.versions.get(None).decoder = decoder
        # The page's interface keeps within the same queue.
        assert client.get("/api/model").status_code == 200

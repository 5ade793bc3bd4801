"""`btkeras serve` keeps within its limits: size, number, time, queue, connections; who may ask; what is logged."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from btkeras.errors import ConfigError
from btkeras.inference.backends import ModelOutputs
from btkeras.server.limits import MIB, Limits
from btkeras.server.served_model import ServedModel
from btkeras.server.settings import ServerSettings
from btkeras.server.telemetry import JsonFormatter
from tests.serve_tools import PREDICT, b64, noise, png, quarters_backend, quarters_outputs, running, until

SMALL = Limits(
    body_bytes=20_000,
    instances=3,
    values=500,
    pixels=10_000,
    queued_images=8,
    queued_bytes=50_000,
    connections=20,
)
HASTY = Limits(queued_images=4, instances=2, body_seconds=0.4, request_seconds=1.0, idle_seconds=1.0)
ONE = {"instances": [b64(png(noise(0, 20, 20)))]}


class GatedModel:
    """A model that can be made to wait, or to fail."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(self, pixels: np.ndarray[Any, Any]) -> ModelOutputs:
        assert self.go.wait(20)
        if self.error:
            raise self.error
        return quarters_outputs(pixels)


@pytest.fixture(scope="module")
def model() -> GatedModel:
    return GatedModel()


@pytest.fixture(scope="module")
def server(model: GatedModel) -> Iterator[tuple[httpx.Client, ServedModel]]:
    with running(quarters_backend(predict=model), ServerSettings(limits=SMALL)) as both:
        yield both


@pytest.fixture(scope="module")
def hasty(model: GatedModel) -> Iterator[tuple[httpx.Client, ServedModel]]:
    """A server with little time, of which no test expects more than a refusal."""
    with running(quarters_backend(predict=model), ServerSettings(limits=HASTY)) as both:
        yield both


@pytest.fixture(scope="module")
def client(server: tuple[httpx.Client, ServedModel]) -> httpx.Client:
    return server[0]


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


def head(size: int, path: str = PREDICT) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


def test_large_requests_are_refused_by_size_number_and_values(client: httpx.Client) -> None:
    announced = client.post(PREDICT, content=b" " * 20_001)
    assert announced.status_code == 413 and "at most 20000 bytes" in announced.json()["error"]
    assert client.post(PREDICT, content=chunks(30_000)).status_code == 413
    four = client.post(PREDICT, json={"instances": ONE["instances"] * 4})
    assert four.status_code == 413 and "at most 3 images" in four.json()["error"]
    many = client.post(PREDICT, json={"instances": [1] * 501})
    assert many.status_code == 413 and "values" in many.json()["error"]
    assert client.post(PREDICT, json={"instances": ONE["instances"] * 3}).status_code == 200


def test_a_body_far_beyond_the_limit_gets_its_response_before_it_is_sent(client: httpx.Client) -> None:
    for size in (99_999_999_999, 20_001):
        with connect(client) as connection:
            connection.sendall(head(size))
            assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_inflated_bytes_count_while_they_are_inflated() -> None:
    """A bomb is refused at the limit, and bombs together by the queue, long before they are in memory."""
    limits = Limits(body_bytes=8 * MIB, queued_bytes=20 * MIB, body_seconds=20)
    whole = gzip.compress(b" " * (6 * MIB))
    headers = {"Content-Encoding": "gzip"}
    with running(quarters_backend(), ServerSettings(limits=limits)) as (client, served), ThreadPoolExecutor(8) as pool:
        bomb = gzip.compress(b" " * (100 * MIB), 1)
        before = psutil.Process().memory_info().rss
        assert client.post(PREDICT, content=bomb, headers=headers).status_code == 413
        assert psutil.Process().memory_info().rss - before < 50 * MIB

        def held(_: int) -> socket.socket:
            connection = connect(client)
            data = head(len(whole) + 1).replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
            connection.sendall(data + whole)
            return connection

        # Each lacks its last byte: inflated, it waits.
        waiting = list(pool.map(held, range(3)))
        until(lambda: served.admission.nbytes == 18 * MIB)
        assert client.post(PREDICT, content=whole, headers=headers).status_code == 503
        for connection in waiting:
            connection.close()
        until(lambda: served.admission.nbytes == served.admission.images == 0)
        assert client.post(PREDICT, content=whole, headers=headers).status_code == 400


@pytest.mark.slow
def test_waiting_slices_do_not_hold_their_volumes(model: GatedModel) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.zeros((256, 256, 256), np.int16)
    voxels[64:192, 64:192] = 500
    volume = gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes(), 1)
    before = psutil.Process().memory_info().rss
    model.go.clear()
    with running(quarters_backend(predict=model)) as (client, served), ThreadPoolExecutor(6) as pool:
        url = f"{client.base_url}/api/slices"
        answers = [pool.submit(httpx.post, url, content=volume, timeout=60) for _ in range(6)]
        try:
            until(lambda: served._model_thread._work_queue.qsize() == 5, 60)
            # Six volumes would be 192 MiB.
            assert psutil.Process().memory_info().rss - before < 100 * MIB
        finally:
            model.go.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_slow_bodies_end(hasty: tuple[httpx.Client, ServedModel]) -> None:
    client, _ = hasty
    answer = client.post(PREDICT, content=chunks(10_000, wait=0.15))
    assert answer.status_code == 408 and answer.headers["connection"] == "close"
    with connect(client) as connection:
        connection.sendall(head(50) + b"{")
        assert received(connection).startswith(b"HTTP/1.1 408")


def test_idle_connections_end(hasty: tuple[httpx.Client, ServedModel]) -> None:
    with connect(hasty[0]) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux")
def test_a_client_that_does_not_read_is_cut_off() -> None:
    image = png(noise(0, 1024, 1024, 3))
    with running(quarters_backend(), ServerSettings(limits=Limits(idle_seconds=1.0))) as (client, _):
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(head(len(image), "/api/slices") + image)
            time.sleep(5)
            # Read in time, it is more than four million bytes.
            assert len(received(connection)) < 1_000_000
        assert len(client.post("/api/slices", content=image).content) > 4_000_000


def test_too_many_connections_are_refused_and_the_others_are_served(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    others = [connect(client) for _ in range(25)]
    try:
        others[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received(others[-1]).startswith(b"HTTP/1.1 503")
    finally:
        for connection in others:
            connection.close()
    until(lambda: client.get("/healthz").status_code == 200)


def test_a_full_queue_is_503_and_late_responses_are_504(
    hasty: tuple[httpx.Client, ServedModel], model: GatedModel
) -> None:
    client, served = hasty
    two = {"instances": ONE["instances"] * 2}
    model.go.clear()
    try:
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(httpx.post, f"{client.base_url}{PREDICT}", json=two)
            until(lambda: served.admission.images == 2)
            second = pool.submit(httpx.post, f"{client.base_url}{PREDICT}", json=two)
            until(lambda: served.admission.images == 4)
            busy = client.post(PREDICT, json=two)
            assert busy.status_code == 503 and "busy" in busy.json()["error"] and busy.headers["retry-after"] == "1"
            assert first.result().status_code == second.result().status_code == 504
        # Work that nobody waits for any more still has its place, for it is still in memory.
        assert served.admission.images > 0
        assert client.get("/readyz").status_code == 200
    finally:
        model.go.set()
    until(lambda: served.admission.images == served.admission.nbytes == 0)


def test_announced_bytes_are_counted_before_they_come(server: tuple[httpx.Client, ServedModel]) -> None:
    client, served = server
    with connect(client) as first, connect(client) as second:
        first.sendall(head(20_000))
        second.sendall(head(20_000))
        until(lambda: served.admission.nbytes == 40_000)
        assert client.post(PREDICT, content=b" " * 15_000).status_code == 503
    until(lambda: not served.admission.nbytes)


def test_a_failure_of_ours_is_500_and_the_server_goes_on(
    client: httpx.Client, model: GatedModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.error = RuntimeError("secret detail")
    answer = client.post(PREDICT, json=ONE)
    model.error = None
    assert answer.status_code == 500 and "secret" not in answer.text
    assert "secret detail" in caplog.text
    assert client.post(PREDICT, json=ONE).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/x.y\r\nHost: x\r\n\r\n",
        f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".encode(),
        f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".encode(),
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
    ],
    ids=["text", "version", "chunk", "negative", "twice", "header", "no-host", "tls"],
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
    assert client.get("/readyz").json() == {"status": "ready", "version": "3"}
    answer = client.post(PREDICT, json=ONE, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in client.get("/healthz", headers={"Origin": "https://a.org"}).headers
    text = client.get("/metrics").text
    assert client.get("/monitoring/prometheus/metrics").status_code == 200
    for line in (
        'btkeras_requests_total{code="200",route="predict"}',
        "btkeras_queue_images 0.0",
        "btkeras_queue_bytes 0.0",
        'btkeras_request_seconds_bucket{le="0.1",route="predict"}',
        "btkeras_images_total",
    ):
        assert line in text


def test_a_line_a_request_without_what_was_sent(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = "c2VjcmV0IHBhdGllbnQ="
    body, headers = {"instances": [{"b64": secret}]}, {"X-Request-Id": "bad id\twith tab"}
    client.post(f"{PREDICT}?patient=Smith", json=body, headers=headers)
    until(lambda: any(record.getMessage() == "request" for record in caplog.records))
    text = JsonFormatter().format(next(record for record in caplog.records if record.getMessage() == "request"))
    line = json.loads(text)
    assert {"id", "method", "path", "code", "ms", "images", "bytes"} <= set(line)
    assert (line["path"], line["code"], line["method"]) == (PREDICT, 400, "POST")
    assert line["bytes"] > len(secret)
    for hidden in ("Smith", secret, "secret", "bad id"):
        assert hidden not in text


def test_token() -> None:
    with running(quarters_backend(), ServerSettings(token="sesame")) as (client, _):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Basic sesame"},
            {"Authorization": "sesame"},
            {"Authorization": ""},
        ):
            answer = client.post(PREDICT, json=ONE, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        for path in ("/metrics", "/v1/models/quarters", "/api/model", "/model-card"):
            assert client.get(path).status_code == 401
        for path in ("/healthz", "/readyz", "/"):
            assert client.get(path).status_code == 200
        assert client.post(PREDICT, json=ONE, headers={"Authorization": "bearer sesame"}).status_code == 200


def test_large_images_are_refused_before_they_are_decoded(client: httpx.Client) -> None:
    large, right = png(np.zeros((101, 100), np.uint8)), png(np.zeros((100, 100), np.uint8))
    # Few pixels, and long: what preprocessing takes grows with the longer side.
    limits = ServerSettings(limits=Limits(pixels=10**6))
    long = png(np.zeros((16, 20_000), np.uint8))
    answer = client.post(PREDICT, json={"instances": [b64(right), b64(large)]})
    assert answer.status_code == 400 and "at most 10000 pixels" in answer.json()["error"]
    assert "image 1 with 100 x 101" in answer.json()["error"]
    assert client.post(PREDICT, json={"instances": [b64(right)]}).status_code == 200
    assert client.post("/api/slices", content=large).status_code == 400
    with running(quarters_backend(), limits) as (wide, _):
        answer = wide.post(PREDICT, json={"instances": [b64(long)]})
        assert answer.status_code == 400 and "16384 on a side" in answer.json()["error"]


def test_settings_are_checked() -> None:
    settings = ServerSettings()
    assert settings.host == "127.0.0.1" and not settings.is_public
    assert ServerSettings(host="0.0.0.0").is_public
    assert not ServerSettings(host="0.0.0.0", token="secret").is_public
    for wrong in ({"name": "a/b"}, {"name": "a:b"}, {"port": 70000}, {"drain_seconds": -1}, {"token": "caf\u00e9"}):
        with pytest.raises(ConfigError):
            ServerSettings(**wrong)  # type: ignore[arg-type]
    for limits in ({"body_bytes": 0}, {"pixels": 10**9}, {"instances": -1}, {"body_seconds": float("nan")}):
        with pytest.raises(ConfigError):
            Limits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"body_bytes": 200 * MIB}, r"limits.body_bytes must be at most 134217728\..*--max-mib may be 128 at most"),
        ({"queued_images": 16}, r"limits.instances must be at most 16\. Received: 64\. Lower --max-instances"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Limits(**limits)  # type: ignore[arg-type]


def test_only_loopback_addresses_are_private() -> None:
    own = ["127.0.0.1", "127.8.8.8", "::1", "localhost"]
    public = {
        host: ServerSettings(host=host).is_public for host in (*own, "0.0.0.0", "::", "192.168.0.1", "example.org")
    }
    assert [host for host, is_public in public.items() if not is_public] == own

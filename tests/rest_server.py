"""A small server of TensorFlow Serving's REST interface as its documentation describes it, with faults on demand.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ["glioma", "meningioma", "no_tumor", "pituitary"]
Reply = tuple[int, dict[str, Any], dict[str, str]]


def outputs(image: bytes) -> dict[str, Any]:
    """What the fake model answers: probabilities that follow from the mean grey level alone."""
    grey = float(np.asarray(Image.open(io.BytesIO(image)).convert("L")).mean()) / 255
    probabilities = [grey, (1 - grey) / 2, (1 - grey) / 3, (1 - grey) / 6]
    return {"probabilities": probabilities, "label": CLASSES[int(np.argmax(probabilities))], "classes": CLASSES}


@dataclass
class Fake:
    """Attributes:
    url: Where it listens.
    paths: Of the requests so far.
    sizes: How many images each had.
    tokens: Their Authorization headers.
    before: Answers in place of the model where it returns something; gets the request's number from 0.
    most: The most requests under way at once.
    models: Its answer to ``GET /v1/models``; None as TensorFlow Serving, which lists none.
    decided: Further outputs of each image, as of a server that decides.
    """

    url: str = ""
    paths: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    before: Callable[[int], Reply | None] = lambda number: None
    most: int = 0
    models: list[str] | None = None
    decided: dict[str, Any] = field(default_factory=dict)
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, path: str, token: str | None, body: bytes) -> Reply:
        request = json.loads(body)
        instances = request["instances"]
        with self.lock:
            number = len(self.paths)
            self.paths.append(path)
            self.sizes.append(len(instances))
            self.tokens.append(token)
        early = self.before(number)
        if early:
            return early
        names = self.models or ["btkeras"]
        if not path.startswith(tuple(f"/v1/models/{name}{end}" for name in names for end in ":/")):
            return 404, {"error": "Servable not found for request: Latest(other)"}, {}
        images = [base64.b64decode(instance["image_bytes"]["b64"]) for instance in instances]
        try:
            return 200, {"predictions": [outputs(image) | self.decided for image in images]}, {}
        except OSError:
            return 400, {"error": "Input is not an\n image. [[{{node decode}}]]"}, {}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that has read enough hangs up; a traceback of that would be taken for its own.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def fake_server() -> Iterator[Fake]:
    """Runs a fake server on a free port of this machine."""
    fake = Fake()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with fake.lock:
                fake.running += 1
                fake.most = max(fake.most, fake.running)
            status, answer, headers = fake.reply(self.path, self.headers.get("Authorization"), body)
            with fake.lock:
                fake.running -= 1
            text = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(text))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            code, answer = 200, {"model_version_status": [status]}
            if self.path == "/v1/models" and fake.models is None:
                code, answer = 400, {"error": "Malformed request: GET /v1/models"}
            elif self.path == "/v1/models":
                answer = {"models": fake.models}
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *parts: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

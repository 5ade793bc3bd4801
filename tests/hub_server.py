"""A stand-in for the Hugging Face Hub: the requests by which ``huggingface_hub`` makes, fills and reads a repository.

Files come in the commit itself (the Hub's mode ``regular``), so that nothing else has to be spoken.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPOSITORY = "someone/model"


@dataclass
class FakeHub:
    """What the stand-in holds, and what it was asked.

    Attributes:
        files: Contents by path, once there is a repository.
        private: Whether that was made private; None before.
        commits: Their messages.
        refuses: Whether every request is answered with 401.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool | None = None
    commits: list[str] = field(default_factory=list)
    refuses: bool = False
    url: str = ""

    @property
    def sha(self) -> str:
        return hashlib.sha1(json.dumps(self.commits).encode()).hexdigest()


class _Server(ThreadingHTTPServer):
    """The stand-in's server."""

    def __init__(self, hub: FakeHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Runs it on a free port of this machine; ``url`` is for ``$HF_ENDPOINT``."""
    hub = FakeHub()
    with _Server(hub) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers by the first row of ``_ROUTES`` that fits."""

    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def hub(self) -> FakeHub:
        return self.server.hub

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if self.hub.refuses:
            self.json({"error": "Invalid username or password."}, 401)
            return
        method = "GET" if self.command == "HEAD" else self.command
        next(reply for wanted, part, reply in _ROUTES if wanted == method and part in path)(self, path, body)

    do_GET = do_HEAD = do_POST = answer  # noqa: N815

    def create(self, path: str, body: bytes) -> None:
        if self.hub.private is None:
            self.hub.private = json.loads(body).get("visibility") == "private"
        self.json({"url": f"{self.hub.url}/{REPOSITORY}"})

    def validate(self, path: str, body: bytes) -> None:
        self.json({"errors": [], "warnings": []})

    def preupload(self, path: str, body: bytes) -> None:
        names = [each["path"] for each in json.loads(body)["files"]]
        self.json({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})

    def commit(self, path: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.hub.commits.append(line["value"]["summary"])
            else:
                self.hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.json({"commitUrl": f"{self.hub.url}/{REPOSITORY}/commit/{self.hub.sha}", "commitOid": self.hub.sha})

    def file(self, path: str, body: bytes) -> None:
        name = path.split("/resolve/")[1].split("/", 1)[1]
        headers = {"ETag": f'"{self.etag(name)}"', "X-Repo-Commit": self.hub.sha}
        self.send(self.hub.files[name], 200, headers)

    def tree(self, path: str, body: bytes) -> None:
        names = sorted(self.hub.files)
        found = [{"type": "file", "path": n, "size": len(self.hub.files[n]), "oid": self.etag(n)} for n in names]
        self.of_repository(found)

    def information(self, path: str, body: bytes) -> None:
        siblings = [{"rfilename": name} for name in sorted(self.hub.files)]
        self.of_repository({"id": REPOSITORY, "sha": self.hub.sha, "siblings": siblings, "private": False, "tags": []})

    def of_repository(self, document: object) -> None:
        if self.hub.private is None:
            self.json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        else:
            self.json(document)

    def etag(self, name: str) -> str:
        return hashlib.sha1(self.hub.files[name]).hexdigest()

    def json(self, document: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(document).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing, into the tests' output."""


# Method, part of the path, reply.
_ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", "/preupload/", _Handler.preupload),
    ("POST", "/commit/", _Handler.commit),
    ("GET", "/resolve/", _Handler.file),
    ("GET", "/tree/", _Handler.tree),
    ("GET", "", _Handler.information),
)

"""Requests to a server with TensorFlow Serving's REST interface: sessions, token, waiting, and what went wrong.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import json
import textwrap
import threading
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from btkeras.errors import BTKerasError, ConfigError

TOKEN = "BTKERAS_TOKEN"
_MODELS = "/v1/models"
# Seconds to connect, and until the response begins; TensorFlow Serving itself gives up after 30.
_TIMEOUTS = (10.0, 60.0)
# Statuses of a server that is full or between two versions: the request is repeated.
_BUSY = frozenset({429, 503})
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0


class ServerError(BTKerasError):
    """A server cannot be reached, or does not answer as TensorFlow Serving does."""


class Connection:
    """A server's address, by which threads send requests.

    Args:
        server: ``http[s]://HOST[:PORT]``, with a path before ``/v1`` if a proxy has one.
        token: Sent as a bearer token, if there is one.

    Raises ConfigError if the server's address is none.
    """

    def __init__(self, server: str, token: str | None = None) -> None:
        parts = urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname or f"{_MODELS}/" in parts.path:
            raise ConfigError(
                "A server's address must be http://HOST:PORT or https://HOST:PORT",
                received=server,
                remedy="The model's name and version are given by --name and --model-version",
            )
        self.models = server.rstrip("/") + _MODELS
        self._token = token
        self._stopped = threading.Event()
        # Waits seconds between two attempts, and returns whether to give up.
        self._wait = self._stopped.wait
        # A session must not be shared by threads.
        self._local = threading.local()

    def predict_url(self, name: str, version: str = "") -> str:
        """The address of a model's predictions, of a version's number or label, or of the server's choice."""
        kind = "versions" if version.isdecimal() else "labels"
        chosen = f"/{kind}/{quote(version, safe='')}" if version else ""
        return f"{self.models}/{quote(name, safe='')}{chosen}:predict"

    def stop(self, stopped: bool = True) -> None:
        """Has no request wait for a busy server any more; or again."""
        (self._stopped.set if stopped else self._stopped.clear)()

    def send(self, method: str, url: str, body: bytes | None = None) -> requests.Response:
        """Sends a request, several times if the server is busy.

        Raises:
            ServerError: If the server cannot be reached, is silent, or stays busy.
        """
        for attempt in range(_ATTEMPTS):
            response = self._send_once(method, url, body)
            if response.status_code not in _BUSY:
                return response
            # The server's `Retry-After`, or twice as long each time.
            wanted = response.headers.get("Retry-After", "")
            pause = float(wanted) if wanted.isdecimal() else _FIRST_WAIT * 2**attempt
            if attempt + 1 < _ATTEMPTS and self._wait(min(pause, _LONGEST_WAIT)):
                break
        raise ServerError(
            "A server must have room for the request",
            received=f"{response.status_code} from {url}, {attempt + 1} times ({message(response)})",
            remedy="Try again later, or with fewer clients at a time",
        )

    def _send_once(self, method: str, url: str, body: bytes | None) -> requests.Response:
        try:
            return self._session().request(method, url, data=body, timeout=_TIMEOUTS, allow_redirects=False)
        except requests.Timeout as error:
            received = f"nothing from {url} within {_TIMEOUTS[1]:.0f} s"
            rule, remedy = "A server must answer in time", "Check whether it is overloaded"
            raise ServerError(rule, received=received, remedy=remedy) from error
        except requests.RequestException as error:
            received = f"{url} ({_reason(error)})"
            remedy = "Check whether it is running, and whether host and port are right"
            raise ServerError("A server must be reachable", received=received, remedy=remedy) from error

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = self._local.session = requests.Session()
            session.headers["Content-Type"] = "application/json"
            if self._token:
                # As `auth`, since a header would give way to what a .netrc file says of the host.
                session.auth = self._authorize
        found: requests.Session = self._local.session
        return found

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def parsed(response: requests.Response) -> dict[str, Any]:
    """A response's JSON object; empty if it is none."""
    try:
        value = json.loads(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def message(response: requests.Response) -> str:
    """A response's error, on one line."""
    error = parsed(response).get("error")
    text = error if isinstance(error, str) else response.reason or "no reason given"
    return textwrap.shorten(text, 300, placeholder="...")


def _reason(error: BaseException) -> str:
    """The innermost reason, without the wrapping of three libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""One request to TensorFlow Serving's REST interface: retries, and what an error means.

Reference: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from btkeras.errors import BTKerasError, ConfigError

TOKEN = "BTKERAS_TOKEN"
# Seconds to connect, and until the response begins; TensorFlow Serving itself gives up after 30.
_TIMEOUTS = (10.0, 60.0)
# Statuses of a server that is full or between two versions: the request is repeated.
_BUSY = frozenset({429, 503})
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# Statuses of a faulty request; with several images in it, one of them may be the reason.
_FAULTY = frozenset({400, 413, 422, 500})
_LONGEST_MESSAGE = 300
_MODELS = "/v1/models/"
# Of other statuses, rule and remedy.
_STATUS_ERRORS = {
    401: ("A server must accept the token", f"Put the right one into the environment variable {TOKEN}"),
    403: ("A server must accept the token", f"Put the right one into the environment variable {TOKEN}"),
    404: ("A server must have the model", "Name it with --name, and its version with --model-version"),
}
_PROTOCOL = "A server must answer as TensorFlow Serving does, with a model of `btkeras export`"


class ServerError(BTKerasError):
    """A server cannot be reached, or does not answer as TensorFlow Serving does."""


class RequestRejected(Exception):
    """The server cannot process this request, maybe because of one of its images."""


def predict_url(server: str, name: str, version: str) -> str:
    """The address of a model's predictions; arguments and errors as ``client.Client``."""
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or _MODELS in parts.path:
        raise ConfigError(
            "A server's address must be http://HOST:PORT or https://HOST:PORT",
            received=server,
            remedy="The model's name and version are given by --name and --model-version",
        )
    kind = "versions" if version.isdecimal() else "labels"
    chosen = f"/{kind}/{quote(version, safe='')}" if version else ""
    return f"{server.rstrip('/')}{_MODELS}{quote(name, safe='')}{chosen}:predict"


class Connection:
    """One model of one server, for any number of threads.

    Args:
        url: Of ``predict_url``.
        token: A bearer token, or None.
        wait: Waits seconds between two attempts, and returns whether to give up.
    """

    def __init__(self, url: str, token: str | None, wait: Callable[[float], bool]) -> None:
        self._url = url
        self._token = token
        self._wait = wait
        # A session must not be shared by threads.
        self._local = threading.local()

    def predict(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Sends encoded images in one request, and returns the outputs of each by name.

        Raises:
            RequestRejected: If the server cannot process it, maybe because of one of the images.
            ServerError: If it cannot be reached, stays busy, or does not answer as TensorFlow Serving does.
        """
        instances = [{"image_bytes": {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
        response = self._post(json.dumps({"signature_name": "serving_default", "instances": instances}).encode())
        status = response.status_code
        if status in _FAULTY:
            message = _message(response)
            if "servable version label" not in message:
                raise RequestRejected(message)
            raise ServerError(
                "A label must be one that the server gives a version",
                received=f"{self._url} ({message})",
                remedy="Name a version's number with --model-version; `btkeras serve` has no labels",
            )
        if status != 200:
            rule, remedy = _STATUS_ERRORS.get(status, (_PROTOCOL, ""))
            raise ServerError(rule, received=f"{status} from {self._url} ({_message(response)})", remedy=remedy)
        rows = _parsed(response).get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images) or not all(isinstance(row, dict) for row in rows):
            received = f"a response that is not {len(images)} objects under `predictions`, from {self._url}"
            raise ServerError(_PROTOCOL, received=received)
        return rows

    def _post(self, body: bytes) -> requests.Response:
        for attempt in range(_ATTEMPTS):
            response = self._post_once(body)
            if response.status_code not in _BUSY:
                return response
            if attempt + 1 < _ATTEMPTS and self._wait(_pause(response, attempt)):
                break
        raise ServerError(
            "A server must have room for the request",
            received=f"{response.status_code} from {self._url}, {attempt + 1} times ({_message(response)})",
            remedy="Try again later, or with fewer clients at a time",
        )

    def _post_once(self, body: bytes) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        try:
            return self._session().post(self._url, body, headers=headers, timeout=_TIMEOUTS, allow_redirects=False)
        except requests.Timeout as error:
            raise ServerError(
                "A server must answer in time",
                received=f"nothing from {self._url} within {_TIMEOUTS[1]:.0f} s",
                remedy="Check whether it is overloaded",
            ) from error
        except requests.RequestException as error:
            raise ServerError(
                "A server must be reachable",
                received=f"{self._url} ({_reason(error)})",
                remedy="Check whether it is running, and whether host and port are right",
            ) from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            if self._token:
                # As `auth`, since a header would give way to what a .netrc file says of the host.
                session.auth = self._authorize
        return session

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _pause(response: requests.Response, attempt: int) -> float:
    """Seconds until the next attempt: the server's ``Retry-After``, or twice as long each time."""
    wanted = response.headers.get("Retry-After", "")
    return min(float(wanted) if wanted.isdecimal() else _FIRST_WAIT * 2**attempt, _LONGEST_WAIT)


def _parsed(response: requests.Response) -> dict[str, Any]:
    try:
        value = json.loads(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _message(response: requests.Response) -> str:
    """A response's error, on one line."""
    error = _parsed(response).get("error")
    text = " ".join((error if isinstance(error, str) else response.reason or "no reason given").split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _reason(error: BaseException) -> str:
    """The innermost reason, without the wrapping of three libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""TensorFlow Serving's REST interface, from the client's side: one request, its retries, and what an error means.

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

SIGNATURE, INPUT = "serving_default", "image_bytes"
TOKEN = "BTKERAS_TOKEN"

# Seconds to connect, and until the answer begins; TensorFlow Serving itself gives up after 30.
_TIMEOUTS = (10.0, 60.0)
# A server that is full, or between two versions, is asked again.
_BUSY = frozenset({429, 503})
_ATTEMPTS = 6
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
# What is wrong with a request; with a batch of them, one image may be the reason.
_REJECTED = frozenset({400, 413, 422, 500})
_LONGEST_MESSAGE = 300
_MODELS = "/v1/models/"


class ServerError(BTKerasError):
    """A server cannot be reached, or does not answer as TensorFlow Serving does."""


class Rejected(Exception):
    """The server answered that it cannot do this request."""


def predict_url(server: str, name: str, version: str) -> str:
    """The address that images are sent to.

    Args:
        server: ``http[s]://HOST[:PORT]``, with a path before ``/v1`` if a proxy has one.
        name: The model's name there.
        version: A version's number, or its label; "" for the server's choice.

    Raises:
        ConfigError: If the server's address is none.
    """
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
    """Asks one model of one server, from any number of threads.

    Args:
        url: Of ``predict_url``.
        token: Sent as a bearer token, if there is one.
        wait: Waits seconds between two attempts, and returns whether to give up.
    """

    def __init__(self, url: str, token: str | None, wait: Callable[[float], bool]) -> None:
        self._url = url
        self._token = token
        self._wait = wait
        # A session is not made for several threads.
        self._local = threading.local()

    def predict(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """Sends encoded images in one request.

        Returns:
            The outputs for each, by name.

        Raises:
            Rejected: If the server cannot do it, because of one of the images maybe.
            ServerError: If it cannot be reached, stays busy, or what comes back is no answer.
        """
        instances = [{INPUT: {"b64": base64.b64encode(image).decode("ascii")}} for image in images]
        response = self._post(json.dumps({"signature_name": SIGNATURE, "instances": instances}).encode())
        if response.status_code in _REJECTED:
            message = _message(response)
            # TensorFlow Serving's words for what is no fault of the images.
            raise self._unlabelled(message) if "servable version label" in message else Rejected(message)
        if response.status_code != 200:
            raise self._refused(response)
        rows = _parsed(response).get("predictions")
        if not isinstance(rows, list) or len(rows) != len(images) or not all(isinstance(row, dict) for row in rows):
            raise self._strange(f"an answer that is not {len(images)} objects under `predictions`")
        return rows

    def _post(self, body: bytes) -> requests.Response:
        for attempt in range(_ATTEMPTS):
            response = self._once(body)
            if response.status_code not in _BUSY:
                return response
            if attempt + 1 < _ATTEMPTS and self._wait(_pause(response, attempt)):
                break
        raise ServerError(
            "A server must have room for the request",
            received=f"{response.status_code} from {self._url}, {attempt + 1} times ({_message(response)})",
            remedy="Try again later, or with fewer clients at a time",
        )

    def _once(self, body: bytes) -> requests.Response:
        headers = {"Content-Type": "application/json"}
        try:
            return self._session().post(self._url, body, headers=headers, timeout=_TIMEOUTS, allow_redirects=False)
        except requests.Timeout as error:
            raise ServerError(
                "A server must answer in time",
                received=f"nothing from {self._url} within {_TIMEOUTS[1]:.0f} s",
                remedy="Look whether it is overloaded",
            ) from error
        except requests.RequestException as error:
            raise ServerError(
                "A server must be reachable",
                received=f"{self._url} ({_reason(error)})",
                remedy="Look whether it is running, and whether host and port are right",
            ) from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            if self._token:
                # As `auth`, since a header would give way to what a .netrc file says of the host.
                session.auth = _Bearer(self._token)
        return session

    def _refused(self, response: requests.Response) -> ServerError:
        status, message = response.status_code, _message(response)
        if status in (401, 403):
            return ServerError(
                "A server must accept the token",
                received=f"{status} from {self._url} ({message})",
                remedy=f"Put the right one into the environment variable {TOKEN}",
            )
        if status == 404:
            return ServerError(
                "A server must have the model",
                received=f"404 from {self._url} ({message})",
                remedy="Name it with --name, and its version with --model-version",
            )
        return self._strange(f"{status} ({message})")

    def _unlabelled(self, message: str) -> ServerError:
        return ServerError(
            "A label must be one that the server gives a version",
            received=f"{self._url} ({message})",
            remedy="Name a version's number with --model-version; `btkeras serve` has no labels",
        )

    def _strange(self, what: str) -> ServerError:
        return ServerError(
            "A server must answer as TensorFlow Serving does, with a model of `btkeras export`",
            received=f"{what} from {self._url}",
        )


class _Bearer(requests.auth.AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _pause(response: requests.Response, attempt: int) -> float:
    """Seconds until the next attempt: what the server asks for, or twice as long each time."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked) if asked.isdecimal() else _FIRST_WAIT * 2**attempt, _LONGEST_WAIT)


def _parsed(response: requests.Response) -> dict[str, Any]:
    try:
        value = json.loads(response.content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _message(response: requests.Response) -> str:
    """What an error's body says, on one line."""
    said = _parsed(response).get("error")
    text = " ".join((said if isinstance(said, str) else response.reason or "no reason given").split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _reason(error: BaseException) -> str:
    """The innermost reason, without the wrapping of three libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

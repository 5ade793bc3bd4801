"""What the server answers instead of a result: a code and TensorFlow Serving's body, ``{"error": MESSAGE}``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType

from starlette.responses import Response

_NOTHING: Mapping[str, str] = MappingProxyType({})


class HTTPError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status code.
        message: For the client, in one sentence.
        headers: Sent along.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] = _NOTHING) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers

    def response(self) -> Response:
        """The answer to send."""
        return Response(
            json.dumps({"error": self.message}), self.status, dict(self.headers), media_type="application/json"
        )


class Busy(HTTPError):
    """The queue is full: 503, to be tried again."""

    def __init__(self, what: str) -> None:
        super().__init__(503, f"The server is busy: {what}. Try again later.", {"Retry-After": "1"})


def invalid(message: str) -> HTTPError:
    """What TensorFlow calls an invalid argument: 400."""
    return HTTPError(400, message)


def not_found(name: str, version: int | None) -> HTTPError:
    """TensorFlow Serving's answer where there is no such model or version: 404."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return HTTPError(404, f"Servable not found for request: {wanted}")

"""Who may ask: whoever knows the token, if there is one."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from btkeras.server.problems import HTTPError

_SCHEME = b"bearer "


class Access:
    """Refuses requests without the token: 401.

    Args:
        app: What answers requests.
        token: What clients have to send as ``Authorization: Bearer TOKEN``.
        open_paths: Paths that anybody may ``GET``.
        open_below: What the paths begin with of further files that anybody may ``GET``.
    """

    def __init__(self, app: ASGIApp, token: str, open_paths: Collection[str], open_below: str) -> None:
        self._app = app
        self._token = token.encode()
        self._open = frozenset(open_paths)
        self._open_below = open_below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may(scope):
            await self._app(scope, receive, send)
            return
        problem = HTTPError(
            401, "The request must have the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )
        await problem.response()(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        path = scope["path"]
        if scope["method"] in ("GET", "HEAD") and (path in self._open or path.startswith(self._open_below)):
            return True
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or given[0][: len(_SCHEME)].lower() != _SCHEME:
            return False
        return hmac.compare_digest(given[0][len(_SCHEME) :].strip(), self._token)

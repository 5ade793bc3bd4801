"""TensorFlow Serving's REST interface (https://www.tensorflow.org/tfx/serving/api_rest).

``POST /v1/models/NAME[/versions/N]:predict``, ``GET /v1/models/NAME[/versions/N]`` and ``.../metadata``, with its
codes and error bodies. ``:classify`` and ``:regress`` are answered as TensorFlow Serving answers them for a model
without such signatures; there are no version labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from btkeras.server.body import read_body
from btkeras.server.engine import Engine
from btkeras.server.problems import HTTPError, invalid, not_found
from btkeras.server.record import note
from btkeras.server.servable import DEFAULT, Servable
from btkeras.server.tensors import Inputs, load_json, read_inputs, signature_name, write_outputs

_PLACE = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(_PLACE + r":(?P<method>classify|regress|predict)", re.IGNORECASE)
_GET = re.compile(_PLACE + r"(?P<metadata>/metadata)?", re.IGNORECASE)
_MAX_VERSION = 2**63 - 1
_METHODS: Mapping[str, str] = {"classify": "classification", "regress": "regression"}


class _Asked(NamedTuple):
    signature: str
    inputs: Inputs
    in_rows: bool


class TensorFlowServing:
    """Answers requests below ``/v1``.

    Args:
        engine: What answers them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._name = engine.settings.name

    async def __call__(self, request: Request) -> Response:
        """Answers one request.

        Raises:
            Problem: If it is refused.
        """
        path = request.url.path
        if request.method == "POST" and (found := _POST.fullmatch(path)):
            return await self._post(request, found)
        if request.method == "GET" and (found := _GET.fullmatch(path)):
            note(route="metadata" if found["metadata"] else "status")
            return self._metadata(found) if found["metadata"] else self._status(found)
        if request.method == "GET" and path.rstrip("/").lower() == "/v1/models":
            raise invalid("Missing model name in request.")
        raise invalid(f"Malformed request: {request.method} {path[:200]}")

    async def _post(self, request: Request, found: re.Match[str]) -> Response:
        note(route=found["method"].lower())
        version = self._version(found)
        self._check_name(found["name"], version)
        limits = self._engine.settings.limits
        body = await read_body(request, limits.body_bytes)
        with self._engine.versions.lease(version) as servable:
            note(version=servable.number)
            if found["method"].lower() != "predict":
                raise await self._engine.run(_without_method, body, servable, found["method"].lower(), limits.values)
            asked = await self._engine.run(_read, body, servable, limits.values, limits.instances)
            del body
            rows = max((len(value) for value in asked.inputs.values() if value.ndim), default=1)
            note(signature=asked.signature, images=rows)
            outputs = await self._engine.predict(servable, asked.signature, asked.inputs)
        content = await self._engine.run(write_outputs, outputs, asked.in_rows)
        return Response(content, media_type="application/json")

    def _status(self, found: re.Match[str]) -> Response:
        version = self._version(found)
        statuses = self._engine.versions.statuses if found["name"] == self._name else {}
        if version is not None and version not in statuses:
            raise HTTPError(404, f"Could not find version {version} of model {found['name']}")
        if not statuses:
            raise HTTPError(404, f"Could not find any versions of model {found['name']}")
        shown = [version] if version is not None else sorted(statuses, reverse=True)
        return _json(
            {
                "model_version_status": [
                    {
                        "version": str(number),
                        "state": statuses[number].state,
                        "status": {
                            "error_code": "UNKNOWN" if statuses[number].error else "OK",
                            "error_message": statuses[number].error,
                        },
                    }
                    for number in shown
                ]
            }
        )

    def _metadata(self, found: re.Match[str]) -> Response:
        version = self._version(found)
        self._check_name(found["name"], version)
        servable = self._engine.versions.get(version)
        note(version=servable.number)
        return _json(
            {
                "model_spec": {"name": self._name, "signature_name": "", "version": str(servable.number)},
                "metadata": {"signature_def": {"signature_def": servable.metadata()}},
            }
        )

    def _version(self, found: re.Match[str]) -> int | None:
        if found["label"]:
            raise invalid(f"Unrecognized servable version label: {found['label'][:60]}")
        if not found["version"]:
            return None
        # Fewer digits than Python refuses to convert.
        version = int(found["version"]) if len(found["version"]) < 40 else _MAX_VERSION + 1
        if version > _MAX_VERSION:
            raise invalid(f"Failed to convert version: {found['version'][:60]} to numeric.")
        return version

    def _check_name(self, name: str, version: int | None) -> None:
        if name != self._name:
            raise not_found(name[:200], version)


def _read(body: bytes, servable: Servable, most_values: int, most_instances: int) -> _Asked:
    """A request's tensors; runs in a thread."""
    document = load_json(body, most_values)
    signature = signature_name(document, DEFAULT)
    # An initialiser that the loader runs is listed among the signatures, and is none for clients.
    if not servable.inputs.get(signature):
        raise invalid(f'Serving signature name: "{signature[:100]}" not found in signature def')
    inputs, in_rows = read_inputs(document, servable.inputs[signature], most_instances)
    return _Asked(signature, inputs, in_rows)


def _without_method(body: bytes, servable: Servable, method: str, most_values: int) -> HTTPError:
    """Why a model of predict signatures does not classify or regress."""
    document = load_json(body, most_values)
    signature = signature_name(document, DEFAULT)
    if not isinstance(document.get("examples"), list) or not document["examples"]:
        return invalid(f"When method is {method}, key 'examples' is expected and must be a list with values")
    if signature not in servable.inputs:
        return invalid(f"No signature was found with the name: {signature[:100]}")
    return invalid(
        f"Expected {_METHODS[method]} signature method_name to be tensorflow/serving/{method}. "
        f"Was: {servable.method(signature)}"
    )


def _json(content: Any) -> Response:
    return Response(json.dumps(content, indent=1), media_type="application/json")

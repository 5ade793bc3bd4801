"""TensorFlow Serving's REST interface (https://www.tensorflow.org/tfx/serving/api_rest).

``POST /v1/models/NAME[/versions/N]:predict``, ``GET /v1/models/NAME[/versions/N][/metadata]``, with its status codes
and error bodies. Every model, of whatever format, has two signatures: ``serving_default`` takes encoded images,
``serving_pixels`` decoded ones.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from btkeras.inference.backends import ModelOutputs
from btkeras.inference.predictor import FilePrediction
from btkeras.preprocessing.decode import ImageArray
from btkeras.preprocessing.image_file import MIN_SIDE
from btkeras.server.limits import Limits, read_body
from btkeras.server.served_model import ServedModel

_DEFAULT = "serving_default"
# By signature: its input's name, type and sizes (-1: any).
_INPUTS: Mapping[str, tuple[str, str, tuple[int, ...]]] = MappingProxyType(
    {_DEFAULT: ("image_bytes", "DT_STRING", (-1,)), "serving_pixels": ("images", "DT_UINT8", (-1, -1, -1, -1))}
)
# As `predict --json` says it.
_DECISION = ("decision", "reasons", "set", "ood_percentile")
_B64 = "b64"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def tf_rest_routes(served: ServedModel) -> list[Route]:
    """The routes below ``/v1``."""

    async def predict(request: Request) -> Response:
        _check_served(served, request)
        ticket, limits = request.scope["ticket"], served.settings.limits
        images, in_rows = await served.run(ticket, parse_predict, await read_body(request, limits), limits)
        ticket.reserve(images=len(images))
        outputs, predictions = await served.predict(ticket, await served.preprocess(ticket, images))
        return JSONResponse(format_predictions(served.backend.classes, outputs, predictions, in_rows))

    async def models(_: Request) -> Response:
        return JSONResponse({"models": [served.name]})

    async def status(request: Request) -> Response:
        _check_served(served, request)
        entry = {"version": str(served.version), "state": "AVAILABLE"}
        return JSONResponse({"model_version_status": [entry | {"status": {"error_code": "OK", "error_message": ""}}]})

    async def metadata(request: Request) -> Response:
        _check_served(served, request)
        spec = {"name": served.name, "signature_name": "", "version": str(served.version)}
        definitions = {"signature_def": {"signature_def": _signature_definitions(served)}}
        return JSONResponse({"model_spec": spec, "metadata": definitions})

    async def malformed(request: Request) -> Response:
        raise HTTPException(400, f"Malformed request: {request.method} {request.url.path[:200]}")

    async def label(request: Request) -> Response:
        raise HTTPException(400, f"Unrecognized servable version label: {request.path_params['label'][:60]}")

    # Not of TensorFlow Serving, which lists no models: KServe's.
    routes = [
        Route("/v1/models", models, name="status"),
        Route("/v1/models/{model}/labels/{label:path}", label, methods=_METHODS, name="other"),
    ]
    for place in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
        routes += [
            Route(f"{place}:predict", predict, methods=["POST"], name="predict"),
            Route(f"{place}/metadata", metadata, name="metadata"),
            Route(place, status, name="status"),
        ]
    return [*routes, Route("/v1{path:path}", malformed, methods=_METHODS, name="other")]


def parse_predict(body: bytes, limits: Limits) -> tuple[list[bytes] | list[ImageArray], bool]:
    """Parses the body of a predict request.

    Returns:
        Encoded images, or decoded ones, uint8 ``[height, width, 1 or 3]``; and whether they came in rows
        (``instances``) and not in a column (``inputs``), as the response then does.

    Raises:
        HTTPException: 400 if it is malformed, 413 if it has too many values or images.
    """
    document = _load_json(body, limits.values)
    signature = document.get("signature_name") or _DEFAULT
    if not isinstance(signature, str):
        raise HTTPException(400, "'signature_name' key must be a string value.")
    if signature not in _INPUTS:
        raise HTTPException(400, f'Serving signature name: "{signature[:100]}" not found in signature def')
    if "instances" in document and "inputs" in document:
        raise HTTPException(400, "Exactly one of 'inputs' and 'instances' must be given. Received: both")
    in_rows, name = "instances" in document, _INPUTS[signature][0]
    if not in_rows and "inputs" not in document:
        raise HTTPException(400, "Missing 'inputs' or 'instances' key")
    values = _rows(document["instances"], name) if in_rows else _column(document["inputs"], name)
    if len(values) > limits.instances:
        raise HTTPException(413, f"A request must have at most {limits.instances} images. Received: {len(values)}")
    read: Callable[[Any, str], Any] = _encoded_image if signature == _DEFAULT else _pixels
    return [read(value, f"image {index}") for index, value in enumerate(values)], in_rows


def format_predictions(
    classes: Sequence[str], outputs: ModelOutputs, predictions: Sequence[FilePrediction], in_rows: bool
) -> dict[str, Any]:
    """The response to a predict request, in rows (``predictions``) or in columns (``outputs``).

    It has the outputs of an exported SavedModel and the decision; what a model cannot give is left out.
    """
    probabilities, scores = outputs
    columns: dict[str, list[Any]] = {
        **{name: [getattr(each, name) for each in predictions] for name in _DECISION},
        "label": [each.label for each in predictions],
        "probabilities": _shortest(probabilities),
        "classes": [list(classes)] * len(probabilities),
        "ood_score": [None] if scores is None else _shortest(scores),
    }
    columns = {name: column for name, column in columns.items() if None not in column}
    if not in_rows:
        return {"outputs": columns}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _check_served(served: ServedModel, request: Request) -> None:
    model, version = request.path_params["model"], request.path_params.get("version")
    if model != served.name or version not in (None, str(served.version)):
        wanted = f"Latest({model[:200]})" if version is None else f"Specific({model[:200]}, {version[:60]})"
        raise HTTPException(
            404, f"Servable not found for request: {wanted}. Model and version here: {served.name}, {served.version}"
        )


def _load_json(body: bytes, most_values: int) -> dict[str, Any]:
    # Each value but the first of its list follows one of these; in strings they count too, which base64 has none of.
    if sum(map(body.count, (b",", b"[", b"{"))) > most_values:
        remedy = "Send images as PNG or JPEG files in base64 instead"
        raise HTTPException(413, f"A request must hold at most {most_values} values. {remedy}.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        # ValueError covers bad UTF-8 and numbers with thousands of digits too.
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise HTTPException(400, f"JSON Parse error: {reason}") from error
    if not isinstance(document, dict):
        raise HTTPException(400, "A request must be a JSON object")
    return document


def _rows(rows: Any, name: str) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise HTTPException(400, "'instances' must be a list that is not empty")
    named = _is_named(rows[0])
    for index, row in enumerate(rows):
        if named != _is_named(row):
            raise HTTPException(400, f"'instances' must be all objects or all values. Received: item {index} differs")
        if named and row.keys() != {name}:
            raise HTTPException(400, f"Failed to process element: {index}. JSON object must only have keys: {name}")
    return [row[name] for row in rows] if named else rows


def _column(value: Any, name: str) -> list[Any]:
    if _is_named(value):
        if name not in value:
            raise HTTPException(400, f"Missing named input: {name} in 'inputs' object.")
        value = value[name]
    if not isinstance(value, list) or not value:
        raise HTTPException(400, f"'{name}' of 'inputs' must be a list that is not empty")
    return value


def _is_named(value: Any) -> bool:
    """Whether a value is an object of named inputs; ``{"b64": TEXT}`` is binary data."""
    return isinstance(value, dict) and not (value.keys() == {_B64} and isinstance(value[_B64], str))


def _encoded_image(value: Any, name: str) -> bytes:
    text = value.get(_B64) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise HTTPException(400, f'{name} must be base64, {{"b64": "..."}}')
    try:
        return _unescaped(text)
    except ValueError as error:
        hint = "send standard base64 of the file, without 'data:...;base64,' before it"
        raise HTTPException(400, f"Unable to base64 decode {name}: {hint}") from error


def _unescaped(text: str) -> bytes:
    """Decodes what TensorFlow Serving does: white space anywhere, no padding or all of it, "." as well as "="."""
    data = text.encode("ascii").translate(None, b" \t\n\v\f\r")
    digits = data.rstrip(b"=.")
    missing = -len(digits) % 4
    if len(data) - len(digits) not in (0, missing):
        raise ValueError("wrong padding")
    return base64.b64decode(digits + b"=" * missing, validate=True)


def _pixels(value: Any, name: str) -> ImageArray:
    try:
        # As objects: as text, NumPy would make each value as long as the longest.
        pixels = np.array(value, object)
    except ValueError:
        pixels = np.empty(0)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or set(map(type, pixels.ravel())) != {int}:
        raise HTTPException(400, f"{name} must be whole numbers of the shape [height, width, 1 or 3]")
    if min(pixels.shape[:2]) < MIN_SIDE or pixels.min() < 0 or pixels.max() > 255:
        raise HTTPException(400, f"{name} must have at least {MIN_SIDE} x {MIN_SIDE} pixels, each from 0 to 255")
    return pixels.astype(np.uint8)


def _signature_definitions(served: ServedModel) -> dict[str, Any]:
    texts, lists, numbers = ("DT_STRING", (-1,)), ("DT_STRING", (-1, -1)), ("DT_FLOAT", (-1,))
    classes = (-1, len(served.backend.classes))
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {
        **{"decision": texts, "reasons": lists, "label": texts},
        **{"probabilities": ("DT_FLOAT", classes), "classes": ("DT_STRING", classes)},
    }
    if served.backend.calibration is not None:
        kinds["set"] = lists
    if served.backend.ood_calibration is not None:
        kinds |= {"ood_percentile": numbers, "ood_score": numbers}
    outputs = {name: _tensor_info(name, *kind) for name, kind in kinds.items()}
    return {
        signature: {
            "inputs": {name: _tensor_info(name, dtype, sizes)},
            "outputs": outputs,
            "method_name": "tensorflow/serving/predict",
        }
        for signature, (name, dtype, sizes) in _INPUTS.items()
    }


def _tensor_info(name: str, dtype: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    dimensions = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{name}:0"}


def _shortest(values: NDArray[np.float32]) -> Any:
    """Nested lists, each number the shortest that is the same float32: 0.2 instead of 0.20000000298."""
    return values.astype("U32").astype(np.float64).tolist()

"""JSON to tensors and back, as TensorFlow Serving does it.

In a request, tensors stand in rows (``instances``, one value or object of named values each) or in columns
(``inputs``). Binary data is ``{"b64": BASE64}``. In an answer, names are dropped where there is one output alone, a
string is binary where its output's name ends with ``_bytes``, and NaN and Infinity are written as such
(https://www.tensorflow.org/tfx/serving/api_rest).
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.server.batching import Outputs
from btkeras.server.problems import HTTPError, invalid
from btkeras.server.servable import TensorSpec

Inputs = dict[str, NDArray[Any]]
_B64 = "b64"
_BYTES = "_bytes"


def load_json(body: bytes, most_values: int) -> dict[str, Any]:
    """Parses a request's body, which must be an object.

    Raises:
        Problem: If it is not, or holds more values than are allowed.
    """
    if not body.strip():
        raise invalid("JSON Parse error: The document is empty")
    # Each value but the first of its list follows one of these; in strings they count too, which base64 has none of.
    if sum(map(body.count, (b",", b"[", b"{"))) > most_values:
        raise HTTPError(
            413,
            f"A request must hold at most {most_values} values. Send images as PNG or JPEG files in base64 instead",
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        # ValueError covers bad UTF-8 and numbers with thousands of digits too.
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise invalid(f"JSON Parse error: {reason}") from error
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any], default: str) -> str:
    """The signature that a request names."""
    name = document.get("signature_name", default)
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    return name or default


def read_inputs(
    document: Mapping[str, Any], specs: Mapping[str, TensorSpec], most_instances: int
) -> tuple[Inputs, bool]:
    """Reads a request's tensors.

    Args:
        document: The request.
        specs: The signature's inputs.
        most_instances: How many instances it may have.

    Returns:
        A tensor for each input, and whether they came in rows.

    Raises:
        Problem: If they are not what the signature takes.
    """
    if "instances" in document and "inputs" in document:
        raise invalid("Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        rows = document["instances"]
        if not isinstance(rows, list):
            raise invalid("Excepting 'instances' to be an list/array")
        if not rows:
            raise invalid("No values in 'instances' array")
        return _checked(_from_rows(rows, specs), specs, most_instances), True
    if "inputs" in document:
        return _checked(_from_columns(document["inputs"], specs), specs, most_instances), False
    raise invalid("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Outputs, in_rows: bool) -> bytes:
    """Writes an answer's tensors.

    Raises:
        Problem: If they are asked for in rows and do not all have one for each instance.
    """
    columns = {name: _values(name, tensor) for name, tensor in outputs.items()}
    if not in_rows:
        content: Any = columns if len(columns) > 1 else next(iter(columns.values()))
        return json.dumps({"outputs": content}).encode()
    if any(tensor.ndim == 0 or len(tensor) < 1 for tensor in outputs.values()):
        raise invalid("An output has no batch: ask for it with 'inputs' instead of 'instances'")
    if len({len(tensor) for tensor in outputs.values()}) > 1:
        raise invalid("The outputs have inconsistent batch sizes: ask with 'inputs' instead of 'instances'")
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    predictions = [dict(zip(names, row, strict=True)) if len(names) > 1 else row[0] for row in rows]
    return json.dumps({"predictions": predictions}).encode()


def _from_rows(rows: list[Any], specs: Mapping[str, TensorSpec]) -> Inputs:
    named = _is_named(rows[0])
    if not named and len(specs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            f"as per tensorinfo_map: {', '.join(specs)}"
        )
    for index, row in enumerate(rows):
        if named != _is_named(row):
            expected, got = ("object", "list") if named else ("value/list", "object")
            raise invalid(f"Expecting {expected} but got {got} at item {index} of input list")
        if named:
            _check_keys(row, specs, index)
    if not named:
        (name,) = specs
        return {name: _tensor(rows, specs[name], f"'{name}' of 'instances'")}
    return {
        name: _tensor([row[name] for row in rows], spec, f"'{name}' of 'instances'") for name, spec in specs.items()
    }


def _check_keys(row: Mapping[str, Any], specs: Mapping[str, TensorSpec], index: int) -> None:
    for name in row:
        if name not in specs:
            raise invalid(
                f"Failed to process element: {index} key: {name[:60]} of 'instances' list. "
                f"Error: JSON object: does not have named input: {name[:60]}"
            )
    if row.keys() != specs.keys():
        raise invalid(
            f"Failed to process element: {index} of 'instances' list. "
            f"JSON object must only have keys: {','.join(specs)}"
        )


def _from_columns(value: Any, specs: Mapping[str, TensorSpec]) -> Inputs:
    if not _is_named(value):
        if len(specs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                f"as per tensorinfo_map: {', '.join(specs)}"
            )
        (name,) = specs
        return {name: _tensor(value, specs[name], "'inputs'")}
    for name in specs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(value[name], spec, f"'{name}' of 'inputs'") for name, spec in specs.items()}


def _is_named(value: Any) -> bool:
    """Whether a value is an object of named tensors."""
    return isinstance(value, dict) and not _is_binary(value)


def _is_binary(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {_B64} and isinstance(value[_B64], str)


def _checked(inputs: Inputs, specs: Mapping[str, TensorSpec], most_instances: int) -> Inputs:
    """Checks sizes before anything is computed."""
    for name, tensor in inputs.items():
        spec = specs[name]
        if spec.shape is not None and not _fits(tensor.shape, spec.shape):
            raise invalid(f"Input '{name}' must have the shape {list(spec.shape)}. Received: {list(tensor.shape)}")
        if spec.batched and tensor.ndim and len(tensor) > most_instances:
            raise HTTPError(413, f"A request must have at most {most_instances} instances. Received: {len(tensor)}")
    batches = {len(tensor) for name, tensor in inputs.items() if specs[name].shape and specs[name].batched}
    if len(batches) > 1:
        raise invalid(f"All inputs must have as many instances. Received: {sorted(batches)}")
    return inputs


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, size) for size, w in zip(shape, wanted, strict=True))


def _tensor(value: Any, spec: TensorSpec, where: str) -> NDArray[Any]:
    """Makes a tensor of nested lists, whose sizes must agree."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    # Level by level instead of value by value, since images may have millions.
    leaves = [value]
    for level, size in enumerate(shape):
        for item in leaves:
            if not isinstance(item, list):
                raise invalid(f"{where}: JSON Value: {_shown(item)} found at incorrect level: {level}")
            if len(item) != size:
                raise invalid(
                    f"{where}: Encountered list at unexpected size: {len(item)} at level: {level} expected size: {size}"
                )
        leaves = list(itertools.chain.from_iterable(leaves))
    if any(isinstance(item, list) for item in leaves):
        raise invalid(f"{where}: Encountered list at unexpected level: {len(shape)}")
    return _array(leaves, spec.dtype, where).reshape(shape)


def _array(leaves: list[Any], dtype: tf.DType, where: str) -> NDArray[Any]:
    if dtype == tf.string:
        array = np.empty(len(leaves), object)
        array[:] = [_binary(leaf, where) for leaf in leaves]
        return array
    allowed = {bool} if dtype == tf.bool else {int, float} if dtype.is_floating else {int}
    if not (dtype == tf.bool or dtype.is_floating or dtype.is_integer):
        raise HTTPError(501, f"{where}: Conversion of JSON to type: {dtype.name} is not possible")
    wrong = set(map(type, leaves)) - allowed
    if wrong:
        leaf = next(leaf for leaf in leaves if type(leaf) in wrong)
        raise invalid(f"{where}: JSON Value: {_shown(leaf)} is not of expected type: {dtype.name}")
    if dtype.is_integer and leaves and not (dtype.min <= min(leaves) and max(leaves) <= dtype.max):
        raise invalid(f"{where}: all values must be between {dtype.min} and {dtype.max} to be {dtype.name}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(leaves, dtype.as_numpy_dtype)
    except OverflowError as error:
        raise invalid(f"{where}: Cannot convert JSON value to {dtype.name} without loss of precision.") from error
    return array


def _binary(leaf: Any, where: str) -> bytes:
    if isinstance(leaf, str):
        try:
            return leaf.encode()
        except UnicodeEncodeError as error:
            raise invalid(f"{where}: a string must be valid Unicode") from error
    if not _is_binary(leaf):
        raise invalid(f"{where}: JSON Value: {_shown(leaf)} not formatted correctly for base64 data")
    text: str = leaf[_B64]
    try:
        # Padding may be left away.
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{where}: Unable to base64 decode") from error


def _values(name: str, tensor: NDArray[Any]) -> Any:
    """A tensor as nested lists."""
    if tensor.dtype == object:
        write = _base64 if name.endswith(_BYTES) else _text
        written = np.empty(tensor.size, object)
        written[:] = [write(value) for value in tensor.ravel()]
        return written.reshape(tensor.shape).tolist()
    if tensor.dtype == np.float32:
        # As the shortest number that is this float32: 0.2 instead of 0.20000000298.
        return tensor.astype("U32").astype(np.float64).tolist()
    return tensor.tolist()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _base64(value: bytes) -> dict[str, str]:
    return {_B64: base64.b64encode(value).decode()}


def _shown(value: Any) -> str:
    """A value in a message: never long, and never an image."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""One loaded version: its signatures, as the SavedModel has them, and the decoder and network for batches."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from numpy.typing import NDArray
from PIL import Image
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from btkeras.errors import ImageError, ModelError
from btkeras.inference.backends.base import ModelOutputs
from btkeras.inference.backends.saved_model import network_of
from btkeras.inference.model_folder import MANIFEST, SAVED_MODEL
from btkeras.preprocessing.image_file import check_image
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.server.batching import Outputs
from btkeras.server.problems import invalid

DEFAULT, PREPARED = "serving_default", "serving_prepared"
ENCODED = "image_bytes"
# What preprocessing takes grows with the longer side, whatever the other.
MAX_SIDE = 16_384
# How far our decoding in front of `serving_prepared` may be from `serving_default` as a whole.
_TOLERANCE = 1e-4
# How TensorFlow names the place in the graph, in front of its message.
_PLACE = re.compile(r"\{\{.*?\}\}\s*")
_REFUSALS = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, tf.errors.FailedPreconditionError)


@dataclass(frozen=True)
class TensorSpec:
    """One input of a signature.

    Attributes:
        dtype: Its type.
        shape: Its sizes, -1 where any will do; None if it may have any number of dimensions.
    """

    dtype: tf.DType
    shape: tuple[int, ...] | None

    @property
    def batched(self) -> bool:
        """Whether its first dimension counts instances."""
        return self.shape is None or self.shape[:1] == (-1,)


class Servable:
    """A version of a model in memory.

    Args:
        folder: ``NAME/VERSION``, with a SavedModel.

    Attributes:
        number: The version's number.
        inputs: By signature, by input.
        decoder: Makes ``serving_prepared``'s input of encoded images; None if that would not give what
            ``serving_default`` gives, or the model has no such signatures: then it is served without batches.
        network: For the web page; None if the model was not made by ``btkeras export``.

    Raises:
        ModelError: If it cannot be loaded or run.
    """

    def __init__(self, folder: Path) -> None:
        self.number = int(folder.name)
        self._definitions = _definitions(folder)
        self.inputs = {name: _specs(definition) for name, definition in self._definitions.items()}
        try:
            self._loaded = tf.saved_model.load(str(folder))
            self.network = network_of(self._loaded, folder) if (folder / MANIFEST).is_file() else None
            self.decoder = self._matching_decoder()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
            raise ModelError(
                "A version must be a SavedModel that can be run", received=f"{folder} ({error})"
            ) from error

    def metadata(self) -> dict[str, Any]:
        """The signatures as JSON, as TensorFlow Serving prints them."""
        return {
            name: MessageToDict(definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for name, definition in self._definitions.items()
        }

    def method(self, signature: str) -> str:
        """What a signature is for, a path as ``tensorflow/serving/predict``."""
        return str(self._definitions[signature].method_name)

    def run(self, signature: str, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """Runs a signature.

        Raises:
            Problem: If the graph refuses its inputs.
        """
        specs = self.inputs[signature]
        try:
            tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
            answer = self._loaded.signatures[signature](**tensors)
        except _REFUSALS as error:
            raise invalid(_reason(error)) from error
        return {name: np.asarray(tensor) for name, tensor in answer.items()}

    def decode(self, data: bytes, name: str, pixels: int) -> NDArray[np.uint8]:
        """Makes the network's input, uint8 ``[size, size, channels]``, of an encoded image.

        Args:
            data: PNG or JPEG.
            name: What messages call it.
            pixels: The most it may have.

        Raises:
            Problem: If it cannot be read, or has more pixels.
        """
        if self.decoder is None:
            raise RuntimeError("this version's images are decoded in its graph")
        check_encoded(data, name, pixels)
        try:
            return self.decoder.bytes(data, name)
        except ImageError as error:
            raise invalid(str(error)) from error

    def warm_up(self, largest: int) -> None:
        """Runs each signature that takes images once, so that no request waits for it."""
        if self.network is None:
            return
        size, channels = self.network.size, self.network.channels
        for count in sorted({1, largest}):
            pixels = np.zeros((count, size, size, channels), np.uint8)
            self.network.observe(pixels)
        if self.network.explain is not None:
            self.network.explain(pixels[:1], np.zeros(1, np.int32))

    def _matching_decoder(self) -> Preprocessor | None:
        """The decoder, if it and ``serving_prepared`` together are ``serving_default``."""
        if self.network is None or not {DEFAULT, PREPARED} <= self.inputs.keys():
            return None
        if set(self.inputs[DEFAULT]) != {ENCODED} or set(self.inputs[PREPARED]) != {"images"}:
            return None
        decoder = Preprocessor(self.network.size, self.network.channels, self.network.harmonize)
        samples = _samples()
        whole = self.run(DEFAULT, {ENCODED: np.array(samples, object)})
        parts = self.run(PREPARED, {"images": np.stack([decoder.bytes(sample) for sample in samples])})
        return decoder if _agree(whole, parts) else None


def check_encoded(data: bytes, name: str, pixels: int) -> None:
    """Checks an encoded image by its header.

    Raises:
        Problem: If it is no PNG or JPEG, or has more pixels.
    """
    try:
        width, height = check_image(data, name)
    except ImageError as error:
        raise invalid(str(error)) from error
    check_size(width, height, name, pixels)


def check_size(width: int, height: int, name: str, pixels: int) -> None:
    """Checks an image's size.

    Raises:
        Problem: If it has more pixels, or is longer than ``MAX_SIDE``.
    """
    if width * height > pixels or max(width, height) > MAX_SIDE:
        raise invalid(
            f"An image must have at most {pixels} pixels, and {MAX_SIDE} on a side. "
            f"Received: {name} with {width} x {height}."
        )


def _definitions(folder: Path) -> dict[str, meta_graph_pb2.SignatureDef]:
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / SAVED_MODEL).read_bytes())
        graphs = [graph for graph in model.meta_graphs if "serve" in graph.meta_info_def.tags]
        return dict(graphs[0].signature_def)
    except Exception as error:  # protobuf's DecodeError has changed its place between releases.
        raise ModelError("A version must be a SavedModel for serving", received=f"{folder} ({error})") from error


def _specs(definition: meta_graph_pb2.SignatureDef) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            tf.dtypes.as_dtype(info.dtype),
            None if info.tensor_shape.unknown_rank else tuple(int(d.size) for d in info.tensor_shape.dim),
        )
        for name, info in sorted(definition.inputs.items())
    }


def observation(outputs: Outputs) -> ModelOutputs:
    """Probabilities and outlier scores, if there are any, of a signature's outputs."""
    return outputs["probabilities"], outputs.get("ood_score")


def _samples() -> list[bytes]:
    """Images of each kind that is decoded in its own way: grey, colour, 16 bits, JPEG."""
    rows, columns = np.mgrid[0:150, 0:130].astype(np.float32)
    grey = 120 + 80 * np.sin(rows / 9) * np.cos(columns / 7)
    color = np.stack([grey, 255 - grey, grey / 2], axis=-1).astype(np.uint8)
    images = ((color[..., 0], "PNG"), (color, "PNG"), ((grey * 200).astype(np.uint16), "PNG"), (color, "JPEG"))
    return [_encoded(Image.fromarray(image), kind) for image, kind in images]


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _agree(whole: Outputs, parts: Outputs) -> bool:
    return whole.keys() == parts.keys() and all(
        value.dtype == object or np.allclose(value, parts[name], atol=_TOLERANCE, rtol=_TOLERANCE)
        for name, value in whole.items()
    )


def _reason(error: tf.errors.OpError) -> str:
    lines = _PLACE.sub("", str(error.message)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

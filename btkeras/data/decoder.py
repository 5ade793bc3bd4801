"""Many files to network inputs, in threads, where a broken file is an answer and not the end."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from btkeras.data.image_file import check_image, damaged, read_image_bytes
from btkeras.data.preprocess import decode, fit, preprocess
from btkeras.errors import ImageError
from btkeras.machine import threads

Picture = NDArray[np.uint8]

_CHUNK = 256


# How TensorFlow names the place in the graph, in front of its message.
_PLACE = re.compile(r"\{\{.*?\}\}\s*")


@functools.cache
def _traced(size: int, channels: int, harmonise: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    # Once for all decoders of a size: tracing takes as long as a hundred pictures.
    signature = [tf.TensorSpec([], tf.string)]
    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda data: preprocess(data, size, channels, harmonise), input_signature=signature
    )
    return function


@functools.cache
def _traced_fit(size: int, channels: int, harmonise: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    signature = [tf.TensorSpec([None, None, None], tf.uint8)]
    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        lambda image: fit(image, size, channels, harmonise), input_signature=signature
    )
    return function


@functools.cache
def _traced_decode() -> Callable[[tf.Tensor], tf.Tensor]:
    function: Callable[[tf.Tensor], tf.Tensor] = tf.function(decode, input_signature=[tf.TensorSpec([], tf.string)])
    return function


def stored_picture(path: str | Path) -> Picture:
    """Reads a file's picture at its own size, upright, as ``Decoder.array`` takes it: uint8 ``[h, w, 1 or 3]``.

    Raises:
        ImageError: As ``Decoder.file``.
    """
    return _decoded(_traced_decode(), read_image_bytes(path), str(path))


def decoded_picture(data: bytes, name: str = "the image") -> Picture:
    """Does the same with a file's content; errors as ``Decoder.bytes``."""
    check_image(data, name)
    return _decoded(_traced_decode(), data, name)


class Decoder:
    """Reads pictures as uint8 ``[size, size, channels]``, each checked and decoded by the shared preprocessing.

    Args:
        size: Side of the network's input, pixels.
        channels: 1 or 3.
        harmonise: Whether pictures are cropped to the head and put on one scale of intensity.
    """

    def __init__(self, size: int, channels: int, harmonise: bool = False) -> None:
        self.size = size
        self.channels = channels
        self.harmonise = harmonise
        self._function = _traced(size, channels, harmonise)
        self._fit = _traced_fit(size, channels, harmonise)

    def bytes(self, data: bytes, name: str = "the image") -> Picture:
        """Decodes an encoded picture.

        Raises:
            ImageError: If it is no PNG or JPEG that may be read, or its content is broken.
        """
        check_image(data, name)
        return _decoded(self._function, data, name)

    def array(self, image: Picture) -> Picture:
        """Does the same with a decoded picture, uint8 ``[height, width, 1 or 3]``."""
        with tf.device("/CPU:0"):
            return np.asarray(self._fit(tf.constant(image)))

    def file(self, path: str | Path) -> Picture:
        """Reads and decodes a file; errors as ``bytes``."""
        return self.bytes(read_image_bytes(path), str(path))

    def try_file(self, path: str | Path) -> Picture | ImageError:
        """As ``file``, but returns the error."""
        try:
            return self.file(path)
        except ImageError as error:
            return error

    def files(self, paths: Sequence[str | Path]) -> Iterator[Picture | ImageError]:
        """Decodes files in parallel and yields pictures or errors in their order, with bounded memory."""
        with ThreadPoolExecutor(threads()) as pool:
            for start in range(0, len(paths), _CHUNK):
                yield from pool.map(self.try_file, paths[start : start + _CHUNK])


def _decoded(function: Callable[[tf.Tensor], tf.Tensor], data: bytes, name: str) -> Picture:
    try:
        # Inputs are prepared on the CPU: a GPU would only add two copies.
        with tf.device("/CPU:0"):
            return np.asarray(function(tf.constant(data)))
    except tf.errors.InvalidArgumentError as error:
        raise damaged(name, _reason(error)) from error


def _reason(error: tf.errors.OpError) -> str:
    lines = _PLACE.sub("", error.message).strip().splitlines()
    return lines[0][:120].rstrip(". ") if lines else type(error).__name__

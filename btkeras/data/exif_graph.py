"""EXIF orientation inside the graph, as ``btkeras.data.exif`` reads it, for the exported model."""

from __future__ import annotations

import tensorflow as tf

from btkeras.data.exif import HEAD, PATTERNS


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation (1..8) of JPEG or PNG bytes; 1, upright, where there is none."""
    head = tf.strings.substr(data, 0, HEAD)
    big, little = (_value(head, PATTERNS[order], order == "little") for order in ("big", "little"))
    found = tf.where(big > 0, big, little)
    return tf.where((found >= 1) & (found <= 8), found, 1)


def upright(image: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Turns a decoded picture as its encoded bytes say.

    Args:
        image: ``[height, width, channels]``.
        data: The bytes it was decoded from.
    """
    turned = {
        2: lambda: image[:, ::-1],
        3: lambda: image[::-1, ::-1],
        4: lambda: image[::-1],
        5: lambda: _transposed(image),
        6: lambda: _transposed(image)[:, ::-1],
        7: lambda: _transposed(image)[::-1, ::-1],
        8: lambda: _transposed(image)[::-1],
    }
    branches = {code: turned.get(code, lambda: tf.identity(image)) for code in range(9)}
    return tf.switch_case(orientation(data), branches)


def _transposed(image: tf.Tensor) -> tf.Tensor:
    # Transposing uint8 makes oneDNN write an error message (and then do it all the same).
    height, width = tf.unstack(tf.shape(image)[:2])
    places = tf.range(width)[:, None] + tf.range(height)[None] * width
    return tf.gather(tf.reshape(image, [height * width, -1]), places)


def _value(head: tf.Tensor, pattern: bytes, little_endian: bool) -> tf.Tensor:
    """The value behind the pattern's first place, 0 if it is nowhere."""
    # With the pattern put behind the end there always is a second part.
    behind = tf.strings.split(tf.strings.join([head, pattern + b"\0\0"]), pattern, maxsplit=1)[1]
    value = tf.io.decode_raw(tf.strings.substr(behind, 0, 2), tf.uint16, little_endian)
    return tf.cast(value[0], tf.int32)

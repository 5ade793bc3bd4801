"""EXIF orientation inside the graph, so that a turned photograph is read alike by training, predict and serving."""

from __future__ import annotations

import tensorflow as tf

# Where the orientation may stand: EXIF is among a JPEG's first segments, its first directory at its beginning.
_HEAD = 4096
# Tag 0x0112, type SHORT, count 1, in big- and little-endian; which of the value's two bytes is the low one.
# Eight bytes do not turn up by chance, so the directory around them need not be parsed.
_PATTERNS = ((bytes.fromhex("0112000300000001"), 1), (bytes.fromhex("1201030001000000"), 0))


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation (1..8) of JPEG bytes; 1, upright, where there is none."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, _HEAD), tf.uint8), tf.int32)
    found = tf.concat([*(_values(head, *pattern) for pattern in _PATTERNS), [1]], axis=0)[0]
    return tf.where((found >= 1) & (found <= 8), found, 1)


def upright(image: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Turns a decoded picture as its encoded bytes say.

    Args:
        image: ``[height, width, channels]``.
        data: The JPEG bytes it was decoded from.
    """
    turned = {
        2: lambda: image[:, ::-1],
        3: lambda: image[::-1, ::-1],
        4: lambda: image[::-1],
        5: lambda: tf.transpose(image, [1, 0, 2]),
        6: lambda: tf.transpose(image, [1, 0, 2])[:, ::-1],
        7: lambda: tf.transpose(image, [1, 0, 2])[::-1, ::-1],
        8: lambda: tf.transpose(image, [1, 0, 2])[::-1],
    }
    branches = {code: turned.get(code, lambda: tf.identity(image)) for code in range(9)}
    return tf.switch_case(orientation(data), branches)


def _values(head: tf.Tensor, pattern: bytes, low_byte: int) -> tf.Tensor:
    """The values that stand behind each place where the pattern occurs."""
    windows = tf.signal.frame(head, len(pattern) + 2, 1)
    hits = tf.reduce_all(windows[:, :-2] == tf.constant(list(pattern)), axis=1)
    return tf.boolean_mask(windows[:, low_byte - 2], hits)

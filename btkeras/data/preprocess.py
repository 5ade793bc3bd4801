"""Encoded bytes to the network's input: the one function that training, prediction and the served model share.

Everything here is TensorFlow graph code without Python state, so that the exported model carries it along.
"""

from __future__ import annotations

import tensorflow as tf

from btkeras.data.exif import upright
from btkeras.data.image_file import MAX_PIXELS, MIN_SIDE
from btkeras.data.resize import QUARTERS, UNIT

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


def preprocess(data: tf.Tensor, size: int, channels: int) -> tf.Tensor:
    """Decodes and resizes one picture.

    Args:
        data: Scalar string, an encoded PNG or JPEG.
        size: Side of the result, pixels.
        channels: 1 or 3.

    Returns:
        uint8 ``[size, size, channels]``.

    Raises:
        tf.errors.InvalidArgumentError: When run, if the bytes are no valid picture or have too many pixels.
    """
    return resize(to_channels(decode(data), channels), size)


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes PNG (8 or 16 bits) or JPEG bytes, turned upright, to uint8 RGB ``[height, width, 3]``.

    16-bit pictures are scaled from their own lowest..highest value to 0..255, as ``prepare`` does with raw slices.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, len(_PNG)), _PNG)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, len(_JPEG)), _JPEG)
    with tf.control_dependencies([tf.debugging.Assert(is_png | is_jpeg, ["not a PNG or JPEG image"])]):
        data = tf.identity(data)
    image = tf.cond(is_png, lambda: _decode_png(data), lambda: _decode_jpeg(data))
    return tf.ensure_shape(image, [None, None, 3])


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Makes uint8 pictures ``[..., 1 or 3]`` grey (ITU-R 601 luma, rounded as Pillow does) or three-channelled.

    The last dimension may be unknown until run time.
    """
    image = tf.cond(tf.equal(tf.shape(image)[-1], 3), lambda: image, lambda: tf.repeat(image[..., :1], 3, axis=-1))
    if channels == 3:
        return image
    weighted = tf.cast(image, tf.int32) * tf.constant([19595, 38470, 7471])
    return tf.cast((tf.reduce_sum(weighted, axis=-1, keepdims=True) + 32768) // 65536, tf.uint8)


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes uint8 ``[..., height, width, channels]`` to ``[..., size, size, channels]``, antialiased and exact."""
    shape = tf.shape(image)
    # TF32 on a GPU would round the whole numbers that make this exact.
    with tf.device("/CPU:0"):
        rows, columns = _weights(shape[-3], size), _weights(shape[-2], size)
        narrow = tf.einsum("...hwc,xw->...hxc", tf.cast(image, tf.float32), columns)
        narrow = tf.floor(narrow * (QUARTERS / UNIT) + 0.5)
        small = tf.einsum("...hxc,yh->...yxc", narrow, rows)
        return tf.cast(tf.floor(small / (QUARTERS * UNIT) + 0.5), tf.uint8)


def _weights(source: tf.Tensor, target: int) -> tf.Tensor:
    """The graph form of ``btkeras.data.resize.resize_weights``; a test holds the two together."""
    source = tf.cast(source, tf.int64)
    out = 2 * tf.range(target, dtype=tf.int64)[:, None] + 1
    into = 2 * tf.range(source)[None, :] + 1
    weights = tf.maximum(2 * tf.maximum(source, target) - tf.abs(into * target - out * source), 0)
    units = weights * int(UNIT) // tf.reduce_sum(weights, axis=1, keepdims=True)
    rest = int(UNIT) - tf.reduce_sum(units, axis=1, keepdims=True)
    largest = tf.one_hot(tf.argmax(weights, axis=1), tf.cast(source, tf.int32), dtype=tf.int64)
    return tf.cast(units + rest * largest, tf.float32)


def _check_size(width: tf.Tensor, height: tf.Tensor) -> tf.Operation:
    width, height = tf.cast(width, tf.int64), tf.cast(height, tf.int64)
    fits = (width * height <= MAX_PIXELS) & (tf.minimum(width, height) >= MIN_SIDE)
    return tf.debugging.Assert(fits, [f"an image must have {MIN_SIDE} pixels a side and at most {MAX_PIXELS} pixels"])


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    # The first chunk is always IHDR: width and height as big-endian 32-bit numbers at byte 16, bit depth at 24.
    header = tf.strings.substr(data, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    with tf.control_dependencies([_check_size(width_height[0], width_height[1])]):
        deep = tf.equal(tf.strings.substr(data, 24, 1), b"\x10")
    return tf.cond(
        deep,
        lambda: _scale_16_bit(tf.io.decode_png(data, channels=3, dtype=tf.uint16)),
        lambda: tf.io.decode_png(data, channels=3),
    )


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(data)
    with tf.control_dependencies([_check_size(shape[1], shape[0])]):
        # Pillow's transform too; TensorFlow's default is faster and differs by a few grey levels.
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(image, data)


def _scale_16_bit(image: tf.Tensor) -> tf.Tensor:
    """The graph form of ``btkeras.data.intensity.to_uint8``."""
    values = tf.cast(image, tf.int32)
    values -= tf.reduce_min(values)
    span = tf.maximum(tf.reduce_max(values), 1)
    return tf.cast((values * 510 + span) // (2 * span), tf.uint8)

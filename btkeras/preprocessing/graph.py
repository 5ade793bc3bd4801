"""Preprocessing as TensorFlow operations, which an exported SavedModel embeds: the same bytes as ``Preprocessor``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import tensorflow as tf

from btkeras.preprocessing.decode import HEAD, ORIENTATIONS, PATTERNS
from btkeras.preprocessing.harmonize import (
    BACKGROUND_PERCENT,
    FILLED,
    FOREGROUND,
    MIDDLE,
    SMALLEST_FRACTION,
    SMALLEST_SIDE,
    WHITE_PERCENT,
    rounded_ratio,
)
from btkeras.preprocessing.image_file import MAX_PIXELS, MIN_SIDE
from btkeras.preprocessing.resize import QUARTERS, UNIT

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Signature and first chunk, whose length and type are the same in every PNG.
_PNG_HEADER = 33
_PNG_IHDR = _PNG + b"\0\0\0\rIHDR"
# Rows resized together; the larger, the more of each product is zeros, the smaller, the more rows are copied.
_BLOCK = 16


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the EXIF orientation (1..8) of JPEG or PNG bytes; 1, upright, where there is none."""
    head = tf.strings.substr(data, 0, HEAD)
    big, little = (_value(head, PATTERNS[order], order == "little") for order in ("big", "little"))
    found = tf.where(big > 0, big, little)
    return tf.where((found >= 1) & (found <= 8), found, 1)


def upright(image: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Turns a decoded image ``[height, width, channels]`` as its encoded bytes say."""

    def turned(exchanged: bool, down: int, across: int) -> Callable[[], tf.Tensor]:
        return lambda: (_transposed(image) if exchanged else image)[::down, ::across]

    return tf.switch_case(orientation(data) - 1, [turned(*steps) for steps in ORIENTATIONS.values()])


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


def harmonize(image: tf.Tensor) -> tf.Tensor:
    """Crops a slice, uint8 ``[height, width, 1]``, to the head and normalizes its intensity."""
    # Counting is quicker on the CPU than the way to a GPU and back.
    with tf.device("/CPU:0"):
        grey = image[..., 0]
        low, threshold = _levels(grey)
        top, left, bottom, right = _head_box(grey, threshold)
        crop = grey[top:bottom, left:right]
        return tf.gather(_intensity_table(crop, low, threshold), tf.cast(crop, tf.int32))[..., None]


def _head_box(grey: tf.Tensor, threshold: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    # Counts of 25 million pixels, even times 20, still are an int32.
    foreground = tf.cast(grey > tf.cast(threshold, tf.uint8), tf.int32)
    height, width = tf.unstack(tf.shape(grey))
    top, bottom = _largest_run(tf.reduce_sum(foreground, axis=1), width)
    left, right = _largest_run(tf.reduce_sum(foreground[top:bottom], axis=0), bottom - top)
    top, bottom = _largest_run(tf.reduce_sum(foreground[:, left:right], axis=1), right - left)
    rows, columns = bottom - top, right - left
    small = (rows * columns * SMALLEST_FRACTION < height * width) | (tf.minimum(rows, columns) < SMALLEST_SIDE)
    whole = tf.stack([0, 0, height, width])
    found = tf.stack([top, left, bottom, right])
    return tuple(tf.unstack(tf.where(small, whole, found)))


def _largest_run(counts: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    filled = 100 * counts > FILLED * length
    begins = filled & ~tf.concat([[False], filled[:-1]], axis=0)
    run = tf.where(filled, tf.cumsum(tf.cast(begins, tf.int32)), 0)
    weight = tf.math.unsorted_segment_sum(tf.where(filled, counts, 0), run, tf.reduce_max(run) + 1)
    lines = tf.where(tf.equal(run, tf.argmax(weight, output_type=tf.int32)))[:, 0]
    lines = tf.cast(lines, tf.int32)
    return lines[0], lines[-1] + 1


def _intensity_table(crop: tf.Tensor, low: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    values = tf.range(256, dtype=tf.int64)
    head = tf.where(values > threshold, _histogram(crop), 0)
    middle = tf.maximum(_percentile(head, 50), low + 1)
    high = tf.maximum(_percentile(head, WHITE_PERCENT), middle + 1)
    dark = rounded_ratio(tf.clip_by_value(values, low, middle) - low, MIDDLE, middle - low)
    bright = rounded_ratio(tf.clip_by_value(values, middle, high) - middle, 255 - MIDDLE, high - middle)
    return tf.cast(dark + bright, tf.uint8)


def _levels(grey: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    histogram = _histogram(grey)
    background = _percentile(histogram, BACKGROUND_PERCENT)
    span = _percentile(histogram, WHITE_PERCENT) - background
    return background + span // (2 * FOREGROUND), background + span // FOREGROUND


def _histogram(grey: tf.Tensor) -> tf.Tensor:
    counts = tf.math.bincount(tf.reshape(tf.cast(grey, tf.int32), [-1]), minlength=256, maxlength=256)
    return tf.cast(counts, tf.int64)


def _percentile(histogram: tf.Tensor, percent: int) -> tf.Tensor:
    below = tf.cumsum(histogram)
    # The first of equal values, as in NumPy.
    return tf.argmax(tf.cast(100 * below >= percent * below[-1], tf.int32))


def preprocess(data: tf.Tensor, size: int, channels: int, harmonized: bool = False) -> tf.Tensor:
    """Makes one encoded PNG or JPEG, a scalar string, the network's input; see ``preprocess_pixels``.

    Raises:
        tf.errors.InvalidArgumentError: When run, if the bytes are no whole image or have too many pixels.
    """
    return preprocess_pixels(decode(data), size, channels, harmonized)


def preprocess_pixels(image: tf.Tensor, size: int, channels: int, harmonized: bool = False) -> tf.Tensor:
    """Makes a decoded image the network's input.

    Args:
        image: uint8 ``[height, width, 1 or 3]``.
        size: Side of the result, pixels.
        channels: 1 or 3.
        harmonized: Whether it is cropped to the head and its intensity normalized (``preprocessing.harmonize``).

    Returns:
        uint8 ``[size, size, channels]``.
    """
    if harmonized or channels == 1:
        image = to_channels(image, 1)
        return tf.repeat(resize(harmonize(image) if harmonized else image, size), channels, axis=-1)
    # Each channel is resized alike, so a grey image gets its three only afterwards.
    return _by_channels(
        image,
        lambda: to_channels(resize(tf.ensure_shape(image, [None, None, 1]), size), 3),
        lambda: resize(tf.ensure_shape(image, [None, None, 3]), size),
    )


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes PNG (8 or 16 bits) or JPEG bytes, turned upright, to uint8 ``[height, width, 1 (grey) or 3 (RGB)]``.

    16-bit images are scaled from their own lowest..highest value to 0..255. Transparency is ignored.
    """
    is_png = tf.equal(tf.strings.substr(data, 0, len(_PNG)), _PNG)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, len(_JPEG)), _JPEG)
    with tf.control_dependencies([tf.debugging.Assert(is_png | is_jpeg, ["not a PNG or JPEG image"])]):
        data = tf.identity(data)
    image = tf.cond(is_png, lambda: _decode_png(data), lambda: _decode_jpeg(data))
    return upright(tf.ensure_shape(image, [None, None, None]), data)


def to_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Makes uint8 images ``[..., 1 or 3]`` grey (ITU-R 601 luma, rounded as Pillow does) or three-channelled."""
    if channels == 3:
        image = _by_channels(image, lambda: tf.repeat(image, 3, axis=-1), lambda: image)
    else:
        image = _by_channels(image, lambda: image, lambda: _luma(image))
    return tf.ensure_shape(image, [*image.shape[:-1], channels])


def _by_channels(image: tf.Tensor, grey: Callable[[], tf.Tensor], color: Callable[[], tf.Tensor]) -> tf.Tensor:
    if image.shape[-1] is None:
        return tf.cond(tf.equal(tf.shape(image)[-1], 1), grey, color)
    return grey() if image.shape[-1] == 1 else color()


def _luma(image: tf.Tensor) -> tf.Tensor:
    # Sums of whole numbers below 2**24, exact as in `resize`.
    with tf.device("/CPU:0"):
        weighted = tf.linalg.matvec(tf.cast(image, tf.float32), tf.constant([19595.0, 38470.0, 7471.0]))
        return tf.cast(tf.floor((weighted + 32768) / 65536), tf.uint8)[..., None]


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes an image, antialiased and exact.

    Args:
        image: uint8 ``[height, width, channels]``; the number of channels must be static.
        size: Side of the result, pixels.

    Returns:
        uint8 ``[size, size, channels]``.
    """
    # TF32 on a GPU would round the whole numbers that make this exact.
    with tf.device("/CPU:0"):
        low = _resize_rows(tf.cast(image, tf.float32), size)
        low = tf.floor(low * (QUARTERS / UNIT) + 0.5)
        small = tf.transpose(_resize_rows(tf.transpose(low, [1, 0, 2]), size), [1, 0, 2])
        return tf.cast(tf.floor(small / (QUARTERS * UNIT) + 0.5), tf.uint8)


def _resize_rows(image: tf.Tensor, target: int) -> tf.Tensor:
    """Weighted sums of rows: float32 ``[height, width, channels]`` to ``[target, width, channels]``."""
    rows, weights = _blocks(tf.shape(image)[0], target, math.gcd(target, _BLOCK))
    blocks = tf.einsum("bon,bnwc->bowc", weights, tf.gather(image, rows))
    return tf.reshape(blocks, [target, -1, image.shape[-1]])


def _blocks(source: tf.Tensor, target: int, block: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Indices ``[blocks, n]`` of the rows that each block of target rows is made of; weights ``[blocks, block, n]``."""
    source = tf.cast(source, tf.int64)
    # Places are in units of half a source pixel divided by `target`, where everything is whole.
    out = tf.reshape((2 * tf.range(target, dtype=tf.int64) + 1) * source, [-1, block])
    reach = 2 * tf.maximum(source, target)
    first = (out[:, 0] - reach - target) // (2 * target) + 1
    count = ((block - 1) * source + reach) // target + 1
    rows = first[:, None] + tf.range(count)
    weights = tf.maximum(reach - tf.abs(((2 * rows + 1) * target)[:, None] - out[:, :, None]), 0)
    weights *= tf.cast((rows >= 0) & (rows < source), tf.int64)[:, None]
    units = weights * int(UNIT) // tf.reduce_sum(weights, axis=2, keepdims=True)
    rest = int(UNIT) - tf.reduce_sum(units, axis=2, keepdims=True)
    units += rest * tf.one_hot(tf.argmax(weights, axis=2), tf.cast(count, tf.int32), dtype=tf.int64)
    return tf.clip_by_value(rows, 0, source - 1), tf.cast(units, tf.float32)


def _check_size(width: tf.Tensor, height: tf.Tensor) -> tf.Operation:
    width, height = tf.cast(width, tf.int64), tf.cast(height, tf.int64)
    fits = (width * height <= MAX_PIXELS) & (tf.minimum(width, height) >= MIN_SIDE)
    return tf.debugging.Assert(fits, [f"an image must have {MIN_SIDE} pixels a side and at most {MAX_PIXELS} pixels"])


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    # The first chunk must be IHDR: width and height as big-endian 32-bit numbers at byte 16, bit depth at 24.
    whole = tf.equal(tf.strings.substr(data, 0, len(_PNG_IHDR)), _PNG_IHDR) & (tf.strings.length(data) >= _PNG_HEADER)
    with tf.control_dependencies([tf.debugging.Assert(whole, ["a PNG image must begin with its size"])]):
        header = tf.strings.substr(data, 16, 8)
    width_height = tf.io.decode_raw(header, tf.int32, little_endian=False)
    with tf.control_dependencies([_check_size(width_height[0], width_height[1])]):
        deep = tf.equal(tf.strings.substr(data, 24, 1), b"\x10")
    return tf.cond(
        deep,
        lambda: _scale_16_bit(_without_alpha(tf.io.decode_png(data, dtype=tf.uint16))),
        lambda: _without_alpha(tf.io.decode_png(data)),
    )


def _without_alpha(image: tf.Tensor) -> tf.Tensor:
    return image[..., : tf.where(tf.shape(image)[-1] < 3, 1, 3)]


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(data)
    with tf.control_dependencies([_check_size(shape[1], shape[0])]):
        is_grey = tf.equal(shape[2], 1)
    # Pillow's transform too; TensorFlow's default is faster and differs by a few grey levels.
    decode_jpeg = functools.partial(tf.io.decode_jpeg, data, dct_method="INTEGER_ACCURATE")
    return tf.cond(is_grey, lambda: decode_jpeg(channels=1), lambda: decode_jpeg(channels=3))


def _scale_16_bit(image: tf.Tensor) -> tf.Tensor:
    """The graph form of ``btkeras.preprocessing.decode.to_uint8``."""
    values = tf.cast(image, tf.int32)
    values -= tf.reduce_min(values)
    return tf.cast(rounded_ratio(values, 255, tf.maximum(tf.reduce_max(values), 1)), tf.uint8)

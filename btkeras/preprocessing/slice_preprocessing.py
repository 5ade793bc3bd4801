"""Preprocessing as a Keras layer, for ``tf.data`` and for models of one's own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from btkeras.errors import ModelError

if TYPE_CHECKING:
    import tensorflow as tf


@keras.saving.register_keras_serializable("btkeras")
class SlicePreprocessing(keras.layers.Layer):
    """Makes slices a network's input, to the same pixels as ``btkeras predict``.

    Inputs: ``[height, width, 1 or 3]``, or a batch of such, uint8 or floating-point 0..255 (rounded).
    Floats of another range, as 0..1, must be multiplied before: values outside are clipped, those inside taken as said.
    Outputs: float32 ``[image_size, image_size, channels]``, or a batch of such, 0..255 times ``scale``.

    In ``tf.data`` map it before batching if slices differ in size, or are cropped to the head. It has no weights and no
    gradient, and needs Keras' TensorFlow backend.

    Args:
        image_size: Side of the result, pixels.
        channels: 1 (grey) or 3 (as it is; grey slices get three equal channels).
        harmonize: Whether slices are cropped to the head, normalized in intensity and made grey.
        scale: What the pixels are multiplied by; 1 for btkeras' own networks.
        **settings: Of ``keras.layers.Layer``.

    Raises:
        ModelError: If an argument is not valid, Keras has another backend, or slices of another dtype come (which
            ``tf.data`` passes on as a ``StagingError`` with the same message).

    Example:
        >>> import btkeras, numpy as np
        >>> layer = btkeras.preprocessing.SlicePreprocessing(image_size=64, scale=1 / 255)
        >>> layer(np.full((2, 300, 200, 3), 255, "uint8")).shape
        TensorShape([2, 64, 64, 1])

        What the pretrained weights need, inside a model:

        >>> import keras
        >>> slices = keras.Input((None, None, 1), dtype="uint8")
        >>> pixels = btkeras.preprocessing.SlicePreprocessing.from_preset("pretrained")(slices)
        >>> network = btkeras.models.ImprovedResNet34(weights="pretrained")
        >>> model = keras.Model(slices, network(pixels))
    """

    def __init__(
        self,
        image_size: int = 224,
        channels: int = 1,
        harmonize: bool = False,
        scale: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", "trainable": False, **settings})
        if not isinstance(image_size, int | np.integer) or image_size < 1 or channels not in (1, 3):
            rule = "SlicePreprocessing needs a whole image_size of at least 1 and 1 or 3 channels"
            raise ModelError(rule, received=f"image_size={image_size!r}, channels={channels!r}")
        if keras.backend.backend() != "tensorflow":
            raise ModelError(
                "SlicePreprocessing needs Keras' TensorFlow backend",
                received=keras.backend.backend(),
                remedy="btkeras.datasets.load preprocesses under any",
            )
        self.image_size, self.channels, self.harmonize, self.scale = image_size, channels, harmonize, scale
        # Slices have any size, for which XLA would compile anew.
        self.supports_jit = False

    @classmethod
    def from_preset(cls, preset: str = "pretrained", **settings: Any) -> SlicePreprocessing:
        """What pretrained weights need; ``pretrained`` is the only preset, ``settings`` are as for the layer.

        Raises:
            ModelError: If there is no such preset, or this installation has no pretrained weights.
        """
        from btkeras.models.pretrained import pretrained_weights

        if preset != "pretrained":
            raise ModelError("A preset must be 'pretrained'", received=repr(preset))
        known = pretrained_weights()
        return cls(**{name: getattr(known, name) for name in ("image_size", "channels", "harmonize")} | settings)

    def __call__(self, images: Any, *args: Any, **settings: Any) -> Any:
        """As of every Keras layer; ``ModelError`` unless slices are uint8 or floating-point."""
        dtype = keras.backend.standardize_dtype(getattr(images, "dtype", "uint8"))
        if dtype != "uint8" and not keras.backend.is_float_dtype(dtype):
            raise ModelError(
                "SlicePreprocessing needs slices of uint8, or of floating-point values 0..255",
                received=dtype,
                remedy="Scale them to 0..255 and cast them to float32",
            )
        return super().__call__(images, *args, **settings)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Preprocesses a slice, or a batch of them one by one."""
        import tensorflow as tf

        from btkeras.preprocessing.graph import preprocess_pixels

        pixels = images if images.dtype == tf.uint8 else tf.saturate_cast(tf.round(images), tf.uint8)
        one = partial(preprocess_pixels, size=self.image_size, channels=self.channels, harmonized=self.harmonize)
        if pixels.shape.rank == 3:
            prepared = one(pixels)
        else:
            signature = tf.TensorSpec(self.compute_output_shape(pixels.shape[1:]), tf.uint8)
            prepared = tf.map_fn(one, pixels, fn_output_signature=signature)
        return tf.cast(prepared, self.compute_dtype) * tf.cast(self.scale, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the result."""
        return (*input_shape[:-3], self.image_size, self.image_size, self.channels)

    def get_config(self) -> dict[str, Any]:
        """The arguments, from which ``from_config`` makes the same layer."""
        names = ("image_size", "channels", "harmonize", "scale")
        return super().get_config() | {name: getattr(self, name) for name in names}

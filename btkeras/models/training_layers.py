"""Layers that a network is trained with in place of Keras' own: the same weights, cheaper operations.

``btkeras.models.reparameterize`` puts them in; a saved network never holds them. ``FusedBatchNormalization`` needs
TensorFlow, the others any backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import layers, ops

if TYPE_CHECKING:
    import tensorflow as tf

Shape = tuple[int | None, ...]


def one_tensorflow_replica() -> bool:
    """Whether TensorFlow trains on one device, so that its own kernels may stand in for Keras' operations."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync == 1


def kernel_padding(shape: Sequence[int], size: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after each axis that make a kernel one of ``size`` (height, width) with the same centre."""
    borders = [(large - small) // 2 for large, small in zip(size, shape[:2], strict=True)]
    return [*((border, border) for border in borders), (0, 0), (0, 0)]


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer, with TensorFlow's kernel for batch statistics over all axes but the last."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            # Gives the batch's own statistics, not their moving averages, which Keras keeps in another way.
            exponential_avg_factor=1.0,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // tf.size(mean), tf.float32)
        # The kernel gives the unbiased variance; Keras keeps the other.
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance * ((count - 1) / count))):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


class FirstChannelNormalization(layers.Normalization):
    """Keras' layer, of whose equal output channels only the first is passed on."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return super().call(inputs)[..., :1]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], 1)


class FirstChannelConvolution(layers.Conv2D):
    """A convolution of ``channels`` equal channels, of which it takes all, or the first alone."""

    def __init__(self, channels: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.channels = channels

    def build(self, input_shape: Shape) -> None:
        super().build((*input_shape[:-1], self.channels))
        # That of the weights, which the input need not have.
        self.input_spec = None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = self.kernel_for(inputs)
        return self.activation(ops.conv(inputs, kernel, self.strides, self.padding, dilation_rate=self.dilation_rate))

    def kernel_for(self, inputs: tf.Tensor) -> tf.Tensor:
        """The kernel, summed over its input channels where the images have one."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        return kernel if inputs.shape[-1] == self.channels else ops.sum(kernel, axis=2, keepdims=True)


class PaddedKernel(FirstChannelConvolution):
    """Gives not a convolution but its kernel, padded with zeros to ``size`` (height, width)."""

    def __init__(self, size: Sequence[int], **settings: Any) -> None:
        super().__init__(**settings)
        self.size = tuple(size)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return ops.pad(self.kernel_for(inputs), kernel_padding(self.kernel_size, self.size))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*self.size, input_shape[-1], self.filters)


class SummedConvolution(layers.Layer):
    """One convolution of the first input with the sum of the others, which are kernels."""

    def __init__(self, dilation_rate: Sequence[int], **settings: Any) -> None:
        super().__init__(**settings)
        self.dilation_rate = tuple(dilation_rate)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        images, *kernels = inputs
        return ops.conv(images, sum(kernels[1:], kernels[0]), padding="same", dilation_rate=self.dilation_rate)

"""From a network to the form it is trained in: the same function of the same weights, from cheaper operations.

Seen on two cores (docs/performance.md, "Training"): Keras' batch normalisation makes a dozen passes over its input, in
float32 whatever the policy, where TensorFlow has one kernel with a gradient of its own; and of the multi-scale stem's
four convolutions two are enough, since the sum of two with "same" padding is one with the sum of their zero-padded
kernels. What is saved is never this form, but the network itself.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import KerasTensor, layers, ops

from btkeras.training.runtime import one_tensorflow_replica


class FusedBatchNormalization(layers.BatchNormalization):
    """Keras' layer, with TensorFlow's kernel for batch statistics over all axes but the last."""

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            # The batch's own statistics are given out, not their moving averages, which Keras has its own way to keep.
            exponential_avg_factor=1.0,
            is_training=True,
        )
        count = tf.cast(tf.size(inputs) // tf.size(mean), tf.float32)
        # The kernel gives the unbiased variance; Keras keeps the other.
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance * ((count - 1) / count))):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs


class _FirstConvolution(layers.Conv2D):
    """A convolution of ``channels`` channels that are all equal, of which it takes the first alone."""

    def __init__(self, channels: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.channels = channels

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build((*input_shape[:-1], self.channels))
        # Of the weights alone.
        self.input_spec = None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = self._kernel_for(inputs)
        return ops.conv(inputs, kernel, strides=self.strides, padding=self.padding, dilation_rate=self.dilation_rate)

    def _kernel_for(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = ops.cast(self.kernel, self.compute_dtype)
        return kernel if inputs.shape[-1] == self.channels else ops.sum(kernel, axis=2, keepdims=True)


class _PaddedKernel(_FirstConvolution):
    """Nothing of a convolution but its kernel, padded with zeros to ``side`` x ``side``."""

    def __init__(self, side: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.side = side

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        border = (self.side - self.kernel_size[0]) // 2
        return ops.pad(self._kernel_for(inputs), [(border, border), (border, border), (0, 0), (0, 0)])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (self.side, self.side, input_shape[-1], self.filters)


class _ConvolutionBySum(layers.Layer):
    """One convolution with the sum of several kernels."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        images, *kernels = inputs
        return ops.conv(images, sum(kernels[1:], kernels[0]), padding="same")


def reparameterize_for_training(model: keras.Model, *, grey: bool = False) -> keras.Model:
    """Makes the form that a network of ``build_model`` is trained in, with weights of its own, equal at first.

    Weights have the names, shapes and order that they have in the network, so a state or a checkpoint of one fits the
    other. Answers and gradients differ by rounding only.

    Args:
        model: Functional, under any dtype policy.
        grey: Whether all images that it will see have equal channels, so that the first convolutions need to look at
            one of them only: their kernels are summed over the channels, which is the same function again.

    Returns:
        The network itself where there is nothing to gain: under another backend, whose compiler fuses by itself, or
        with several replicas, which share statistics in Keras' way.
    """
    if not one_tensorflow_replica():
        return model
    plan = _Plan(model, grey)
    form = keras.models.clone_model(model, clone_function=plan.copied, call_function=plan.called)
    for target, source in zip(form.variables, model.variables, strict=True):
        target.assign(source)
    return form


class _Plan:
    """What stands for each layer, and what that is called with."""

    def __init__(self, model: keras.Model, grey: bool) -> None:
        self._sums = {layer.name: parts for layer in model.layers if (parts := _summed_convolutions(layer))}
        self._sides = {
            part.name: max(p.kernel_size[0] for p in parts) for parts in self._sums.values() for part in parts
        }
        self._firsts = {layer.name for layer in _first_convolutions(model)} if grey else set()
        # By kernel that is to be summed, what it is to be convolved with.
        self._images: dict[int, KerasTensor] = {}

    def copied(self, layer: layers.Layer) -> layers.Layer:
        settings, name = layer.get_config(), layer.name
        if name in self._sides:
            return _PaddedKernel(self._sides[name], channels=layer.input.shape[-1], **settings)
        if name in self._firsts:
            return _FirstConvolution(layer.input.shape[-1], **settings)
        if name in self._sums:
            return _ConvolutionBySum(name=name, dtype=settings["dtype"])
        return (FusedBatchNormalization if _is_plain(layer) else type(layer)).from_config(settings)

    def called(self, layer: layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, _ConvolutionBySum):
            return layer([self._images[id(args[0][0])], *args[0]])
        outputs = layer(*args, **kwargs)
        if isinstance(layer, _PaddedKernel):
            self._images[id(outputs)] = args[0]
        return outputs[..., :1] if self._firsts and isinstance(layer, layers.Normalization) else outputs


def _is_plain(layer: layers.Layer) -> bool:
    """Whether it is a batch normalisation of images as the kernel knows it."""
    if type(layer) is not layers.BatchNormalization or len(layer.input.shape) != 4:
        return False
    return layer.axis in (-1, 3) and layer.scale and layer.center and not (layer.synchronized or layer.renorm)


def _summed_convolutions(layer: layers.Layer) -> list[layers.Conv2D]:
    """The convolutions that an addition sums, if one can take their place; else none."""
    if type(layer) is not layers.Add or len(layer._inbound_nodes) != 1:
        return []
    parts = [node.operation for node in layer._inbound_nodes[0].parent_nodes]
    fit = all(type(part) is layers.Conv2D and _is_bare(part) for part in parts)
    return parts if fit and len({id(part.input) for part in parts}) == 1 else []


def _is_bare(convolution: layers.Conv2D) -> bool:
    """Whether it is square, of odd side, and does nothing but convolve, with its input's size and one user."""
    high, wide = convolution.kernel_size
    plain = convolution.padding == "same" and set(convolution.strides) == set(convolution.dilation_rate) == {1}
    bare = not convolution.use_bias and convolution.groups == 1 and convolution.activation is keras.activations.linear
    return plain and bare and high == wide and high % 2 == 1 and len(convolution._outbound_nodes) == 1


def _first_convolutions(model: keras.Model) -> list[layers.Conv2D]:
    """The convolutions that standardised images go to; none if they go anywhere else too, or are one channel."""
    found: list[layers.Conv2D] = []
    waiting = [layer for layer in model.layers if type(layer) is layers.Normalization]
    if len(waiting) != 1 or model.input_shape[-1] == 1:
        return []
    while waiting:
        for node in waiting.pop()._outbound_nodes:
            user = node.operation
            if type(user) is layers.ZeroPadding2D:
                waiting.append(user)
            elif type(user) is layers.Conv2D and user.groups == 1 and not user.use_bias:
                found.append(user)
            else:
                return []
    return found

"""Re-parameterisation: the same function of an image from cheaper layers, for deployment or for training.

``reparameterize(model)`` folds what a trained network computes with constants into the weights before it. It is exact
algebra, done in float64 and rounded once:

- convolutions side by side whose sum is taken, as in the multi-scale stem, are one convolution with the sum of their
  zero-padded kernels (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021);
- batch normalisation and rescaling behind a convolution or a dense layer, or behind several that are concatenated, are
  a factor and an offset for each channel (Jacob et al., arXiv:1712.05877, section 3.2);
- a softmax behind a dense layer is that layer's activation, under the softmax' name;
- a dense layer of an image's channels, as in squeeze-and-excitation, is a convolution of 1 x 1: otherwise LiteRT cuts
  the network into parts there, and unpacks weights twice.

``reparameterize(model, trainable=True)`` keeps all weights and computes with them more cheaply: batch normalisation by
TensorFlow's kernel (under TensorFlow), and summed convolutions by one convolution (docs/performance.md, "Training").

Where a rule does not fit, say because a layer is shared, all stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.models.averaging import FEATURES, members, with_members
from btkeras.models.graph import OUTPUT, ModelGraph
from btkeras.models.training_layers import (
    FirstChannelConvolution,
    FirstChannelNormalization,
    FusedBatchNormalization,
    PaddedKernel,
    SummedConvolution,
    kernel_padding,
    one_tensorflow_replica,
)

Floats = NDArray[np.float64]

# Layers that are linear in their input up to a bias -> axes of the last kernel that the output's channels run along.
_OUTPUT_AXES: Mapping[type, tuple[int, ...]] = {
    **dict.fromkeys((layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv2D), (-1,)),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), (-2, -1)),
    **dict.fromkeys((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), (-2,)),
}
# What convolutions must have in common to be summed.
_SUMMED_ALIKE = ("filters", "strides", "padding", "dilation_rate", "groups", "data_format")
# Convolutions of these settings have counterparts among the training layers.
_TRAINABLE: Mapping[str, object] = {"use_bias": False, "groups": 1, "data_format": "channels_last"}


def reparameterize(model: keras.Model, *, grey: bool = False, trainable: bool = False) -> keras.Model:
    """Makes a network that computes the same from fewer or faster layers; the network itself is not changed.

    Layers that are left keep their names, and the feature maps between them their values.

    Args:
        model: A functional network, from ``build_model`` say, with or without a temperature.
        grey: Whether all images have equal channels. A deployed network then takes one channel; a trained one takes
            all and uses the first, where it begins with plain convolutions.
        trainable: Whether the result is trained: it then has the network's weights with their names, shapes and order,
            but layers that Keras does not know. It is the network itself where TensorFlow trains on several devices.

    Raises:
        ModelError: If the network is not functional. Without ``trainable``, if ``grey`` is asked of a network that does
            not begin with convolutions, or standardises its channels differently.
    """
    if trainable and keras.backend.backend() == "tensorflow" and not one_tensorflow_replica():
        return model
    if members(model) and not grey:
        return with_members(model, lambda member: reparameterize(member, trainable=trainable))
    graph = ModelGraph(model)
    if grey and trainable:
        _use_first_channel(graph)
    for rule in TRAINING_RULES if trainable else DEPLOYMENT_RULES:
        for name in graph.names():
            if name in graph.names():
                rule(graph, name)
    if grey and not trainable:
        _sum_channels(graph)
    return graph.build()


def _summed(graph: ModelGraph, name: str) -> list[str]:
    """The convolutions of one input that an addition sums, if one can take their place; else none."""
    if type(graph.layer(name)) is not layers.Add or not graph.is_called_once(name):
        return []
    names = graph.sources(name)
    if not all(type(graph.layer(branch)) is layers.Conv2D and _is_linear(graph, branch, name) for branch in names):
        return []
    configs = [graph.config(branch) for branch in names]
    alike = all(config[key] == configs[0][key] for config in configs for key in _SUMMED_ALIKE)
    types = {graph.layer(branch).compute_dtype for branch in names}
    inputs = {graph.source(branch) for branch in names}
    # With "same" padding and no strides, kernels whose sizes differ by an even number have one centre.
    sizes = np.array([config["kernel_size"] for config in configs])
    centered = ((sizes - sizes[0]) % 2 == 0).all() and configs[0]["padding"] == "same"
    one_place = set(configs[0]["strides"]) == {1} and len(types) == len(inputs) == 1
    return names if alike and centered and one_place else []


def _largest(graph: ModelGraph, names: list[str]) -> list[int]:
    size: list[int] = np.max([graph.layer(name).kernel_size for name in names], axis=0).tolist()
    return size


def _merge_sum(graph: ModelGraph, name: str) -> None:
    """Deployment: one convolution with the sum of the kernels, in place of the one with the tallest."""
    if not (names := _summed(graph, name)):
        return
    weights, size = [_with_bias(graph, branch) for branch in names], _largest(graph, names)
    merged, *others = sorted(names, key=lambda branch: -graph.layer(branch).kernel_size[0])
    kernel = np.sum([np.pad(kernel, kernel_padding(kernel.shape, size)) for kernel, _ in weights], axis=0)
    graph.config(merged).update(kernel_size=size, use_bias=True)
    graph.set_weights(merged, [kernel, np.sum([bias for _, bias in weights], axis=0)])
    for branch in (*others, name):
        graph.drop(branch, merged)


def _sum_kernels(graph: ModelGraph, name: str) -> None:
    """Training: layers that give their padded kernels, and one convolution with the sum of these."""
    if not (names := _summed(graph, name)) or not _are_trainable(graph, names):
        return
    size, dilation = _largest(graph, names), graph.config(names[0])["dilation_rate"]
    graph.add_source(name, names[0])
    graph.replace(name, SummedConvolution, dilation_rate=dilation)
    for branch in names:
        graph.replace(branch, PaddedKernel, channels=graph.input_shape(branch)[-1], size=size)


def _are_trainable(graph: ModelGraph, names: list[str]) -> bool:
    return all(graph.config(name)[key] == value for name in names for key, value in _TRAINABLE.items())


def _fuse_normalization(graph: ModelGraph, name: str) -> None:
    """Training: TensorFlow's kernel for batch normalisation of images over all axes but the last."""
    layer = graph.layer(name)
    if (
        not one_tensorflow_replica()
        or type(layer) is not layers.BatchNormalization
        or len(graph.input_shape(name)) != 4
    ):
        return
    if layer.axis in (-1, 3) and layer.scale and layer.center and not (layer.synchronized or layer.renorm):
        graph.replace(name, FusedBatchNormalization)


def _affine(layer: Any) -> tuple[int, Floats, Floats] | None:
    """The axis, factors and offsets of a layer that multiplies and adds constants; None for any other."""
    if type(layer) is layers.Rescaling:
        return -1, np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if type(layer) is not layers.BatchNormalization:
        return None
    mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
    factor = (np.asarray(layer.gamma, np.float64) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return layer.axis, factor, (np.asarray(layer.beta, np.float64) if layer.center else 0.0) - mean * factor


def _fold_affine(graph: ModelGraph, name: str) -> None:
    """Deployment: a layer that multiplies and adds constants, into the linear layers before it."""
    layer, source = graph.layer(name), graph.source(name)
    if (affine := _affine(layer)) is None or source is None or name == FEATURES:
        return
    axis, factors, offsets = affine
    branches = _linear_layers(graph, source, name, axis % len(graph.input_shape(name)))
    if not branches or any(graph.layer(branch).compute_dtype != layer.compute_dtype for branch in branches):
        return
    weights = [_with_bias(graph, branch) for branch in branches]
    cuts = np.cumsum([len(bias) for *_, bias in weights])
    split = [np.split(np.broadcast_to(values, cuts[-1]), cuts[:-1]) for values in (factors, offsets)]
    for branch, (*kernels, kernel, bias), factor, offset in zip(branches, weights, *split, strict=True):
        axes = _OUTPUT_AXES[type(graph.layer(branch))]
        along = factor.reshape([n if i - kernel.ndim in axes else 1 for i, n in enumerate(kernel.shape)])
        graph.config(branch)["use_bias"] = True
        graph.set_weights(branch, [*kernels, kernel * along, bias * factor + offset])
    graph.drop(name, source)


def _linear_layers(graph: ModelGraph, name: str, user: str, axis: int) -> list[str]:
    """The linear layers whose outputs, concatenated along the axis, are what a layer gives to its only user."""
    layer, rank = graph.layer(name), len(graph.input_shape(user))
    if type(layer) is layers.Concatenate and layer.axis % rank == axis and graph.users(name) == [user]:
        branches = [_linear_layers(graph, source, name, axis) for source in graph.sources(name)]
        return [branch for found in branches for branch in found] if all(branches) else []
    if type(layer) not in _OUTPUT_AXES or not _is_linear(graph, name, user):
        return []
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    return [name] if channels == axis else []


def _is_linear(graph: ModelGraph, name: str, user: str) -> bool:
    """Whether a layer gives its one user what its plain kernel and bias make of its one input."""
    layer = graph.layer(name)
    altered = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
    alone = graph.users(name) == [user] and graph.source(name) is not None and name != FEATURES
    return alone and not altered and layer.activation is keras.activations.linear


def _with_bias(graph: ModelGraph, name: str) -> list[Floats]:
    """Kernels and, last, the bias, which is 0 if there is none."""
    weights = [np.asarray(value, np.float64) for value in graph.weights(name)]
    if graph.config(name)["use_bias"]:
        return weights
    axes = _OUTPUT_AXES[type(graph.layer(name))]
    return [*weights, np.zeros(int(np.prod([weights[-1].shape[axis] for axis in axes])))]


def _absorb_softmax(graph: ModelGraph, name: str) -> None:
    """Deployment: a softmax, into the dense layer before it, which takes its name."""
    layer, source = graph.layer(name), graph.source(name)
    if type(layer) is not layers.Softmax or source is None:
        return
    dense, last = graph.layer(source), len(graph.input_shape(name)) - 1
    if type(dense) is not layers.Dense or layer.axis not in (-1, last) or not _is_linear(graph, source, name):
        return
    if dense.compute_dtype == layer.compute_dtype:
        graph.config(source)["activation"] = "softmax"
        graph.drop(name, source)
        graph.rename(source, name)


def _convolve_channels(graph: ModelGraph, name: str) -> None:
    """Deployment: a dense layer of an image's channels is a convolution of 1 x 1, which XNNPACK takes."""
    layer = graph.layer(name)
    altered = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
    if type(layer) is not layers.Dense or len(graph.input_shape(name)) != 4 or altered:
        return
    kernel, *bias = graph.weights(name)
    config = graph.config(name)
    for key in config.keys() - {"name", "dtype", "use_bias", "activation"}:
        del config[key]
    graph.replace(name, layers.Conv2D, filters=layer.units, kernel_size=1, data_format="channels_last")
    graph.set_weights(name, [kernel[None, None], *bias])


# Applied one after the other, each to all layers.
_Rules = tuple[Callable[[ModelGraph, str], None], ...]
DEPLOYMENT_RULES: _Rules = (_merge_sum, _fold_affine, _absorb_softmax, _convolve_channels)
TRAINING_RULES: _Rules = (_fuse_normalization, _sum_kernels)


def _from_images(graph: ModelGraph) -> tuple[list[str], list[str], list[str]]:
    """Inputs of several channels and layers that treat these alike; the convolutions behind; other users."""
    inputs = [name for name in graph.names() if isinstance(graph.layer(name), layers.InputLayer)]
    alike = [name for name in inputs if graph.config(name)["batch_shape"][-1] != 1]
    first: list[str] = []
    others: list[str] = []
    for name in alike:
        for user in graph.users(name):
            layer, once = graph.layer(user), user != OUTPUT and graph.is_called_once(user)
            if once and isinstance(layer, layers.Normalization | layers.ZeroPadding2D):
                alike.append(user)
            elif once and type(layer) is layers.Conv2D and layer.groups == 1 and layer.data_format == "channels_last":
                first.append(user)
            else:
                others.append(user)
    return alike, first, others


def _use_first_channel(graph: ModelGraph) -> None:
    """Training: the first convolutions sum their kernels over the channels in each step."""
    alike, first, others = _from_images(graph)
    normalizations = [name for name in alike if isinstance(graph.layer(name), layers.Normalization)]
    if others or len(normalizations) != 1 or not _are_trainable(graph, first):
        return
    graph.replace(normalizations[0], FirstChannelNormalization)
    for name in first:
        graph.replace(name, FirstChannelConvolution, channels=graph.input_shape(name)[-1])


def _sum_channels(graph: ModelGraph) -> None:
    """Deployment: one channel in place of several equal ones; the first convolutions' kernels are summed over them."""
    alike, first, others = _from_images(graph)
    if others:
        received = others[0] or "an output"
        raise ModelError("A network must begin with convolutions of all channels to be made grey", received=received)
    for name in alike:
        layer, config = graph.layer(name), graph.config(name)
        if isinstance(layer, layers.InputLayer):
            config["batch_shape"] = [*config["batch_shape"][:-1], 1]
        elif isinstance(layer, layers.Normalization):
            config.update(axis=[], mean=_one(layer.mean, "mean"), variance=_one(layer.variance, "variance"))
            graph.set_weights(name, [])
    for name in first:
        kernel, *bias = graph.weights(name)
        graph.set_weights(name, [np.asarray(kernel, np.float64).sum(axis=2, keepdims=True), *bias])


def _one(values: Any, statistic: str) -> float:
    found = np.unique(values)
    if found.size > 1:
        received = f"{statistic} {found.tolist()}"
        raise ModelError("A network must standardise its channels alike to be made grey", received=received)
    return float(found[0])

"""From a trained network to its deploy form: the same answers from fewer layers.

What a trained network computes with constants is folded into the weights before it. All of it is exact algebra, done
in float64 and rounded once; what is left are the roundings of float32. The rules are those of ``RULES``:

- convolutions side by side whose sum is taken, as in the multi-scale stem, are one convolution with the sum of their
  zero-padded kernels (Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021);
- batch normalisation and rescaling behind a convolution or a dense layer, or behind several that are concatenated, are
  a factor and an offset for each channel (Jacob et al., arXiv:1712.05877, section 3.2);
- a softmax behind a dense layer is that layer's activation, under the softmax' name.

Where a rule does not fit - what is between is used twice, a layer is shared, the axis is another - all stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from btkeras.errors import ModelError
from btkeras.models.graph import Graph

Floats = NDArray[np.float64]

# What evaluation looks up by name.
_KEPT = frozenset({"features"})

# Layers that are linear in their input up to a bias -> axes of the last kernel that the output's channels run along.
_OUTPUT_AXES: Mapping[type, tuple[int, ...]] = MappingProxyType(
    {
        layers.Dense: (-1,),
        layers.Conv1D: (-1,),
        layers.Conv2D: (-1,),
        layers.Conv3D: (-1,),
        layers.SeparableConv1D: (-1,),
        layers.SeparableConv2D: (-1,),
        layers.DepthwiseConv1D: (-2, -1),
        layers.DepthwiseConv2D: (-2, -1),
        layers.Conv1DTranspose: (-2,),
        layers.Conv2DTranspose: (-2,),
        layers.Conv3DTranspose: (-2,),
    }
)
# What two convolutions of one input must have in common to be one.
_SAME = ("filters", "strides", "padding", "dilation_rate", "groups", "data_format")
# Layers that treat all channels alike, if their constants are.
_ANY_CHANNELS = (layers.Normalization, layers.ZeroPadding2D)


def reparameterize(model: keras.Model, *, grey: bool = False) -> keras.Model:
    """Makes a network's deploy form, which needs no classes but Keras' own.

    The layers that are left keep their names, and the maps between them their values, so features, outlier scores and
    activation maps are the same too. Training it further makes no sense: its normalisations are gone.

    Args:
        model: A functional network, from ``build_model`` say, with or without a temperature; it is not changed.
        grey: Whether the deploy form takes one channel, where the network takes several and gets them all equal.

    Raises:
        ModelError: If the network is not functional, or ``grey`` is asked of one that does not begin with
            convolutions, or standardises its channels differently.
    """
    graph = Graph(model)
    for rule in RULES:
        for name in graph.names():
            if graph.has(name):
                rule(graph, name)
    if grey:
        _make_grey(graph)
    return graph.build()


# --- Convolutions side by side ---


def _merge_sum(graph: Graph, name: str) -> None:
    """An addition of nothing but convolutions of the same input."""
    convolutions = graph.sources(name)
    is_sum = type(graph.layer(name)) is layers.Add and graph.is_called_once(name)
    if not is_sum or not _are_one(graph, convolutions, name):
        return
    weights = [_with_bias(graph, part) for part in convolutions]
    size = np.max([kernel.shape[:2] for kernel, _ in weights], axis=0)
    kept, *others = sorted(convolutions, key=lambda part: -graph.layer(part).kernel.shape[0])
    kernel = np.sum([_padded(kernel, size) for kernel, _ in weights], axis=0)
    graph.settings(kept).update(kernel_size=size.tolist(), use_bias=True)
    graph.set_weights(kept, [kernel, np.sum([bias for _, bias in weights], axis=0)])
    for part in others:
        graph.drop(part, kept)
    graph.drop(name, kept)


def _are_one(graph: Graph, names: list[str], user: str) -> bool:
    if not all(type(graph.layer(name)) is layers.Conv2D and _is_linear(graph, name, user) for name in names):
        return False
    settings = [graph.settings(name) for name in names]
    alike = all(one[key] == settings[0][key] for one in settings for key in _SAME)
    types = {graph.layer(name).compute_dtype for name in names}
    inputs = {tuple(graph.sources(name)) for name in names}
    # With "same" padding and no strides, kernels whose sizes differ by an even number have one middle.
    sizes = np.array([one["kernel_size"] for one in settings])
    centerd = bool(((sizes - sizes[0]) % 2 == 0).all()) and settings[0]["padding"] == "same"
    return alike and centerd and set(settings[0]["strides"]) == {1} and len(types) == len(inputs) == 1


def _padded(kernel: Floats, size: NDArray[np.integer]) -> Floats:
    borders = [((large - small) // 2,) * 2 for large, small in zip(size, kernel.shape[:2], strict=True)]
    return np.pad(kernel, [*borders, (0, 0), (0, 0)])


# --- Factors and offsets ---


def _normalization(layer: layers.BatchNormalization) -> tuple[int, Floats, Floats]:
    mean, variance = (np.asarray(value, np.float64) for value in (layer.moving_mean, layer.moving_variance))
    factor = (np.asarray(layer.gamma, np.float64) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    return layer.axis, factor, (np.asarray(layer.beta, np.float64) if layer.center else 0.0) - mean * factor


def _rescaling(layer: layers.Rescaling) -> tuple[int, Floats, Floats]:
    return -1, np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)


# Layers that multiply and add constants -> the axis of these, factors and offsets.
_AFFINE: Mapping[type, Callable[[Any], tuple[int, Floats, Floats]]] = MappingProxyType(
    {layers.BatchNormalization: _normalization, layers.Rescaling: _rescaling}
)


def _fold_affine(graph: Graph, name: str) -> None:
    """A layer that multiplies and adds constants, into the linear layers before it."""
    layer, source = graph.layer(name), graph.source(name)
    if type(layer) not in _AFFINE or source is None or name in _KEPT:
        return
    axis, factors, offsets = _AFFINE[type(layer)](layer)
    parts = _linear_parts(graph, source, name, axis % len(graph.input_shape(name)))
    weights = [_with_bias(graph, part) for part in parts]
    if not parts or any(graph.layer(part).compute_dtype != layer.compute_dtype for part in parts):
        return
    cuts = np.cumsum([len(bias) for *_, bias in weights])
    split = [np.split(np.broadcast_to(values, cuts[-1]), cuts[:-1]) for values in (factors, offsets)]
    for part, (*kernels, kernel, bias), factor, offset in zip(parts, weights, *split, strict=True):
        graph.settings(part)["use_bias"] = True
        scaled = kernel * _along(graph, part, kernel, factor)
        graph.set_weights(part, [*kernels, scaled, bias * factor + offset])
    graph.drop(name, source)


def _linear_parts(graph: Graph, name: str, user: str, axis: int) -> list[str]:
    """The linear layers whose outputs, one behind the other along the axis, are what a layer gives to its only user."""
    layer, rank = graph.layer(name), len(graph.input_shape(user))
    if type(layer) is layers.Concatenate and layer.axis % rank == axis and graph.users(name) == [user]:
        parts = [_linear_parts(graph, source, name, axis) for source in graph.sources(name)]
        return [part for found in parts for part in found] if all(parts) else []
    if type(layer) not in _OUTPUT_AXES or not _is_linear(graph, name, user):
        return []
    channels = 1 if getattr(layer, "data_format", None) == "channels_first" else rank - 1
    return [name] if channels == axis else []


def _along(graph: Graph, name: str, kernel: Floats, values: Floats) -> Floats:
    """One value a channel of the output, in a shape that multiplies the kernel."""
    axes = _OUTPUT_AXES[type(graph.layer(name))]
    return values.reshape([n if i - kernel.ndim in axes else 1 for i, n in enumerate(kernel.shape)])


def _is_linear(graph: Graph, name: str, user: str) -> bool:
    """Whether a layer gives its one user what its plain kernel and bias make of its one input."""
    layer = graph.layer(name)
    altered = getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None)
    alone = graph.users(name) == [user] and graph.source(name) is not None and name not in _KEPT
    return alone and not altered and layer.activation is keras.activations.linear


def _with_bias(graph: Graph, name: str) -> list[Floats]:
    """Kernels and, last, the bias, which is 0 if there is none."""
    weights = [np.asarray(value, np.float64) for value in graph.weights(name)]
    if graph.settings(name)["use_bias"]:
        return weights
    axes = _OUTPUT_AXES[type(graph.layer(name))]
    return [*weights, np.zeros(int(np.prod([weights[-1].shape[axis] for axis in axes])))]


# --- Softmax ---


def _absorb_softmax(graph: Graph, name: str) -> None:
    """A softmax, into the dense layer before it, which takes its name."""
    layer, source = graph.layer(name), graph.source(name)
    if type(layer) is not layers.Softmax or source is None:
        return
    dense, last = graph.layer(source), len(graph.input_shape(name)) - 1
    if type(dense) is not layers.Dense or layer.axis not in (-1, last) or not _is_linear(graph, source, name):
        return
    if dense.compute_dtype == layer.compute_dtype:
        graph.settings(source)["activation"] = "softmax"
        graph.drop(name, source)
        graph.rename(source, name)


# Applied one after the other, each to all layers.
RULES: tuple[Callable[[Graph, str], None], ...] = (_merge_sum, _fold_affine, _absorb_softmax)


# --- Grey ---


def _make_grey(graph: Graph) -> None:
    """One channel in place of several equal ones: each first convolution sums its kernel over them."""
    for name in graph.names():
        if not isinstance(graph.layer(name), layers.InputLayer):
            continue
        shape = graph.settings(name)["batch_shape"]
        if shape[-1] != 1:
            graph.settings(name)["batch_shape"] = [*shape[:-1], 1]
            for user in graph.users(name):
                _take_grey(graph, user)


def _take_grey(graph: Graph, name: str) -> None:
    layer = graph.layer(name)
    if isinstance(layer, _ANY_CHANNELS) and graph.is_called_once(name):
        if isinstance(layer, layers.Normalization):
            graph.settings(name).update(axis=[], **_constants(layer))
            graph.set_weights(name, [])
        for user in graph.users(name):
            _take_grey(graph, user)
    elif type(layer) is layers.Conv2D and layer.groups == 1 and layer.data_format == "channels_last":
        kernel, *bias = graph.weights(name)
        graph.set_weights(name, [np.asarray(kernel, np.float64).sum(axis=2, keepdims=True), *bias])
    else:
        raise ModelError(
            "A network must begin with convolutions of all channels to be made grey", received=name or "an output"
        )


def _constants(layer: layers.Normalization) -> dict[str, float]:
    constants = {"mean": np.unique(layer.mean), "variance": np.unique(layer.variance)}
    if any(values.size > 1 for values in constants.values()):
        raise ModelError(
            "A network must standardise its channels alike to be made grey",
            received=", ".join(f"{name} {values.tolist()}" for name, values in constants.items()),
        )
    return {name: float(values[0]) for name, values in constants.items()}

"""Several networks, or several views of an image, as one network that averages their probabilities.

Of networks: an ensemble (Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", NeurIPS 2017); of views: test-time augmentation. The networks are layers of the whole, which is saved,
calibrated, explained and exported as any network is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import keras
import numpy as np
from keras import KerasTensor, layers, ops

from btkeras.errors import ModelError

FEATURES = "features"
_AVERAGE = "average"
# The least mean probability, so that each has a logarithm.
_LEAST = 1e-12
# Of kernels.
_SCALES = (0.5, 2.0)
# Share of each side that is left out by a crop.
_MARGIN = 1 / 8
# Shares of a side that black margins add at both its ends: what is shown becomes 10 and 20 % smaller.
_ADDED = (1 / 20, 1 / 10)


def _flipped(images: KerasTensor) -> list[KerasTensor]:
    return [images, ops.flip(images, axis=2)]


def _cropped(images: KerasTensor) -> list[KerasTensor]:
    """The images, and their four corners enlarged."""
    height, width = images.shape[1:3]
    rows, columns = max(round(height * _MARGIN), 1), max(round(width * _MARGIN), 1)
    corners = [((top, rows - top), (left, columns - left)) for top in (0, rows) for left in (0, columns)]
    return [images, *(layers.Resizing(height, width)(layers.Cropping2D(corner)(images)) for corner in corners)]


def _scaled(images: KerasTensor) -> list[KerasTensor]:
    """The images, and smaller ones within black margins."""
    height, width = images.shape[1:3]
    margins = [(max(round(height * share), 1), max(round(width * share), 1)) for share in _ADDED]
    return [images, *(layers.Resizing(height, width)(layers.ZeroPadding2D(margin)(images)) for margin in margins)]


# What each makes of images.
VIEWS: Mapping[str, Callable[[KerasTensor], list[KerasTensor]]] = MappingProxyType(
    {"flip": _flipped, "crops": _cropped, "scales": _scaled}
)


def average(networks: Sequence[keras.Model], views: Sequence[str] = (), *, name: str = "ensemble") -> keras.Model:
    """Makes one network whose probabilities are the mean of several networks' and, of each, over several views.

    Its features are all networks' side by side, each the mean over the views. The networks keep their temperatures; the
    mean may get one of its own.

    Args:
        networks: From ``build_model``, with or without a temperature; of one input shape and as many classes.
        views: Keys of ``VIEWS``; each is applied to what the one before gives. None is the image as it is.
        name: The new network's.

    Raises:
        ModelError: If there is nothing to average, a view is not known, or the networks do not go together.
    """
    _check(networks, views)
    images = layers.Input(networks[0].input_shape[1:], name="images")
    seen = [images]
    for view in views:
        seen = [other for one in seen for other in VIEWS[view](one)]
    probabilities: list[KerasTensor] = []
    features: list[KerasTensor] = []
    for number, network in enumerate(networks, start=1):
        outputs = [network.output, network.get_layer(FEATURES).output]
        member = keras.Model(network.input, outputs, name=f"network_{number}")
        found = [member(view) for view in seen]
        probabilities += [first for first, _ in found]
        features.append(layers.Average(dtype="float32", name=f"features_{number}")([second for _, second in found]))
    mean = layers.Average(dtype="float32", name="mean_probabilities")(probabilities)
    logits = ops.log(ops.maximum(mean, _LEAST))
    joined = layers.Concatenate(dtype="float32", name=FEATURES)(features)
    whole = layers.Input(images.shape[1:], name="images")
    logits, _ = keras.Model(images, [logits, joined], name=_AVERAGE)(whole)
    return keras.Model(whole, layers.Softmax(dtype="float32", name="probabilities")(logits), name=name)


def average_weights(
    networks: Sequence[keras.Model], shares: Sequence[float], kernel_scale: float = 1.0, image_size: int | None = None
) -> keras.Model:
    """Makes one network whose weights are a weighted mean of several networks' weights.

    It takes the time of one. It predicts well only where the networks have one origin, say one is the other's
    fine-tuning: then it can know what both know (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022,
    arXiv:2109.01903). Batch statistics are averaged, too; a temperature is the first network's.

    Args:
        networks: Of one architecture, from ``build_model``.
        shares: Of each, 0 or above; divided by their sum.
        kernel_scale: All kernels before the features are multiplied by it, 0.5 to 2, and batch statistics stay. Another
            scanner's images may deviate more from these than the training's did; a scale below 1 brings them back. It
            is for networks with batch normalisation behind each convolution: without, the factors multiply.
        image_size: Side of its input, pixels; None for the networks' own. Structures of another size in the images are
            brought to the size that the kernels know (Touvron et al., "Fixing the train-test resolution discrepancy",
            NeurIPS 2019, arXiv:1906.06423).

    Raises:
        ModelError: If the networks differ, there is no share for each, or the scale is out of its range.
    """
    usable = min(shares, default=0) >= 0 and 0 < sum(shares) < float("inf")
    if len(networks) < 2 or len(shares) != len(networks) or not usable:
        raise ModelError(
            "Averaged weights need two networks, and a share of each: 0 or above, and not all 0",
            received=f"shares {', '.join(map(str, shares))}; networks: {len(networks)}",
            remedy="Give --share once for each RUN: --share 0.8 --share 0.2",
        )
    if not _SCALES[0] <= kernel_scale <= _SCALES[1]:
        rule = f"A scale of kernels must be a number from {_SCALES[0]:g} to {_SCALES[1]:g}"
        raise ModelError(rule, received=kernel_scale, remedy="Begin near 1: --kernel-scale 0.95")
    kinds = {(network.name, *(tuple(weight.shape) for weight in network.weights)) for network in networks}
    if len(kinds) > 1 or any(map(average_layer, networks)):
        names = ", ".join(network.name for network in networks)
        raise ModelError("Averaged weights must be of one network", received=f"{names}, of other inputs or layers")
    height, width, channels = networks[0].input_shape[1:]
    images = layers.Input((image_size or height, image_size or width, channels), name="images")
    whole = keras.models.clone_model(networks[0], input_tensors=images)
    weights = zip(*(network.get_weights() for network in networks), strict=True)
    parts = [share / sum(shares) for share in shares]
    whole.set_weights([sum(part * each for part, each in zip(parts, same, strict=True)) for same in weights])
    for weight in keras.Model(whole.input, whole.get_layer(FEATURES).output).weights:
        if weight.name.endswith("kernel"):
            weight.assign(kernel_scale * weight)
    return whole


def cosine_similarity(networks: Sequence[keras.Model]) -> float:
    """The least one between the first network's kernels and another's: about 0 of two random beginnings."""
    first, *others = (
        np.concatenate([np.ravel(weight) for weight in network.trainable_weights if len(weight.shape) > 1])
        for network in networks
    )
    return min(float(first @ other / (np.linalg.norm(first) * np.linalg.norm(other))) for other in others)


def _check(networks: Sequence[keras.Model], views: Sequence[str]) -> None:
    rule, received, remedy = "", "", ""
    if unknown := [view for view in views if view not in VIEWS]:
        rule, received = f"A view must be one of {', '.join(VIEWS)}", unknown[0]
    elif len(networks) + len(views) < 2:
        rule, received = "An average needs two networks, or views of one", f"{len(networks)} network"
        remedy = "Name another run, or a view: --tta flip"
    elif len(set(views)) < len(views):
        rule, received = "Views of an average must differ", ", ".join(views)
    elif any(map(average_layer, networks)):
        rule, received = "An average must be of single networks", "one that is an average already"
        remedy = "Name the runs that it is of, and views of these"
    elif len(shapes := {(network.input_shape, network.output_shape) for network in networks}) > 1:
        rule, received = "Averaged networks must take the same images and know as many classes", str(sorted(shapes))
    if rule:
        raise ModelError(rule, received=received, remedy=remedy)


def average_layer(model: keras.Model) -> keras.Model | None:
    """The layer that gives an average's logits and features; None of a network that is none."""
    return next((layer for layer in model.layers if isinstance(layer, keras.Model) and layer.name == _AVERAGE), None)


def members(model: keras.Model) -> list[keras.Model]:
    """The networks that an average is of, each with the outputs probabilities and features; none of another network."""
    layer = average_layer(model)
    return [each for each in layer.layers if isinstance(each, keras.Model)] if layer else []


def with_members(model: keras.Model, change: Callable[[keras.Model], keras.Model]) -> keras.Model:
    """The same average of its networks as ``change`` makes them."""
    return _replaced(model, lambda layer: _replaced(layer, change))


def _replaced(model: keras.Model, change: Callable[[keras.Model], keras.Model]) -> keras.Model:
    # Outside the networks, no layer has weights.
    return keras.models.clone_model(
        model,
        clone_function=lambda layer: (
            change(layer) if isinstance(layer, keras.Model) else type(layer).from_config(layer.get_config())
        ),
    )

"""The networks' blocks: functions of tensors, made of built-in Keras layers only.

Images are ``(batch, height, width, channels)``. Convolutions have no bias and are followed by batch
normalisation and ReLU unless said otherwise. Strided layers pad both sides by half a kernel, as PyTorch does (the
paper's framework) and Keras' "same" does not, so that weights mean the same in both.
"""

from __future__ import annotations

from keras import KerasTensor, layers, ops

# PyTorch's defaults (momentum 0.1 in its notation, epsilon 1e-5). With Keras' own (0.99, 1e-3) the moving statistics
# lag so far behind that validation accuracy means nothing for the first epochs.
BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5


def conv(x: KerasTensor, filters: int, kernel: int, *, stride: int = 1, name: str) -> KerasTensor:
    """Convolution without bias or normalisation, He-normal initialised."""
    return _conv_layer(filters, kernel, stride, name=name)(_padded(x, kernel, stride, name=name))


def grouped_conv(x: KerasTensor, filters: int, kernel: int, *, stride: int, groups: int, name: str) -> KerasTensor:
    """Convolution in groups of channels, otherwise as ``conv``.

    A convolution a group, side by side, and not ``Conv2D(groups=...)``: TensorFlow has no gradient of that on the CPU,
    and XLA's in its place took 14 s a step where this took 0.1 s (28 x 28 x 256, 32 groups, batch 8, two busy cores).
    """
    slices = ops.split(_padded(x, kernel, stride, name=name), groups, axis=-1)
    convolved = [
        _conv_layer(filters // groups, kernel, stride, name=f"{name}_group{number}")(part)
        for number, part in enumerate(slices, start=1)
    ]
    return layers.Concatenate(name=name)(convolved)


def _padded(x: KerasTensor, kernel: int, stride: int, *, name: str) -> KerasTensor:
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x) if stride > 1 and kernel > 1 else x


def _conv_layer(filters: int, kernel: int, stride: int, *, name: str) -> layers.Conv2D:
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


def batch_norm(x: KerasTensor, *, relu: bool = True, name: str) -> KerasTensor:
    """Batch normalisation, with ReLU behind it by default."""
    x = layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def conv_bn(x: KerasTensor, filters: int, kernel: int, *, stride: int = 1, relu: bool = True, name: str) -> KerasTensor:
    """Convolution, batch normalisation, and ReLU by default."""
    return batch_norm(conv(x, filters, kernel, stride=stride, name=name), relu=relu, name=name)


def max_pool(x: KerasTensor, *, name: str) -> KerasTensor:
    """3 x 3 maximum, stride 2. Zero padding is exact here: what comes in went through a ReLU."""
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name=name)(x)


def squeeze_excite(x: KerasTensor, *, reduction: int = 16, name: str) -> KerasTensor:
    """Channel attention (Hu et al. 2018, arXiv:1709.01507), two dense layers with bias (paper: module C)."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    gate = layers.Dense(
        channels // reduction, activation="relu", kernel_initializer="he_normal", name=f"{name}_reduce"
    )(gate)
    gate = layers.Dense(channels, activation="sigmoid", name=f"{name}_expand")(gate)
    return layers.Multiply(name=name)([x, gate])


def residual_block(x: KerasTensor, filters: int, *, stride: int = 1, attention: bool, name: str) -> KerasTensor:
    """ResNet's basic block (He et al. 2015); with ``attention``, squeeze-and-excitation stands before the addition."""
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv_bn(x, filters, 1, stride=stride, relu=False, name=f"{name}_shortcut")
    x = conv_bn(x, filters, 3, stride=stride, name=f"{name}_conv1")
    x = conv_bn(x, filters, 3, relu=False, name=f"{name}_conv2")
    if attention:
        x = squeeze_excite(x, name=f"{name}_se")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def inception_downsample(x: KerasTensor, *, name: str) -> KerasTensor:
    """Halves the size and doubles the channels in four branches of c/2 each (paper: module A, figure 4)."""
    half, quarter = x.shape[-1] // 2, x.shape[-1] // 4
    single = conv_bn(x, half, 3, stride=2, name=f"{name}_single")
    double = conv_bn(x, quarter, 1, name=f"{name}_double1")
    double = conv_bn(double, half, 3, stride=2, name=f"{name}_double2")
    triple = conv_bn(x, quarter, 1, name=f"{name}_triple1")
    triple = conv_bn(triple, quarter, 3, name=f"{name}_triple2")
    triple = conv_bn(triple, half, 3, stride=2, name=f"{name}_triple3")
    pooled = conv_bn(max_pool(x, name=f"{name}_pool"), half, 1, name=f"{name}_pooled")
    return layers.Concatenate(name=f"{name}_concat")([single, double, triple, pooled])


def bottleneck_block(x: KerasTensor, filters: int, width: int, *, stride: int, groups: int, name: str) -> KerasTensor:
    """ResNet's bottleneck: 1 x 1 to ``width``, 3 x 3 in ``groups`` groups, 1 x 1 to ``filters``; the 3 x 3 strides."""
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv_bn(x, filters, 1, stride=stride, relu=False, name=f"{name}_shortcut")
    x = conv_bn(x, width, 1, name=f"{name}_conv1")
    x = grouped_conv(x, width, 3, stride=stride, groups=groups, name=f"{name}_conv2")
    x = batch_norm(x, name=f"{name}_conv2")
    x = conv_bn(x, filters, 1, relu=False, name=f"{name}_conv3")
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=f"{name}_relu")(x)


def pooled_dropout(x: KerasTensor, rate: float) -> KerasTensor:
    """Global average pooling, then dropout: the vector ``features``."""
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    return layers.Dropout(rate, name="features")(x)


def plain_stem(x: KerasTensor) -> KerasTensor:
    """ResNet34's 7 x 7 convolution, stride 2, 64 channels."""
    return conv_bn(x, 64, 7, stride=2, name="stem_conv")


def multi_scale_stem(x: KerasTensor) -> KerasTensor:
    """Four kernel sizes side by side, added in pairs, then halved and concatenated to 64 channels (paper: module B).

    Nothing stands between a pair's convolutions and their sum, so that each pair is exactly one convolution with the
    sum of the zero-padded kernels.
    """
    # All pairs come before what halves them: a seed's weights follow the order of the layers.
    scales = (("stem_fine", (3, 5), 3), ("stem_coarse", (7, 11), 5))
    pairs = []
    for name, kernels, _ in scales:
        convolved = [conv(x, 32, kernel, name=f"{name}_conv{kernel}x{kernel}") for kernel in kernels]
        pairs.append(batch_norm(layers.Add(name=f"{name}_add")(convolved), name=name))
    halved = [
        conv_bn(pair, 32, kernel, stride=2, name=f"{name}_down")
        for pair, (name, _, kernel) in zip(pairs, scales, strict=True)
    ]
    return layers.Concatenate(name="stem_concat")(halved)

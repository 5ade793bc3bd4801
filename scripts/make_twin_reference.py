"""Writes ``tests/data/twin.npz``: what the five networks compute according to a second implementation, in PyTorch.

    python scripts/make_twin_reference.py [OUT]

Needs PyTorch and NumPy, neither Keras nor btkeras; takes about five seconds on one core. The networks are written
from the paper's description (Li et al., "Research on Brain Tumor Classification Method Based on Improved ResNet34
Network") in PyTorch's idiom, run in evaluation mode with the seeded weights of ``tests/twin_weights.py``, and
``tests/test_twin.py`` holds the Keras networks against the result. A change here changes the reference: give a reason
in the commit, and never "the test failed".

The file holds, per network and case: ``NETWORK/CASE/features`` (2, 512), the averaged last feature map;
``NETWORK/CASE/logits`` and ``NETWORK/CASE/probabilities`` (2, 4), all float32; ``NETWORK/CASE/trainable``, the number
of trainable parameters; and once ``seed``, ``fingerprint`` and the versions ``torch`` and ``numpy``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import twin_weights  # noqa: E402  (found through the line above)


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class ConvNormReLU(ConvNorm):
    """Convolution, batch normalisation, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class PlainStem(nn.Module):
    """ResNet34's 7 x 7 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(channels, 64, 7, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class KernelPair(nn.Module):
    """Two kernel sizes on the same input, added; then batch normalisation and ReLU."""

    def __init__(self, channels: int, small: int, large: int) -> None:
        super().__init__()
        for kernel in (small, large):
            conv = nn.Conv2d(channels, 32, kernel, padding=kernel // 2, bias=False)
            self.add_module(f"conv{kernel}x{kernel}", conv)
        self.bn = nn.BatchNorm2d(32, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        total = sum(conv(x) for conv in self.children() if isinstance(conv, nn.Conv2d))
        return self.bn(total).relu()


class MultiScaleStem(nn.Module):
    """The paper's module B."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fine = KernelPair(channels, 3, 5)
        self.coarse = KernelPair(channels, 7, 11)
        self.fine_down = ConvNormReLU(32, 32, 3, stride=2)
        self.coarse_down = ConvNormReLU(32, 32, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.fine_down(self.fine(x)), self.coarse_down(self.coarse(x))], dim=1)


class SqueezeExcite(nn.Module):
    """The paper's module C: channel attention with a reduction of 16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, channels // 16)
        self.expand = nn.Linear(channels // 16, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(self.reduce(x.mean(dim=(2, 3))).relu()).sigmoid()
        return x * gate[:, :, None, None]


class BasicBlock(nn.Module):
    """ResNet's basic block, its main path ending in attention where asked for."""

    def __init__(self, channels: int, filters: int, stride: int, attention: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormReLU(channels, filters, 3, stride)
        self.conv2 = ConvNorm(filters, filters, 3)
        self.se = SqueezeExcite(filters) if attention else nn.Identity()
        same = stride == 1 and channels == filters
        self.shortcut = nn.Identity() if same else ConvNorm(channels, filters, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.se(self.conv2(self.conv1(x))) + self.shortcut(x))


class InceptionDown(nn.Module):
    """The paper's module A: from c channels to 2c at half the size, in four branches."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.single = ConvNormReLU(c, c // 2, 3, stride=2)
        self.double1 = ConvNormReLU(c, c // 4, 1)
        self.double2 = ConvNormReLU(c // 4, c // 2, 3, stride=2)
        self.triple1 = ConvNormReLU(c, c // 4, 1)
        self.triple2 = ConvNormReLU(c // 4, c // 4, 3)
        self.triple3 = ConvNormReLU(c // 4, c // 2, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.pooled = ConvNormReLU(c, c // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        branches = (
            self.single(x),
            self.double2(self.double1(x)),
            self.triple3(self.triple2(self.triple1(x))),
            self.pooled(self.pool(x)),
        )
        return torch.cat(branches, dim=1)


class Network(nn.Module):
    """ResNet34 with the paper's modules: a (Inception-v2 downsampling), b (multi-scale stem), c (attention)."""

    def __init__(self, channels: int, *, a: bool = False, b: bool = False, c: bool = False) -> None:
        super().__init__()
        self.stem = MultiScaleStem(channels) if b else PlainStem(channels)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = nn.Sequential()
        width = 64
        for stage, depth in enumerate((3, 4, 6, 3), start=1):
            for block in range(1, depth + 1):
                halves = stage > 1 and block == 1
                filters = 2 * width if halves else width
                module = InceptionDown(width) if a and halves else BasicBlock(width, filters, 1 + halves, attention=c)
                self.stages.add_module(f"stage{stage}_block{block}", module)
                width = filters
        self.probabilities = nn.Linear(width, twin_weights.CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From standardised pixels (batch, channels, height, width) to features and logits."""
        features = self.stages(self.pool(self.stem(x))).mean(dim=(2, 3))
        return features, self.probabilities(features)


SWITCHES: dict[str, dict[str, bool]] = {
    "resnet34": {},
    "resnet34_inception": {"a": True},
    "resnet34_multiscale": {"b": True},
    "resnet34_se": {"c": True},
    "improved_resnet34": {"a": True, "b": True, "c": True},
}

# What a module's tensors are called in Keras.
KINDS = {
    nn.Conv2d: {"weight": "kernel"},
    nn.Linear: {"weight": "kernel", "bias": "bias"},
    nn.BatchNorm2d: {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
}


@torch.no_grad()
def set_seeded_weights(network: Network) -> None:
    """Fills every parameter and every statistic by the rule of ``twin_weights``."""
    for name, module in network.named_modules():
        layer = name.removeprefix("stages.").removesuffix(".conv").replace(".", "_")
        for attribute, kind in KINDS.get(type(module), {}).items():
            tensor = getattr(module, attribute)
            order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim]
            values = twin_weights.seeded(f"{layer}/{kind}", [tensor.shape[axis] for axis in order])
            tensor.copy_(torch.from_numpy(values.transpose(np.argsort(order))))


def standardize(case: twin_weights.Case) -> Tensor:
    """The case's images, (x - mean) / sqrt(variance), channels first."""
    pixels = torch.from_numpy(case.images).permute(0, 3, 1, 2)
    mean, variance = (torch.as_tensor(value).reshape(1, -1, 1, 1) for value in (case.mean, case.variance))
    return (pixels - mean) / variance.sqrt()


@torch.no_grad()
def run(name: str, case: twin_weights.Case) -> dict[str, NDArray]:
    """One network on one case."""
    network = Network(case.shape[-1], **SWITCHES[name]).eval()
    set_seeded_weights(network)
    features, logits = network(standardize(case))
    return {
        "features": features.numpy(),
        "logits": logits.numpy(),
        "probabilities": logits.softmax(dim=1).numpy(),
        "trainable": np.array(sum(parameter.numel() for parameter in network.parameters())),
    }


def main(out: str = str(ROOT / "tests" / "data" / "twin.npz")) -> None:
    """Writes the reference and prints each network's number of trainable parameters."""
    arrays = {
        "seed": np.array(twin_weights.SEED),
        "fingerprint": twin_weights.fingerprint(),
        "torch": np.array(torch.__version__),
        "numpy": np.array(np.__version__),
    }
    for name in twin_weights.NETWORKS:
        for case in twin_weights.CASES:
            results = run(name, case)
            arrays.update({f"{name}/{case.name}/{key}": value for key, value in results.items()})
            print(f"{name}, {case.name}: {results['trainable']:,} trainable parameters")
    np.savez_compressed(out, **arrays)
    print(f"{out}: {Path(out).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])

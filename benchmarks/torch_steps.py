"""Training steps of PyTorch's twin of a network, and the images that all ways to train get.

Without TensorFlow: its libraries and those of PyTorch's compiler for GPUs do not go into one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
import torch

from btkeras.config import OptimizerConfig
from scripts import make_twin_reference as twin

Step = Callable[[], SupportsFloat]

# Of standardised images; PyTorch's twin gets them standardised, Keras' networks do it themselves.
MEAN, VARIANCE = 50.0, 2500.0


@dataclass(frozen=True)
class Case:
    """Attributes:
    network: A name of ``make_twin_reference.SWITCHES``.
    size: Side of the images.
    channels: 1 or 3.
    batch: Images a step.
    """

    network: str
    size: int
    channels: int
    batch: int

    def pixels(self) -> np.ndarray:
        """Grey images, ``[batch, size, size, channels]`` float32 in 0..255, all channels equal."""
        grey = np.random.default_rng(0).integers(0, 256, (self.batch, self.size, self.size, 1))
        return np.repeat(grey, self.channels, axis=-1).astype(np.float32)

    def labels(self) -> np.ndarray:
        """Class indices ``[batch]``."""
        return np.arange(self.batch) % twin.twin_weights.CLASSES


def torch_step(case: Case, precision: str, *, compiled: bool, device: str = "cpu") -> Step:
    """PyTorch's usual step: channels last, autocast, the fused Adam; the forward pass and the loss may be compiled.

    On a GPU it may end before the loss is there.
    """
    network = twin.Network(case.channels, **twin.SWITCHES[case.network]).train()
    twin.set_seeded_weights(network)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), OptimizerConfig().learning_rate, eps=1e-7, fused=True)
    images = torch.from_numpy((case.pixels() - MEAN) / VARIANCE**0.5).permute(0, 3, 1, 2)
    images = images.to(device, memory_format=torch.channels_last)
    targets = torch.from_numpy(case.labels()).to(device)

    def loss(images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(images)[1]
        return torch.nn.functional.cross_entropy(logits.float(), targets)

    forward = torch.compile(loss) if compiled else loss

    def step() -> SupportsFloat:
        optimizer.zero_grad(set_to_none=True)
        value = forward(images, targets)
        value.backward()
        optimizer.step()
        return value.detach()

    return step

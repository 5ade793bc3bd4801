"""PyTorch: the twin of ``scripts/make_twin_reference.py`` with the trained network's weights, channels last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.inference.constants import MEAN, VARIANCE
from btkeras.machine import threads
from scripts.make_twin_reference import KINDS, SWITCHES, Network

Call = Callable[[np.ndarray], np.ndarray]


class Classifier(nn.Module):
    """From pixels in 0..255, channels first, to probabilities."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        _, logits = self.network((pixels - MEAN) / VARIANCE**0.5)
        return logits.float().softmax(dim=1)


def load(
    folder: str, network: str, compiled: bool = False, frozen: bool = False, cast: str = ""
) -> tuple[Call, dict[str, Any]]:
    """The network, ready to predict.

    Args:
        folder: Where its weights are.
        network: Its name.
        compiled: Whether by torch.compile, with inductor.
        frozen: Whether inductor may take the weights for constants, and so fold the normalisations into them.
        cast: ``model`` for weights in bfloat16, ``autocast`` for bfloat16 where PyTorch thinks that it is right, or "".
    """
    torch.set_num_threads(threads())
    model: Any = Classifier(_with_weights(Network(3, **SWITCHES[network]), f"{folder}/weights.npz"))
    model = model.eval().to(memory_format=torch.channels_last)
    kind = torch.bfloat16 if cast == "model" else torch.float32
    model = model.to(kind)
    if compiled:
        torch._inductor.config.freezing = frozen
        # Anew for each number of images, which is its fastest.
        model = torch.compile(model, dynamic=False)

    def call(images: np.ndarray) -> np.ndarray:
        with ExitStack() as stack:
            # Freezing refuses inference mode.
            stack.enter_context(torch.no_grad() if compiled else torch.inference_mode())
            if cast == "autocast":
                stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
            # Pixels lie with their channels last already.
            return model(torch.from_numpy(images).permute(0, 3, 1, 2).to(kind)).numpy()

    return call, {}


def matrices(precision: str, side: int) -> tuple[Call, dict[str, Any]]:
    """The product of two large matrices."""
    torch.set_num_threads(1)
    values = torch.randn(side, side).to(getattr(torch, precision))
    return lambda _: (values @ values)[0, 0].float().numpy(), {}


@torch.no_grad()
def _with_weights(network: Network, file: str) -> Network:
    weights = np.load(file)
    for name, module in network.named_modules():
        layer = name.removeprefix("stages.").removesuffix(".conv").replace(".", "_")
        for attribute, kind in KINDS.get(type(module), {}).items():
            values = weights[f"{layer}/{kind}"]
            order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[values.ndim]
            getattr(module, attribute).copy_(torch.from_numpy(np.ascontiguousarray(values.transpose(order))))
    return network

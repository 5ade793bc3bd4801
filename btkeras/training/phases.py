"""The parts of a training that differ in what learns or in what is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from btkeras.config import ExperimentConfig


@dataclass(frozen=True)
class Phase:
    """Attributes:
    epochs: Which epochs, counted from 0.
    backbone_learns: Whether all layers learn, or the head alone.
    refines: Whether pictures are changed less, as ``refine`` says.
    """

    epochs: range
    backbone_learns: bool = True
    refines: bool = False


def phases(config: ExperimentConfig) -> list[Phase]:
    """The phases of a training in their order; together they are all of its epochs."""
    epochs = config.train.epochs
    frozen = min(config.model.frozen_epochs, epochs)
    refining = max(epochs - config.refine.epochs, 0)
    edges = sorted({0, frozen, refining, epochs})
    return [
        Phase(range(first, last), backbone_learns=first >= frozen, refines=first >= refining)
        for first, last in pairwise(edges)
    ]


def refined(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration as it is while refining; decoys are to exchanged tumours as before."""
    refine, augment = config.refine, config.augment
    decoys = augment.tumour_decoys * refine.tumour_exchange / augment.tumour_exchange if augment.tumour_exchange else 0
    return replace(
        config,
        augment=replace(augment, tumour_exchange=refine.tumour_exchange, tumour_decoys=decoys),
        appearance=replace(config.appearance, part=refine.appearance),
    )

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
    is_cooldown: Whether images are changed less, as ``cooldown`` says.
    """

    epochs: range
    backbone_learns: bool = True
    is_cooldown: bool = False


def phases(config: ExperimentConfig) -> list[Phase]:
    """The phases of a training in their order; together they are all of its epochs."""
    epochs = config.train.epochs
    frozen = min(config.model.frozen_epochs, epochs)
    refining = max(epochs - config.cooldown.epochs, 0)
    edges = sorted({0, frozen, refining, epochs})
    return [
        Phase(range(first, last), backbone_learns=first >= frozen, is_cooldown=first >= refining)
        for first, last in pairwise(edges)
    ]


def cooldown_config(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration as it is while refining; decoys are to exchanged tumours as before."""
    cooldown, augment = config.cooldown, config.augment
    decoys = augment.background_cutmix * cooldown.lesion_cutmix / augment.lesion_cutmix if augment.lesion_cutmix else 0
    return replace(
        config,
        augment=replace(augment, lesion_cutmix=cooldown.lesion_cutmix, background_cutmix=decoys),
        intensity=replace(config.intensity, probability=cooldown.intensity),
    )

"""The phases of a training: what learns when, and on what images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btkeras.config import AugmentConfig, CooldownConfig, ExperimentConfig, IntensityConfig, ModelConfig, TrainConfig
from btkeras.config_io import load_config
from btkeras.errors import ConfigError
from btkeras.training.optimizers import cooldown_config, phases


@given(st.lists(st.integers(0, 30), min_size=3, max_size=3))
def test_each_epoch_is_in_one_phase(drawn: list[int]) -> None:
    frozen, refining, epochs = (*drawn[:2], max(*drawn, 1))
    config = ExperimentConfig(
        model=ModelConfig(frozen_epochs=frozen), cooldown=CooldownConfig(refining), train=TrainConfig(epochs=epochs)
    )
    found = phases(config)
    assert [epoch for phase in found for epoch in phase.epochs] == list(range(epochs))
    for phase in found:
        assert all((epoch >= frozen) == phase.backbone_learns for epoch in phase.epochs)
        assert all((epoch >= epochs - refining) == phase.is_cooldown for epoch in phase.epochs)


def test_refining_changes_images_less() -> None:
    config = load_config(
        None,
        (
            "intensity.noise=0.1",
            "augment.lesion_cutmix=0.4",
            "cooldown.epochs=2",
            "cooldown.lesion_cutmix=0.1",
            "cooldown.intensity=0.25",
        ),
    )
    changed = cooldown_config(config)
    assert (changed.intensity.probability, changed.intensity.noise) == (0.25, 0.1)
    assert (changed.augment.lesion_cutmix, changed.augment.crop) == (pytest.approx(0.1), config.augment.crop)
    assert changed.optimizer == config.optimizer


def test_refining_cannot_change_more() -> None:
    with pytest.raises(ConfigError, match=r"cooldown\.intensity"):
        ExperimentConfig(intensity=IntensityConfig(0.1), cooldown=CooldownConfig(1, intensity=0.2))


def test_no_image_gets_two_patches() -> None:
    AugmentConfig(lesion_cutmix=0.5, lesion_removal=0.25, background_cutmix=0.25)
    with pytest.raises(ConfigError, match=r"augment\.background_cutmix must be between 0 and 0.25. Received: 0.5"):
        AugmentConfig(lesion_cutmix=0.5, lesion_removal=0.25, background_cutmix=0.5)


@pytest.mark.parametrize("key", ["model.frozen_epochs", "cooldown.epochs"])
def test_a_phase_is_no_longer_than_the_training(key: str) -> None:
    load_config(None, ("train.epochs=3", f"{key}=3"))
    with pytest.raises(ConfigError, match=rf"{key} must not be above train.epochs, which is 3. Received: 4"):
        load_config(None, ("train.epochs=3", f"{key}=4"))

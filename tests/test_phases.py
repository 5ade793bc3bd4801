"""The phases of a training: what learns when, and on what images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btkeras.config import AugmentConfig, CooldownConfig, ExperimentConfig, ModelConfig, TrainConfig
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
            "augment.lesion_cutmix=0.5",
            "augment.background_cutmix=0.3",
            "intensity.noise=0.1",
            "cooldown.epochs=2",
            "cooldown.intensity=0.25",
            "cooldown.lesion_cutmix=0.2",
        ),
    )
    changed = cooldown_config(config)
    assert (changed.augment.lesion_cutmix, changed.intensity.probability) == (0.2, 0.25)
    assert changed.augment.background_cutmix == pytest.approx(0.12)
    assert changed.intensity.noise == 0.1 and changed.optimizer == config.optimizer


def test_refining_cannot_change_more() -> None:
    with pytest.raises(ConfigError, match=r"cooldown\.lesion_cutmix"):
        ExperimentConfig(augment=AugmentConfig(lesion_cutmix=0.1), cooldown=CooldownConfig(1, lesion_cutmix=0.2))
    with pytest.raises(ConfigError, match=r"augment\.background_cutmix"):
        AugmentConfig(background_cutmix=0.1)


@pytest.mark.parametrize("key", ["model.frozen_epochs", "cooldown.epochs"])
def test_a_phase_is_no_longer_than_the_training(key: str) -> None:
    load_config(None, ("train.epochs=3", f"{key}=3"))
    with pytest.raises(ConfigError, match=rf"{key} must not be above train.epochs, which is 3. Received: 4"):
        load_config(None, ("train.epochs=3", f"{key}=4"))

"""The phases of a training: what learns when, and on what pictures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btkeras.config import AugmentConfig, CooldownConfig, ExperimentConfig, ModelConfig, TrainConfig
from btkeras.config_io import load_config
from btkeras.errors import ConfigError
from btkeras.training.phases import phases, refined


@given(epochs=st.integers(1, 30), frozen=st.integers(0, 40), refining=st.integers(0, 40))
def test_each_epoch_is_in_one_phase(epochs: int, frozen: int, refining: int) -> None:
    config = ExperimentConfig(
        model=ModelConfig(frozen_epochs=frozen), refine=CooldownConfig(refining), train=TrainConfig(epochs=epochs)
    )
    found = phases(config)
    assert [epoch for phase in found for epoch in phase.epochs] == list(range(epochs))
    for phase in found:
        assert all((epoch >= frozen) == phase.backbone_learns for epoch in phase.epochs)
        assert all((epoch >= epochs - refining) == phase.refines for epoch in phase.epochs)


def test_refining_changes_pictures_less() -> None:
    config = load_config(
        None,
        (
            "augment.tumour_exchange=0.5",
            "augment.tumour_decoys=0.3",
            "appearance.noise=0.1",
            "refine.epochs=2",
            "refine.appearance=0.25",
            "refine.tumour_exchange=0.2",
        ),
    )
    changed = refined(config)
    assert (changed.augment.tumour_exchange, changed.appearance.part) == (0.2, 0.25)
    assert changed.augment.tumour_decoys == pytest.approx(0.12)
    assert changed.appearance.noise == 0.1 and changed.optimizer == config.optimizer


def test_refining_cannot_change_more() -> None:
    with pytest.raises(ConfigError, match=r"refine\.tumour_exchange"):
        ExperimentConfig(augment=AugmentConfig(tumour_exchange=0.1), refine=CooldownConfig(1, tumour_exchange=0.2))
    with pytest.raises(ConfigError, match=r"augment\.tumour_decoys"):
        AugmentConfig(tumour_decoys=0.1)

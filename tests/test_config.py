"""Settings: the paper's defaults, YAML, ``--set``, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from btkeras import config as settings_of
from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, config_from_dict, config_to_dict, dump_config, load_config
from btkeras.errors import ConfigError

SECTIONS = {field.name: type(getattr(ExperimentConfig(), field.name)) for field in dataclasses.fields(ExperimentConfig)}


def fractions(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


CONFIGS = st.builds(
    ExperimentConfig,
    st.builds(settings_of.ModelConfig, st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
    st.builds(
        settings_of.DataConfig,
        image_size=st.integers(32, 2048),
        channels=st.sampled_from([1, 3]),
        harmonize=st.booleans(),
        group_by=st.sampled_from(settings_of.GROUPINGS),
        test_fraction=fractions(0.01, 0.9),
        validation_fraction=fractions(0.01, 0.9),
        split_seed=st.integers(0, 2**32 - 1),
        cache=st.sampled_from(settings_of.CACHES),
    ),
    st.builds(
        settings_of.AugmentConfig,
        st.tuples(fractions(0.1, 1), fractions(1, 2)),
        st.booleans(),
        st.booleans(),
        fractions(0, 1),
        fractions(0, 180),
        fractions(0, 1),
    ),
    st.builds(settings_of.IntensityConfig, *[fractions(0, 1)] * len(dataclasses.fields(settings_of.IntensityConfig))),
    st.builds(settings_of.CooldownConfig, st.integers(0, 10)),
    st.builds(
        settings_of.OptimizerConfig,
        st.sampled_from(settings_of.OPTIMIZERS),
        fractions(1e-12, 1e6),
        fractions(0, 1),
        fractions(0, 0.9999),
        fractions(0, 0.99999),
    ),
    st.builds(
        settings_of.ScheduleConfig,
        st.sampled_from(settings_of.SCHEDULES),
        fractions(0, 1e5),
        fractions(1e-9, 1e5),
        fractions(0, 1),
        fractions(0, 1),
    ),
    st.builds(
        settings_of.TrainConfig,
        st.integers(10, 100_000),
        st.integers(1, 65_536),
        st.integers(0, 2**32 - 1),
        st.sampled_from(settings_of.PRECISIONS),
        st.booleans(),
        fractions(0, 0.9),
        st.sampled_from(settings_of.MONITORS),
        st.integers(0, 1000),
        st.booleans(),
    ),
    st.builds(settings_of.PhantomConfig, st.integers(4, 10**6), difficulty=fractions(0, 2)),
)


def rejection(tree: dict[str, Any] | None = None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides) if tree is None else config_from_dict(tree)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "Received: " in message
    return message


def test_the_defaults_are_the_papers_protocol() -> None:
    config = ExperimentConfig()
    assert config.model.name == "improved_resnet34"
    assert (config.data.image_size, config.data.channels) == (224, 3)
    assert (config.data.test_fraction, config.data.validation_fraction) == (0.2, 0.2)
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-3)
    assert (config.schedule.name, config.schedule.step_factor, config.schedule.step_epochs) == ("step", 0.1, 100)
    assert (config.train.epochs, config.train.batch_size) == (300, 64)
    assert config.augment.horizontal_flip and config.augment.vertical_flip
    assert config.augment.brightness > 0 and config.augment.crop[0] < 1


@settings(max_examples=25, derandomize=True)
@given(CONFIGS)
def test_what_is_written_is_read_back(config: ExperimentConfig) -> None:
    assert config_from_dict(yaml.safe_load(dump_config(config))) == config


def test_a_written_file_loads_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(dump_config(ExperimentConfig()))
    assert load_config(tmp_path / "config.yaml") == load_config() == ExperimentConfig()


def test_every_field_is_written() -> None:
    written = {section: sorted(keys) for section, keys in config_to_dict(ExperimentConfig()).items()}
    assert written == {
        name: sorted(field.name for field in dataclasses.fields(kind)) for name, kind in SECTIONS.items()
    }


def test_every_field_is_explained() -> None:
    for kind in SECTIONS.values():
        for field in dataclasses.fields(kind):
            assert f"{field.name}: " in (kind.__doc__ or "")


@pytest.mark.parametrize("text", ["", "# nothing\n", "train:\n", "train:\n  # epochs: 3\n", "train: {}\n"])
def test_what_is_left_out_keeps_its_default(tmp_path: Path, text: str) -> None:
    (tmp_path / "some.yaml").write_text(text)
    assert load_config(tmp_path / "some.yaml") == ExperimentConfig()


@pytest.mark.parametrize(
    ("tree", "received", "hint"),
    [
        ({"trian": {}}, "'trian'", "'train'"),
        ({"train": {"epoch": 3}}, "'epoch'", "'epochs'"),
        ({"train": {"batchsize": 3}}, "'batchsize'", "'batch_size'"),
        ({"optimizer": {"lr": 0.1}}, "'lr'", "Known are name, learning_rate"),
        ({"zzzz": 1}, "'zzzz'", "Known are model, data"),
        ({1: {}}, "'1'", "Known are model, data"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(tree: dict[str, Any], received: str, hint: str) -> None:
    message = rejection(tree)
    assert "must only have known keys" in message
    assert f"Received: {received}" in message
    assert hint in message


@pytest.mark.parametrize(
    ("section", "key", "value", "kind"),
    [
        ("train", "epochs", "ten", "int"),
        ("train", "epochs", 3.0, "int"),
        ("train", "epochs", True, "int"),
        ("train", "epochs", None, "int"),
        ("train", "jit_compile", 1, "bool"),
        ("train", "jit_compile", "yes", "bool"),
        ("optimizer", "learning_rate", "fast", "float"),
        ("optimizer", "learning_rate", True, "float"),
        ("optimizer", "learning_rate", [1e-3], "float"),
        ("optimizer", "learning_rate", 10**400, "float"),
        ("optimizer", "name", 3, "str"),
        ("augment", "crop", [0.8, "wide"], "float"),
    ],
)
def test_a_wrong_type_is_refused(section: str, key: str, value: object, kind: str) -> None:
    message = rejection({section: {key: value}})
    assert f"{section}.{key} must be of type {kind}" in message
    assert repr(value[1] if isinstance(value, list) and len(value) > 1 else value) in message


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "image_size", 31),
        ("data", "image_size", 2049),
        ("data", "channels", 4),
        ("data", "test_fraction", 0.0),
        ("data", "validation_fraction", 1.0),
        ("data", "split_seed", -1),
        ("data", "cache", "ram"),
        ("augment", "crop", [0.5, 0.9]),
        ("augment", "crop", [1.1, 1.2]),
        ("augment", "crop", [0.0, 1.0]),
        ("augment", "crop", [0.8, float("nan")]),
        ("augment", "brightness", -0.1),
        ("optimizer", "name", "adagrad"),
        ("optimizer", "name", ""),
        ("optimizer", "learning_rate", 0),
        ("optimizer", "learning_rate", -1e-3),
        ("optimizer", "learning_rate", float("nan")),
        ("optimizer", "learning_rate", float("inf")),
        ("optimizer", "momentum", 1.0),
        ("optimizer", "ema", 1.0),
        ("optimizer", "weight_decay", -0.1),
        ("schedule", "name", "exponential"),
        ("schedule", "warmup_epochs", -1),
        ("schedule", "warmup_epochs", float("inf")),
        ("schedule", "step_epochs", 0),
        ("schedule", "step_factor", 2),
        ("schedule", "final_fraction", 2),
        ("train", "epochs", 0),
        ("train", "batch_size", 0),
        ("train", "seed", -1),
        ("train", "seed", 2**32),
        ("train", "precision", "float16"),
        ("train", "label_smoothing", 1.0),
        ("train", "monitor", "accuracy"),
        ("train", "early_stopping", -1),
        ("phantom", "patients", 3),
        ("phantom", "slices", 0),
        ("phantom", "image_size", 47),
        ("phantom", "seed", -1),
        ("phantom", "difficulty", 2.1),
    ],
)
def test_a_value_out_of_range_is_refused(section: str, key: str, value: object) -> None:
    message = rejection({section: {key: value}})
    assert message.startswith(f"{section}.{key} must ")


@pytest.mark.parametrize("value", [[0.8], [0.8, 1.0, 1.2], 0.8, "0.8, 1.0", {"low": 0.8}])
def test_a_range_is_a_list_of_two(value: object) -> None:
    assert f"augment.crop must be a list of 2. Received: {value!r}" in rejection({"augment": {"crop": value}})


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("0.01", 0.01), ("2", 2.0), ("5E-4", 5e-4), ("1.0e+1", 10)]
)
def test_numbers_without_a_point_are_floats_where_floats_are_wanted(text: str, value: float) -> None:
    rate = load_config(None, [f"optimizer.learning_rate={text}"]).optimizer.learning_rate
    assert rate == value
    assert type(rate) is float


def test_set_changes_one_key_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("train:\n  epochs: 5\n  batch_size: 8\n")
    config = load_config(path, ["train.epochs=7", " train.seed =3", "augment.crop=[0.9, 1.1]", "data.cache=none"])
    assert (config.train.epochs, config.train.batch_size, config.train.seed) == (7, 8, 3)
    assert config.augment.crop == (0.9, 1.1)
    assert config.data.cache == "none"


def test_the_last_set_wins_and_an_empty_section_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("train:\n")
    assert load_config(tmp_path / "some.yaml", ["train.epochs=7", "train.epochs=8"]).train.epochs == 8


@pytest.mark.parametrize("override", ["", "train.epochs", "epochs=3", "a.b.c=3", "=3", ".=3"])
def test_set_without_section_key_and_value_is_refused(override: str) -> None:
    message = rejection(None, override)
    assert repr(override) in message or "known keys" in message


@pytest.mark.parametrize("value", ["[1", "{", "2026-99-99", "a: b: c"])
def test_set_with_broken_yaml_is_refused(value: str) -> None:
    assert "The value of --set must be YAML" in rejection(None, f"train.epochs={value}")


def test_set_on_what_is_no_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("train: 3\n")
    with pytest.raises(ConfigError, match=r"train must be a section\. Received: 3"):
        load_config(tmp_path / "some.yaml", ["train.epochs=3"])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"- train\n", "must hold sections"),
        (b"train\n", "must hold sections"),
        (b"train: [\n", "must be YAML"),
        (b"train: \xff\n", "must be YAML"),
        (b"train:\n  epochs: 2026-99-99\n", "must be YAML"),
        (b"train: !!python/object:os.system {}\n", "must be YAML"),
        (b"train: 3\n", "must be a section"),
        (b"train: [epochs]\n", "must be a section"),
        (b"train:\n  epochs: 3\ndata: {}\ntrain:\n  seed: 1\n", "key 'train' is there twice"),
        (b"train:\n  epochs: 3\n  epochs: 4\n", "key 'epochs' is there twice"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "some.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rule) as caught:
        load_config(tmp_path / "some.yaml")
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a readable file\. Received: .*directory"):
        load_config(tmp_path / name)


RENAMED = (
    ("data.harmonise=true", "data.harmonise", "data.harmonize"),
    ("data.by=patient", "data.by", "data.group_by"),
    ("data.by=neighbours", "data.by=neighbours", "data.group_by=series"),
    ("data.group_by=cvind", "data.group_by=cvind", "data.group_by=official"),
    ("augment.stretch=0.2", "augment.stretch", "augment.aspect_ratio"),
    ("augment.tumour_exchange=0.1", "augment.tumour_exchange", "augment.lesion_cutmix"),
    ("augment.tumour_decoys=0.1", "augment.tumour_decoys", "augment.background_cutmix"),
    ("augment.exchanged_classes=[glioma]", "augment.exchanged_classes", "augment.cutmix_classes"),
    ("appearance.gamma=1", "appearance.gamma", "intensity.gamma"),
    ("appearance.part=0.5", "appearance.part", "intensity.probability"),
    ("appearance.tone=0.5", "appearance.tone", "intensity.curve"),
    ("refine.epochs=2", "refine.epochs", "cooldown.epochs"),
    ("refine.appearance=0.1", "refine.appearance", "cooldown.intensity"),
    ("refine.tumour_exchange=0.1", "refine.tumour_exchange", "cooldown.lesion_cutmix"),
    ("cv.changes={vgg16: [train.epochs=1]}", "cv.changes", "cv.overrides"),
)


@pytest.mark.parametrize(("override", "old", "new"), RENAMED)
def test_a_name_of_an_older_version_is_refused_with_the_new_one(override: str, old: str, new: str) -> None:
    message = rejection(None, override)
    assert message.startswith("A configuration must have the current names. Received: ")
    assert f"`{old}` was renamed to `{new}`" in message


def test_all_old_names_of_a_file_are_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data:\n  by: patient\nrefine:\nappearance: {blur: 1.0}\n")
    with pytest.raises(ConfigError, match=r"data\.by.*appearance\.blur.*refine.*appearance") as caught:
        load_config(tmp_path / "config.yaml")
    for pair in ("`data.by` was renamed to `data.group_by`", "`refine` was renamed to `cooldown`"):
        assert pair in str(caught.value)


def test_changed_keys_are_named_with_their_section() -> None:
    new = load_config(None, ["train.epochs=3", "augment.crop=[0.9, 1.0]"])
    assert changed_keys(ExperimentConfig(), new) == ["augment.crop", "train.epochs"]
    assert changed_keys(new, new) == []


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExperimentConfig().train.epochs = 3  # type: ignore[misc]

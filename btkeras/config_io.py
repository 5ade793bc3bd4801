"""Configurations as YAML: reading, ``--set key=value``, writing."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from btkeras.config import ExperimentConfig
from btkeras.errors import ConfigError

# Names of older versions, and the current ones.
_RENAMED = {
    "appearance": "intensity",
    "appearance.part": "intensity.probability",
    "appearance.tone": "intensity.curve",
    "augment.exchanged_classes": "augment.cutmix_classes",
    "augment.stretch": "augment.aspect_ratio",
    "augment.tumour_decoys": "augment.background_cutmix",
    "augment.tumour_exchange": "augment.lesion_cutmix",
    "cv.changes": "cv.overrides",
    "data.by": "data.group_by",
    "data.harmonise": "data.harmonize",
    "refine": "cooldown",
    "refine.appearance": "cooldown.intensity",
    "refine.tumour_exchange": "cooldown.lesion_cutmix",
}
_RENAMED_VALUES = {"data.group_by": {"neighbours": "series", "cvind": "official"}}


class _Loader(yaml.SafeLoader):
    """Refuses a repeated key, of which YAML would silently drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            raise yaml.YAMLError(f"the key {repeated[0]!r} is there twice {node.start_mark}")
        return super().construct_mapping(node, deep)


def load_config(
    files: str | Path | Sequence[str | Path] | None = None,
    overrides: Sequence[str] = (),
    base: ExperimentConfig | None = None,
) -> ExperimentConfig:
    """Reads YAML files and applies ``section.key=value`` overrides.

    Args:
        files: One file, or several, of which a later one replaces single keys of an earlier one.
        overrides: Applied last.
        base: Values of the keys that are not given; the defaults if None.

    Raises:
        ConfigError: If a file cannot be read, or a key, type or value is not valid.
    """
    paths = [files] if isinstance(files, str | Path) else files or ()
    tree: dict[str, Any] = config_to_dict(base) if base else {}
    for path in paths:
        tree = _merge(tree, _read_yaml(Path(path)))
    for override in overrides:
        _apply(tree, override)
    return config_from_dict(tree)


def _merge(tree: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, section in later.items():
        both = isinstance(section, dict) and isinstance(tree.get(name), dict)
        merged[name] = {**tree[name], **section} if both else section
    return merged


def config_from_dict(tree: Mapping[str, Any]) -> ExperimentConfig:
    """Builds the configuration from nested mappings; what is left out keeps its default."""
    _refuse_old_names(tree)
    return typing.cast(ExperimentConfig, _build(ExperimentConfig, tree, ""))


def _refuse_old_names(tree: Mapping[str, Any]) -> None:
    sections = {str(name): keys for name, keys in tree.items()}
    values = {
        f"{name}.{key}": v for name, keys in sections.items() if isinstance(keys, Mapping) for key, v in keys.items()
    }
    renamed = {old: _new_name(old) for old in (*values, *sections) if _new_name(old) != old}
    for key, value in values.items():
        new = _new_name(key)
        if isinstance(value, str) and value in _RENAMED_VALUES.get(new, {}):
            renamed[f"{key}={value}"] = f"{new}={_RENAMED_VALUES[new][value]}"
    if renamed:
        raise ConfigError(
            "A configuration must have the current names",
            received=", ".join(renamed),
            remedy="; ".join(f"`{old}` was renamed to `{new}`" for old, new in renamed.items()),
        )


def _new_name(name: str) -> str:
    section, _, key = name.partition(".")
    if name in _RENAMED or section not in _RENAMED:
        return _RENAMED.get(name, name)
    return f"{_RENAMED[section]}.{key}"


def override_config(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """Applies ``section.key=value`` overrides; errors as ``load_config``."""
    return load_config((), overrides, config)


def config_to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """All sections as plain dictionaries, lists and numbers."""
    return _plain(dataclasses.asdict(config))


def dump_config(config: ExperimentConfig) -> str:
    """All sections as YAML, with every default."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False)


def changed_keys(old: ExperimentConfig, new: ExperimentConfig) -> list[str]:
    """Keys, as ``section.key``, whose values differ."""
    before, after = config_to_dict(old), config_to_dict(new)
    return [f"{name}.{key}" for name in before for key in before[name] if before[name][key] != after[name][key]]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError("A configuration must be a readable file", received=f"{path} ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} must be YAML", received=" ".join(str(error).split())) from error
    if not isinstance(tree, dict | None):
        raise ConfigError(f"{path} must hold sections such as `train:`", received=type(tree).__name__)
    return tree or {}


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or len(path) != 2:
        remedy = "Example: --set train.epochs=10"
        raise ConfigError("--set takes SECTION.KEY=VALUE", received=repr(override), remedy=remedy)
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("The value of --set must be YAML", received=repr(override)) from error
    section = {} if tree.get(path[0]) is None else tree[path[0]]
    if not isinstance(section, dict):
        raise ConfigError(f"{path[0]} must be a section", received=repr(section))
    tree[path[0]] = {**section, path[1]: value}


def _build(cls: type, tree: object, where: str) -> object:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where or 'The configuration'} must be a section of keys and values", received=repr(tree))
    types = typing.get_type_hints(cls)
    for key in tree:
        if key not in types:
            raise _unknown(str(key), where, types)
    values = {key: _convert(types[key], value, f"{where}.{key}".lstrip(".")) for key, value in tree.items()}
    return cls(**values)


def _unknown(key: str, where: str, types: Mapping[str, Any]) -> ConfigError:
    near = difflib.get_close_matches(key, types, n=1, cutoff=0.4)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(types)}"
    place = f"Section {where}" if where else "A configuration"
    return ConfigError(f"{place} must only have known keys", received=repr(key), remedy=remedy.rstrip("?"))


def _convert(kind: Any, value: object, where: str) -> object:
    if dataclasses.is_dataclass(kind):
        # A section may have all its keys commented out.
        return _build(typing.cast(type, kind), {} if value is None else value, where)
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(typing.get_args(kind), value, where)
    if typing.get_origin(kind) is dict:
        return _convert_dict(typing.get_args(kind), value, where)
    # YAML 1.1 reads 1e-3 as text and 1 as a whole number.
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where} must be of type {kind.__name__}", received=repr(value))
    return value


def _convert_dict(kinds: tuple[Any, ...], value: object, where: str) -> dict[Any, object]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a section of keys and values", received=repr(value))
    return {_convert(kinds[0], key, where): _convert(kinds[1], item, f"{where}.{key}") for key, item in value.items()}


def _convert_tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    length = "" if kinds[1:] == (...,) else f" of {len(kinds)}"
    if not isinstance(value, list | tuple) or (length and len(value) != len(kinds)):
        raise ConfigError(f"{where} must be a list{length}", received=repr(value))
    each = kinds if length else [kinds[0]] * len(value)
    return tuple(_convert(kind, item, where) for kind, item in zip(each, value, strict=True))

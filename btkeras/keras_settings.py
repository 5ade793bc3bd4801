"""Settings of Keras, in keras.json and the environment, under which it would not start, or compute something else."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from btkeras.errors import ConfigError

# What keras.json may say; networks and their checkpoints count on these, and so do the published figures.
_NEEDED: Mapping[str, object] = MappingProxyType(
    {"image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-7, "nnx_enabled": False}
)
_BACKENDS = ("tensorflow", "jax")
_OFF = ("", "0", "false")
# Variables with the values that change nothing. The first two end trainings and evaluations early, without a word; with
# the last TensorBoard finds no Keras when a training starts.
_VARIABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "KERAS_MAX_EPOCHS": (),
        "KERAS_MAX_STEPS_PER_EPOCH": (),
        "KERAS_NNX_ENABLED": _OFF,
        "TF_USE_LEGACY_KERAS": _OFF,
    }
)


def require_usable_keras() -> None:
    """Checks what Keras would read at its start, and imports neither it nor a backend.

    Raises:
        ConfigError: If a setting is not what btkeras needs.
        OSError: If keras.json is there and cannot be read.
    """
    file = _file()
    settings = _read(file)
    for key, needed in _NEEDED.items():
        if (found := settings.get(key, needed)) != needed:
            raise ConfigError(
                f"Keras must be set to {key} {json.dumps(needed)}",
                received=f"{json.dumps(found)} in {file}",
                remedy="Change it there, or name a folder without such a file: KERAS_HOME=FOLDER",
            )
    variable = os.environ.get("KERAS_BACKEND")
    _require_backend(variable or settings.get("backend", "tensorflow"), "KERAS_BACKEND" if variable else file)
    for name, harmless in _VARIABLES.items():
        if (value := os.environ.get(name)) is not None and value.lower() not in harmless:
            rule = f"{name} must not be set: it changes what Keras does"
            raise ConfigError(rule, received=repr(value), remedy=f"Unset it: unset {name}")


def _file() -> str:
    home = os.path.expanduser("~")
    default = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return os.path.expanduser(os.path.join(os.environ.get("KERAS_HOME", default), "keras.json"))


def _read(file: str) -> dict[str, Any]:
    if not os.path.exists(file):
        return {}
    try:
        with open(file, encoding="utf-8") as opened:
            settings = json.load(opened)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        rule, remedy = "Keras' settings must be a JSON object", "Mend it, or delete it for Keras' own settings"
        raise ConfigError(rule, received=file, remedy=remedy)
    return settings


def _require_backend(name: object, place: str) -> None:
    if name not in _BACKENDS:
        rule = f"Keras' backend must be {' or '.join(_BACKENDS)}"
    elif importlib.util.find_spec(str(name)) is None:
        rule = "Keras' backend must be installed"
    else:
        return
    raise ConfigError(rule, received=f"{name!r} in {place}", remedy="Set KERAS_BACKEND=tensorflow")

"""The ``.keras`` file of a network: any Keras from 3.8 on reads it, with or without btkeras."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras

from btkeras.checksums import remedy
from btkeras.errors import ModelError

# Settings that Keras 3.8 to 3.14 refuse, and the values with which they say nothing.
_NEWER: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(("input_axes", "output_axes", "quantization_config", "renorm_clipping")),
        **{"ragged": False, "renorm": False, "renorm_momentum": 0.99, "antialias": False},
    }
)
# Operations of networks here whose settings had no name; it stands beside the settings too.
_UNNAMED = frozenset({"Split", "Flip", "Maximum", "Log"})
_DAMAGE = (OSError, ValueError, KeyError, TypeError)


def save_network(model: keras.Model, target: Path) -> None:
    """Writes a network of built-in layers, float32; the name must end in ``.keras``."""
    config = _portable(model.get_config())
    # What `save` writes; of the instance, so that the file names Keras' own class.
    model.get_config = lambda: config
    try:
        model.save(target)
    finally:
        del model.get_config


def _portable(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") in _UNNAMED:
            config = config | {"config": {key: value for key, value in config["config"].items() if key != "name"}}
        return {key: _portable(value) for key, value in config.items() if (key, value) not in _NEWER.items()}
    return [_portable(value) for value in config] if isinstance(config, list) else config


def load_network(source: Path) -> keras.Model:
    """Reads a ``.keras`` file.

    Raises:
        ModelError: If it is damaged, or of a Keras that writes what this one does not know.
    """
    try:
        return keras.models.load_model(source, compile=False)
    except _DAMAGE as error:
        written = _written_with(source)
        if _numbers(written) > _numbers(keras.__version__):
            raise ModelError(
                "A checkpoint must be of this version of Keras or an older one",
                received=f"{source}, written with Keras {written}; {keras.__version__} is installed",
                remedy=f"Install it: pip install 'keras>={written}'",
            ) from error
        # Of what is no whole archive, Keras says that there is no such file.
        whole = zipfile.is_zipfile(source)
        reason = " ".join(str(error).split())[:200] if whole else "cut off, or something else"
        rule, received = "A checkpoint must be a whole .keras file", f"{source} ({reason})"
        raise ModelError(rule, received=received, remedy=remedy(source)) from error


def _written_with(source: Path) -> str:
    """The version of Keras that wrote a file; "" if it does not say."""
    try:
        with zipfile.ZipFile(source) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (*_DAMAGE, zipfile.BadZipFile):
        return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]

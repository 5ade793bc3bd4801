"""A functional network as data that can be edited: the configuration that Keras saves, and the weights beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from btkeras.errors import ModelError

# Stands among the users of what the network gives out.
OUTPUT = ""


class Graph:
    """A copy of a network to be rewritten; the network itself stays as it is.

    Layers go by their names. ``drop`` and ``rename`` take effect in ``build``; until then a renamed layer keeps its old
    name.

    Args:
        model: A functional network.

    Raises:
        ModelError: If it is not functional.
    """

    def __init__(self, model: keras.Model) -> None:
        self._config: dict[str, Any] = model.get_config()
        if "output_layers" not in self._config:
            raise ModelError("A network must be functional to be rewritten", received=type(model).__name__)
        self._entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in self._config["layers"]}
        self._layers = {layer.name: layer for layer in model.layers}
        self._edited: dict[str, list[NDArray[Any]]] = {}
        self._stands_for: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self._users: dict[str, list[str]] = {name: [] for name in self._entries}
        for name, entry in self._entries.items():
            for history in _histories(entry["inbound_nodes"]):
                self._users[history[0]].append(name)
        for reference in _references(self._config["output_layers"]):
            self._users[reference[0]].append(OUTPUT)

    def names(self) -> list[str]:
        """The layers that there are still, in the order of computation."""
        return list(self._entries)

    def has(self, name: str) -> bool:
        """Whether a layer is there still."""
        return name in self._entries

    def layer(self, name: str) -> Any:
        """The network's own layer, or the operation that is none."""
        return self._layers.get(name)

    def settings(self, name: str) -> dict[str, Any]:
        """A layer's configuration, which may be changed."""
        settings: dict[str, Any] = self._entries[name]["config"]
        return settings

    def weights(self, name: str) -> list[NDArray[Any]]:
        """A layer's weights, as they are now."""
        return self._edited[name] if name in self._edited else list(self._layers[name].get_weights())

    def set_weights(self, name: str, weights: Sequence[NDArray[Any]]) -> None:
        """Gives a layer weights, in the order of Keras' ``set_weights`` and of any shape that its settings ask for."""
        self._edited[name] = list(weights)

    def users(self, name: str) -> list[str]:
        """Who takes what a layer gives, once for each time; ``OUTPUT`` for the network's outputs."""
        return self._users[name]

    def sources(self, name: str) -> list[str]:
        """Whose outputs a layer takes, in the order of its arguments."""
        return [self._resolved(history[0]) for history in _histories(self._entries[name]["inbound_nodes"])]

    def input_shape(self, name: str) -> tuple[int | None, ...]:
        """Shape of the first tensor that a layer takes in the network as it was, with the batch."""
        return tuple(next(_tensors(self._entries[name]["inbound_nodes"]))["shape"])

    def source(self, name: str) -> str | None:
        """Whose output a layer takes, if it is one layer's, at one place and as for inference; else None."""
        sources = self.sources(name)
        return sources[0] if len(sources) == 1 and self.is_called_once(name) else None

    def is_called_once(self, name: str) -> bool:
        """Whether a layer is used at one place, and as for inference."""
        calls = self._entries[name]["inbound_nodes"]
        return len(calls) == 1 and not calls[0]["kwargs"].get("training")

    def drop(self, name: str, source: str) -> None:
        """Takes a layer out; who took its output takes that of ``source`` from now on."""
        for other in self.sources(name):
            self._users[other] = [user for user in self._users[other] if user != name]
        self._users[source] = [user for user in self._users[source] if user != name] + self._users.pop(name)
        del self._entries[name]
        self._stands_for[name] = source

    def rename(self, name: str, new: str) -> None:
        """Gives a layer the name of none, or of one that was dropped."""
        self._renamed[name] = new

    def build(self) -> keras.Model:
        """Makes the network, of the layers' own classes, with weights rounded once to the type that each has."""
        for entry in self._entries.values():
            # What a layer was built for may have changed; it is built when it is called.
            entry.pop("build_config", None)
            settings = entry["config"]
            # Drawing weights that are overwritten takes as long as all the rest.
            settings.update({key: "zeros" for key in settings if key.endswith("_initializer")})
            entry["name"] = settings["name"] = self._final(entry["name"])
            for history in _histories(entry["inbound_nodes"]):
                history[0] = self._final(history[0])
        outputs = self._config["output_layers"]
        for reference in _references(outputs):
            reference[0] = self._final(reference[0])
        model: keras.Model = keras.Model.from_config({**self._config, "layers": list(self._entries.values())})
        for name in self._entries:
            if name in self._layers:
                _give(model.get_layer(self._final(name)), self.weights(name))
        return model

    def _resolved(self, name: str) -> str:
        while name in self._stands_for:
            name = self._stands_for[name]
        return name

    def _final(self, name: str) -> str:
        resolved = self._resolved(name)
        return self._renamed.get(resolved, resolved)


def _give(layer: Any, weights: Sequence[NDArray[Any]]) -> None:
    layer.set_weights([np.asarray(value, old.dtype) for value, old in zip(weights, layer.weights, strict=True)])
    if isinstance(layer, layers.Normalization):
        # It computes with what it derives from its weights.
        layer.finalize_state()


def _tensors(value: Any) -> Iterator[dict[str, Any]]:
    """The tensors among a call's arguments, as Keras writes them: shape, dtype and where they come from."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _histories(value: Any) -> Iterator[list[Any]]:
    """Where the tensors among a call's arguments come from: ``[name, call, output]``."""
    for tensor in _tensors(value):
        yield tensor["keras_history"]


def _references(value: Any) -> Iterator[list[Any]]:
    """``[name, call, output]`` of each of a network's outputs, in whatever structure they are."""
    if isinstance(value, list) and value and isinstance(value[0], str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _references(item)

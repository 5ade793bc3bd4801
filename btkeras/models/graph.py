"""A functional network as an editable graph: the configuration that Keras saves, and the weights beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from btkeras.errors import ModelError

# Stands among a layer's users for the network's outputs.
OUTPUT = ""


class ModelGraph:
    """A copy of a functional network to be rewritten by its layers' names; new names hold from ``build`` on."""

    def __init__(self, model: keras.Model) -> None:
        self._config: dict[str, Any] = model.get_config()
        if "output_layers" not in self._config:
            raise ModelError("A network must be functional to be rewritten", received=type(model).__name__)
        self._entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in self._config["layers"]}
        self._layers = {layer.name: layer for layer in model.layers}
        self._classes: dict[str, type] = {}
        self._edited: dict[str, list[NDArray[Any]]] = {}
        self._stands_for: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self._users: dict[str, list[str]] = {name: [] for name in self._entries}
        for name in self._entries:
            for source in self.sources(name):
                self._users[source].append(name)
        for reference in _found(self._config["output_layers"], _is_reference):
            self._users[reference[0]].append(OUTPUT)

    def names(self) -> list[str]:
        """The remaining layers in the order of computation."""
        return list(self._entries)

    def layer(self, name: str) -> Any:
        """The network's own layer; None for an operation and for ``OUTPUT``."""
        return self._layers.get(name)

    def config(self, name: str) -> dict[str, Any]:
        """A layer's configuration, which may be changed."""
        config: dict[str, Any] = self._entries[name]["config"]
        return config

    def weights(self, name: str) -> list[NDArray[Any]]:
        """A layer's weights, as they are now."""
        return self._edited[name] if name in self._edited else list(self._layers[name].get_weights())

    def set_weights(self, name: str, weights: Sequence[NDArray[Any]]) -> None:
        """Gives a layer weights, as Keras' ``set_weights``, of the shapes that its config asks for."""
        self._edited[name] = list(weights)

    def users(self, name: str) -> list[str]:
        """The layers that take a layer's output, once for each time; ``OUTPUT`` for the network's outputs."""
        return self._users[name]

    def sources(self, name: str) -> list[str]:
        """The layers whose outputs a layer takes, in the order of its arguments."""
        tensors = _found(self._entries[name]["inbound_nodes"], _is_tensor)
        return [self._resolved(tensor["config"]["keras_history"][0]) for tensor in tensors]

    def source(self, name: str) -> str | None:
        """The only layer whose output a layer takes, if it is called once; else None."""
        sources = self.sources(name)
        return sources[0] if len(sources) == 1 and self.is_called_once(name) else None

    def input_shape(self, name: str) -> tuple[int | None, ...]:
        """Shape, with the batch, of the first tensor that a layer takes."""
        return tuple(next(_found(self._entries[name]["inbound_nodes"], _is_tensor))["config"]["shape"])

    def is_called_once(self, name: str) -> bool:
        """Whether a layer is called at one place, and as for inference."""
        calls = self._entries[name]["inbound_nodes"]
        return self.calls(name) == 1 and not calls[0]["kwargs"].get("training")

    def calls(self, name: str) -> int:
        """At how many places a layer is called."""
        return len(self._entries[name]["inbound_nodes"])

    def drop(self, name: str, source: str) -> None:
        """Removes a layer; the users of its output take that of ``source`` from now on."""
        for other in self.sources(name):
            self._users[other] = [user for user in self._users[other] if user != name]
        self._users[source] = [user for user in self._users[source] if user != name] + self._users.pop(name)
        del self._entries[name]
        self._stands_for[name] = source

    def rename(self, name: str, new: str) -> None:
        """Gives a layer a name that is free, or that of a dropped layer."""
        self._renamed[name] = new

    def replace(self, name: str, layer_class: type[layers.Layer], **config: Any) -> None:
        """Makes a layer one of another class, of the same weights, with these additions to its config."""
        self._entries[name].update(
            class_name=layer_class.__name__, registered_name=layer_class.__name__, module=layer_class.__module__
        )
        self._classes[layer_class.__name__] = layer_class
        self.config(name).update(config)

    def add_source(self, name: str, other: str) -> None:
        """Makes what layer ``other`` takes the first tensor in the list that a layer takes."""
        tensor = copy.deepcopy(self._entries[other]["inbound_nodes"][0]["args"][0])
        self._entries[name]["inbound_nodes"][0]["args"][0].insert(0, tensor)
        self._users[self.sources(other)[0]].append(name)

    def build(self) -> keras.Model:
        """Makes the network, with weights rounded once to the type that each has."""
        for entry in self._entries.values():
            # The shape a layer was built for may have changed; it is built when it is called.
            entry.pop("build_config", None)
            config = entry["config"]
            # Drawing weights that are overwritten takes as long as all the rest.
            config.update({key: "zeros" for key in config if key.endswith("_initializer")})
            for tensor in _found(entry["inbound_nodes"], _is_tensor):
                history = tensor["config"]["keras_history"]
                history[0] = self._final(history[0])
            entry["name"] = config["name"] = self._final(entry["name"])
        for reference in _found(self._config["output_layers"], _is_reference):
            reference[0] = self._final(reference[0])
        config = {**self._config, "layers": list(self._entries.values())}
        model: keras.Model = keras.Model.from_config(config, custom_objects=self._classes)
        for name in self._entries.keys() & self._layers.keys():
            self._fill(name, model.get_layer(self._final(name)))
        return model

    def _fill(self, name: str, layer: layers.Layer) -> None:
        if name in self._edited:
            layer.set_weights(
                [np.asarray(value, old.dtype) for value, old in zip(self._edited[name], layer.weights, strict=True)]
            )
        else:
            # Random generators' states too, which are no weights.
            for target, source in zip(layer.variables, self._layers[name].variables, strict=True):
                target.assign(source)
        if isinstance(layer, layers.Normalization):
            # It computes with constants that it derives from its weights.
            layer.finalize_state()

    def _resolved(self, name: str) -> str:
        while name in self._stands_for:
            name = self._stands_for[name]
        return name

    def _final(self, name: str) -> str:
        resolved = self._resolved(name)
        return self._renamed.get(resolved, resolved)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _is_reference(value: Any) -> bool:
    """``[layer, call, output]``."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], str)


def _found(value: Any, is_wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """What is wanted in a structure of lists and dictionaries."""
    if is_wanted(value):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _found(item, is_wanted)

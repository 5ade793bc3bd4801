"""Makes Keras know the classes that a saved model may hold, as soon as both Keras and btkeras are imported.

Keras finds a registered class only after its module was imported. Importing these modules imports Keras, which
``import btkeras`` must not; so a finder waits for the import of Keras.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

# Those with ``register_keras_serializable`` that become part of a model; they import no backend.
_MODULES = (
    "btkeras.preprocessing.slice_preprocessing",
    "btkeras.training.macro_recall",
    "btkeras.training.schedules",
)


def register_with_keras() -> None:
    """Imports the modules now, if Keras is imported, or right after its import."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _KerasFinder())


def _register() -> None:
    for module in _MODULES:
        importlib.import_module(module)


class _KerasFinder:
    """Finds Keras as the other finders do; once that has been imported, ``_register`` follows."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in finders)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            self._register_behind(spec.loader)
        return spec

    def _register_behind(self, loader: Loader) -> None:
        execute = loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            _register()

        # Of this one loader; the module keeps it, as if nothing had been.
        setattr(loader, "exec_module", execute_and_register)  # noqa: B010

"""Names of a package that are imported on first use (PEP 562), so that importing the package stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Makes a package's ``__getattr__``.

    Args:
        package: Its name.
        modules: Where each name is defined; a name may be a module itself.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        return module if module.__name__ == f"{package}.{name}" else getattr(module, name)

    return get

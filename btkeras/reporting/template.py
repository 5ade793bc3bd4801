"""Filling one of the package's templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill(name: str, values: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]], *, autoescape: bool) -> str:
    """Returns the filled template ``templates/NAME``; a value that it asks for and does not get is an error.

    Args:
        name: The template's file.
        values: What it shows, by name.
        filters: What it may apply to values, by name.
        autoescape: Escape for HTML everything that is not marked otherwise.
    """
    environment = Environment(
        loader=PackageLoader("btkeras.reporting"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)

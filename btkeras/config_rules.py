"""Rules for the values of settings, and the check that every section makes of its own."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Sequence
from typing import Any

from btkeras.errors import ConfigError

Rule = Callable[[str, Any], None]  # checks a key's value


def rule(holds: Callable[[Any], bool], phrase: str) -> Rule:
    """Makes a rule, which raises ``ConfigError``: the key must ``phrase``."""

    def check(key: str, value: Any) -> None:
        if not holds(value):
            raise ConfigError(f"{key} must {phrase}", received=repr(list(value) if isinstance(value, tuple) else value))

    return check


def one_of(allowed: Sequence[object]) -> Rule:
    """Makes the rule that a value is one of those allowed."""
    return rule(lambda value: value in allowed, f"be one of {', '.join(map(str, allowed))}")


def between(low: float, high: float) -> Rule:
    """Makes the rule that a number is within these limits, which belong to it."""
    return rule(lambda value: low <= value <= high, f"be between {low:.10g} and {high:.10g}")


fraction = between(0, 1)
positive = rule(lambda value: 0 < value < math.inf, "be a number above 0")
not_negative = rule(lambda value: value >= 0, "not be negative")
distinct = rule(lambda values: len(set(values)) == len(values), "name each once")


class Section:
    """A section of the configuration; each field is checked by the rules in its annotation."""

    def __post_init__(self) -> None:
        name = type(self).__name__.removesuffix("Config").lower()
        for key, hint in typing.get_type_hints(type(self), include_extras=True).items():
            for check in getattr(hint, "__metadata__", ()):
                check(f"{name}.{key}", getattr(self, key))

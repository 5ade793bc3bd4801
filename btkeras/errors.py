"""The errors a user can cause. Each is one message: the rule, what was received, what to do."""

from __future__ import annotations


class BTKerasError(Exception):
    """Base of every error that btkeras raises on purpose.

    Args:
        rule: What must hold, as a sentence without its full stop.
        received: What was found instead; left out of the message when empty.
        remedy: What the user can do about it, as a sentence without its full stop.
    """

    exit_code = 1

    def __init__(self, rule: str, *, received: object = "", remedy: str = "") -> None:
        self.rule = rule
        parts = [rule, f"Received: {received}" if str(received) else "", remedy]
        super().__init__(" ".join(f"{part}." for part in parts if part))


class ConfigError(BTKerasError):
    """A configuration file, a ``--set`` or an option does not say something valid."""

    exit_code = 2


class DataError(BTKerasError):
    """A dataset, or its split, cannot be used as it is."""


class ImageError(DataError):
    """One image cannot be read."""


class ModelError(BTKerasError):
    """A model cannot be built, loaded or exported."""


class RunError(BTKerasError):
    """A run folder is missing, in the way, unfinished or inconsistent."""

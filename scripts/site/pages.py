"""The pages that are written from code: one for each command, from click's help, and one for the settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import click
import yaml

from btkeras.cli import main
from btkeras.config import ExperimentConfig


def pages() -> Mapping[str, str]:
    """Their texts, in Markdown, by name."""
    return {f"commands/{name}": command_page(command) for name, command in main.commands.items()} | {
        "settings": settings_page()
    }


def command_page(command: click.Command) -> str:
    """A command's usage, text, examples and options."""
    name = f"btkeras {command.name}"
    context = click.Context(command, info_name=name, show_default=True)
    records = (parameter.get_help_record(context) for parameter in command.get_params(context))
    options = [(f"`{option}`", text) for option, text in filter(None, records)]
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"# {name}", _code("text", usage), *_paragraphs(command), "## Options", _table(("option", ""), *options)]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Every setting with its default and meaning, of the docstrings in ``btkeras/config.py``."""
    parts = ["# Settings", "Of YAML files (`--config`) and of `--set section.key=value`. The defaults are the paper's."]
    for section in fields(ExperimentConfig):
        parts += [f"## {section.name}", *_section(section.name, getattr(ExperimentConfig(), section.name))]
    return "\n\n".join(parts) + "\n"


def _paragraphs(command: click.Command) -> Iterator[str]:
    """Of the help; those that click is told to leave as they are (\\b) become code below a heading."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        title, _, lines = paragraph.removeprefix("\b\n").partition("\n")
        if paragraph.startswith("\b"):
            yield f"## {title.rstrip(':')}"
            yield _code("bash" if title == "Examples:" else "text", inspect.cleandoc("\n" + lines))
        else:
            yield paragraph


def _section(name: str, section: Any) -> Iterator[str]:
    keys = [field.name for field in fields(section)]
    intro, *found = re.split(rf"^ *({'|'.join(keys)}): ", inspect.cleandoc(section.__doc__), flags=re.MULTILINE)
    meanings = {key: " ".join(text.split()) for key, text in zip(found[::2], found[1::2], strict=True)}
    yield re.sub("Attributes[^:]*:", "", intro).strip()
    rows = ((f"`{name}.{key}`", f"`{_yaml(getattr(section, key))}`", meanings[key]) for key in keys)
    yield _table(("setting", "default", ""), *rows)


def _yaml(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _table(*rows: tuple[str, ...]) -> str:
    head, *body = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    return "\n".join([head, "| --- " * len(rows[0]) + "|", *body])

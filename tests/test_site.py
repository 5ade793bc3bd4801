"""The documents as a site: built without a warning, complete, and self-contained."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from btkeras.cli import main
from btkeras.config import ExperimentConfig
from scripts.site.pages import command_page, settings_page

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "scripts.site", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_each_page_is_there_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {page.relative_to(site).as_posix() for page in site.rglob("*.html")}
    assert {f"docs/{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} < pages
    assert {f"reference/commands/{name}.html" for name in main.commands} | {"index.html", "README.html"} < pages
    assert not re.findall(r"""(?:src=|<link[^>]*href=|url\()["']?https?:[^"')]*""", (site / "README.html").read_text())
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//[^)]*", style.read_text(encoding="utf-8")), style


@pytest.mark.parametrize("name", main.commands)
def test_a_command_s_page_has_its_options_and_examples(name: str) -> None:
    page = command_page(main.commands[name])
    shown = {option for line in re.findall(r"^\| `(.*?)` \|", page, re.M) for option in re.findall("--[a-z-]+", line)}
    options = [each for p in main.commands[name].params for each in (*p.opts, *p.secondary_opts)]
    assert shown == {each for each in options if each.startswith("--")} | {"--help"}
    assert f"## Examples\n\n```bash\nbtkeras {name}" in page


def test_every_setting_has_its_default_and_meaning() -> None:
    rows = dict(re.findall(r"^\| `([a-z]+\.\w+)` \| (`.*`) \| \S.* \|$", settings_page(), re.M))
    default = ExperimentConfig()
    expected = {f"{s.name}.{f.name}" for s in fields(default) for f in fields(getattr(default, s.name))}
    assert set(rows) == expected
    assert rows["train.epochs"] == "`300`" and rows["augment.crop"] == "`[0.8, 1.0]`"

"""The documents: their length, their links, and that the commands in them are ones that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERY = [
    *PAGES,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md", "saved_models/README.md")),
]
# Written by `python -m scripts.results`.
RESULTS, TABLES = "results.md", r"<!-- \w+: python -m scripts.results -->.*?<!-- until here -->"


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def anchors(file: Path) -> set[str]:
    """Those of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_they_are_short() -> None:
    written = [
        re.sub(TABLES, "", page.read_text(encoding="utf-8"), flags=re.S) for page in PAGES if page.name != RESULTS
    ]
    words = [word for text in written for word in text.split() if re.search(r"\w", word)]  # no bars of tables
    assert len(words) <= 9000


@pytest.mark.parametrize("file", EVERY, ids=name)
def test_links_lead_to_files_and_headings(file: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", file.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (file.parent / path).resolve() if path else file
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


# The results have commands as they were typed at old revisions.
@pytest.mark.parametrize("file", [file for file in EVERY if file.name != RESULTS], ids=name)
def test_their_commands_exist(file: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", file.read_text(encoding="utf-8"), re.S)
    lines = [line for block in blocks for line in block.splitlines() if re.match(r"btkeras [a-z]", line)]
    for _, command, *words in (shlex.split(line, comments=True) for line in lines):
        known = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}, (command, words)


@pytest.mark.slow
def test_the_commands_of_the_first_network_run_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/getting-started.md").read_text(encoding="utf-8"), re.S)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert [words[1] for words in commands][::6] == ["train", "export"]
    for _, *words in (words for words in commands if words[1] != "serve"):
        words += ["--set", "train.epochs=1"] * (words[0] == "train")
        done = subprocess.run([sys.executable, "-m", "btkeras", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert all((tmp_path / name).is_file() for name in ("runs/first/report.html", "compare.html", "why.png"))
    assert (tmp_path / "saved_models/first/1/saved_model.pb").is_file()

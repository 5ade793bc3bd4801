"""Builds the documents as a site: ``python -m scripts.site [FOLDER]``, by default ``build/site``; warnings are errors.

The site has the repository's layout, so that links lead to the same place in both. Needs: pip install -e '.[docs]'.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sphinx.cmd.build import main as sphinx_build

from scripts.site.pages import pages

ROOT = Path(__file__).parents[2]
# What the documents link to beside docs/.
_BESIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "deploy/**/*",
    "examples/*",
    "saved_models/README.md",
    "saved_models/*/1/**/*.md",
)
_PARTS: Mapping[str, Sequence[str]] = {
    "Getting started": ("Install, predict, train <README>", "docs/README", "docs/getting-started", "examples/README"),
    "How to": (
        *(f"docs/{name}" for name in ("data", "training", "evaluation", "prediction", "serving", "python")),
        *("deploy/README", "CONTRIBUTING"),
    ),
    "Reference": (
        "reference/settings",
        "docs/inputs",
        "docs/files",
        "docs/results",
        "docs/results/*/report",
        "The pretrained model <saved_models/README>",
        "saved_models/*/1/*/model_card",
        "CHANGELOG",
    ),
    "Commands": ("reference/commands/*",),
    "Explanation": tuple(f"docs/{name}" for name in ("paper", "trust", "collections", "performance", "architecture")),
}


def build(out: Path) -> int:
    """Builds the site into a folder; 0 if there was no warning."""
    with tempfile.TemporaryDirectory() as name:
        stage(Path(name))
        conf = str(Path(__file__).parent)
        return sphinx_build(["-q", "-W", "--keep-going", "-c", conf, "-d", f"{name}/.cache", name, str(out)])


def stage(source: Path) -> None:
    """Lays out what Sphinx reads: the documents, what they link to, and the generated pages."""
    shutil.copytree(ROOT / "docs", source / "docs")
    for path in (path for pattern in _BESIDE for path in ROOT.glob(pattern) if path.is_file()):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for page in source.rglob("*.md"):
        page.write_text(_without_folders(page), encoding="utf-8")
    for place, text in pages().items():
        page = source / "reference" / f"{place}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    (source / "index.md").write_text(_index(), encoding="utf-8")


def _without_folders(page: Path) -> str:
    """A page's text without its links to folders, which a site does not list."""

    def plain(link: re.Match[str]) -> str:
        return link[1] if (page.parent / link[2]).is_dir() else link[0]

    return re.sub(r"\[([^\]]*)\]\(([^)#:]+)\)", plain, page.read_text(encoding="utf-8"))


def _index() -> str:
    trees = (
        "\n".join(["```{toctree}", f":caption: {part}", ":maxdepth: 1", ":glob:", "", *names, "```"])
        for part, names in _PARTS.items()
    )
    return "# btkeras: documents\n\n" + "\n\n".join(trees) + "\n"


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/site")))

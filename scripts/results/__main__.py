"""Writes docs/results.md and the table of docs/trust.md: each figure from a file in docs/results, with its command.

    python -m scripts.results

The text of results.md is `page.md.jinja`; its tables come from `tables.py`, `trials.py` and `speed.py`, that of
trust.md from `headline.py`. Nothing is typed in that a file holds, and tests compare the pages with what this writes.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from btkeras.files import write_text
from scripts.results import headline, speed, tables, trials

PAGE = Path(__file__).parents[2] / "docs/results.md"
TRUST = PAGE.with_name("trust.md")
_TEMPLATE = Path(__file__).parent / "page.md.jinja"


def page() -> str:
    """The page's text."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        tables=tables, trials=trials, speed=speed
    )


if __name__ == "__main__":
    write_text(PAGE, page())
    write_text(TRUST, headline.with_table(TRUST.read_text(encoding="utf-8")))
    print(f"wrote {PAGE} and {TRUST}")

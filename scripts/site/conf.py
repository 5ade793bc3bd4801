"""Sphinx' settings for the documents; nothing is loaded from elsewhere when they are read."""

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "btkeras"
html_title = "btkeras"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
smartquotes = False  # would make one dash of an option's two
html_show_copyright = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Shows the diagram of the folders as its text, as drawing it would load a script from elsewhere."""
    app.add_lexer("mermaid", TextLexer)

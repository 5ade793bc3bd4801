"""The command line: thin click commands over the library. Nothing here loads TensorFlow until a command runs."""

from btkeras.cli.main import main

__all__ = ["main"]

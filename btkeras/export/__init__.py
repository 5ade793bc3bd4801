"""A trained run as SavedModel, LiteRT or ONNX."""

from btkeras.quiet import load_tensorflow

load_tensorflow()

"""Random changes to training images, as TensorFlow graph code."""

from btkeras.quiet import load_tensorflow

load_tensorflow()

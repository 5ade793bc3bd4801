"""Random changes to training images, as TensorFlow graph code."""

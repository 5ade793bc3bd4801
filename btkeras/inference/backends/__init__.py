"""Inference backends: a run, a SavedModel, a LiteRT or an ONNX file behind one call."""

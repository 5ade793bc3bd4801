"""A trained run as SavedModel, LiteRT or ONNX."""

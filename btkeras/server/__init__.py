"""``btkeras serve``: TensorFlow Serving's REST interface and a web page, in one process."""

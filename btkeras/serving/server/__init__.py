"""A server for exported models: TensorFlow Serving's REST interface, and a web page, in one process.

A request's way: ``protocol.py`` (connections, slow clients) - ``observed.py`` (identifier, log, metrics, headers) -
``access.py`` (token) - ``bounded.py`` (size, time, place in the queue) - ``tf_rest.py`` (TensorFlow Serving's paths) -
``tensors.py`` (JSON to tensors and back) - ``engine.py`` (threads, ``batching.py``) - ``servable.py`` (a loaded
version). ``versions.py`` watches the folder. Needs the extra ``btkeras[serve]``.
"""

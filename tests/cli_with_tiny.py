"""The ``btkeras`` command in a process of its own, with the tests' tiny network known."""

import signal
from types import MappingProxyType

from btkeras.cli import main
from btkeras.cli.group import quiet_tensorflow

if __name__ == "__main__":
    # As in a terminal: a shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    quiet_tensorflow()
    from btkeras.models import build
    from tests.conftest import tiny_network

    build.MODELS = MappingProxyType({**build.MODELS, "tiny": tiny_network})
    main()

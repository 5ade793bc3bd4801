"""The ``btkeras`` command in a process of its own, with the tests' tiny networks known; also to its own children."""

import signal
import sys
from types import MappingProxyType

from btkeras.cli import main
from btkeras.cli.common import quiet_tensorflow

COMMAND = (sys.executable, "-m", "tests.cli_with_tiny")

if __name__ == "__main__":
    # As in a terminal: a shell that runs the tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    quiet_tensorflow()
    from btkeras.experiments import executors
    from btkeras.models import build
    from tests.conftest import TINY_NETWORKS

    executors.COMMAND = COMMAND
    build.MODELS = MappingProxyType({**build.MODELS, **TINY_NETWORKS})
    main()

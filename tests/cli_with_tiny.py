"""The ``btkeras`` command in a process of its own, with the tests' tiny network known."""

from types import MappingProxyType

from btkeras.cli import main
from btkeras.cli.group import quiet_tensorflow

if __name__ == "__main__":
    quiet_tensorflow()
    from btkeras.models import build
    from tests.conftest import tiny_network

    build.MODELS = MappingProxyType({**build.MODELS, "tiny": tiny_network})
    main()

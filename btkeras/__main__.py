"""``python -m btkeras``."""

from btkeras.cli import main

if __name__ == "__main__":
    main()

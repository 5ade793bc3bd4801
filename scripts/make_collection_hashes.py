#!/usr/bin/env python3
"""Writes btkeras/audit/collections.npz, by which `btkeras audit` recognizes well-known collections.

    .venv/bin/python scripts/make_collection_hashes.py DATASET

DATASET has class folders, the tumours' from FigShare and `no_tumor` from Br35H. Hashes are stored sorted, each once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import btkeras.audit
from btkeras.audit.recognition import HASHES
from btkeras.datasets.dataset import load_dataset
from btkeras.splitting.duplicate_hashes import orientation_hashes
from btkeras.splitting.duplicates import ImageStats, scan_images


def main(folder: str) -> None:
    """Hashes the slices of each collection."""
    dataset = load_dataset(folder)
    images = list(scan_images([dataset.root / record.path for record in dataset.records]))
    found: dict[str, list[np.ndarray]] = {"figshare": [], "br35h": []}
    for record, image in zip(dataset.records, images, strict=True):
        if not isinstance(image, ImageStats):
            sys.exit(f"{record.path} cannot be read: {image}")
        found["br35h" if record.label == "no_tumor" else "figshare"].append(image.thumbnail)
    # The first orientation is the image as it is.
    packed = {
        name: np.unique(orientation_hashes(np.stack(thumbnails))[:, 0], axis=0) for name, thumbnails in found.items()
    }
    target = Path(btkeras.audit.__file__).with_name(HASHES)
    np.savez_compressed(target, **packed)
    counts = ", ".join(f"{len(hashed):,} of {name}" for name, hashed in packed.items())
    print(f"{target}: {counts}, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])

"""DICOM files among a source's images: their place in their series, and those that are no slices of an examination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from btkeras.datasets.readers.dicom_series import identity_in, left_out_of_series, place_slices
from btkeras.datasets.readers.selection import LeftOut
from btkeras.datasets.source_image import SourceImage


class PlacedImages(NamedTuple):
    """Images with ``SourceImage.place``, and files that are left out."""

    images: list[SourceImage]
    left_out: list[LeftOut]


def place_images(images: Sequence[SourceImage]) -> PlacedImages:
    """Finds the places of DICOM files, and leaves out localizers and files that come twice; reads headers alone."""
    found = {image.file.name: identity_in(image.file.path, image.file.head) for image in images if image.label}
    identities = {name: identity for name, identity in found.items() if identity}
    left_out = left_out_of_series(identities)
    places = place_slices({name: identity for name, identity in identities.items() if name not in left_out})
    kept = [image for image in images if image.file.name not in left_out]
    # As they come, because a zip can only be read forwards; the names that they get are in the series' order.
    placed = [replace(image, place=places.get(image.file.name)) for image in kept]
    return PlacedImages(placed, [LeftOut(name, why) for name, why in left_out.items()])

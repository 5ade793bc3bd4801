"""The field's published collections: where each is from, under which licence, and what its files' names say."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NamedTuple

from btkeras.datasets.classes import find_class
from btkeras.datasets.dataset import find_subset
from btkeras.datasets.download import Deposit, figshare, zenodo
from btkeras.datasets.readers.selection import LeftOut
from btkeras.datasets.source_image import SourceImage

_PLANES = {"ax": "axial", "co": "coronal", "sa": "sagittal"}


@dataclass(frozen=True)
class Collection:
    """A published collection.

    Attributes:
        name: The images' source in a manifest.
        title: What its authors call it, and who they are.
        reference: Its DOI, or where it has none its address.
        license: As its page states it; "" where that is not known here.
        deposit: Where `btkeras prepare --download` gets it.
        names: How paths of its images end, without their ending; groups are named as the fields of ``PublishedName``.
        sign: What some path of a source must look like, where ``names`` alone are those of others too.
    """

    name: str
    title: str
    reference: str
    license: str = ""
    deposit: Deposit | None = None
    names: re.Pattern[str] | None = None
    sign: re.Pattern[str] | None = None

    def __str__(self) -> str:
        license = f"licence: {self.license}" if self.license else "for its licence see there"
        return f"{self.name}: {self.title}, {self.reference}, {license}"


class PublishedName(NamedTuple):
    """What the name of a collection's image says; "" where it says nothing."""

    collection: str
    subset: str = ""
    label: str = ""
    plane: str = ""
    sequence: str = ""


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?:^|/){text}$", re.IGNORECASE)


_BRISC = r"brisc2025_(?P<subset>train|test)_\d+_(?P<label>gl|me|no|nt|pi)_(?P<plane>ax|co|sa)_(?P<sequence>[a-z0-9]+)"
_BRISC_STEM = re.compile(_BRISC, re.IGNORECASE)
# Names as they are in the published archives.
_TABLE = (
    Collection(
        "figshare",
        "brain tumor dataset (Cheng 2017)",
        "doi 10.6084/m9.figshare.1512427",
        "CC BY 4.0",
        figshare(1512427),
    ),
    Collection(
        "brisc",
        "BRISC 2025 (Fateh et al. 2025)",
        "doi 10.5281/zenodo.17524350",
        "CC BY 4.0",
        zenodo(17524350),
        _pattern(_BRISC),
    ),
    # Joined from FigShare, Sartaj and Br35H: Training/glioma/Tr-gl_0010.jpg, Testing/notumor/Te-noTr_0000.jpg.
    Collection(
        "nickparvar",
        "Brain Tumor MRI Dataset (Nickparvar 2021)",
        "doi 10.34740/kaggle/dsv/2645886",
        names=_pattern(r"(?P<subset>Tr|Te)-(aug-)?(?P<label>gl|me|no|pi)(Tr)?_\d+"),
    ),
    # Training/glioma_tumor/gg (1).jpg, Training/meningioma_tumor/m1(10).jpg, Training/no_tumor/1.jpg, and below
    # Testing only image(1).jpg.
    Collection(
        "sartaj",
        "Brain Tumor Classification (MRI) (Bhuvaji et al. 2020)",
        "doi 10.34740/kaggle/dsv/1183165",
        names=_pattern(
            r"(?P<label>glioma|meningioma|no|pituitary)_tumor/"
            r"((gg?|m\d?|p|n|image) ?\(\d+\)|(?<=no_tumor/)\d+)"
        ),
        sign=_pattern(r"(glioma|meningioma|pituitary)_tumor/(gg?|m\d?|p|image) ?\(\d+\)"),
    ),
    # Its tumour slices, yes/y0.jpg, name no class.
    Collection(
        "br35h",
        "Br35H :: Brain Tumor Detection 2020 (Hamada 2020)",
        "https://www.kaggle.com/datasets/ahmedhamada0/brain-tumor-detection",
        names=_pattern(r"(?P<label>no)/no\d+"),
    ),
)
COLLECTIONS: Mapping[str, Collection] = {collection.name: collection for collection in _TABLE}


def known_collections(sources: Iterable[str]) -> list[Collection]:
    """The published collections among the names of sources."""
    return [COLLECTIONS[name] for name in sources if name in COLLECTIONS]


def published_names(paths: Iterable[str]) -> dict[str, PublishedName]:
    """What the paths of a source's images say, for those that are named as a published collection's.

    Paths have forward slashes and begin with the folders that are known, the source's own name among them.
    """
    stems = {path: str(PurePosixPath(path).with_suffix("")) for path in paths}
    found: dict[str, PublishedName] = {}
    for collection in _TABLE:
        sign = collection.sign or collection.names
        if sign and any(map(sign.search, stems.values())):
            matches = {path: collection.names and collection.names.search(stem) for path, stem in stems.items()}
            found |= {path: _named(collection.name, match.groupdict()) for path, match in matches.items() if match}
    return found


def _named(collection: str, said: Mapping[str, str | None]) -> PublishedName:
    text = {name: (value or "").lower() for name, value in said.items()}
    return PublishedName(
        collection,
        find_subset(text.get("subset", ""), short=True),
        find_class(text.get("label", "").replace("nt", "no")) or "",
        _PLANES.get(text.get("plane", ""), ""),
        text.get("sequence", ""),
    )


def merge_copies(images: Sequence[SourceImage]) -> tuple[list[SourceImage], list[LeftOut]]:
    """Takes each image of BRISC once: that of the classification task, with the mask of its copy for segmentation.

    Images of one name are the same image. The second result are the copies.
    """
    members: dict[str, list[SourceImage]] = defaultdict(list)
    for image in images:
        if image.source == "brisc" and _BRISC_STEM.fullmatch(image.file.stem):
            members[image.file.stem.lower()].append(image)
    merged: dict[str, SourceImage | None] = {}
    for found in members.values():
        # The segmentation task has its images in folders of that name, the classification task in those of classes.
        best = min(found, key=lambda image: PurePosixPath(image.file.path).parent.name == "images")
        mask = best.mask or next((image.mask for image in found if image.mask), None)
        merged |= {image.file.name: replace(image, mask=mask) if image is best else None for image in found}
    kept = [merged.get(image.file.name, image) for image in images]
    copies = [
        LeftOut(name, "copy of an image of the classification task") for name, image in merged.items() if not image
    ]
    return [image for image in kept if image], copies

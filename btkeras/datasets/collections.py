"""The field's published collections: where each is from, and under which licence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from btkeras.datasets.download import Deposit, figshare, zenodo


@dataclass(frozen=True)
class Collection:
    """A published collection; its ``name`` is the images' source in a manifest."""

    name: str
    title: str
    doi: str
    license: str = "see its page"
    deposit: Deposit | None = None  # where `btkeras prepare --download` gets it

    def __str__(self) -> str:
        return f"{self.name}: {self.title}, doi {self.doi}, licence: {self.license}"


_TABLE = (
    Collection(
        "figshare",
        "brain tumor dataset (Cheng 2017)",
        "10.6084/m9.figshare.1512427",
        "CC BY 4.0",
        figshare(1512427),
    ),
    Collection(
        "brisc",
        "BRISC 2025 (Fateh et al. 2025)",
        "10.5281/zenodo.17524350",
        "CC BY 4.0",
        zenodo(17524350),
    ),
)
COLLECTIONS: Mapping[str, Collection] = {collection.name: collection for collection in _TABLE}


def known(sources: Iterable[str]) -> list[Collection]:
    """The published collections among the names of sources."""
    return [COLLECTIONS[name] for name in sources if name in COLLECTIONS]

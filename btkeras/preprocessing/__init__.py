"""Encoded bytes to the network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btkeras.lazy import lazy_names

if TYPE_CHECKING:
    from btkeras.preprocessing.slice_preprocessing import SlicePreprocessing as SlicePreprocessing

__all__ = ["SlicePreprocessing"]

__getattr__ = lazy_names(__name__, {"SlicePreprocessing": "btkeras.preprocessing.slice_preprocessing"})

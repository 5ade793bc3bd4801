"""What near-duplicates in training are worth in a cross-validation: all folds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def pooled_without_near_duplicates(trainings: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Pools ``without_near_duplicates`` of the metrics of trainings.

    Returns:
        ``near_duplicates``, tested images with one in training, and ``images`` and ``accuracy`` of the others (None of
        none). None where a training did not measure it.
    """
    measured = [each for each in trainings if each]
    if not measured or len(measured) < len(trainings):
        return None
    images = sum(each["images"] for each in measured)
    right = sum(each["accuracy"] * each["images"] for each in measured if each["images"])
    known = sum(each["near_duplicates"] for each in measured)
    return {"near_duplicates": known, "images": images, "accuracy": right / images if images else None}


def format_pooled(name: str, found: Mapping[str, Any] | None) -> list[str]:
    """A model's, as a line of text; none if it was not measured or there are none."""
    if not found or not found["near_duplicates"]:
        return []
    count = found["near_duplicates"]
    text = (
        f"{name}: {count:,} of {count + found['images']:,} predictions are of images with a near-duplicate in training"
    )
    if not found["images"]:
        return [f"- {text}: nothing here is measured on new images"]
    return [f"- {text}; accuracy of the others {100 * found['accuracy']:.2f} %"]

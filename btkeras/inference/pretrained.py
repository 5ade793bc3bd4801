"""The model that is installed with btkeras, for whoever has none of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import btkeras
from btkeras.inference.model_folder import EXTRA, FILES, MANIFEST, latest_version

NAME = "brain_tumour_mri"
CARD = "model_card.md"
# In an installed package (setup.py puts it there), and in a clone, beside the package.
PLACES = tuple(folder / "saved_models" for folder in (Path(btkeras.__file__).parent, Path(btkeras.__file__).parents[1]))


def pretrained_model() -> Path | None:
    """Its folder; None where this installation has none."""
    return next((place / NAME for place in PLACES if latest_version(place / NAME)), None)


def is_pretrained(model: Path, shipped: Path | None = None) -> bool:
    """Whether a model, or a file or folder in it, is the one that is installed.

    Args:
        model: Any path.
        shipped: ``shipped_model()``, where that is known already.
    """
    folder = shipped or pretrained_model()
    return folder is not None and (model.resolve().is_relative_to(folder.resolve()) or _is_copy(model, folder))


def _is_copy(model: Path, shipped: Path) -> bool:
    """Whether it is the same model under the same name, as in a clone beside an installed package."""
    place = next((path for path in (model, *model.parents[:2]) if path.name == NAME), None)
    versions = latest_version(place) if place else None, latest_version(shipped)
    return None not in versions and len({(version / MANIFEST).read_bytes() for version in versions if version}) == 1


def installed_for(path: Path) -> Path:
    """The installed model for a path that ends in its name and leads nowhere, as without a clone; else the path."""
    return (pretrained_model() or path) if path.name == NAME and not path.exists() else path


def described(manifest: Mapping[str, Any], form: str) -> str:
    """What an export was trained on and how often it is right, in words.

    Args:
        manifest: Of the version.
        form: The format that answers, a key of ``exported.FILES``: a quantised one has figures of its own.
    """
    split = manifest.get("split")
    trained = f"{split['train']:,} slices of {manifest['dataset']}" if split else "slices that it does not name"
    test = test_figures(manifest, form)
    if test is None:
        return f"trained on {trained}; never evaluated"
    low, high = test["accuracy_interval"]
    group_by = f", split by {split['group_by']}" if split else ""
    return (
        f"trained on {trained}; right for {100 * test['accuracy']:.2f} % of {test['images']:,} test slices{group_by} "
        f"(95 % interval {100 * low:.1f} to {100 * high:.1f})"
    )


def test_figures(manifest: Mapping[str, Any], form: str) -> Mapping[str, Any] | None:
    """The test figures of the file of a format; those of the checkpoint where it answers as that does."""
    own = [cost.get("test") for cost in manifest.get("quantization", ()) if cost["format"] == form]
    figures: Mapping[str, Any] | None = own[0] if own and own[0] else manifest.get("test")
    return figures


def pretrained_note(file: Path) -> str:
    """What whoever gets answers of the installed model has to know, in a line.

    Args:
        file: The version's file that answers.
    """
    version = file.parent
    form = next(form for form, name in FILES.items() if name == file.name)
    manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
    return f"installed with btkeras, research use only: {described(manifest, form)}; see {version / EXTRA / CARD}"

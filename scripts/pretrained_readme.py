"""Writes saved_models/README.md, the page of the pretrained model.

    python scripts/pretrained_readme.py saved_models/brain_tumour_mri [FIGURES]

FIGURES is a folder of `btkeras evaluate`, whose accuracy must be the one in the model's manifest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from btkeras.errors import ModelError
from btkeras.files import sha256, write_text
from btkeras.inference.model_folder import (
    CARD,
    EXTRA,
    FILES,
    MANIFEST,
    SELFTEST,
    latest_version,
    metrics_of,
    model_summary,
)
from btkeras.models.pretrained import WEIGHTS

_SPLITS = {
    "image": "slices of one patient may be in several subsets",
    "patient": "no patient's slices are in several subsets, as far as patients are named",
}
# Percentage points between the accuracy in the manifest and the one that is measured again.
_TOLERANCE = 0.1

_PAGE = """# saved_models

`btkeras export RUN --out saved_models/NAME` puts `NAME/1/`, `NAME/2/`, ... here, the layout that TensorFlow Serving
reads. `btkeras predict --model newest` looks here and in `runs/`. Your own models are not kept in git.

## {name}

The pretrained model: it is installed with btkeras, and predicts where no other is named. **Research use only: it is no
medical device.**

- {about}.
- {name}/{version}/{file}, {size:.1f} MB{quantized}; temperature {temperature:.3f}; `uncertain` beyond an OOD score of
  {ood_score}, or below a highest probability of {decision}.
- {name}/{version}/{weights}, {weights_size:.1f} MB: the same network's weights before merging, 9 bits a number, for
  `btkeras.models.ImprovedResNet34(weights="pretrained")`, which can be trained further.
- Robustness to changes of the image, and shortcuts that it may use instead of tumours:
  [its card]({name}/{version}/assets.extra/model_card.md), and [docs/trust.md](../docs/trust.md).
- Split by {group_by}: {split}.
{notes}- SHA-256 of its `manifest.json`, which holds those of its other files: `{digest}`.

```bash
btkeras selftest                                                 # unchanged, and predicts as at its export?
btkeras selftest --write slice.png && btkeras predict slice.png  # a synthetic slice to try
btkeras evaluate saved_models/{name} --data DATASET    # its test accuracy again: {accuracy} %
```

How it was made, from the dataset whose digest is in its card:

```bash
{made}
git checkout main                  # scripts/publish_pretrained is newer than the training
scripts/publish_pretrained {run}
```

The card's "Notes" are no command's output: they were written into `{run}/notes.md` before the last command.
"""


def page(model: Path, measured: dict[str, Any] | None) -> str:
    """The page; ModelError if the measured accuracy is not the one in the manifest."""
    version = latest_version(model)
    if version is None:
        raise ModelError("A pretrained model must be an exported one", received=model)
    manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
    ((model_format, expected),) = json.loads((version / SELFTEST).read_text(encoding="utf-8"))["formats"].items()
    stated = metrics_of(manifest, model_format)
    if stated is None or (measured and 100 * abs(measured["accuracy"] - stated["accuracy"]) > _TOLERANCE):
        raise ModelError(
            f"A model's test accuracy must be measured again within {_TOLERANCE} points",
            received=f"{measured and measured['accuracy']} and not {stated and stated['accuracy']}",
        )
    card = (version / EXTRA / CARD).read_text(encoding="utf-8")
    limits, about = expected["thresholds"], model_summary(manifest, model_format)
    return _PAGE.format(
        name=model.name,
        version=version.name,
        about=about[0].upper() + about[1:],
        file=FILES[model_format],
        size=(version / FILES[model_format]).stat().st_size / 1e6,
        weights=WEIGHTS,
        weights_size=(version / WEIGHTS).stat().st_size / 1e6,
        quantized=f", in {expected['quantization']}" if expected["quantization"] else "",
        temperature=manifest["temperature"],
        ood_score="unknown" if limits["ood_score"] is None else f"{limits['ood_score']:.1f}",
        decision="unknown" if limits["decision"] is None else f"{limits['decision']:.3f}",
        group_by=manifest["split"]["group_by"],
        split=_SPLITS[manifest["split"]["group_by"]],
        digest=sha256(version / MANIFEST),
        accuracy=f"{100 * stated['accuracy']:.2f}",
        run=manifest["run"],
        made="\n".join(_made_by(card)),
        notes=_notes(card),
    )


def _notes(card: str) -> str:
    """The notes of a card, a list; nothing where it has none."""
    _, found, rest = card.partition("### Notes\n")
    return rest.split("\n## ", 1)[0].strip() + "\n" if found else ""


def _made_by(card: str) -> list[str]:
    """The commands of a card, without the training from the run's own configuration."""
    lines = card.split("## How to reproduce", 1)[1].split("```bash", 1)[1].split("```", 1)[0].strip().splitlines()
    return [line for line in lines if "RUN/config.yaml" not in line]


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("figures", type=Path, nargs="?")
    arguments = parser.parse_args()
    measured = json.loads((arguments.figures / "metrics.json").read_text()) if arguments.figures else None
    write_text(arguments.model.parent / "README.md", page(arguments.model, measured))


if __name__ == "__main__":
    main()

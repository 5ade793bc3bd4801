"""Writes README.md beside a model: what the one that ships is, in a page that GitHub shows with it.

    python scripts/pretrained_readme.py saved_models/brain_tumour_mri [FIGURES]

FIGURES is a folder of `btkeras evaluate`, whose test figure must be the one that the model's manifest states.
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

# Percentage points between the figure that is stated and the one that is measured again.
_TOLERANCE = 0.1

_PAGE = """# saved_models

`btkeras export RUN --out saved_models/NAME` puts `NAME/1/`, `NAME/2/`, ... here, the layout that TensorFlow Serving
reads. `btkeras predict` looks here (and in `runs/`) when it is not told a model. Your own models are not kept in git.

## {name}

The model that is installed with btkeras, and that answers where there is no other. **Research use only: it is no
medical device.**

- {about}.
- {name}/{version}/{file}, {size:.1f} MB{quantised}; temperature {temperature:.3f}; `uncertain` beyond an outlier score
  of {outlier}, or unless exactly one class has a probability of {probability} or more.
- What it is worth, under changes of the image, and what it may go by instead of tumours:
  [its card]({name}/{version}/assets.extra/model_card.md), and [docs/trust.md](../docs/trust.md).
- Trained on slices of FigShare (Cheng 2017, doi [10.6084/m9.figshare.1512427](https://doi.org/10.6084/m9.figshare.1512427),
  CC BY 4.0) and tumour-free ones of Br35H (Hamada 2020); split {by}, so slices of one patient are on both
  sides of the split.
{notes}- SHA-256 of its `manifest.json`, which holds those of its other files: `{digest}`.

```bash
btkeras selftest                                                 # is it whole, and does it answer as it did?
btkeras selftest --write slice.png && btkeras predict slice.png  # a synthetic slice to try
btkeras evaluate saved_models/{name} --data DATASET    # its test figure again: {accuracy} %
```

How it was made, of the dataset that its card gives the digest of:

```bash
{made}
git checkout main                  # scripts/publish_pretrained is newer than the training
scripts/publish_pretrained {run}
```

What the card says under "Notes" is no command's output: it was written into `{run}/notes.md` before the last command.
"""


def page(model: Path, measured: dict[str, Any] | None) -> str:
    """The page; ModelError if the figure that was measured is not the one that is stated."""
    version = latest_version(model)
    if version is None:
        raise ModelError("A model that ships must be an exported one", received=model)
    manifest = json.loads((version / MANIFEST).read_text(encoding="utf-8"))
    ((form, expected),) = json.loads((version / SELFTEST).read_text(encoding="utf-8"))["formats"].items()
    stated = metrics_of(manifest, form)
    if stated is None or (measured and 100 * abs(measured["accuracy"] - stated["accuracy"]) > _TOLERANCE):
        raise ModelError(
            f"A model's test figure must be measured again within {_TOLERANCE} points",
            received=f"{measured and measured['accuracy']} and not {stated and stated['accuracy']}",
        )
    card = (version / EXTRA / CARD).read_text(encoding="utf-8")
    limits, about = expected["thresholds"], model_summary(manifest, form)
    return _PAGE.format(
        name=model.name,
        version=version.name,
        about=about[0].upper() + about[1:],
        file=FILES[form],
        size=(version / FILES[form]).stat().st_size / 1e6,
        quantized=f", in {expected['quantization']}" if expected["quantization"] else "",
        temperature=manifest["temperature"],
        ood_percentile="unknown" if limits["ood_score"] is None else f"{limits['ood_score']:.1f}",
        probability="unknown" if limits["probability"] is None else f"{limits['probability']:.3f}",
        group_by=f"by {manifest['split']['by']}",
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
    """The commands of a card that train its model, up to the first training, which is as it was typed."""
    lines = card.split("## How to reproduce", 1)[1].split("```bash", 1)[1].split("```", 1)[0].strip().splitlines()
    training = next(number for number, line in enumerate(lines) if line.startswith("btkeras train "))
    return lines[: training + 1]


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

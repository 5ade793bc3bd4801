"""The part of a model card that is about the exported files, as opposed to the run that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from btkeras.evaluation.outliers import USUAL
from btkeras.serving.export_words import export_lines
from btkeras.serving.exported import FILES

_Json = Mapping[str, Any]


def export_section(manifest: _Json, selftest: _Json, digests: Mapping[str, str]) -> str:
    """Markdown.

    Args:
        manifest: What is known of the export, and what was measured.
        selftest: What ``selftest.json`` holds.
        digests: SHA-256 by file, as a path in the version.
    """
    weights = {name: digest for name, digest in digests.items() if name in FILES.values() or "variables" in name}
    lines = ["## This export", "", "| file | SHA-256 |", "| --- | --- |"]
    lines += [f"| {name} | `{digest}` |" for name, digest in weights.items()]
    lines += ["", "What an answer is withheld by:", "", *_threshold_lines(manifest, selftest)]
    lines += ["", "Made, checked where it is installed, and tested again by:", ""]
    lines += ["```bash", *_commands(manifest), "```"]
    return "\n".join([*lines, "", "```", *export_lines(manifest), "```", ""])


def _threshold_lines(manifest: _Json, selftest: _Json) -> list[str]:
    lines = [f"- Temperature: {manifest['temperature']:.3f}, in the weights."]
    for found in selftest["formats"].values():
        limits = found["thresholds"]
        if limits["outlier_score"] is not None:
            lines.append(
                f"- {found['file']}: uncertain beyond an outlier score of {limits['outlier_score']:.1f} "
                f"({100 * USUAL:.0f} % of the validation slices are below)."
            )
        if limits["probability"] is not None:
            lines.append(
                f"- {found['file']}: a class is in the prediction set of {100 * selftest['coverage']:.0f} % coverage "
                f"from a probability of {limits['probability']:.4f}; uncertain unless there is one such class."
            )
    return lines


def _commands(manifest: _Json) -> list[str]:
    options = [f"--format {form}" for form in manifest["formats"]]
    options += [f"--quantize {kind}" for kind in sorted({cost["quantization"] for cost in manifest["quantization"]})]
    return [
        f"btkeras export RUN --out MODEL {' '.join(options)}",
        "btkeras selftest --model MODEL",
        "btkeras evaluate MODEL --data DATASET",
    ]

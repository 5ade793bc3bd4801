"""A report's document from the folders it is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from btkeras.reporting import published
from btkeras.reporting.calibration import calibration_blocks
from btkeras.reporting.comparisons import comparison_blocks
from btkeras.reporting.dataset_table import dataset_tables
from btkeras.reporting.document import Block, Report, Section, Text
from btkeras.reporting.evidence import ReportData, load_report_data
from btkeras.reporting.figure_tables import ablation_table, class_tables, method_table, network_table
from btkeras.reporting.headline import headline_blocks
from btkeras.reporting.learning import learning_blocks
from btkeras.reporting.matrices import matrix_blocks
from btkeras.reporting.mistakes import mistake_blocks
from btkeras.reporting.numbers import slug
from btkeras.reporting.provenance import provenance_blocks
from btkeras.reporting.rates import rate_blocks
from btkeras.reporting.robustness import robustness_blocks
from btkeras.reporting.size_table import size_table

RESEARCH_ONLY = "Research use only: btkeras is no medical device."


def build_report(
    paths: Sequence[Path], *, images: bool = True, intervals_by: str | None = None, cache: Path | None = None
) -> Report:
    """Reads cross-validations and runs, and says what they show.

    Args:
        paths: Folders of ``btkeras cv`` or ``btkeras train``.
        images: Whether the worst mistakes are shown as images.
        intervals_by: What intervals are clustered by, see ``data.groups.group_records``; None takes the splits' groups.
        cache: Folder that keeps what is found in the images.

    Raises:
        RunError: If a folder is no finished source or is named twice.
    """
    evidence = load_report_data(paths, intervals_by, cache)
    sections: dict[str, list[Block]] = {
        "Result": headline_blocks(evidence),
        "Tables of the paper": _paper_tables(evidence),
        "Comparisons": comparison_blocks(evidence),
        "Learning curves": learning_blocks(evidence),
        "Confusion matrices": matrix_blocks(evidence),
        "ROC and precision-recall curves": rate_blocks(evidence),
        "Calibration": calibration_blocks(evidence),
        "Robustness": robustness_blocks(evidence),
        "Worst mistakes": mistake_blocks(evidence, images=images),
        "Limits": [
            Text((_faults(evidence),)),
            Text((*published.FAULTS, RESEARCH_ONLY), "list"),
        ],
        "Provenance": provenance_blocks(evidence),
    }
    return Report(_title(evidence), tuple(_section(title, blocks) for title, blocks in sections.items() if blocks))


def _faults(evidence: ReportData) -> str:
    kinds = sorted({str(source.summary["protocol"]["group_by"]) for source in evidence.sources})
    if kinds == ["image"]:
        return "Known faults of the published protocol. A report on a split that follows it shares them."
    whose = "The splits here are" if len(evidence.sources) > 1 else "The split here is"
    return (
        f"Known faults of the published protocol. {whose} by {' and '.join(kinds)}; how much of the first fault is "
        "left then, the result says."
    )


def _section(title: str, blocks: Sequence[Block]) -> Section:
    return Section(slug(title), title, tuple(blocks))


def _title(evidence: ReportData) -> str:
    names = ", ".join(source.path.resolve().name for source in evidence.sources)
    return f"btkeras report: {names}"


def _paper_tables(evidence: ReportData) -> list[Block]:
    return [
        Text((f"Laid out as in {published.PAPER}. {published.NOT_OBTAINED}",)),
        *dataset_tables(evidence),
        *class_tables(evidence),
        ablation_table(evidence),
        size_table(evidence),
        network_table(evidence),
        method_table(evidence),
    ]

"""Of which patient, or of which scan (a DICOM series, a volume), a slice of a dataset is."""

from __future__ import annotations

from btkeras.datasets.dataset import Record

SCANS = ("patient", "series")


def scan_name(record: Record, group_by: str) -> str:
    """A name that is unique in the dataset, by ``patient`` or by ``series``; "" where it is not known."""
    if group_by == "patient":
        return f"{record.source} {record.patient}".strip() if record.patient else ""
    if series := record.extra.get("series"):
        return " ".join(filter(None, (record.source, record.patient, series)))
    # A volume's slice names its number, and its file.
    return record.extra.get("original", "") if record.extra.get("slice") else ""

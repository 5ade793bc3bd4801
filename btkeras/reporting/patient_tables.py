"""Tables for new patients: scores with intervals, the tumour classes alone, and decisions per patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from btkeras.reporting.document import DASH, Column, Table, Text, count, percent
from btkeras.reporting.paper_tables import format_level
from btkeras.reporting.report_data import ReportData

_RULES = (
    "Tumor evidence, as predict --group-by has it: whether there is a tumour by the tenth of a patient's slices with "
    "most evidence of one, and which by all slices. Mean probability and majority are of all slices; where a scan has "
    "many slices beside the tumour, they miss it."
)


def patient_blocks(data: ReportData) -> list[Table | Text]:
    """``patient_tables``, and a sentence where figures per patient are not known."""
    unknown = Text(("The dataset names no patients, so there are no figures per patient.",))
    return [*patient_tables(data), *([] if _known(data, "per_patient") else [unknown])]


def patient_tables(data: ReportData) -> list[Table]:
    """Scores with intervals, and, as far as they are known, the tumour classes alone and decisions per patient."""
    optional = {"tumor_classes": tumor_class_table, "per_patient": patient_table}
    return [score_table(data), *(build(data) for key, build in optional.items() if _known(data, key))]


def _known(data: ReportData, key: str) -> bool:
    return any(model.metrics[key] for model in data.models)


def score_table(data: ReportData) -> Table:
    """Macro recall, AUC, ECE and Brier score of every model, with intervals."""
    shares, numbers = {"macro recall": "recall", "ECE": "ece"}, {"AUC": "auc", "Brier score": "brier"}
    columns = (Column("model"), *Column.several([*shares], percent), *Column.several([*numbers], _number))
    rows = []
    for model in data.models:
        values, intervals = model.metrics["pooled"], model.metrics["intervals"]
        values = {**values, "recall": values["macro"]["recall"]}
        found = {title: _with_interval(values[key], intervals[key]) for title, key in (shares | numbers).items()}
        rows.append({"model": model.name, **found})
    note = (
        "Macro recall and ECE in percent; the AUC is the mean over the classes, each against the rest. Brackets hold "
        f"{format_level(data.sources[0])} intervals, which draw whole groups (patients, where they are known); that of "
        "the ECE is cleared of its bias, and may lie below the ECE."
    )
    return Table.from_rows("scores", f"Scores of {data.pooled}", columns, rows, note)


def _number(value: Mapping[str, Any]) -> str:
    interval = value["interval"]
    return f"{value['value']:.4f}" + (f" ({DASH.join(f'{end:.4f}' for end in interval)})" if interval else "")


def _with_interval(value: float | None, interval: Sequence[float] | None) -> dict[str, Any] | None:
    return None if value is None else {"value": value, "interval": interval}


def tumor_class_table(data: ReportData) -> Table:
    """Accuracy and macro recall of the images of tumours alone."""
    columns = (
        Column("model"),
        Column("images", count),
        *Column.several(("accuracy", "macro recall"), percent, "of all classes"),
        *Column.several({"accuracy": "tumors accuracy", "macro recall": "tumors recall"}, percent, "between tumours"),
    )
    rows = [
        {
            "model": model.name,
            "images": found["images"],
            **_recalls(found),
            **{f"tumors {name.split()[-1]}": value for name, value in _recalls(found["between_tumors"]).items()},
        }
        for model in data.models
        if (found := model.metrics["tumor_classes"])
    ]
    note = (
        "Percent, images without a tumour left out. Of all classes: predicting no tumour is wrong. Between tumours: "
        "the most probable tumour counts, as where a network knows these classes only."
    )
    return Table.from_rows("tumor-classes", f"Tumour classes alone, of {data.pooled}", columns, rows, note)


def patient_table(data: ReportData) -> Table:
    """A row per model and rule: accuracy, macro recall and recalls of decisions on patients."""
    labels = data.sources[0].manifest["classes"]
    columns = (
        *Column.several(("model", "rule")),
        *Column.several(("patients", "slices"), count),
        *Column.several(("accuracy", "macro recall"), percent),
        *Column.several(labels, percent, "recall"),
    )
    rows = [row for model in data.models for row in _rule_rows(model.name, model.metrics["per_patient"])]
    caption = f"Decisions per patient, of {data.pooled}"
    note = "Percent; the accuracy's interval is Wilson's over patients, that of the macro recall draws patients."
    return Table.from_rows("patients", caption, columns, rows, note, _RULES)


def _rule_rows(name: str, found: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    if found is None:
        return
    own = {"model": name, "patients": found["groups"], "slices": found["slices"]}
    for rule, row in found["rules"].items():
        accuracy = {"value": row["accuracy"], "interval": row["intervals"]["accuracy_wilson"]}
        recalls = {label: each["recall"] for label, each in row["per_class"].items()}
        yield {**own, "rule": rule.replace("_", " "), **recalls, **_recalls(row), "accuracy": accuracy}


def _recalls(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Accuracy and macro recall of ``recall_metrics`` with their intervals."""
    names = {"accuracy": "accuracy", "macro recall": "macro_recall"}
    return {title: {"value": found[key], "interval": found["intervals"][key]} for title, key in names.items()}

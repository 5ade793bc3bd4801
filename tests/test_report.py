"""Reports: their numbers against the runs' own, every format, the command, and what is rejected."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import average_precision_score, roc_auc_score

from btkeras.checksums import record_files
from btkeras.cli import main
from btkeras.datasets import Dataset, load_dataset
from btkeras.datasets.dataset import write_manifest
from btkeras.errors import DataError, RunError
from btkeras.experiments.experiment import open_experiment
from btkeras.reporting import published, render
from btkeras.reporting.document import Figure, Gallery, Panel
from btkeras.reporting.plots import to_svg
from btkeras.reporting.render import FORMATS, write_report
from btkeras.reporting.report import build_report, split_caveats
from btkeras.reporting.sources import read_source
from tests.conftest import CLASSES, write_images
from tests.fake_experiment import fake_experiment, fake_run

MODELS = ("resnet34", "improved_resnet34", "lbp_knn")
CV = ("cv.folds=2", f"cv.models=[{', '.join(MODELS)}]")


@pytest.fixture(scope="module")
def cv(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    """A cross-validation of three networks; read only."""
    folder = tmp_path_factory.mktemp("report") / "cv"
    return fake_experiment(folder, load_dataset(shared_images), *CV).path


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    """A run of its own; read only."""
    folder = tmp_path_factory.mktemp("report") / "single"
    return fake_run(folder, load_dataset(shared_images), "model.name=improved_resnet34", "cv.folds=2").path


@pytest.fixture(scope="module")
def summary(cv: Path) -> dict[str, Any]:
    return json.loads((cv / "summary.json").read_text())


def rendered(format_name: str, *runs: Path, out: Path) -> str:
    file = out / f"report{FORMATS[format_name][0]}"
    write_report(build_report(runs), file, format_name)
    return file.read_text()


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a report's time, and only a few tests are about it."""
    leave_plots_out(monkeypatch)


def leave_plots_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(render, "to_svg", lambda *_, **__: "")


@pytest.fixture(scope="module")
def reports(cv: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The experiment's report in every format, without plots."""
    report, folder = build_report([cv]), tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        leave_plots_out(patch)
        for name, endings in FORMATS.items():
            write_report(report, folder / f"{name}{endings[0]}", name)
    return {name: (folder / f"{name}{endings[0]}").read_text() for name, endings in FORMATS.items()}


@pytest.fixture(scope="module")
def panels(single: Path) -> list[Panel]:
    """The first panel of each figure of a run's report."""
    return [block.panels[0] for block in build_report([single]).blocks if isinstance(block, Figure)]


@pytest.fixture(scope="module")
def as_json(reports: dict[str, str]) -> dict[str, Any]:
    """Blocks of the report by name."""
    return blocks(reports["json"])


def blocks(text: str) -> dict[str, Any]:
    return {b["name"]: b for section in json.loads(text)["sections"] for b in section["blocks"] if "name" in b}


def table(found: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Rows of a table by their first cell, their cells by column."""
    columns = found[name]["columns"]
    return {row[0]: dict(zip(columns, row, strict=True)) for row in found[name]["rows"]}


def lines(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def sentences(text: str) -> str:
    every = [b for section in json.loads(text)["sections"] for b in section["blocks"] if b["kind"] == "text"]
    return "\n".join(line for block in every for line in block["lines"])


# === Numbers ===


def test_table_1_counts_the_splits(cv: Path, as_json: dict[str, Any]) -> None:
    rows = table(as_json, "table-1")
    folds = [json.loads((cv / f"splits/fold_{fold}.json").read_text()) for fold in (0, 1)]
    for label in CLASSES:
        for subset, title in (("train", "training"), ("validation", "validation"), ("test", "test")):
            found = {fold["counts"][subset][label] for fold in folds}
            assert rows[label][f"{title}, here"] == (min(found) if len(found) == 1 else [min(found), max(found)])
            assert rows[label][f"{title}, paper"] == published.IMAGES[label][subset]
    assert rows["all"]["all subsets, here"] == 48 and rows["all"]["test, paper"] == 899


def test_table_2_has_means_beside_the_published(as_json: dict[str, Any], summary: dict[str, Any]) -> None:
    rows = table(as_json, "table-2")
    assert list(rows) == list(published.ABLATION)
    assert rows["resnet34_se"]["accuracy, here"] is None and rows["resnet34_se"]["accuracy, paper"] == 0.9828
    rows = {name: rows[name] for name in ("resnet34", "improved_resnet34")}
    assert [rows["improved_resnet34"][letter] for letter in "ABC"] == [True, True, True]
    for name, row in rows.items():
        model = summary["models"][name]
        assert row["accuracy, here"] == {"mean": model["mean"]["accuracy"], "std": model["std"]["accuracy"]}
        assert row["F1, here"] == {"mean": model["mean"]["f1"], "std": model["std"]["f1"]}
    assert rows["improved_resnet34"]["accuracy, paper"] == 0.9882
    assert rows["improved_resnet34"]["F1, paper"] == 0.9847
    assert table(as_json, "table-6")["multiscale residual network (Huang 2022)"]["accuracy, paper"] == 0.9858


def test_table_3_has_the_pooled_metrics_and_their_intervals(as_json: dict[str, Any], summary: dict[str, Any]) -> None:
    model, found = summary["models"]["improved_resnet34"], as_json["table-3"]
    rows = {row[1]: dict(zip(found["columns"], row, strict=True)) for row in found["rows"] if row[0] != "resnet34"}
    for label in CLASSES:
        for metric, title in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
            cell = rows[label][f"{title}, here"]
            assert cell["value"] == model["pooled"]["per_class"][label][metric]
            low, high = cell["interval"]
            assert [low, high] == model["intervals"]["per_class"][label][metric] and low < high
    assert rows["no_tumor"]["precision, paper"] == 1.0 and rows["glioma"]["precision, paper"] == 0.9793
    assert rows["macro average"]["recall, here"]["value"] == model["pooled"]["macro"]["recall"]
    misprints = [note for note in found["notes"] if "misprint" in note]
    assert len(misprints) == 2 and "glioma, is 97.93 where its other cells ask for 99.44" in misprints[0]


def test_table_4_has_the_folds_of_the_improved_model(as_json: dict[str, Any], summary: dict[str, Any]) -> None:
    found, folds = as_json["table-4"], summary["models"]["improved_resnet34"]["folds"]
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    assert [row["accuracy, here"] for row in rows[:2]] == [fold["accuracy"] for fold in folds]
    assert [row["accuracy, paper"] for row in rows] == [0.99, 0.9867, 0.9882]


def test_sizes_and_speeds_are_those_of_the_runs(as_json: dict[str, Any]) -> None:
    row = table(as_json, "size-and-speed")["improved_resnet34"]
    assert row["parameters, millions, here"] == 17_359_000 and row["parameters, millions, paper"] == 17.3e6
    assert row["MACs, billions"] == 3_900_000_000 and row["images per second, training"] == 41.5


def test_tables_of_what_was_not_run_are_left_out(reports: dict[str, str], single: Path, tmp_path: Path) -> None:
    text = reports["json"]
    assert "table-5" not in blocks(text) and {"table-3", "table-4", "table-6"} <= set(blocks(text))
    assert "Its tables 5 are of networks" in sentences(text)
    alone = rendered("json", single, out=tmp_path)
    assert not {"table-2", "table-4", "table-5", "table-6"} & set(blocks(alone)) and "table-3" in blocks(alone)
    assert "Its tables 2, 4, 5, 6 are of networks, or of folds, that this report does not have." in sentences(alone)


def test_the_best_models_matrix_comes_first_and_accuracies_beside_the_papers(
    as_json: dict[str, Any], summary: dict[str, Any]
) -> None:
    name, *_ = table(as_json, "overview")
    first = next(block for block in as_json.values() if block["kind"] == "figure")
    assert first["name"] == "headline"
    (panel,) = first["panels"]
    assert panel["data"]["confusion_matrix"] == summary["models"][name]["pooled"]["confusion_matrix"]
    accuracies = as_json["accuracies"]["panels"][0]["data"]
    assert accuracies["paper"]["improved_resnet34"] == pytest.approx(98.82)
    for model, found in accuracies["models"].items():
        assert found["accuracy"] == pytest.approx(100 * summary["models"][model]["mean"]["accuracy"])


def test_epochs_are_whole_and_legends_hide_no_data(panels: list[Panel]) -> None:
    for panel in panels:
        figure = panel.draw()
        figure.draw_without_rendering()
        area = figure.axes[0]
        if area.get_xlabel() == "epoch":
            assert all(float(tick).is_integer() for tick in area.get_xticks())
        for legend in figure.legends:
            assert not legend.get_window_extent().overlaps(area.get_window_extent())
        assert area.get_legend() is None


def test_curves_are_scikit_learns(cv: Path, as_json: dict[str, Any]) -> None:
    rows = [row for fold in (0, 1) for row in lines(cv / f"resnet34/fold_{fold}/predictions.csv")]
    panels = {
        panel["name"]: panel["data"]["classes"]
        for name in ("roc", "precision-recall")
        for panel in as_json[name]["panels"]
    }
    for label in CLASSES:
        truth, scores = [row["label"] == label for row in rows], [float(row[label]) for row in rows]
        area = panels["roc-resnet34"][label]["area_under_the_ROC_curve"]
        assert area == pytest.approx(roc_auc_score(truth, scores))
        average = panels["precision-recall-resnet34"][label]["average_precision"]
        assert average == pytest.approx(average_precision_score(truth, scores))


def test_curves_and_matrices_are_the_runs_own(cv: Path, as_json: dict[str, Any], summary: dict[str, Any]) -> None:
    history = lines(cv / "resnet34/fold_1/history.csv")
    panels = {panel["name"]: panel["data"] for panel in as_json["loss-over-epochs"]["panels"]}
    assert panels["learning-loss-resnet34"]["validation"][1] == [float(row["val_loss"]) for row in history]
    assert not any("lbp" in name for name in panels)
    matrices = {panel["name"]: panel["data"]["confusion_matrix"] for panel in as_json["folds-lbp-knn"]["panels"]}
    model = summary["models"]["lbp_knn"]
    assert matrices["confusion-lbp-knn-seed-0-fold-1"] == model["folds"][1]["confusion_matrix"]
    pooled = {panel["name"]: panel["data"]["confusion_matrix"] for panel in as_json["confusion"]["panels"]}
    assert pooled["confusion-lbp-knn"] == model["pooled"]["confusion_matrix"]


def test_misclassified_images_are_the_surest_errors_of_the_best(cv: Path, as_json: dict[str, Any]) -> None:
    best = table(as_json, "overview")
    name = next(iter(best))
    rows = [row for fold in (0, 1) for row in lines(cv / f"{name}/fold_{fold}/predictions.csv")]
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    wrong.sort(key=lambda row: -max(float(row[label]) for label in CLASSES))
    shown = as_json["misclassified"]["images"]
    assert [item["path"] for item in shown] == [row["path"] for row in wrong[:12]] and shown
    assert best[name]["wrong"] == len(wrong)


def test_conclusions_and_p_values_are_the_summarys(reports: dict[str, str], summary: dict[str, Any]) -> None:
    text = reports["json"]
    for pair, row in zip(summary["comparisons"], blocks(text)["pairs"]["rows"], strict=True):
        assert pair["conclusion"] in sentences(text)
        assert row[:2] == pair["models"] and pair["bootstrap_p_adjusted"] in row and pair["mcnemar_p"] in row


# === Formats ===


class Page(HTMLParser):
    """What a page refers to, its headings, tables and identifiers; an element that is not closed is an error."""

    VOID = frozenset({"meta", "wbr", "img", "link", "br", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(reports: dict[str, str]) -> Page:
    return Page(reports["html"])


def test_html_asks_for_nothing_outside_itself(page: Page) -> None:
    policy = next(meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not page.all("script") and not page.all("link")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/jpeg;base64,"))
    assert not re.search(r"url\((?!#)|@import", "".join(page.text))


def test_html_can_be_read_without_eyes(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en" and page.all("title")
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1 and set(headings[1:]) == {2}
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _ in page.tags}
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in attributes for attributes in page.all("th"))
    assert all(attributes.get("alt") for attributes in page.all("img"))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {attributes["href"] for attributes in page.all("a")}
    assert targets <= {f"#{name}" for name in names}


def test_every_format_shows_the_same_numbers(reports: dict[str, str], summary: dict[str, Any]) -> None:
    model = summary["models"]["improved_resnet34"]
    mean, deviation = 100 * model["mean"]["accuracy"], 100 * model["std"]["accuracy"]
    low, high = (100 * end for end in model["intervals"]["accuracy"])
    html, markdown, latex = (reports[name] for name in ("html", "markdown", "latex"))
    assert f"{mean:.2f} ± {deviation:.2f}" in html and f"{low:.1f}\N{EN DASH}{high:.1f}" in html
    assert f"| {mean:.2f} ± {deviation:.2f} |" in markdown and f"{low:.1f}\N{EN DASH}{high:.1f}" in markdown
    assert rf"& {mean:.2f} $\pm$ {deviation:.2f} &" in latex and f"{low:.1f}--{high:.1f}" in latex


def test_plots_follow_the_page_into_the_dark_and_are_the_same_each_time(panels: list[Panel]) -> None:
    plots = [to_svg(panel) for panel in panels]
    Page("".join(plots))
    assert len(plots) > 6 and all("currentColor" in plot and 'aria-label="' in plot for plot in plots)
    assert not re.search(r"#010203|#000000|fill: black|font-family", "".join(plots))
    assert to_svg(panels[0]) == plots[0]
    identifiers = re.findall(r' id="([^"]*)"', "".join(plots))
    assert len(identifiers) == len(set(identifiers))


def test_files_that_are_referred_to_exist(single: Path, tmp_path: Path) -> None:
    names = re.findall(r"\]\((report_files/[^)]+)\)", rendered("markdown", single, out=tmp_path))
    assert names and all((tmp_path / name).is_file() for name in names)
    assert len(list((tmp_path / "report_files").iterdir())) == len(set(names))


def test_latex_is_balanced_and_its_tables_are_rectangular(reports: dict[str, str]) -> None:
    body = reports["latex"][reports["latex"].index(r"\begin{document}") :]
    bare = re.sub(r"\\[{}]", "", body)
    assert bare.count("{") == bare.count("}")
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*?)\\bottomrule", body, re.DOTALL)
    assert len(tables) > 6
    for columns, rows in tables:
        for row in re.findall(r"^.*\\\\$", rows, re.MULTILINE):
            spans = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", row))
            assert len(re.findall(r"(?<!\\)&", row)) + spans == len(columns) - 1, row


def test_latex_compiles(single: Path, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    rendered("latex", with_path(single, tmp_path / "run", EVIL), out=tmp_path)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("format_name", FORMATS)
def test_the_same_runs_give_the_same_bytes(format_name: str, single: Path, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        rendered(format_name, single, out=folder)
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_report_loads_neither_tensorflow_nor_keras(single: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom btkeras.reporting import plots, render, report\n"
        "built = report.build_report([Path(sys.argv[1])])\n"
        "plots.to_svg(next(block.panels[0] for block in built.blocks if hasattr(block, 'panels')))\n"
        "render.to_svg = lambda *_, **__: ''\n"
        "render.write_report(built, Path(sys.argv[2]), 'html')\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(single), str(tmp_path / "r.html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# === What comes from outside ===

EVIL = "glioma/<script>alert(1)</script>_$x^2$|`#%&~{}.png"


def with_path(single: Path, copy: Path, path: str) -> Path:
    """A copy of the run in which a wrong answer that it was sure of is about another path."""
    shutil.copytree(single, copy)
    file = copy / "predictions.csv"
    header, _, *rest = file.read_text().splitlines(keepends=True)
    with file.open("w", newline="") as opened:
        opened.write(header)
        csv.writer(opened, lineterminator="\n").writerow([path, "glioma", "pituitary", 0.0, 0.0, 0.0, 1.0])
        opened.writelines(rest)
    record_files(copy, [file])
    return copy


def test_a_malicious_path_is_text_everywhere(single: Path, tmp_path: Path) -> None:
    run = with_path(single, tmp_path / "evil", EVIL)
    html = rendered("html", run, out=tmp_path)
    page = Page(html)
    assert EVIL in "".join(page.text) and not page.all("script")
    markdown = rendered("markdown", run, out=tmp_path)
    assert "<script" not in markdown
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\_\$x^2\$\|\`\#%&amp;\~{}.png" in markdown
    latex = rendered("latex", shutil.copytree(run, tmp_path / "<b>$x^2$|`#%&~{}"), out=tmp_path)
    assert (
        r"\textless{}b\textgreater{}\$x\textasciicircum{}2\$\textbar{}\textasciigrave{}\#\%\&\textasciitilde{}\{\}"
        in latex
    )


@pytest.mark.parametrize("path", ["../outside.png", "/etc/outside.png"])
def test_nothing_outside_the_dataset_is_shown(path: str, single: Path, tmp_path: Path) -> None:
    run = with_path(single, tmp_path / "evil", path)
    first = next(block for block in build_report([run]).blocks if isinstance(block, Gallery)).images[0]
    assert first.data["path"] == path and first.jpeg is None
    assert "not shown: the path leaves the dataset" in first.lines


@pytest.mark.parametrize("format_name", ["html", "markdown", "latex"])
def test_names_that_no_font_has_are_written_somehow(format_name: str, single: Path, tmp_path: Path) -> None:
    run = with_path(single, tmp_path / "kopie 脑瘤", "glioma/脑瘤-é.png")
    shown = {"latex": "kopie [U+8111][U+7624]"}.get(format_name, "脑瘤-é.png")
    assert shown in rendered(format_name, run, out=tmp_path)


# === Other runs than one cross-validation ===


def test_a_single_run_is_an_experiment_of_one_fold(single: Path, tmp_path: Path) -> None:
    text = rendered("json", single, out=tmp_path)
    metrics = json.loads((single / "metrics.json").read_text())
    row = table(blocks(text), "overview")["improved_resnet34"]
    assert row["accuracy"] == {"mean": metrics["accuracy"], "std": None} and row["trainings"] == 1
    assert not {"pairs", "accuracies", "confusion", "folds-improved-resnet34"} & set(blocks(text))


def test_experiments_of_the_same_splits_are_compared(cv: Path, shared_images: Path, tmp_path: Path) -> None:
    other = fake_experiment(tmp_path / "other", load_dataset(shared_images), "cv.folds=2", "cv.models=[vgg16]")
    text = rendered("json", cv, other.path, out=tmp_path)
    pairs = {tuple(row[:2]) for row in blocks(text)["pairs"]["rows"]}
    assert len(pairs) == 6 and ("improved_resnet34", "vgg16") in pairs
    run = {name for name, row in table(blocks(text), "table-5").items() if row["accuracy, here"]}
    assert run == {"vgg16", "improved_resnet34"}
    assert "Different" not in sentences(text)
    with_them = fake_experiment(
        tmp_path / "all", load_dataset(shared_images), "cv.folds=2", f"cv.models=[{', '.join((*MODELS, 'vgg16'))}]"
    )
    together = json.loads(with_them.summary_file.read_text())["comparisons"]
    assert [row[2] for row in blocks(text)["pairs"]["rows"]] == [pair["difference"] for pair in together]


def test_folds_of_two_networks_are_told_apart_in_the_title(cv: Path, single: Path) -> None:
    report = build_report([cv / "resnet34" / "fold_0", cv / "improved_resnet34" / "fold_0", single], images=False)
    assert report.title == "btkeras report: resnet34/fold_0, improved_resnet34/fold_0, single"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.split_seed=1",), "Different splits"),
        (("data.image_size=64",), "Different settings: .* trained with other data.image_size"),
    ],
)
def test_what_does_not_compare_is_said_first(
    overrides: tuple[str, ...], said: str, cv: Path, shared_images: Path, tmp_path: Path
) -> None:
    other = fake_experiment(
        tmp_path / "other", load_dataset(shared_images), "cv.folds=2", "cv.models=[resnet34]", *overrides
    )
    text = rendered("json", cv, other.path, out=tmp_path)
    first = json.loads(text)["sections"][0]["blocks"][0]
    assert first["role"] == "warning" and re.search(said, " ".join(first["lines"]))
    assert {"resnet34 (cv)", "resnet34 (other)"} <= set(table(blocks(text), "overview"))


def test_another_dataset_is_said_and_not_compared(cv: Path, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "glioma/000.png").unlink()
    other = fake_experiment(tmp_path / "other", load_dataset(image_folder), "cv.folds=2", "cv.models=[vgg16]")
    text = rendered("json", cv, other.path, out=tmp_path)
    assert "Different datasets" in sentences(text) and {"table-1-1", "table-1-2"} <= set(blocks(text))
    assert not any("vgg16" in row[:2] for row in blocks(text)["pairs"]["rows"])


def test_a_dataset_that_is_gone_is_no_failure(image_folder: Path, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", load_dataset(image_folder), *CV).path
    shutil.rmtree(image_folder)
    assert f"The dataset is no longer at {image_folder}" in sentences(rendered("json", path, out=tmp_path))
    assert "<img" not in rendered("html", path, out=tmp_path)


def test_an_image_that_is_broken_is_no_failure(image_folder: Path, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", load_dataset(image_folder), *CV).path
    for file in image_folder.glob("*/*.png"):
        file.write_bytes(b"no image")
    assert "not shown: An image must be PNG, JPEG, BMP" in rendered("html", path, out=tmp_path)


def test_runs_with_the_manifests_of_older_versions_are_reported(cv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "cv"
    shutil.copytree(cv, copy)
    kept = {"command", "started", "dataset", "classes", "images", "seeds"}
    for file in copy.rglob("manifest.json"):
        manifest = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in manifest.items() if key in kept}))
    text = rendered("json", copy, out=tmp_path)
    assert table(blocks(text), "size-and-speed")["resnet34"]["images per second, testing"] is None


# === Errors ===


def test_what_is_no_finished_run_is_one_message_with_what_to_do(cv: Path, shared_images: Path, tmp_path: Path) -> None:
    dataset = load_dataset(shared_images)
    half = fake_experiment(tmp_path / "half", dataset, *CV, unfinished=True).path
    untested = fake_run(tmp_path / "untested", dataset, "cv.folds=2", evaluated=False).path
    messages = {
        (tmp_path,): "which is neither.*btkeras cv --out",
        (half,): f"1 of 6 folds unfinished.*btkeras cv --resume --out {half}",
        (untested,): f"without metrics.json.*btkeras evaluate {untested}",
        (cv, cv): "each RUN once",
    }
    for runs, said in messages.items():
        with pytest.raises(RunError, match=said):
            build_report(runs)


# === The published figures ===


def test_the_ablation_is_that_of_the_networks() -> None:
    from btkeras.models.architectures import RESNET34_VARIANTS

    modules = {"inception": "A", "multi_scale": "B", "attention": "C"}
    found = {
        name: "".join(letter for module, letter in modules.items() if vars(variant)[module])
        for name, variant in RESNET34_VARIANTS.items()
    }
    assert found == published.MODULES and set(published.ABLATION) == set(found)


def test_the_published_tables_agree_within_rounding_but_for_their_misprints() -> None:
    """F1 from precision and recall, averages from their cells; all in hundredths of a percent."""
    tested = {label: counts["test"] for label, counts in published.IMAGES.items()}
    misprints = set()
    for model, rows in published.PER_CLASS.items():
        for label, row in rows.items():
            f1 = 2 * row["precision"] * row["recall"] / (row["precision"] + row["recall"])
            if label != published.AVERAGE and abs(f1 - row["f1"]) > 1.01e-4:
                misprints.add((model, label))
        for metric in published.CLASS_METRICS:
            mean = sum(rows[label][metric] for label in tested) / 4
            if abs(mean - rows[published.AVERAGE][metric]) > 1.01e-4:
                misprints.add((model, metric))
        recall = sum(rows[label]["recall"] * images for label, images in tested.items()) / 899
        # One fixed test fifth: the weighted recalls are the accuracies.
        assert recall == pytest.approx(published.ABLATION[model]["accuracy"], abs=5e-4)
    assert misprints == {
        ("improved_resnet34", "glioma"),
        ("improved_resnet34", "precision"),
        ("resnet34_se", "glioma"),
    }
    for model, asked in published.MISPRINTS.items():
        row = published.PER_CLASS[model]["glioma"]
        assert 1 / (2 / row["f1"] - 1 / row["recall"]) == pytest.approx(asked["glioma"], abs=1.5e-4)
        wrong = (1 / asked["glioma"] - 1) * row["recall"] * tested["glioma"]
        assert 1 - wrong / (899 - tested["glioma"]) == pytest.approx(row["specificity"], abs=1e-4)
    *folds, average = published.FOLDS
    for metric, value in average.items():
        assert sum(fold[metric] for fold in folds) / 5 == pytest.approx(value, abs=1e-4)
    for model, row in published.NETWORKS.items():
        slices = 899 * row["accuracy"]
        assert model == published.IMPROVED or abs(slices - round(slices)) < 0.06


# === Groups ===


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Class folders of 12 images of 6 patients each."""
    root = write_images(tmp_path_factory.mktemp("named") / "images")
    records = load_dataset(root).records
    write_manifest(root, [replace(r, patient=f"{r.label} {int(Path(r.path).stem) // 2}", source="s") for r in records])
    return load_dataset(root)


def facts(text: str) -> dict[str, str]:
    return dict(blocks(text)["source-1"]["rows"])


def test_a_split_by_patient_is_not_called_inflated(named: Dataset, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2", "data.group_by=patient").path
    text = sentences(rendered("json", path, out=tmp_path))
    assert "The split is by patient: the accuracy is one on new patients" in text
    assert "upper bound" not in text and "test images (" not in text
    assert "The split here is by patient; the summary says how much of the first fault is left" in text


def test_a_split_by_image_counts_its_relatives_and_shares_the_faults(named: Dataset, tmp_path: Path) -> None:
    path = fake_experiment(tmp_path / "cv", named, "cv.folds=2").path
    text = sentences(rendered("json", path, out=tmp_path))
    assert "have a slice of the same patient or byte-for-byte duplicate in the training subset" in text
    assert "A report on a split that follows it shares them." in text


def test_of_a_split_without_groups_the_near_duplicates_that_were_counted_are_said(single: Path, tmp_path: Path) -> None:
    source = read_source(single)
    runs = tuple(replace(run) for run in source.runs)
    for run in runs:
        run.__dict__["_metrics"] = {"without_near_duplicates": {"near_duplicates": 2}}
    tested = sum(len(run.result.paths) for run in runs)
    found = " ".join(split_caveats(replace(source, groups={}, runs=runs)))
    assert f"2 of {tested} test images have a near-duplicate in the training subset. The dataset names no" in found


def test_intervals_by_other_groups_count_fewer_independent_images(single: Path) -> None:
    """The images with rows, columns or a chequerboard are a series per class by number; those of noise are none."""
    plain, other = (
        render.render(build_report([single], images=False, intervals_group_by=group_by), "json")
        for group_by in (None, "series")
    )
    assert "24 groups of 24 images, by image" in facts(plain)["intervals"]
    assert "9 groups of 24 images, by series" in facts(other)["intervals"]
    assert "18 of 24 test images (75.00 %) have a near-duplicate or slice of the same series" in sentences(other)
    before, after = (
        read_source(single, group_by).summary["models"]["improved_resnet34"] for group_by in (None, "series")
    )
    low, high = after["intervals"]["accuracy"]
    assert before["pooled"] == after["pooled"] and low <= before["pooled"]["accuracy"] <= high


def test_a_changed_dataset_cannot_be_regrouped(image_folder: Path, tmp_path: Path) -> None:
    run = fake_run(tmp_path / "run", load_dataset(image_folder), "cv.folds=2")
    (image_folder / "glioma/000.png").unlink()
    with pytest.raises(DataError, match=r"the one that was split.*leave --intervals-group-by out"):
        build_report([run.path], images=False, intervals_group_by="series")


def test_the_command_line_splits_by_groups_and_says_what_it_needs(
    named: Dataset, tmp_path: Path, shared_images: Path
) -> None:
    def run(*words: str | Path) -> Any:
        return CliRunner().invoke(main, ["cv", "--plan", "--folds", "3", *map(str, words)])

    done = run("--data", named.root, "--group-by", "patient", "--out", tmp_path / "cv")
    assert done.exit_code == 0, done.output
    split = json.loads((tmp_path / "cv/splits/fold_0.json").read_text())
    assert split["group_by"] == "patient" and open_experiment(tmp_path / "cv").config().data.group_by == "patient"
    groups = [{split["groups"][path] for path in split[subset]} for subset in ("train", "validation", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    rejected = run("--data", shared_images, "--group-by", "patient", "--out", tmp_path / "none")
    assert rejected.exit_code == 1 and "--group-by series" in rejected.output and not (tmp_path / "none").exists()
    wrong = run("--data", shared_images, "--group-by", "scanner", "--out", tmp_path / "none")
    assert wrong.exit_code == 2 and "series" in wrong.output
    assert (
        CliRunner().invoke(main, ["train", "--data", "x", "--out", "y", "--set", "data.group_by=scanner"]).exit_code
        == 2
    )


# === The command ===


def btkeras(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_what_a_real_training_leaves_is_reported(trained_run: Path, tmp_path: Path) -> None:
    result = btkeras("report", trained_run, "--out", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    found = blocks((tmp_path / "r.json").read_text())
    training = dict(zip(found["trainings"]["columns"], found["trainings"]["rows"][0], strict=True))
    assert training["epochs"] == 10 and training["duration"] > 0
    metrics = json.loads((trained_run / "metrics.json").read_text())
    assert found["overview"]["rows"][0][1]["mean"] == metrics["accuracy"]


def test_one_run_has_its_report_in_its_folder_by_format_or_ending(single: Path, tmp_path: Path) -> None:
    run = shutil.copytree(single, tmp_path / "run")
    result = btkeras("report", run)
    assert result.exit_code == 0 and result.stdout.strip() == str(run / "report.html"), result.output
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert "data:image/jpeg" in (run / "report.html").read_text()
    assert btkeras("report", run, "--out", tmp_path / "b.html", "--no-images").exit_code == 0
    assert "data:image/jpeg" not in (tmp_path / "b.html").read_text()
    assert btkeras("report", run, "--out", tmp_path / "a.json", "--no-images").exit_code == 0
    assert btkeras("report", run, "--out", tmp_path / "b.txt", "--format", "json", "--no-images").exit_code == 0
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.txt").read_text()
    assert btkeras("report", run, "--format", "markdown").stdout.strip() == str(run / "report.md")
    assert (run / "report_files").is_dir()


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ((), "RUN", 2),
        (("nowhere",), "which is neither", 1),
        (("nowhere", "elsewhere"), "needs --out FILE", 2),
        (("nowhere", "--out", "report.docx"), "must end in .html.*report.docx", 2),
    ],
)
def test_wrong_input_is_one_message(
    arguments: tuple[str, ...], said: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = btkeras("report", *arguments)
    assert result.exit_code == code and result.stdout == "" and re.search(said, result.stderr), result.output
    assert not list(tmp_path.iterdir())

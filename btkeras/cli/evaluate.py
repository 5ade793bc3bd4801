"""Results of a model: ``btkeras evaluate``, ``calibrate``, ``robustness``, ``report`` and ``card``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from btkeras.cli.common import (
    PATH,
    echo,
    echo_unfinished,
    echo_unknown_slices,
    json_option,
    open_dataset,
    quiet_tensorflow,
    run_argument,
    skip_broken_option,
)
from btkeras.cli.evaluate_exported import evaluate_exported, is_exported
from btkeras.config import GROUPINGS
from btkeras.decisions.abstention import LEVEL, check_risk
from btkeras.errors import ConfigError
from btkeras.logging import logger


@click.command(short_help="Evaluate a run or an exported model, also on another dataset.")
@click.argument("run", type=PATH, metavar="RUN|MODEL")
@click.option("--data", metavar="DATASET", help="Another dataset, all of it; or `phantom`. See above.")
@click.option("--out", type=PATH, help="Of an exported model: the folder for the results.")
@click.option("--split", "subset", type=click.Choice(["test", "validation", "train"]), help="[default: test]")
@json_option
@click.option("--explain", is_flag=True, help="Score explanations against tumour boxes or masks as well.")
@click.option("--method", "methods", multiple=True, help="Of --explain; repeatable. [default: layercam]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Explain N images, drawn evenly. [default: all]")
@click.option(
    "--group-by", type=click.Choice(["patient", "series"]), help="Show the decisions per patient, or per scan."
)
@click.option("--unfinished", is_flag=True, help="Evaluate the test subset though epochs are left to train.")
@skip_broken_option
def evaluate(run: Path, out: Path | None, as_json: bool, **options: Any) -> None:
    """Evaluate RUN's best checkpoint, or an exported MODEL, on its test subset or on another dataset.

    Metrics per class and macro-averaged, the confusion matrix, calibration and coverage are printed and written, with
    a prediction per image, to RUN/metrics.json, RUN/predictions.csv and RUN/decisions.csv, or to RUN/evaluations/NAME/
    for another subset or dataset.

    An exported model knows the images of its run's split by their content: --data says where they are now, and the
    subset of --split is tested; of a dataset without any of them, all images. Files are written to --out only. A LiteRT
    or ONNX model needs no TensorFlow.

    To a model of `tumor` and `no_tumor`, kinds of tumours are tumours. On images of `tumor` and `no_tumor`, a model of
    kinds has the sum of these as its probability of a tumour; --explain scores the map of the most probable kind.

    The test subset of an unfinished run is an error without --unfinished: looked at early, and then chosen by, it is no
    test any more.

    Where images name their patient (or their DICOM series or volume), a decision per patient (or scan) is evaluated
    too, by three rules; --group-by shows one confusion matrix of these, and is an error where none is named. Intervals
    draw whole patients.

    Near-duplicates of the model's training and validation slices are counted and named in near_duplicates.csv, and
    metrics are given without them, too. In a run's test subset they are found by alignment, elsewhere by perceptual
    hashes, which recognize images that were re-encoded, resized, brightened, flipped or padded, but only some cropped.

    --explain scores maps by layercam, gradcam (of a run) or occlusion (slow: see --limit) of correctly classified
    tumours against their boxes or masks, beside simple baselines and, of a run, the same network with random weights,
    in explanations.json too.

    \b
    Examples:
      btkeras evaluate runs/cpu
      btkeras evaluate runs/cpu --split validation --json
      btkeras evaluate runs/cpu --data data/other-hospital
      btkeras evaluate runs/cpu --explain --method layercam --method occlusion --limit 100
      btkeras evaluate runs/cpu --group-by patient
      btkeras evaluate saved_models/cpu --data data/both --out results
    """
    if (options["methods"] or options["limit"]) and not options["explain"]:
        raise ConfigError("--method and --limit belong to --explain", remedy="Add --explain, or leave them away")
    if is_exported(run):
        metrics, text = evaluate_exported(run, out, options)
    elif out is not None:
        raise ConfigError("--out is for exported models", remedy=f"The results of a run go to {run}: leave it away")
    else:
        metrics, text = _evaluate_run(run, options)
    echo(metrics, as_json, lambda _: text)


def _evaluate_run(run: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    quiet_tensorflow()
    from btkeras.evaluation.evaluate import LoadedRun, evaluate_dataset, evaluate_split
    from btkeras.evaluation.metrics_text import metrics_table
    from btkeras.evaluation.tumor_or_none import dataset_of_model
    from btkeras.explain.methods import DEFAULT_METHOD, method_of
    from btkeras.explain.score_rows import NothingToExplainError, explanations_table
    from btkeras.explain.scores import require_regions, score_explanations
    from btkeras.runs import open_run

    if options["subset"] and options["data"] is not None:
        rule, remedy = "--split is of the run's own dataset", "Leave --split or --data away"
        raise ConfigError(rule, received=f"--split {options['subset']} with --data", remedy=remedy)
    methods, subset = options["methods"] or (DEFAULT_METHOD,), options["subset"] or "test"
    for method in methods:
        method_of(method)
    opened = LoadedRun(open_run(run))
    given = open_dataset(options["data"], opened.run.config().phantom) if options["data"] is not None else None
    dataset = given and dataset_of_model(given, opened.run.classes(), merged=True)
    if options["explain"]:
        require_regions(opened, subset, dataset)
    if dataset is not None:
        metrics = evaluate_dataset(opened, dataset, skip_broken=options["skip_broken"], group_by=options["group_by"])
        echo_unknown_slices(run)
    else:
        metrics = evaluate_split(opened, subset, unfinished=options["unfinished"], group_by=options["group_by"])
    echo_unfinished(opened.run.best_model)
    text = metrics_table(metrics, options["group_by"])
    if options["explain"]:
        try:
            scores = score_explanations(opened, subset, dataset=dataset, methods=methods, limit=options["limit"])
            metrics, text = {**metrics, "explanations": scores}, f"{text}\n\n{explanations_table(scores)}"
        except NothingToExplainError as error:
            logger.warning(f"no explanations are scored: {error}")
    return metrics, text


@click.command(short_help="Calibrate a run's probabilities, and when it abstains.")
@run_argument
@click.option("--data", metavar="DATASET", help="Labelled images, of your hospital say, to fit threshold and sets on.")
@click.option("--risk", type=float, help="Largest share of wrong decisions.  [default: of 0.05, 0.1, 0.2 what is kept]")
@click.option("--confidence-level", "level", default=LEVEL, show_default=True, help="How surely it is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the calibration metrics of the test subset as JSON.")
def calibrate(run: Path, data: str | None, risk: float | None, level: float, as_json: bool) -> None:
    """Calibrate RUN's best checkpoint, fit the threshold below which it abstains, and evaluate it again.

    RUN/best.keras gets a temperature, by which its logits are divided; the most probable class stays the same.
    RUN/calibration.json gets the conformal scores for prediction sets, and RUN/ood.npz the out-of-distribution
    detector. `train` and `cv` do this themselves; runs of older versions need it.

    A decision is `uncertain` where the highest probability is below a threshold, chosen by Learn then Test so that at
    most --risk of the other decisions are wrong, with --confidence-level. This holds for images like those that it is
    fitted on: the validation slices with none to three corruptions (noise, blur, ...), or, far better, --data: some
    hundred labelled images, never trained on, from where the model is used. Prediction sets are fitted on these, too.
    Near-duplicates of training and validation slices are left out. Fewer patients than images promise less.

    \b
    Examples:
      btkeras calibrate runs/cpu
      btkeras calibrate runs/cpu --risk 0.02 --json
      btkeras calibrate runs/cpu --data data/other-hospital --risk 0.1
    """
    quiet_tensorflow()
    from btkeras.evaluation.calibrate import calibrate_and_evaluate
    from btkeras.evaluation.metrics_text import metrics_table
    from btkeras.provenance import command_of_process
    from btkeras.runs import open_run

    check_risk(risk, level)
    opened = open_run(run)
    dataset = open_dataset(data, opened.config().phantom) if data is not None else None
    metrics = calibrate_and_evaluate(opened, dataset, risk=risk, level=level)
    opened.update_manifest(calibrated=command_of_process())
    echo(metrics["calibration"], as_json, lambda _: metrics_table(metrics))


def _count(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 nor `all`.")
    return int(value)


@click.command(short_help="Accuracy and confidence under noise, blur, rotation ...")
@run_argument
@click.option("--data", metavar="DATASET", help="Another dataset, all of whose images count; or `phantom`.")
@click.option(
    "--images",
    default="200",
    metavar="N|all",
    callback=_count,
    help="How many, drawn at random from each class in its proportion.",
)
@json_option
def robustness(run: Path, data: str | None, images: int | None, as_json: bool) -> None:
    """Evaluate RUN's network on its test images under nine corruptions at five levels each.

    Noise, blur, gamma, bias field, rotation, JPEG, contrast, resolution and inversion, from barely visible to severe:
    accuracy, balanced accuracy, mean confidence and calibration error go to RUN/robustness.json, and one image under
    all corruptions to RUN/robustness.png; those of another dataset to RUN/evaluations/NAME/. `btkeras report` shows
    them.

    \b
    Examples:
      btkeras robustness runs/cpu
      btkeras robustness runs/cpu --images all --json
      btkeras robustness runs/cpu --data data/other-hospital
    """
    quiet_tensorflow()
    from btkeras.evaluation.robustness import measure_robustness, robustness_table
    from btkeras.runs import open_run

    opened = open_run(run)
    dataset = open_dataset(data, opened.config().phantom) if data is not None else None
    echo(measure_robustness(opened, dataset, images), as_json, robustness_table)


@click.command(short_help="Tables and plots of runs and cross-validations.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, help="The file to write.  [default, of one RUN: RUN/report.html]")
@click.option(
    "--format", "kind", type=click.Choice(["html", "markdown", "latex", "json"]), help="[default: by the file's ending]"
)
@click.option("--no-images", is_flag=True, help="Leave the misclassified images out.")
@click.option(
    "--intervals-group-by",
    type=click.Choice(GROUPINGS),
    help="Groups of images for the intervals, in place of the splits' own; see `train --group-by`.",
)
def report(
    runs: tuple[Path, ...], out: Path | None, kind: str | None, no_images: bool, intervals_group_by: str | None
) -> None:
    """Report the results of RUNs: each the folder of a cross-validation or of a single training.

    It has the paper's tables with the published figures beside yours, intervals, comparisons of models, learning
    curves, confusion matrices, ROC and precision-recall curves, calibration, robustness, the most confident errors, and
    the provenance. RUNs of the same dataset and splits are compared. HTML is one file that needs nothing else; Markdown
    and LaTeX have their plots in NAME_files/ beside them.

    \b
    Examples:
      btkeras report runs/cv
      btkeras report runs/ablation runs/others --out report.html
      btkeras report runs/cv --out paper/tables.tex
      btkeras report runs/cpu --no-images --out report.json
      btkeras report runs/cpu --intervals-group-by series
    """
    from btkeras.machine import cache_folder
    from btkeras.reporting.render import FORMATS, format_of, write_report
    from btkeras.reporting.report import build_report

    if out is None and len(runs) > 1:
        raise click.UsageError("A report of several RUNs needs --out FILE.")
    out = out or runs[0] / f"report{FORMATS[kind or 'html'][0]}"
    kind = kind or format_of(out)
    cache = cache_folder() if intervals_group_by else None
    write_report(
        build_report(runs, images=not no_images, intervals_group_by=intervals_group_by, cache=cache), out, kind
    )
    click.echo(out)


@click.command(short_help="Write the model card of a run, in Markdown.")
@run_argument
@click.option("--out", type=PATH, help="The file to write, or `-` to print it.  [default: RUN/model_card.md]")
def card(run: Path, out: Path | None) -> None:
    """Write the model card of RUN: its model, intended use, data, metrics with intervals, and limits.

    It holds what `train`, `evaluate`, `calibrate`, `robustness` and others measured, and says which command measures
    what is missing. It names no folder of this machine. Your notes in RUN/notes.md (Markdown) become a section of it.

    \b
    Examples:
      btkeras card runs/cpu
      btkeras card runs/cpu --out -
      btkeras card runs/cpu --out saved_models/cpu/README.md
    """
    from btkeras.files import write_text
    from btkeras.reporting.card import card_text
    from btkeras.runs import Run

    text, target = card_text(Run(run)), out or Run(run).card_file
    if str(target) == "-":
        click.echo(text, nl=False)
    else:
        write_text(target, text)
        click.echo(target)

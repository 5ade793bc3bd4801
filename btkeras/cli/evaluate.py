"""``btkeras evaluate``, ``btkeras calibrate`` and ``btkeras robustness``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from btkeras.cli.common import PATH, open_dataset, quiet_backend, quiet_tensorflow, run_argument, skip_broken_option
from btkeras.errors import ConfigError


@click.command(short_help="Evaluate a run or an exported model, also on another dataset.")
@click.argument("run", type=PATH, metavar="RUN|MODEL")
@click.option("--data", metavar="DATASET", help="Another dataset, all of it; or `phantom`. See above.")
@click.option("--out", type=PATH, help="Of an exported model: the folder for the results.")
@click.option(
    "--split", "subset", default="test", show_default=True, type=click.Choice(["test", "validation", "train"])
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--explain", is_flag=True, help="Score explanations against tumour boxes or masks as well.")
@click.option("--method", "methods", multiple=True, help="Of --explain; repeatable. [default: layercam]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Explain N images, drawn evenly. [default: all]")
@skip_broken_option
def evaluate(  # noqa: PLR0913 - one parameter an option
    run: Path,
    data: str | None,
    out: Path | None,
    subset: str,
    as_json: bool,
    explain: bool,
    methods: tuple[str, ...],
    limit: int | None,
    skip_broken: bool,
) -> None:
    """Evaluate RUN's best checkpoint, or an exported MODEL, on its test subset or on another dataset.

    Accuracy, precision, recall, specificity and F1 per class and macro-averaged, the confusion matrix, calibration and
    coverage are printed and written, with a prediction per image, to RUN/metrics.json, RUN/predictions.csv and
    RUN/decisions.csv, or to RUN/evaluations/NAME/ for another subset or dataset.

    An exported model knows the images of its run's split by their content: --data says where they are now, and the
    subset of --split is tested; of a dataset without any of them, all images. Files are written to --out only. A LiteRT
    or ONNX model needs no TensorFlow.

    --explain scores maps by layercam, gradcam or occlusion (slow: see --limit) of correctly classified tumours against
    their boxes or masks, beside simple baselines and the same network with random weights. The scores are printed and
    written to explanations.json.

    \b
    Examples:
      btkeras evaluate runs/cpu
      btkeras evaluate runs/cpu --split validation --json
      btkeras evaluate runs/cpu --data data/other-hospital
      btkeras evaluate runs/cpu --explain --method layercam --method occlusion --limit 100
      btkeras evaluate saved_models/cpu --data data/both --out results
    """
    if (methods or limit) and not explain:
        raise ConfigError("--method and --limit belong to --explain", remedy="Add --explain, or leave them away")
    from btkeras.evaluation.results import metrics_table

    if _is_exported(run):
        metrics = _evaluate_exported(run, data, subset, out, explain, skip_broken)
        click.echo(json.dumps(metrics, indent=2) if as_json else metrics_table(metrics))
        return
    if out is not None:
        raise ConfigError("--out is for exported models", remedy=f"The results of a run go to {run}: leave it away")
    quiet_tensorflow()
    from btkeras.evaluation.evaluate import LoadedRun, evaluate_dataset, evaluate_split
    from btkeras.explain.methods import DEFAULT_METHOD, method_of
    from btkeras.explain.scores import explanations_table, score_explanations
    from btkeras.runs import open_run

    for method in methods:
        method_of(method)
    opened = LoadedRun(open_run(run))
    dataset = open_dataset(data, opened.run.config().phantom) if data else None
    if dataset is not None:
        metrics = evaluate_dataset(opened, dataset, skip_broken=skip_broken)
    else:
        metrics = evaluate_split(opened, subset)
    text = metrics_table(metrics)
    if explain:
        chosen = methods or (DEFAULT_METHOD,)
        scores = score_explanations(opened, subset, dataset=dataset, methods=chosen, limit=limit)
        metrics = {**metrics, "explanations": scores}
        text += f"\n\n{explanations_table(scores)}"
    click.echo(json.dumps(metrics, indent=2) if as_json else text)


def _is_exported(path: Path) -> bool:
    from btkeras.errors import ModelError
    from btkeras.inference.backends import locate

    try:
        return locate(path).path.is_file()
    except ModelError:
        # For anything else, `open_run` has the better message.
        return False


def _evaluate_exported(
    model: Path, data: str | None, subset: str, out: Path | None, explain: bool, skip_broken: bool
) -> dict[str, Any]:
    if explain:
        raise ConfigError(
            "--explain scores the maps of a run",
            received=f"{model}, an exported model",
            remedy="Name the run that it was exported from, or leave --explain away",
        )
    if data is None:
        raise ConfigError(
            "An exported model is evaluated on a dataset: --data",
            received=f"{model}, which is no run",
            remedy="Say where the images are: --data DATASET",
        )
    from btkeras.config import PhantomConfig
    from btkeras.inference.backends import locate

    location = locate(model)
    with quiet_backend(location.needs_tensorflow):
        from btkeras.inference.evaluate_exported import evaluate_exported

        backend = location.load()
    click.echo(f"model: {location.path}", err=True)
    result, metrics = evaluate_exported(backend, open_dataset(data, PhantomConfig()), subset, skip_broken=skip_broken)
    if out is not None:
        result.write(out, metrics)
    return metrics


@click.command(short_help="Calibrate a run's probabilities on its validation subset.")
@run_argument
@click.option("--json", "as_json", is_flag=True, help="Print the calibration metrics of the test subset as JSON.")
def calibrate(run: Path, as_json: bool) -> None:
    """Calibrate RUN's best checkpoint on its validation subset, then evaluate it on its test subset again.

    RUN/best.keras gets a temperature, by which its logits are divided, so that `predict`, `export` and `evaluate` have
    it; the most probable class stays the same. RUN/calibration.json gets the conformal scores for prediction sets, and
    RUN/ood.npz the out-of-distribution detector. `train` and `cv` do this themselves; runs of older versions need it.

    \b
    Examples:
      btkeras calibrate runs/cpu
      btkeras calibrate runs/cpu --json
    """
    quiet_tensorflow()
    from btkeras.evaluation.evaluate import calibrate_and_evaluate
    from btkeras.evaluation.results import metrics_table
    from btkeras.runs import open_run

    metrics = calibrate_and_evaluate(open_run(run))
    click.echo(json.dumps(metrics["calibration"], indent=2) if as_json else metrics_table(metrics))


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
    show_default=True,
    metavar="N|all",
    callback=_count,
    help="How many, drawn at random from each class in its proportion.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def robustness(run: Path, data: str | None, images: int | None, as_json: bool) -> None:
    """Evaluate RUN's network on its test images under nine corruptions at five levels each.

    Noise, blur, gamma, bias field, rotation, JPEG, contrast, resolution and inversion, from barely visible to severe:
    accuracy, balanced accuracy, mean confidence and calibration error, beside those of the images as they are. Images
    are corrupted at the size they are stored at, the same way each time. The metrics go to RUN/robustness.json, and one
    image under all corruptions to RUN/robustness.png; those of another dataset to RUN/evaluations/NAME/. `btkeras
    report` shows them.

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
    dataset = open_dataset(data, opened.config().phantom) if data else None
    document = measure_robustness(opened, dataset, images)
    click.echo(json.dumps(document, indent=2) if as_json else robustness_table(document))

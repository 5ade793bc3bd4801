"""A whole cross-validation: its jobs, and its summary of their predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from btkeras.errors import RunError
from btkeras.evaluation.results import read_predictions
from btkeras.experiments.experiment import Experiment, Job, models
from btkeras.experiments.summary import SIZES, FoldResult, summarize_experiment
from btkeras.files import read_json, write_json
from btkeras.metrics import METRICS

Executor = Callable[[Experiment, Sequence[Job]], None]


def unfinished(experiment: Experiment) -> list[Job]:
    """The jobs that are not finished."""
    return [job for job in experiment.jobs() if not experiment.is_finished(job)]


def cross_validate(experiment: Experiment, executor: Executor) -> dict[str, Any]:
    """Runs the unfinished jobs of a cross-validation by ``executor``, which returns when all are finished.

    Returns:
        The summary, also written to ``summary.json``.

    Raises:
        RunError: If a job fails.
    """
    jobs = unfinished(experiment)
    if jobs:
        executor(experiment, jobs)
    return write_summary(experiment)


def write_summary(experiment: Experiment) -> dict[str, Any]:
    """Computes ``summary.json`` from the folds' predictions.

    It holds no times and no paths of the machine, so that two runs of the same experiment give equal files.

    Raises:
        RunError: If a fold is missing, or an image was tested twice.
    """
    missing = unfinished(experiment)
    if missing:
        job = missing[0]
        raise RunError(
            "A cross-validation is summarised when every fold is finished",
            received=f"{len(missing)} unfinished, {job.model}, seed {job.seed}, fold {job.fold} among them",
            remedy=f"Go on with: btkeras cv --resume --out {experiment.path}",
        )
    config, manifest = experiment.config(), experiment.manifest()
    split = read_json(experiment.splits_file(0))
    results = []
    for job in experiment.jobs():
        run = experiment.run(job)
        found, trained = read_predictions(run.predictions_file, manifest["classes"]), run.manifest()
        sizes = {name: trained.get(name) for name in SIZES}
        results.append(FoldResult(job.model, job.seed, job.fold, *found, sizes))
    summary = {
        "protocol": {
            "group_by": split["group_by"],
            "test": config.cv.test,
            "folds": config.cv.folds,
            "seeds": list(config.cv.seeds),
            "split_seed": config.data.split_seed,
            "models": list(models(config)),
        },
        "dataset": {"images": manifest["images"], "digest": split["dataset_digest"], "patients": manifest["patients"]},
        **summarize_experiment(results, manifest["classes"], groups=split["groups"], test=config.cv.test),
    }
    write_json(experiment.summary_file, summary)
    return summary


def summary_table(summary: dict[str, Any]) -> str:
    """The summary as text: mean and standard deviation over the folds in percent, and the comparisons."""
    width = max(len(name) for name in summary["models"]) + 2
    lines = [f"{'':{width}}" + "".join(f"{name:>15}" for name in METRICS) + f"{'95 % interval':>18}{'parameters':>13}"]
    for name, entry in summary["models"].items():
        cells = "".join(f"{_spread(entry, metric):>15}" for metric in METRICS)
        low, high = entry["intervals"]["accuracy"]
        size = f"{entry['parameters']:,}" if entry["parameters"] else "-"
        interval = f"{100 * low:.2f} to {100 * high:.2f}"
        lines.append(f"{name:{width}}{cells}{interval:>18}{size:>13}")
    notes = [f"- {comparison['conclusion']}" for comparison in summary["comparisons"]]
    bootstrap = summary["bootstrap"]
    explained = (
        "Percent, mean and standard deviation over folds and seeds; precision, recall, specificity and F1 are means "
        "over classes. The interval is accuracy's, by a bootstrap over "
        f"{bootstrap['groups']:,} groups of {bootstrap['images']:,} images."
    )
    return "\n".join([*lines, "", explained, *notes])


def _spread(entry: dict[str, Any], metric: str) -> str:
    mean, deviation = entry["mean"][metric], (entry["std"] or {}).get(metric)
    return f"{100 * mean:.2f}" + (f" ± {100 * deviation:.2f}" if deviation is not None else "")

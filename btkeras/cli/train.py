"""``btkeras train`` and ``btkeras cv``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from btkeras.cli.common import (
    PATH,
    Failure,
    Terminated,
    config_option,
    data_option,
    group_by_option,
    open_dataset,
    quiet_tensorflow,
    set_option,
    skip_broken_option,
    split_column_option,
)

if TYPE_CHECKING:
    from btkeras.experiments.experiment import Executor, Experiment
    from btkeras.runs import Run


# Options that are short for a --set.
_SPLIT_SHORTS = {"group_by": "data.group_by", "split_column": "data.split_column"}
_TRAIN_SHORTS = {"model": "model.name", "weights": "model.weights", "teacher": "train.teacher", **_SPLIT_SHORTS}
_CV_SHORTS = {name: f"cv.{name}" for name in ("models", "folds", "seeds", "test")} | _SPLIT_SHORTS


track_option = click.option(
    "--track",
    "trackers",
    multiple=True,
    type=click.Choice(["mlflow", "wandb"]),
    help="Record settings and metrics there, too; a resumed run goes on by itself. Repeat it for both.",
)


@click.command(short_help="Train a network on one split of a dataset.")
@data_option
@click.option("--out", required=True, type=PATH, help="The run folder to make.")
@config_option
@set_option
@click.option("--model", help="Short for --set model.name=NAME.")
@click.option("--weights", help="Short for --set model.weights=: imagenet, a file of its weights, or a RUN/best.keras.")
@click.option("--teacher", metavar="RUN", help="Short for --set train.teacher=RUN: learn its probabilities, too.")
@group_by_option
@split_column_option
@track_option
@click.option("--resume", is_flag=True, help="Go on with the run in --out; start it if it is not there.")
@skip_broken_option
def train(
    out: Path, data: str | None, resume: bool, skip_broken: bool, trackers: tuple[str, ...], **chosen: Any
) -> None:
    """Train a network on one split of a dataset, then test its best checkpoint.

    The best checkpoint is chosen on the validation subset; the test subset is used once, at the end. Ctrl-C stops after
    the last finished epoch, and --resume continues from there, to the same result as an uninterrupted run.

    \b
    Examples:
      btkeras train --data phantom --config configs/quick.yaml --out runs/first
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/cpu --model resnet34
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/patients --group-by patient
      btkeras train --data data/brisc --config configs/cpu.yaml --out runs/brisc --group-by official
      btkeras train --data data/figshare --config configs/paper.yaml --out runs/p --set train.epochs=50
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/small --teacher runs/ensemble
      btkeras train --data data/figshare --config configs/cpu.yaml --out runs/tracked --track mlflow
      btkeras train --resume --out runs/cpu
      tensorboard --logdir runs
    """
    from btkeras.config_io import load_config

    files, overrides = chosen["config_files"], _overrides(chosen, _TRAIN_SHORTS)
    config = load_config(files, overrides)
    resumed = resume and out.exists()
    if data is None and not resumed:
        raise click.UsageError("A new run needs --data DATASET (a folder, or `phantom`).")
    quiet_tensorflow()
    from btkeras.evaluation.metrics_text import metrics_summary
    from btkeras.experiments.single_run import resume_run, start_run
    from btkeras.runs import Run, open_run
    from btkeras.training.tracking import track, tracking

    if resumed:
        run = open_run(out)
        if data is not None:
            run.use_dataset(open_dataset(data, run.config().phantom))
        track(run, trackers)
        metrics = resume_run(out, load_config(files, overrides, run.config()))
    else:
        dataset = open_dataset(str(data), config.phantom)
        metrics = start_run(config, dataset, out, skip_broken=skip_broken, facts=tracking(trackers))
    click.echo(metrics_summary(metrics))
    click.echo(_next_steps(Run(out)), err=True)


def _next_steps(run: Run) -> str:
    path, exported = (shlex.quote(str(each)) for each in (run.path, Path("saved_models", run.path.name)))
    lines = [f"btkeras report {path}   # intervals, calibration, curves and the mistakes as images"]
    # A classical model keeps its predictions only.
    if run.best_model.is_file():
        lines += [f"btkeras predict IMAGE --model {path}", f"btkeras export {path} --out {exported}"]
    return "\nNext: " + "\n      ".join(lines)


@click.command(short_help="Average several runs' networks, or views of an image, into one run.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="The run folder to make.")
@click.option(
    "--tta",
    "views",
    multiple=True,
    type=click.Choice(["flip", "crops", "scales"]),
    help="Test-time augmentation; repeatable: mirrored images (2 views), four corners (5), 10 and 20 % smaller (3).",
)
@click.option(
    "--share", "shares", multiple=True, type=float, help="Average weights, with this share of each RUN in turn."
)
@click.option(
    "--kernel-scale",
    type=float,
    default=1.0,
    show_default=True,
    help="With --share, multiply averaged kernels by this, 0.5 to 2: below 1 for slices of other scanners.",
)
@click.option(
    "--image-size", type=click.IntRange(32, 1024), help="With --share, side of its input.  [default: the RUNs']"
)
def ensemble(runs: tuple[Path, ...], out: Path, **averaging: Any) -> None:
    """Average the networks of RUNs, and test-time views of each image, into one new run.

    Probabilities are averaged. With --share weights are, of networks of one origin, say a run and its fine-tuning; that
    gives one network, which takes the time of one. The result is a run as any other: it is calibrated anew and tested,
    and evaluate, predict, report and export take it. It takes as many times longer as it has networks and views. RUNs
    must be finished and of one dataset: trainings of one fold with other seeds or networks, whose validation and test
    subsets it keeps, or the folder of a `cv --test fixed`, half of whose test subset then calibrates. With --tta, one
    RUN is enough.

    \b
    Examples:
      btkeras ensemble runs/seed_0 runs/seed_1 runs/seed_2 --out runs/three
      btkeras ensemble runs/robust --tta scales --out runs/robust_scales
      btkeras ensemble runs/robust runs/tuned --share 0.6 --share 0.4 --image-size 104 --out runs/between
      btkeras ensemble runs/fixed --tta flip --tta crops --out runs/folds
      btkeras report runs/seed_0 runs/three --out compared.html
    """
    quiet_tensorflow()
    from btkeras.evaluation.metrics_text import metrics_summary
    from btkeras.experiments.ensemble import runs_of, start_ensemble
    from btkeras.runs import Run

    click.echo(metrics_summary(start_ensemble(runs_of(runs), out, **averaging)))
    click.echo(_next_steps(Run(out)), err=True)


@click.command(short_help="Cross-validate networks: folds x models x seeds.")
@data_option
@click.option("--out", required=True, type=PATH, help="The experiment's folder to make.")
@config_option
@set_option
@click.option("--model", "models", multiple=True, metavar="NAME", help="A network to train; repeat it for several.")
@click.option("--folds", type=int, metavar="N", help="Short for --set cv.folds=N.  [default: 5]")
@click.option("--seed", "seeds", multiple=True, type=int, metavar="S", help="A training per seed; repeat it.")
@click.option(
    "--test", type=click.Choice(["rotating", "fixed"]), help="Test subset per fold (default), or one for all."
)
@group_by_option
@split_column_option
@click.option("--jobs", type=click.IntRange(1), help="Folds side by side.  [default: one, or one per GPU]")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", help="What runs the folds.")
@click.option("--ray-address", metavar="ADDRESS", help="Ray's cluster.  [default: $RAY_ADDRESS, or a new local one]")
@click.option("--cpus", type=click.IntRange(1), default=2, help="With ray: cores of a fold.")
@click.option("--gpus", type=click.FloatRange(0), default=0.0, help="With ray: GPUs of a fold.")
@track_option
@click.option("--task", type=click.IntRange(0), metavar="I", help="Do only job I, as one task of a job array.")
@click.option("--plan", is_flag=True, help="Make OUT, fetch weights, list the jobs and their state; run none.")
@click.option("--resume", is_flag=True, help="Go on with the experiment in --out; start it if it is not there.")
@skip_broken_option
def cv(out: Path, task: int | None, plan: bool, **chosen: Any) -> None:
    """Cross-validate networks on a dataset: train and test each on every fold, then compare them.

    With --resume, finished folds are skipped and an interrupted fold continues after its last epoch. The result is
    OUT/summary.json, which `btkeras report OUT` shows: means and standard deviations over the folds, pooled confusion
    matrices, intervals clustered by patient (or by --group-by), and significant differences.

    \b
    Examples:
      btkeras cv --data phantom --config configs/quick.yaml --model resnet34 --model improved_resnet34 --out runs/cv
      btkeras cv --data data/both --config configs/cpu_cv.yaml --config configs/ablation.yaml --out runs/ablation
      btkeras cv --resume --out runs/ablation
      btkeras cv --data data/both --config configs/cpu_cv.yaml --group-by patient --out runs/patients
      btkeras cv --data data/brisc --config configs/cpu_cv.yaml --group-by official --test fixed --out runs/brisc
      btkeras cv --data data/both --config configs/paper.yaml --test fixed --executor ray --gpus 1 --out /shared/cv
    """
    if task is not None:
        _run_task(out, task, plan=plan, **chosen)
        return
    if chosen["executor"] == "ray" and not plan:
        from btkeras.experiments.executors import require_ray

        require_ray(chosen["gpus"])
    experiment = _experiment(out, chosen)
    if plan:
        click.echo(_plan(experiment))
        return
    quiet_tensorflow()
    from btkeras.experiments.experiment import cross_validate
    from btkeras.experiments.summary_text import summary_table

    try:
        summary = cross_validate(experiment, _executor(chosen))
    except KeyboardInterrupt as interrupt:
        text = f"Stopped; finished epochs are kept. Go on with: btkeras cv --resume --out {out}"
        raise Failure(text, interrupt.exit_code if isinstance(interrupt, Terminated) else 1) from interrupt
    click.echo(summary_table(summary))
    click.echo(f"Next: btkeras report {out} --out {out / 'report.html'}", err=True)


def _experiment(out: Path, chosen: dict[str, Any]) -> Experiment:
    from btkeras.config_io import load_config
    from btkeras.files import require_new

    files, overrides = chosen["config_files"], _overrides(chosen, _CV_SHORTS)
    config = load_config(files, overrides)
    from btkeras.experiments.experiment import create_experiment, open_experiment

    if chosen["resume"] and out.exists():
        experiment = open_experiment(out)
        open_experiment(out, load_config(files, overrides, experiment.config()))
        if chosen["data"] is not None:
            experiment.use_dataset(open_dataset(chosen["data"], experiment.config().phantom))
        if chosen["trackers"]:
            from btkeras.training.tracking import track

            track(experiment, chosen["trackers"])
        return experiment
    require_new(out)
    if chosen["data"] is None:
        raise click.UsageError("A new cross-validation needs --data DATASET (a folder, or `phantom`).")
    quiet_tensorflow()
    from btkeras.experiments.single_run import check_models
    from btkeras.training.tracking import tracking

    check_models(config)
    dataset = open_dataset(chosen["data"], config.phantom)
    return create_experiment(
        out, config, dataset, skip_broken=chosen["skip_broken"], facts=tracking(chosen["trackers"])
    )


def _overrides(chosen: Mapping[str, Any], shorts: Mapping[str, str]) -> list[str]:
    """Those of --set, and of options that are short for one."""
    given = {key: chosen[name] for name, key in shorts.items() if chosen[name] not in (None, ())}
    if chosen["split_column"]:
        given.setdefault("data.group_by", "official")
    values = (f"{key}={list(value) if isinstance(value, tuple) else value}" for key, value in given.items())
    return [*chosen["overrides"], *values]


def _executor(chosen: dict[str, Any]) -> Executor:
    if chosen["executor"] == "ray":
        from btkeras.experiments.executors import run_on_ray

        return functools.partial(run_on_ray, address=chosen["ray_address"], cpus=chosen["cpus"], gpus=chosen["gpus"])
    from btkeras.experiments.executors import run_locally
    from btkeras.machine import visible_gpus

    return functools.partial(run_locally, workers=chosen["jobs"] or max(len(visible_gpus()), 1))


def _run_task(out: Path, task: int, **others: Any) -> None:
    if any(others[name] for name in ("data", "config_files", "overrides", "trackers", "plan", "resume", *_CV_SHORTS)):
        raise click.UsageError("--task takes everything but --out from the experiment's folder: give them alone.")
    from btkeras.machine import end_with_parent

    end_with_parent()
    quiet_tensorflow()
    from btkeras.experiments.experiment import open_experiment
    from btkeras.experiments.single_run import run_job

    run_job(open_experiment(out), task)


def _plan(experiment: Experiment) -> str:
    lines = []
    for job in experiment.jobs():
        run = experiment.run(job)
        state = "finished" if experiment.is_finished(job) else "begun" if run.path.exists() else "to do"
        lines.append(f"{job.index:4}  {state:9} {run.path}")
    return "\n".join(lines)

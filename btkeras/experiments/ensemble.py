"""An ensemble as a run: the folder that averages other runs' networks, calibrated anew and tested."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from btkeras.checksums import recorded_file
from btkeras.errors import ModelError, RunError
from btkeras.evaluation.calibrate import calibrate_and_evaluate
from btkeras.evaluation.evaluate import load_best
from btkeras.experiments.experiment import is_experiment, open_experiment, require_finished
from btkeras.locks import only_writer
from btkeras.logging import logger
from btkeras.models.averaging import average, average_weights, cosine_similarity
from btkeras.models.build import count_macs
from btkeras.models.keras_file import save_network
from btkeras.provenance import steps_to
from btkeras.runs import Run, create_run, open_run
from btkeras.splitting.combined import combine_splits
from btkeras.splitting.fingerprints import read_fingerprints

# Cosine of kernels below which networks hardly have one origin: a run and its fine-tuning have above 0.9.
_ALIKE = 0.5
# Characters of what must agree that an error shows.
_SHOWN = 60


def runs_of(paths: Sequence[Path]) -> list[Run]:
    """The runs that paths name, each itself or, of the folder of a cross-validation, all in it.

    Raises:
        RunError: If a path is neither, or a cross-validation is unfinished.
    """
    found: list[Run] = []
    for path in paths:
        if is_experiment(path):
            require_finished(experiment := open_experiment(path))
            found += [experiment.run(job) for job in experiment.jobs()]
        else:
            found.append(open_run(path))
    return found


def start_ensemble(
    runs: Sequence[Run],
    out: Path,
    views: Sequence[str] = (),
    shares: Sequence[float] = (),
    kernel_scale: float = 1.0,
    image_size: int | None = None,
) -> dict[str, Any]:
    """Averages the best checkpoints of finished runs into a new run, calibrates it and tests it.

    Args:
        runs: Of one dataset and one way to prepare its images; ``combine_splits`` says which images calibrate and test.
        out: The new run's folder.
        views: Test-time augmentation, keys of ``averaging.VIEWS``. With views, one run is enough.
        shares: Of each run, if their weights are averaged in place of their probabilities (``average_weights``).
        kernel_scale: Of averaged weights, as there.
        image_size: Of averaged weights, as there; the least side that a configuration may have, or above.

    Returns:
        The test metrics, as ``evaluation.evaluate.evaluate_split``.

    Raises:
        RunError: If a run is unfinished, or the runs do not go together; if ``out`` exists.
        DataError: If the dataset is gone or changed, or its images cannot be combined.
        ModelError: If the networks cannot be averaged, or scale or size are given and weights are not averaged.
    """
    if out.exists():
        raise RunError(
            "An ensemble must have a new folder", received=f"{out}, which exists", remedy="Choose another --out"
        )
    given = f"--kernel-scale {kernel_scale:g}" * (kernel_scale != 1) or f"--image-size {image_size}" * bool(image_size)
    if given and not shares:
        raise ModelError(
            "Kernels and images are scaled where weights are averaged",
            received=f"{given} without --share",
            remedy="Name two RUNs or more, and give --share once for each",
        )
    for run in runs:
        run.require_finished("The runs of an ensemble must be finished")
    _require_alike(runs)
    first, dataset = runs[0], runs[0].dataset()
    split = combine_splits([run.split(dataset) for run in runs])
    # Each split has checked that its images are these.
    pixels = {path: each.pixels for run in runs for path, each in read_fingerprints(run.images_file).items()}
    networks = [load_best(run) for run in runs]
    if shares:
        networks = [_mean_of_weights(networks, shares, kernel_scale, image_size)]
    name = ensemble_name([network.name for network in networks], views)
    network = networks[0] if shares and not views else average(networks, views, name=name)
    config = first.config()
    data = replace(config.data, image_size=image_size or config.data.image_size)
    config = replace(config, model=replace(config.model, name=name, weights="random"), data=data)
    averaging = {"views": list(views), "shares": list(shares), "kernel_scale": kernel_scale, "image_size": image_size}
    facts = _facts(runs, network, **averaging)
    run = create_run(out, config, dataset, split, pixels, **facts)
    scale, size = [kernel_scale] * (kernel_scale != 1), [image_size] * bool(image_size)
    changes = {"shares": shares, "kernel scale": scale, "image size": size, "views": views}
    added = "".join(f"; {what}: {', '.join(map(str, each))}" for what, each in changes.items() if each)
    logger.info(f"{name}: {network.count_params():,} parameters; networks: {len(runs)}{added}")
    try:
        return _calibrated(run, network)
    except BaseException:
        # There is nothing to go on with: all of it is made anew in minutes.
        shutil.rmtree(run.path)
        raise


def _mean_of_weights(
    networks: Sequence[keras.Model], shares: Sequence[float], kernel_scale: float, image_size: int | None
) -> keras.Model:
    mean = average_weights(networks, shares, kernel_scale, image_size)
    if (alike := cosine_similarity(networks)) < _ALIKE:
        logger.warning(
            f"These networks' weights have little in common (cosine {alike:.2f}), so their mean may know nothing: "
            "average weights of a run and its fine-tuning (train --weights RUN/best.keras), or leave --share away"
        )
    return mean


@only_writer
def _calibrated(run: Run, network: keras.Model) -> dict[str, Any]:
    with recorded_file(run.best_model) as temporary:
        save_network(network, temporary)
    return calibrate_and_evaluate(run)


def ensemble_name(networks: Sequence[str], views: Sequence[str]) -> str:
    """Says what is averaged: ``improved_resnet34_x3_flip``."""
    counts = {name: list(networks).count(name) for name in dict.fromkeys(networks)}
    parts = [name if count == 1 else f"{name}_x{count}" for name, count in counts.items()]
    return "_".join(["_and_".join(parts), *views])


def _require_alike(runs: Sequence[Run]) -> None:
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise RunError(
            "The runs of an ensemble must differ", received="one that is named twice", remedy="Name each RUN once"
        )
    for key, values in _what_must_agree(runs).items():
        if len(set(map(str, values))) > 1:
            # Of a digest, the beginning tells enough.
            said = (f"{run.path}: {str(value)[:_SHOWN]}" for run, value in zip(runs, values, strict=True))
            raise RunError(
                f"The runs of an ensemble must have one {key}",
                received="; ".join(said),
                remedy="Average trainings of one dataset and one configuration of its images",
            )


def _what_must_agree(runs: Sequence[Run]) -> dict[str, list[Any]]:
    settings = [run.config().data for run in runs]
    return {
        "dataset": [run.split_document()["dataset_digest"] for run in runs],
        "list of classes": [", ".join(run.classes()) for run in runs],
        "image size": [data.image_size for data in settings],
        "number of channels": [data.channels for data in settings],
        "data.harmonize": [data.harmonize for data in settings],
    }


def _facts(runs: Sequence[Run], network: keras.Model, **averaging: Any) -> dict[str, Any]:
    """What the manifest says of an ensemble, with how it was averaged."""
    manifests = [run.manifest() for run in runs]
    seconds = [manifest["training_seconds"] for manifest in manifests if manifest.get("training_seconds")]
    broken = {item["path"]: item for manifest in manifests for item in manifest.get("broken", [])}
    return {
        "began_with": [step for run in runs for step in steps_to(run.best_model)[:-1]],
        "ensemble": {
            "runs": [steps_to(run.best_model)[-1] for run in runs],
            **averaging,
        },
        # It is as finished as they are.
        "epochs": max(manifest["epochs"] for manifest in manifests),
        "training_seconds": round(sum(seconds), 1) if len(seconds) == len(runs) else None,
        "parameters": network.count_params(),
        "macs": count_macs(network),
        "trainable_parameters": sum(int(keras.ops.size(weight)) for weight in network.trainable_weights),
        "precision": manifests[0].get("precision"),
        "device": manifests[0].get("device"),
        "broken": list(broken.values()),
    }

"""``btkeras evaluate`` of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from btkeras.cli.common import echo_engine, echo_model, echo_unknown_slices, located, open_dataset
from btkeras.errors import ConfigError, ModelError
from btkeras.logging import logger


def is_exported(path: Path) -> bool:
    """Whether a path is an exported model."""
    from btkeras.inference.backends import locate

    try:
        return locate(path).path.is_file()
    except ModelError:
        # For anything else, `open_run` has the better message.
        return False


def evaluate_exported(model: Path, out: Path | None, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Evaluates a model as ``btkeras evaluate MODEL`` does: its metrics, and these as text."""
    if options["data"] is None:
        rule, remedy = "An exported model is evaluated on a dataset: --data", "Say where the images are: --data DATASET"
        raise ConfigError(rule, received=f"{model}, which is no run", remedy=remedy)
    if out is not None and (out / "config.yaml").exists():
        rule, remedy = "--out must be a folder of its own", "Name another one"
        raise ConfigError(rule, received=f"{out}, a run, whose results these are not", remedy=remedy)
    from btkeras.config import PhantomConfig
    from btkeras.evaluation.metrics_text import metrics_table

    with located(model, options["explain"]) as location:
        from btkeras.inference import evaluate_exported as evaluation

        dataset = open_dataset(options["data"], PhantomConfig())
        backend = location.load(len(dataset.records))
    echo_model(location.path, chosen=True)
    echo_engine(backend.engine)
    echo_unknown_slices(backend.source)
    wanted = {name: options[name] for name in ("skip_broken", "group_by")}
    result, metrics = evaluation.evaluate_exported(backend, dataset, options["subset"] or "test", **wanted)
    text, scores = metrics_table(metrics, options["group_by"]), None
    if options["explain"]:
        from btkeras.explain.score_rows import NothingToExplainError, explanations_table
        from btkeras.inference.explanation_scores import score_maps

        try:
            scores = score_maps(backend, dataset, result, metrics["split"], options["methods"], options["limit"])
            text = f"{text}\n\n{explanations_table(scores)}"
        except NothingToExplainError as error:
            logger.warning(f"no explanations are scored: {error}")
    if out is not None:
        result.write(out, metrics)
    if out is not None and scores:
        from btkeras.checksums import recorded_file
        from btkeras.files import write_json
        from btkeras.runs import Results

        write_json(Results(out).explanations_file, scores, recorded_file)
    return {**metrics, "explanations": scores} if scores else metrics, text

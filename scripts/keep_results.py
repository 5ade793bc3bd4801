"""Copies what is worth keeping of a run or a cross-validation: settings, splits, answers and figures.

    python scripts/keep_results.py runs/ablation docs/results/ablation
    python scripts/keep_results.py runs/robust docs/results/robust

Weights, logs and TensorBoard's files stay behind, and the paths of the dataset and of the experiment become their
folders' names. The copy can be reported (its runs' own splits are those of splits/), and a cross-validation that is
not finished can go on in it: btkeras cv --resume --data DATASET --out COPY
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from btkeras.checksums import record_files
from btkeras.experiments.experiment import Experiment, open_experiment
from btkeras.files import read_json, write_text
from btkeras.runs import Run, open_run

_TRAINED = ("config.yaml", "manifest.json", "history.csv", "metrics.json", "predictions.csv")
_MEASURED_LATER = ("robustness.json", "shortcuts.json", "explanations.json")
_OF_A_RUN = (*_TRAINED, *_MEASURED_LATER)


def keep_run(source: Run, target: Path) -> None:
    """Copies a run's text files."""
    others = (source.path / name for name in (source.splits_file.name, source.images_file.name))
    _copy([*_files_of(source), *others], source.path, target, source.manifest()["dataset"])


def keep(source: Experiment, target: Path) -> int:
    """Copies an experiment's text files and returns the number of finished folds."""
    finished = [source.run(job) for job in source.jobs() if source.is_finished(job)]
    top = [source.config_file, source.manifest_file, *(source.path / "splits").iterdir(), source.summary_file]
    files = [*top, *(file for run in finished for file in _files_of(run))]
    _copy(files, source.path, target, source.manifest()["dataset"])
    return len(finished)


def _files_of(run: Run) -> list[Path]:
    return [*(run.path / name for name in _OF_A_RUN), *run.evaluations.glob("*/metrics.json")]


def _copy(files: Iterable[Path], root: Path, target: Path, dataset: str) -> None:
    for file in files:
        # Local binary patterns have no history, an unfinished experiment no summary.
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            evaluated = [read_json(file)["dataset"]] if file.name == "metrics.json" else []
            for path in (dataset, str(root), *evaluated):
                text = text.replace(path, Path(path).name)
            # Such as a run beside it that its weights began with.
            text = text.replace(f"{root.parent}/", "")
            write_text(target / file.relative_to(root), text)
    # Without the folders' names, files have other checksums.
    for manifest in target.rglob("manifest.json"):
        recorded = (manifest.parent / name for name in read_json(manifest).get("files", {}))
        record_files(manifest.parent, [file for file in recorded if file.is_file()])


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if (arguments.source / "splits.json").is_file():
        keep_run(open_run(arguments.source), arguments.target)
        print(f"the run in {arguments.target}")
        return
    kept = keep(open_experiment(arguments.source), arguments.target)
    print(f"{kept} finished folds in {arguments.target}")


if __name__ == "__main__":
    main()

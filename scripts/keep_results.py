"""Copies what is worth keeping of a cross-validation: settings, splits, and the finished folds' answers and figures.

    python scripts/keep_results.py runs/ablation docs/results/ablation

Weights, logs and TensorBoard's files stay behind, and the paths of the dataset and of the experiment become their
folders' names. The copy can be reported (its runs' own splits are those of splits/), and a cross-validation that is
not finished can go on in it: btkeras cv --resume --data DATASET --out COPY
"""

from __future__ import annotations

import argparse
from pathlib import Path

from btkeras.experiments.experiment import Experiment, open_experiment
from btkeras.files import write_text

_OF_A_RUN = ("config.yaml", "manifest.json", "history.csv", "metrics.json", "predictions.csv")


def keep(source: Experiment, target: Path) -> int:
    """Copies an experiment's text files and returns the number of finished folds."""
    paths = (source.manifest()["dataset"], str(source.path))
    finished = [source.run(job).path for job in source.jobs() if source.is_finished(job)]
    top = [source.config_file, source.manifest_file, *(source.path / "splits").iterdir(), source.summary_file]
    files = [*top, *(run / name for run in finished for name in _OF_A_RUN)]
    for file in files:
        # Local binary patterns have no history, an unfinished experiment no summary.
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            for path in paths:
                text = text.replace(path, Path(path).name)
            write_text(target / file.relative_to(source.path), text)
    return len(finished)


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    kept = keep(open_experiment(arguments.experiment), arguments.target)
    print(f"{kept} finished folds in {arguments.target}")


if __name__ == "__main__":
    main()

"""The run folder: its files, and how they are made, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from btkeras.checksums import check_file, read_document, record_files, recorded_file, remedy
from btkeras.config import ExperimentConfig
from btkeras.config_io import changed_keys, dump_config, load_config
from btkeras.datasets.dataset import Dataset, load_dataset
from btkeras.errors import DataError, RunError
from btkeras.files import digest, new_folder, read_json, write_csv, write_json, write_text
from btkeras.locks import writing
from btkeras.provenance import BEST_MODEL, CONFIG, MANIFEST, first_manifest
from btkeras.splitting.fingerprints import check_images, check_pixels, write_fingerprints
from btkeras.splitting.known_slices import HASHES
from btkeras.splitting.split_file import files_digest, load_split, save_split
from btkeras.splitting.splits import SUBSETS, Split

_TEST_ONCE = "The test subset must be looked at once, when a run is finished"


class MemberPath:
    """The path of a file in a folder with a ``path``, as an attribute of that; of its class, the relative path."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: Any, owner: type) -> Path:
        return Path(self._name) if folder is None else folder.path / self._name


@dataclass(frozen=True)
class Results:
    """A folder of evaluation results: a run's own, of its test subset, or one in its ``evaluations/``."""

    path: Path

    metrics_file = MemberPath("metrics.json")
    predictions_file = MemberPath("predictions.csv")
    decisions_file = MemberPath("decisions.csv")
    near_duplicates_file = MemberPath("near_duplicates.csv")
    explanations_file = MemberPath("explanations.json")
    robustness_file = MemberPath("robustness.json")
    robustness_image = MemberPath("robustness.png")
    dataset_file = MemberPath("dataset.json")


@dataclass(frozen=True)
class TrainingFolder:
    """What the folder of a run and that of a cross-validation have in common."""

    path: Path

    config_file = MemberPath(CONFIG)
    manifest_file = MemberPath(MANIFEST)

    def config(self) -> ExperimentConfig:
        """The configuration, with every default; errors as of ``checksums.check_file``."""
        check_file(self.config_file)
        if not self.config_file.stat().st_size:
            # Of older runs, which have no checksums: to YAML it is all defaults.
            rule = f"{self.config_file} must hold the run's settings"
            raise RunError(rule, received="an empty file", remedy=remedy(self.config_file))
        return load_config(self.config_file)

    def manifest(self) -> dict[str, Any]:
        """Dataset, versions, device, precision, seeds, durations."""
        return read_json(self.manifest_file, remedy(self.manifest_file))

    def update_manifest(self, **values: Any) -> None:
        """Adds to the manifest, or replaces values, as the folder's only writer."""
        with writing(self.path):
            write_json(self.manifest_file, self.manifest() | values)

    def dataset(self) -> Dataset:
        """Its dataset; errors as ``dataset_of``."""
        return dataset_of(self.manifest())


@dataclass(frozen=True)
class Run(Results, TrainingFolder):
    """A run folder. Nothing else knows the names of its files."""

    splits_file = MemberPath("splits.json")
    images_file = MemberPath("images.csv")
    history_file = MemberPath("history.csv")
    best_model = MemberPath(BEST_MODEL)
    state_file = MemberPath("last/state.npz")
    tensorboard = MemberPath("tensorboard")
    calibration_file = MemberPath("calibration.json")
    ood_file = MemberPath("ood.npz")
    hashes_file = MemberPath(HASHES)
    evaluations = MemberPath("evaluations")
    # Written by commands at the user's wish, or by the user.
    audit_file = MemberPath("audit.json")
    shortcuts_file = MemberPath("shortcuts.json")
    notes_file = MemberPath("notes.md")
    card_file = MemberPath("model_card.md")

    def metrics(self) -> dict[str, Any]:
        """The metrics of the test subset."""
        return read_document(self.metrics_file)

    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(self.manifest()["classes"])

    def unfinished(self) -> str:
        """How far an unfinished training is, ``epoch 3 of 36, unfinished``; "" if it is finished."""
        manifest = self.manifest()
        # Written when it ends: by a network, and by a classical model.
        if manifest.get("epochs") or "classifier" in manifest:
            return ""
        # Runs of before that was written did not say how many images an epoch has either.
        if "images_per_epoch" not in manifest and self.metrics_file.is_file():
            return ""
        file = self.history_file
        done = max(file.read_bytes().count(b"\n") - 1, 0) if file.is_file() else 0
        return f"epoch {done} of {self.config().train.epochs}, unfinished"

    def require_finished(self, rule: str = _TEST_ONCE, otherwise: str = "") -> None:
        """Raises ``RunError`` with a rule if it is unfinished; ``otherwise`` is the way for those who know better."""
        if found := self.unfinished():
            remedy = f"Train on with: btkeras train --resume --out {self.path}{otherwise and f'; {otherwise}'}"
            raise RunError(rule, received=f"{self.path}: {found}", remedy=remedy)

    def use_dataset(self, dataset: Dataset) -> None:
        """Records where the run's dataset is now; ``DataError`` if it is not the one that was split."""
        load_split(self.splits_file, dataset)
        self.update_manifest(dataset=str(dataset.root.resolve()))

    def split_document(self) -> dict[str, Any]:
        """The content of ``splits.json``, which names images without their dataset."""
        return read_document(self.splits_file)

    def split(self, dataset: Dataset) -> Split:
        """The split, verified against the dataset, with the images' sizes, and without the skipped broken images."""
        broken = [item["path"] for item in self.manifest().get("broken", [])]
        split = load_split(self.splits_file, dataset).without(broken)
        check_images(self.images_file, dataset.root)
        return split

    def check_pixels(self, dataset: Dataset, pixels: Mapping[str, str]) -> None:
        """Checks images of the split that were decoded just now; see ``splitting.fingerprints``."""
        check_pixels(self.images_file, dataset.root, pixels)

    def create_results(self, subset: str = "test", dataset: Dataset | None = None) -> Results:
        """Makes the folder for the results of a subset, or of all of another dataset.

        Args:
            subset: Of the run's own dataset; ``test`` is the run folder itself.
            dataset: Another one. Its folder is ``evaluations/NAME``, or ``evaluations/NAME-DIGEST`` where NAME is taken
                by a dataset with other files.
        """
        if dataset is None:
            found = self if subset == "test" else Results(self.evaluations / subset)
        else:
            name, files = dataset.root.resolve().name, _digest(dataset)
            found = Results(self.evaluations / name)
            if name in SUBSETS or (found.path.exists() and _digest_in(found) != files):
                found = Results(self.evaluations / f"{name}-{files[:8]}")
            write_json(found.dataset_file, {"dataset": str(dataset.root), "digest": files}, recorded_file)
        found.path.mkdir(parents=True, exist_ok=True)
        return found


def _digest(dataset: Dataset) -> str:
    """Digest of the paths, labels and sizes of a dataset's files."""
    files = [dataset.root / record.path for record in dataset.records]
    sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
    return digest([files_digest(dataset.records), *map(str, sizes)])


def _digest_in(results: Results) -> str | None:
    return read_document(results.dataset_file).get("digest") if results.dataset_file.is_file() else None


def dataset_of(manifest: Mapping[str, Any]) -> Dataset:
    """The dataset that a manifest names; ``DataError`` if it is no longer there."""
    folder = Path(manifest["dataset"])
    if not folder.is_dir():
        raise DataError(
            "A run's dataset must still be where it was",
            received=f"{folder}, which is gone",
            remedy="Put it back, or say where it is now: --resume --data DATASET",
        )
    return load_dataset(folder)


def create_run(
    path: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    pixels: Mapping[str, str] = MappingProxyType({}),
    **manifest: Any,
) -> Run:
    """Makes a run folder with its configuration, split and manifest, all at once; errors as ``require_new``.

    ``pixels`` are the digests of the split's images, by path.
    """
    with new_folder(path) as temporary:
        run = Run(temporary)
        write_text(run.config_file, dump_config(config))
        save_split(split, dataset, run.splits_file)
        if pixels:
            write_fingerprints(run.images_file, dataset.root, pixels)
        write_json(run.manifest_file, first_manifest(config, dataset) | manifest)
        files = [run.config_file, run.splits_file, run.images_file]
        record_files(run.path, [file for file in files if file.is_file()])
    return Run(path)


# In each version of an exported model.
_EXPORT_MANIFEST = "assets.extra/manifest.json"
_EXPORTED = (
    "This is an exported model, for predict, evaluate --data, selftest and benchmark; "
    "for anything else name the run that it was exported from"
)


def open_run(path: str | Path) -> Run:
    """Opens a run folder; ``RunError`` if it is none."""
    run = Run(Path(path))
    missing = [file.name for file in (run.config_file, run.splits_file, run.manifest_file) if not file.is_file()]
    if missing:
        raise RunError(
            "A run folder must hold config.yaml, splits.json and manifest.json",
            received=f"{path} without {', '.join(missing)}" if run.path.exists() else f"{path}, which is not there",
            remedy=_EXPORTED if _is_exported(run.path) else "Name the folder given to `btkeras train --out`",
        )
    return run


def _is_exported(path: Path) -> bool:
    """Whether a path is an exported model's, a version of one, or a file in a version."""
    return any((version / _EXPORT_MANIFEST).is_file() for version in (path, path.parent, *path.glob("*")))


def require_same_config(run: Run, config: ExperimentConfig | None) -> None:
    """Raises ``RunError`` if a configuration is given and is not that of the run to resume."""
    different = changed_keys(run.config(), config) if config else []
    if different:
        raise RunError(
            "A resumed run must keep its configuration",
            received=f"another {', '.join(different)}",
            remedy=f"Leave --config and --set away, or start a new run (its own is in {run.config_file})",
        )


def write_history(target: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes ``history.csv``, a line per epoch; without durations, so that equal trainings give equal files."""
    write_csv(target, rows[0], [[row[name] for name in rows[0]] for row in rows], recorded_file)

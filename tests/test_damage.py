"""Damaged files of a run: each command that reads one ends with one message that names it and the way out.

``python -m tests.test_damage RUN OTHER CV OTHER_CV DATASET`` prints the table of all messages as Markdown.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner, Result

from btkeras.checksums import check_file, record_files, recorded_file
from btkeras.cli import main
from btkeras.datasets import load_dataset
from btkeras.errors import RunError
from btkeras.evaluation.robustness import measure_robustness
from btkeras.files import write_json
from btkeras.models import build
from btkeras.runs import Run
from tests.conftest import TINY_NETWORKS
from tests.fake_experiment import fake_experiment

Damage = Callable[[Path, Path], None]


def _cut_at_line(file: Path, other: Path) -> None:
    """After half of its lines; of a binary file, at the last byte that ends one."""
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[: max(len(lines) // 2, 1)]) if len(lines) > 1 else lines[0][:-1])


DAMAGES: Mapping[str, Damage] = MappingProxyType(
    {
        "cut at a third": lambda file, other: _write(file, file.read_bytes()[: file.stat().st_size // 3]),
        "cut at a line end": _cut_at_line,
        "emptied": lambda file, other: _write(file, b""),
        "another run's": lambda file, other: _write(file, other.read_bytes()),
    }
)


def _write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


# Commands by the files of a run that they read; RUN is the run, IMAGE a slice, OUT something new.
REPORT = ("report", "RUN", "--out", "OUT.html")
PREDICT = ("predict", "IMAGE", "--model", "RUN")
EVALUATE = ("evaluate", "RUN", "--split", "validation")
EXPORT = ("export", "RUN", "--out", "OUT")
CALIBRATE = ("calibrate", "RUN")
CARD = ("card", "RUN", "--out", "OUT.md")
RESUME = ("train", "--resume", "--out", "RUN")
ROBUSTNESS = ("robustness", "RUN", "--images", "8")
SHORTCUTS = ("shortcuts", "DATA", "--model", "RUN")
AUDIT = ("audit", "DATA", "--splits", "RUN/splits.json")
_OF_ALL = (REPORT, PREDICT, EVALUATE, EXPORT, CALIBRATE, CARD, RESUME, ROBUSTNESS, SHORTCUTS)
READERS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "manifest.json": (*_OF_ALL, AUDIT),
        "config.yaml": _OF_ALL,
        "splits.json": (REPORT, EVALUATE, EXPORT, CALIBRATE, CARD, RESUME, ROBUSTNESS, SHORTCUTS, AUDIT),
        "best.keras": (PREDICT, EVALUATE, EXPORT, CALIBRATE, RESUME, ROBUSTNESS, SHORTCUTS),
        "last/state.npz": (RESUME,),
        "history.csv": (REPORT,),
        "metrics.json": (REPORT, CARD, EXPORT),
        "predictions.csv": (REPORT, CARD),
        "calibration.json": (PREDICT, EVALUATE, EXPORT, ROBUSTNESS),
        "ood.npz": (PREDICT, EVALUATE, EXPORT),
        "robustness.json": (REPORT, CARD),
    }
)
CV_READERS: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        name: (("report", "RUN", "--out", "OUT.html"), ("cv", "--resume", "--out", "RUN"))
        for name in ("config.yaml", "manifest.json", "splits/fold_0.json", "resnet34/fold_1/predictions.csv")
    }
    | {"summary.json": (("report", "RUN", "--out", "OUT.html"),)}
    | {"resnet34/fold_1/metrics.json": (("report", "RUN", "--out", "OUT.html"),)}
)


def cases(
    readers: Mapping[str, tuple[tuple[str, ...], ...]], commands: int | None = None
) -> Iterator[tuple[object, ...]]:
    """File, damage, command: of each file all damages, each with so many of its commands, in turns."""
    for file, own in readers.items():
        for i, damage in enumerate(DAMAGES):
            count = len(own) if commands is None else min(commands, len(own))
            for k in range(count):
                yield file, damage, own[(i + k) % len(own)]


def damaged(run: Path, other: Path, target: Path, file: str, damage: str) -> Path:
    """A copy of a run with one damaged file."""
    shutil.copytree(run, target)
    DAMAGES[damage](target / file, other / file)
    assert (target / file).read_bytes() != (run / file).read_bytes()
    return target


def invoke(command: tuple[str, ...], **words: object) -> Result:
    """A command whose words in capitals are replaced."""
    arguments = []
    for word in command:
        for name, value in words.items():
            word = word.replace(name, str(value))
        arguments.append(word)
    return CliRunner().invoke(main, arguments)


def assert_one_message(result: Result, file: str) -> None:
    assert result.exit_code in (1, 2), result.output
    message = result.stderr[result.stderr.index("Error: ") :]
    assert result.stderr.count("Error: ") == 1 and "Traceback" not in result.stderr
    assert Path(file).name in message, message
    # The rule, what was received, the way out.
    assert "Received: " in message and message.count(". ") >= 2, message
    for words in ("JSONDecodeError", "Expecting value", "ValueError", "KeyError", "TypeError", "not enough values"):
        assert words not in message or file == "manifest.json", message


@pytest.fixture(scope="module")
def runs(calibrated_run: Path, shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with everything in it, and another of the same settings but seed and epochs."""
    folder = tmp_path_factory.mktemp("damage")
    run, other = (shutil.copytree(calibrated_run, folder / name) for name in ("run", "other"))
    measure_robustness(Run(run), images=4)
    shutil.copy(run / "robustness.json", other)
    # Its own in every file; what is in it does not matter.
    for file in (other / name for name in READERS if name not in ("manifest.json",)):
        file.write_bytes(file.read_bytes() + b"\n")
    record_files(other, [other / name for name in READERS if name != "manifest.json"])
    return run, other


@pytest.mark.parametrize(("file", "damage", "command"), [*cases(READERS, 1)])
def test_a_damaged_file_is_named_with_the_way_out(
    runs: tuple[Path, Path], shared_images: Path, tmp_path: Path, file: str, damage: str, command: tuple[str, ...]
) -> None:
    run = damaged(*runs, tmp_path / "run", file, damage)
    image = next(shared_images.glob("*/*.png"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    result = invoke(command, RUN=run, IMAGE=image, OUT=tmp_path / "out", DATA=shared_images)
    assert_one_message(result, file)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob("out/*")) + list(tmp_path.glob("out.*"))


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> tuple[Path, Path]:
    """A cross-validation without weights, and another of another seed."""
    folder, dataset = tmp_path_factory.mktemp("cv"), load_dataset(shared_images)
    settings = ("cv.models=[resnet34]", "cv.folds=2", "train.epochs=6")
    made = (
        fake_experiment(folder / "cv", dataset, *settings),
        fake_experiment(
            folder / "other", dataset, *settings, "train.batch_size=2", "data.split_seed=1", "cv.seeds=[1]"
        ),
    )
    return made[0].path, made[1].path


@pytest.mark.parametrize(("file", "damage", "command"), [*cases(CV_READERS, 1)])
def test_a_damaged_file_of_a_cross_validation_is_named(
    experiments: tuple[Path, Path], tmp_path: Path, file: str, damage: str, command: tuple[str, ...]
) -> None:
    path = damaged(*experiments, tmp_path / "cv", file, damage)
    assert_one_message(invoke(command, RUN=path, OUT=tmp_path / "out"), file)


def test_the_way_out_works(runs: tuple[Path, Path], tmp_path: Path, shared_images: Path) -> None:
    """Damaged results are written anew by the command that the message names."""
    run = shutil.copytree(runs[0], tmp_path / "run")
    whole = {name: (run / name).read_bytes() for name in ("calibration.json", "metrics.json", "predictions.csv")}
    for name in (*whole, "ood.npz", "decisions.csv"):
        (run / name).write_bytes(b"")
    assert invoke(CALIBRATE, RUN=run).exit_code == 0
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert invoke(CARD, RUN=run, OUT=tmp_path / "out").exit_code == 0


def test_what_was_cut_is_counted_and_what_was_edited_is_said(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    file = run / "predictions.csv"
    rows = file.read_text().splitlines(keepends=True)
    file.write_text("".join(rows[:4]))
    with pytest.raises(RunError, match=rf"with 3 of {len(rows) - 1} rows.*btkeras evaluate {run}\."):
        check_file(file)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("image_size: 32", "image_size: 33"))
    with pytest.raises(RunError, match=r"config.yaml must be as it was written\. .*edited.*cannot be changed"):
        Run(run).config()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"\n",
        lambda data: data.replace(b"\n", b"\r\n", 1) if b"\n" in data else data[1:],
        lambda data: data * 2,
    ],
    ids=["a bit", "a line more", "other line ends", "twice"],
)
def test_whatever_else_changes_a_file_is_noticed(
    runs: tuple[Path, Path], tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    run = shutil.copytree(runs[0], tmp_path / "run")
    for file in (run / name for name in READERS if name != "manifest.json"):
        whole = file.read_bytes()
        check_file(file)
        file.write_bytes(change(whole))
        with pytest.raises(RunError, match=rf"{file.name} must be as it was written"):
            check_file(file)
        file.write_bytes(whole)


def test_the_way_out_of_other_evaluations_is_theirs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = Run(shutil.copytree(runs[0], tmp_path / "run"))
    for name, option in (("validation", "--split validation"), ("elsewhere", "--data DATASET")):
        file = run.evaluations / name / "metrics.json"
        write_json(file, {"split": name}, recorded_file)
        file.write_text("")
        with pytest.raises(RunError, match=rf"empty\. .*btkeras evaluate {run.path} {option}\."):
            check_file(file)
    assert_one_message(invoke(CARD, RUN=run.path, OUT=tmp_path / "out"), "evaluations/elsewhere/metrics.json")


def test_old_runs_without_records_are_read_as_before(runs: tuple[Path, Path], tmp_path: Path) -> None:
    run = Run(shutil.copytree(runs[0], tmp_path / "run"))
    manifest = run.manifest()
    del manifest["files"]
    write_json(run.manifest_file, manifest)
    assert invoke(CARD, RUN=run.path, OUT=tmp_path / "out").exit_code == 0
    run.config_file.write_text(run.config_file.read_text() + "# a note\n")
    assert run.config()
    # What shows without records too.
    rows = run.predictions_file.read_text().splitlines(keepends=True)
    run.predictions_file.write_text("".join(rows[:4]))
    assert_one_message(invoke(REPORT, RUN=run.path, OUT=tmp_path / "report"), "predictions.csv")
    for name in ("config.yaml", "best.keras", "splits.json"):
        copy = Run(shutil.copytree(run.path, tmp_path / name))
        (copy.path / name).write_bytes(b"")
        assert_one_message(invoke(EVALUATE, RUN=copy.path), name)


def test_a_killed_writer_leaves_a_file_that_is_one_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before and after each rename of two writings: the lock's, two of the manifest and the file's between."""
    run = Run(tmp_path)
    run.config_file.write_text("train: {}\n")
    write_json(run.manifest_file, {"classes": []})
    for first in range(5):
        for second in range(5):
            for renames, text in ((first, "one"), (second, "three")):
                _write_until(run.history_file, text, renames, monkeypatch)
                check_file(run.history_file) if run.history_file.exists() else None
            with recorded_file(run.history_file) as temporary:
                temporary.write_text("two")
            assert run.manifest()["files"]["history.csv"]["bytes"] == 3
    run.history_file.write_text("four")
    with pytest.raises(RunError, match="with other content"):
        check_file(run.history_file)
    run.history_file.unlink()
    with pytest.raises(RunError, match="gone"):
        check_file(run.history_file)


def _write_until(file: Path, text: str, renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes a file; the process ends at the rename of this number."""
    import btkeras.files

    done, replace = [], btkeras.files.os.replace

    def counted(*paths: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(replace(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(btkeras.files.os, "replace", counted)
        try:
            with recorded_file(file) as temporary:
                temporary.write_text(text)
        except KeyboardInterrupt:
            assert renames < 4


def test_results_outside_of_runs_are_not_recorded(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"name": "of a web page"})
    write_json(tmp_path / "results/metrics.json", {}, recorded_file)
    assert json.loads((tmp_path / "manifest.json").read_text()) == {"name": "of a web page"}


if __name__ == "__main__":
    build.MODELS = MappingProxyType({**build.MODELS, **TINY_NETWORKS})
    run, other, cv, other_cv, data = map(Path, sys.argv[1:])
    print("| file | damage | command | exit | message |\n| --- | --- | --- | --- | --- |")
    for whole, second, readers in ((run, other, READERS), (cv, other_cv, CV_READERS)):
        for file, damage, command in cases(readers):
            copy = damaged(whole, second, whole.with_name("damaged"), str(file), str(damage))
            image = next(data.glob("*/*.png"))
            words = {"RUN": copy, "IMAGE": image, "OUT": whole.with_name("out"), "DATA": data}
            result = invoke(command, **words)  # type: ignore[arg-type]
            message = result.stderr[result.stderr.find("Error: ") + 7 :].strip().replace(f"{copy.parent}/", "")
            print(f"| {file} | {damage} | {command[0]} | {result.exit_code} | {' '.join(message.split())} |")
            shutil.rmtree(copy)

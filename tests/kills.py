"""Kills commands with SIGKILL at random calls that change files, runs them again, and compares the results.

``python -m tests.kills 200`` prints how many kills hit what, and what was not as without a kill.
It takes about an hour. TensorFlow is imported once, while the process has one thread; commands run in forks of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

# More threads than one are none that a fork would lose.
_ONE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
os.environ.update(dict.fromkeys((*_ONE, "BTKERAS_THREADS"), "1"), TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")

from tests.conftest import TINY, TINY_NETWORKS, write_images  # noqa: E402

# Python's audit events (PEP 578) of calls that change files, and which of their arguments are paths.
_CALLS = MappingProxyType(
    {"open": 1, "os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1, "os.link": 2}
)
# A kill comes so many seconds after the call has begun, at most: before, in, or after a write.
_LATEST = 0.01
_CRASHED = 70


class Case(NamedTuple):
    """A command: its steps, each arguments of ``btkeras``, in a folder with ``images`` and ``run``, and its share."""

    steps: Callable[[Path], list[list[str]]]
    # Of 20 kills.
    share: int


def _settings(*overrides: str) -> list[str]:
    return [word for setting in overrides for word in ("--set", setting)]


def _train(work: Path) -> list[list[str]]:
    settings = _settings(*TINY, "train.epochs=2", "data.cache=disk", "train.keep_state=true")
    return [["train", "--resume", "--data", f"{work / 'images'}", "--out", f"{work / 'out'}", *settings]]


def _cv(work: Path) -> list[list[str]]:
    out, settings = str(work / "out"), _settings(*TINY, "train.epochs=1", "cv.models=[tiny_plain]", "cv.folds=2")
    plan = ["cv", "--plan", "--resume", "--data", f"{work / 'images'}", "--out", out, *settings]
    # The jobs of `cv` in one process, as those of a job array; then its summary.
    tasks = [["cv", "--out", out, "--task", f"{fold}"] for fold in range(2)]
    return [plan, *tasks, ["cv", "--resume", "--out", out]]


def _export(work: Path) -> list[list[str]]:
    out = str(work / "out")
    export = ["export", f"{work / 'run'}", "--out", out, "--version", "1"]
    return [*([] if (work / "out/1").exists() else [export]), ["selftest", "--model", out]]


def _prepare(work: Path) -> list[list[str]]:
    out = work / "out"
    return [] if out.exists() else [["prepare", f"{work / 'images'}", "--out", str(out), "--no-mri-check"]]


CASES = {
    "train": Case(_train, 7),
    "cv": Case(_cv, 3),
    "export": Case(_export, 2),
    "prepare": Case(_prepare, 8),
}


def preload() -> None:
    """Imports what the commands need, and makes the tiny networks known, without a second thread."""
    import btkeras.evaluation.robustness
    import btkeras.experiments.single_run
    import btkeras.export.export
    import btkeras.reporting.card  # noqa: F401
    from btkeras.models import build

    build.MODELS = MappingProxyType({**build.MODELS, **TINY_NETWORKS})
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "a fork has one thread only"


def run(case: Case, work: Path, kill_at: int = 0, delay: float = 0.0) -> int:
    """Does a case's steps in a new process, which is killed at its ``kill_at``-th call.

    Returns:
        The exit code; negative if it was killed. The number of calls of a process that was not is in ``work/calls``.
    """
    process = os.fork()
    if not process:
        code = _CRASHED
        try:
            code = _child(case, work, kill_at, delay)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _child(case: Case, work: Path, kill_at: int, delay: float) -> int:
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["BTKERAS_CACHE"] = str(work / "cache")
    from btkeras.cli import main

    seen = _count_calls(work, kill_at, delay)
    for arguments in case.steps(work):
        try:
            main(arguments)
        except SystemExit as end:
            if end.code:
                return int(end.code)
    (work / "calls").write_text(str(seen[0]))
    return 0


def _count_calls(work: Path, kill_at: int, delay: float) -> list[int]:
    seen, folder = [0], f"{work}{os.sep}"

    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _CALLS or (event == "open" and not _writes(arguments)):
            return
        if not any(str(path).startswith(folder) for path in arguments[: _CALLS[event]]):
            return
        seen[0] += 1
        if seen[0] == kill_at:
            threading.Thread(target=kill).start() if delay else kill()

    sys.addaudithook(hook)
    return seen


def _writes(arguments: tuple[object, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    return bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool(int(str(flags)) & (os.O_WRONLY | os.O_RDWR))


def contents(work: Path) -> dict[str, object]:
    """What must not depend on kills: all files but logs and those with times, of archives what is in them."""
    found: dict[str, object] = {}
    for file in sorted((work / "out").rglob("*")):
        name = file.relative_to(work).as_posix()
        if file.is_dir() or "tensorboard" in name or name.endswith((".lock", ".log")):
            continue
        if file.name == "manifest.json" or {"assets.extra", "variables"} & {*file.parts} or file.suffix == ".pb":
            # With times, or in any order; `selftest` compares a SavedModel's files with their digests.
            found[name] = "there"
        elif file.suffix in (".keras", ".npz"):
            with zipfile.ZipFile(file) as archive:
                # The time of saving, and of training.
                names = set(archive.namelist()) - {"metadata.json", "progress.npy"}
                found[name] = {each: archive.read(each) for each in sorted(names)}
        else:
            found[name] = file.read_bytes()
    return found


@contextlib.contextmanager
def workplace(template: Path) -> Iterator[Path]:
    """A copy of the folder with the inputs, always of one path, since results name it."""
    work = template.with_name("work")
    shutil.copytree(template, work)
    try:
        yield work
    finally:
        shutil.rmtree(work)


def make_template(folder: Path) -> Path:
    """The inputs: images, and a trained run to export."""
    write_images(folder / "images", per_class=12)
    assert run(CASES["train"], folder) == 0, (folder / "log").read_text()
    (folder / "out").rename(folder / "run")
    shutil.rmtree(folder / "cache")
    return folder


def try_kills(name: str, template: Path, kills: int, rng: random.Random) -> Counter[str]:
    """Kills a case so often and goes on each time; counts what came of it."""
    case, outcomes = CASES[name], Counter[str]()
    with workplace(template) as whole:
        assert run(case, whole) == 0, (whole / "log").read_text()
        expected, calls = contents(whole), int((whole / "calls").read_text())
    for number in range(kills):
        with workplace(template) as work:
            at, delay = rng.randint(1, calls), rng.choice([0.0, rng.random() * _LATEST])
            code = run(case, work, at, delay)
            found = Counter(_outcome(case, work, code, expected))
            outcomes += found
            print(
                f"{name} {number + 1}: call {at} of {calls}, {1000 * delay:.1f} ms later: {', '.join(found)}",
                flush=True,
            )
    return outcomes


def _outcome(case: Case, work: Path, code: int, expected: dict[str, object]) -> list[str]:
    outcome = ["killed" if code == -signal.SIGKILL else f"ended with {code} before it was killed"]
    left = [path for path in work.rglob(".*.tmp*") if path.parent.exists()]
    outcome += ["had leftovers"] * bool(left)
    if again := run(case, work):
        return [*outcome, f"FAILED with {again}: {(work / 'log').read_text()[-500:]}"]
    if remaining := [path.name for path in work.rglob("*") if ".tmp" in path.name]:
        outcome.append(f"LEFT {remaining}")
    found = contents(work)
    different = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    return [*outcome, f"DIFFERS in {different}" if different else "equal"]


def main(kills: int) -> int:
    """Shares the kills out, at least one to each case, and prints the counts; 1 if any was not as it must be."""
    preload()
    rng = random.Random()
    with tempfile.TemporaryDirectory() as folder:
        template = make_template(Path(folder, "template"))
        shares = {name: max(kills * case.share // 20, 1) for name, case in CASES.items()}
        counts = {name: try_kills(name, template, share, rng) for name, share in shares.items()}
    print(json.dumps(counts, indent=2))
    return int(
        any(found["equal"] < shares[name] or any("LEFT" in what for what in found) for name, found in counts.items())
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

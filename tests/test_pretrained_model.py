"""The model that is installed with btkeras: taken unless another is named, and named as what it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from btkeras.errors import ModelError
from btkeras.inference import model_folder
from btkeras.inference.backends import locate, newest_model
from btkeras.inference.model_folder import MANIFEST
from tests.test_cli import btkeras, fails

pytest.importorskip("ai_edge_litert")

ROOT = Path(__file__).parents[1]
# Before the tests are kept from it.
FOLDERS, PRETRAINED_MODEL = model_folder.PRETRAINED_FOLDERS, model_folder.pretrained_model()


@pytest.fixture(scope="module")
def made(exported_formats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of LiteRT alone, under the pretrained one's name."""
    folder = tmp_path_factory.mktemp("installed") / model_folder.PRETRAINED
    version = shutil.copytree(exported_formats, folder / "1", ignore=shutil.ignore_patterns("*.pb", "*.onnx"))
    manifest = json.loads((version / MANIFEST).read_text())
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if (version / name).is_file()}
    (version / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def installed(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(model_folder, "PRETRAINED_FOLDERS", (tmp_path / "nothing", made.parent))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def image(made: Path) -> Path:
    return made / "1/assets.extra/selftest.png"


def test_it_answers_where_there_is_no_other_and_says_what_it_is(installed: Path, image: Path) -> None:
    result = btkeras("predict", image, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)[0]["label"]
    model, notice, *_ = result.stderr.splitlines()
    assert model == f"model: {installed / '1/model.tflite'}"
    assert "research use only: trained on 32 slices of images; test accuracy " in notice
    assert notice.endswith("model_card.md") and Path(notice.split("; see ")[1]).is_file()


def test_a_model_of_ones_own_does_not_take_its_place(installed: Path, image: Path, tmp_path: Path) -> None:
    own = tmp_path / "runs/mine/best.keras"
    own.parent.mkdir(parents=True)
    own.touch()
    assert f"model: {installed}" in btkeras("predict", image).stderr
    assert newest_model().resolve() == own.parent
    own.unlink()
    with pytest.raises(ModelError, match="must be a model in saved_models/ or runs/"):
        newest_model()


def test_in_a_clone_it_is_none_of_the_users(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies in the very folder where users' models are looked for, and git has just written it."""
    clone = tmp_path / "clone"
    (clone / "saved_models").mkdir(parents=True)
    shutil.copytree(installed, clone / "saved_models" / model_folder.PRETRAINED)
    monkeypatch.setattr(model_folder, "PRETRAINED_FOLDERS", (clone / "saved_models",))
    monkeypatch.chdir(clone)
    with pytest.raises(ModelError, match="must be a model"):
        newest_model()
    own = shutil.copytree(installed, clone / "saved_models/own")
    for file in own.rglob("*"):
        os.utime(file, (1, 1))
    assert newest_model().resolve() == own
    assert not model_folder.is_pretrained(Path("saved_models/own"))
    assert model_folder.is_pretrained(Path("saved_models") / model_folder.PRETRAINED / "1")


def test_a_model_that_was_named_has_no_notice(installed: Path, image: Path) -> None:
    assert "installed with" not in btkeras("predict", image, "--model", installed).stderr


def test_it_is_explained_without_naming_a_method(installed: Path, image: Path, tmp_path: Path) -> None:
    result = btkeras("predict", image, "--explain", tmp_path / "why.png")
    assert (result.exit_code, (tmp_path / "why.png").is_file()) == (0, True), result.output
    assert "occlusion" not in result.stderr


def test_its_name_finds_it_where_there_is_no_clone(installed: Path, image: Path) -> None:
    assert locate(Path("saved_models") / model_folder.PRETRAINED).path == installed / "1/model.tflite"
    assert btkeras("selftest", "--model", model_folder.PRETRAINED).exit_code == 0
    with pytest.raises(ModelError):
        locate(Path("saved_models/another"))


def test_a_clones_copy_of_what_is_installed_is_told_as_such(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    copy = shutil.copytree(installed, clone / "saved_models" / model_folder.PRETRAINED)
    monkeypatch.chdir(clone)
    assert all(model_folder.is_pretrained(path) for path in (copy, copy / "1", copy / "1/model.tflite"))
    (copy / "1" / MANIFEST).write_text("{}")
    assert not model_folder.is_pretrained(copy)


@pytest.mark.parametrize("command", [("robustness",), ("calibrate",), ("export", "--out", "out")])
def test_what_only_a_run_can_do_says_so_of_an_exported_model(installed: Path, command: tuple[str, ...]) -> None:
    fails(btkeras(command[0], installed, *command[1:]), "This is an exported model", "predict, evaluate --data")


def test_it_is_what_selftest_tests(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads(btkeras("selftest", "--json").stdout)
    assert (found["model"], found["version"]) == (model_folder.PRETRAINED, 1)
    monkeypatch.setattr(model_folder, "PRETRAINED_FOLDERS", ())
    fails(btkeras("selftest"), "installed with btkeras", "--model")


def test_a_built_package_holds_the_model_and_none_of_the_users(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    tree, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(ROOT / "btkeras", tree / "btkeras", ignore=shutil.ignore_patterns("__pycache__", "server", "data"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    for name in (model_folder.PRETRAINED, "own"):
        file = tree / "saved_models" / name / "1/assets.extra/manifest.json"
        file.parent.mkdir(parents=True)
        file.write_text(name)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(out)]
    built = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    files = [file.relative_to(out) for file in out.rglob("*") if "saved_models" in file.parts and file.is_file()]
    assert files == [Path("btkeras/saved_models", model_folder.PRETRAINED, "1/assets.extra/manifest.json")]
    # Of one's own models git takes none, of the pretrained one this version.
    subprocess.run(["git", "init", "-q"], cwd=tree, check=True)
    listing = ["git", "ls-files", "--others", "--exclude-standard", "saved_models"]
    kept = subprocess.run(listing, cwd=tree, capture_output=True, text=True, check=True).stdout.split()
    assert kept == [f"saved_models/{model_folder.PRETRAINED}/1/assets.extra/manifest.json"]


@pytest.mark.skipif(PRETRAINED_MODEL is None, reason="this tree has no pretrained model")
def test_the_one_in_this_tree_is_whole_answers_and_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_folder, "PRETRAINED_FOLDERS", FOLDERS)
    result = btkeras("selftest", "--json")
    assert result.exit_code == 0, result.output
    model = model_folder.pretrained_model()
    assert model is not None
    package = [file for file in (ROOT / "btkeras").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    files = [file for file in (model / "1").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in [*package, *files]) <= 60e6
    readme = (ROOT / "saved_models/README.md").read_text()
    assert json.loads(result.stdout)["manifest_sha256"] in readme


# What a process has taken, MiB, after one image, after several, and after a map.
MEMORY = """
import sys
from pathlib import Path
import numpy as np
from btkeras.inference.backends import load_backend

def taken():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

model = load_backend(Path(sys.argv[1]))
images = np.zeros((4, model.size, model.size, model.channels), np.uint8)
for used in (lambda: model.predict(images[:1]), lambda: model.predict(images), lambda: model.explain(images[:1], [0])):
    used()
    print(taken())
"""


@pytest.mark.skipif(PRETRAINED_MODEL is None, reason="this tree has no pretrained model")
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux'")
def test_weights_are_in_memory_once_as_they_are_multiplied() -> None:
    file = PRETRAINED_MODEL / "1/model.tflite"
    whole = 2 * file.stat().st_size / 2**20  # its weights, which are float16, as float32
    run = subprocess.run([sys.executable, "-c", MEMORY, str(file)], capture_output=True, text=True, check=True)
    one, several, explained = map(float, run.stdout.split())
    libraries = 90
    assert whole < one < libraries + 1.2 * whole
    assert several - one < 0.5 * whole
    # Forward, and back through the last stages.
    assert explained - several < 2.75 * whole

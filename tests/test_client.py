"""``predict --server``: against a small server that follows TensorFlow Serving's documentation."""

from __future__ import annotations

import csv
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from btkeras.cli import main
from btkeras.inference import client, connection
from btkeras.inference.client import Client
from btkeras.inference.connection import TOKEN, Connection
from btkeras.inference.inputs import references
from tests.rest_server import CLASSES, Fake, Reply, fake_server, outputs

SIDE = 24


@pytest.fixture
def server() -> Iterator[Fake]:
    with fake_server() as fake:
        yield fake


@pytest.fixture
def slices(tmp_path: Path) -> list[str]:
    """40 images, from dark to bright."""
    folder = tmp_path / "slices"
    folder.mkdir()
    for number in range(40):
        pixels = np.full((SIDE, SIDE), number * 6, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_FIRST_WAIT", 0.01)
    monkeypatch.delenv(TOKEN, raising=False)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", *arguments])


def broken(path: str) -> str:
    """A PNG whose header is right and whose content is not."""
    data = Path(path).read_bytes()
    start = data.index(b"IDAT") + 4
    Path(path).write_bytes(data[:start] + b"\0" * (len(data) - start))
    return path


def test_answers_are_the_servers_in_order_in_bounded_batches(server: Fake, slices: list[str]) -> None:
    result = run(*slices, "--server", server.url, "--json")
    assert result.exit_code == 0, result.output
    answers = json.loads(result.stdout)
    assert [answer["path"] for answer in answers] == slices
    for answer in answers:
        expected = outputs(Path(answer["path"]).read_bytes())
        assert answer["probabilities"] == dict(zip(CLASSES, expected["probabilities"], strict=True))
        # TensorFlow Serving decides nothing, and no label passes for a decision.
        assert answer["label"] == expected["label"] and answer["decision"] is None
        assert (answer["set"], answer["ood_percentile"], answer["reasons"]) == (None, None, [])
    assert result.stderr.count("gives no decisions") == 1
    assert "does not list its models" in result.stderr and "--name" in result.stderr
    assert sorted(server.sizes) == [8, 16, 16]
    assert set(server.paths) == {"/v1/models/btkeras:predict"}


def test_table_and_csv_have_the_shape_of_a_local_prediction(server: Fake, slices: list[str]) -> None:
    table = run(slices[0], slices[-1], "--server", server.url)
    assert table.exit_code == 0
    header, dark, bright = table.stdout.splitlines()
    assert header.split() == ["label", *CLASSES, "ood_percentile", "file"]
    assert dark.split()[0] == "meningioma" and bright.split()[0] == "glioma"
    rows = list(csv.DictReader(io.StringIO(run(slices[0], "--server", server.url, "--csv").stdout)))
    shown = [rows[0][name] for name in ("label", "decision", "set", "ood_percentile", "slices")]
    assert shown == ["meningioma", "", "", "", "1"]


DECIDED = {
    "decision": "uncertain",
    "reasons": ["unlike the training slices"],
    "set": ["glioma", "meningioma"],
    "ood_percentile": 99.5,
}


def test_a_server_that_decides_is_shown_to_decide(server: Fake, slices: list[str]) -> None:
    server.decided = DECIDED
    (answer,) = json.loads(run(slices[0], "--server", server.url, "--json").stdout)
    assert {name: answer[name] for name in DECIDED} == DECIDED and answer["label"] == "meningioma"
    table = run(slices[0], "--server", server.url)
    header, row = table.stdout.splitlines()
    assert header.startswith("decision ") and row.startswith("uncertain ") and "99.5" in row
    assert table.stderr.count("does not look up training slices") == 1
    assert row.endswith("(unlike the training slices)") and "no decisions" not in table.stderr


@pytest.mark.parametrize(
    ("field", "value"), [("decision", 1), ("set", "glioma"), ("reasons", [1]), ("ood_percentile", "9")]
)
def test_a_decision_of_another_kind_is_one_message(server: Fake, slices: list[str], field: str, value: object) -> None:
    server.decided = DECIDED | {field: value}
    result = run(slices[0], "--server", server.url)
    assert result.exit_code == 1 and f"Received: {field}: " in result.stderr


def test_a_servers_only_model_is_asked_and_of_several_one_must_be_named(server: Fake, slices: list[str]) -> None:
    server.models = ["tumors"]
    assert run(slices[0], "--server", server.url).exit_code == 0
    server.models = ["tumors", "other"]
    several = run(slices[0], "--server", server.url)
    assert several.exit_code == 2 and "tumors, other" in several.stderr and "--name" in several.stderr
    assert run(slices[0], "--server", server.url, "--name", "other").exit_code == 0
    assert server.paths == ["/v1/models/tumors:predict", "/v1/models/other:predict"]


def test_scans_without_decisions_on_slices_have_none(server: Fake, slices: list[str]) -> None:
    folder = Path(slices[0]).parent
    (folder / "patients.csv").write_text("image,patient\n" + "".join(f"{Path(each).name},P1\n" for each in slices))
    arguments = (str(folder), "--server", server.url, "--group-by", "patient")
    (scan,) = json.loads(run(*arguments, "--json").stdout)
    assert scan["decision"] is None and scan["label"] in CLASSES and len(scan["slices"]) == 40
    assert run(*arguments).stdout.startswith("label ")
    server.decided = DECIDED
    (scan,) = json.loads(run(*arguments, "--json").stdout)
    assert scan["decision"] == "uncertain"


def test_a_version_a_label_a_name_and_a_token_are_sent(
    server: Fake, slices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "secret")
    assert run(slices[0], "--server", f"{server.url}/", "--model-version", "3").exit_code == 0
    assert run(slices[0], "--server", server.url, "--model-version", "stable").exit_code == 0
    missing = run(slices[0], "--server", server.url, "--name", "a b")
    assert server.paths == [
        "/v1/models/btkeras/versions/3:predict",
        "/v1/models/btkeras/labels/stable:predict",
        "/v1/models/a%20b:predict",
    ]
    assert set(server.tokens) == {"Bearer secret"}
    assert "secret" not in missing.output and missing.exit_code == 1
    assert "Servable not found" in missing.stderr and "--name" in missing.stderr


def test_the_token_is_not_replaced_by_a_netrc_file(
    server: Fake, slices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv(TOKEN, "secret")
    assert run(slices[0], "--server", server.url).exit_code == 0
    assert server.tokens == ["Bearer secret"]


def test_one_broken_image_fails_alone(server: Fake, slices: list[str]) -> None:
    broken(slices[5])
    Path(slices[20]).write_text("no image")
    result = run(*slices, "--server", server.url, "--json")
    answers = json.loads(result.stdout)
    wrong = [number for number, answer in enumerate(answers) if "error" in answer]
    assert wrong == [5, 20] and result.exit_code == 1
    assert "Input is not an image" in answers[5]["error"] and slices[5] in answers[5]["error"]
    assert "must be PNG, JPEG" in answers[20]["error"]
    assert "2 of 40 images" in result.stderr
    # The first 16 again one by one; what is no image never went there.
    assert sorted(server.sizes) == [1] * 16 + [8, 15, 16]


def test_files_that_are_no_images_need_no_server(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("text")
    address = f"http://127.0.0.1:{_closed_port()}"
    result = run(str(tmp_path / "a.png"), "--server", address, "--name", "m", "--csv")
    assert result.exit_code == 1 and "must be PNG, JPEG" in result.stdout


def test_a_busy_server_is_asked_again_and_says_when(
    server: Fake, slices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: Reply = (503, {"error": "full"}, {"Retry-After": "7"})
    replies = {0: busy, 1: (503, {"error": "full"}, {}), 2: (429, {"error": "slow down"}, {"Retry-After": "soon"})}
    server.before = lambda number: replies.get(number)
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    asked = Client(server.url)
    monkeypatch.setattr(asked._connection, "_wait", wait)
    answers = list(asked.predict_files(references(slices[:1]))[1])
    assert not answers[0].error and len(server.paths) == 4
    assert waited == [7.0, 0.02, 0.04]


def test_a_server_that_stays_busy_is_one_message(server: Fake, slices: list[str]) -> None:
    server.before = lambda number: (503, {"error": "the queue is full"}, {})
    result = run(slices[0], "--server", server.url)
    assert result.exit_code == 1 and len(server.paths) == 6
    assert "503" in result.stderr and "the queue is full" in result.stderr


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_no_server_there_is_one_message(slices: list[str]) -> None:
    result = run(*slices, "--server", f"http://127.0.0.1:{_closed_port()}")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.count("A server must be reachable") == 1 and "refused" in result.stderr


def test_a_silent_server_is_one_message(server: Fake, slices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_TIMEOUTS", (1.0, 0.2))

    def late(number: int) -> Reply | None:
        time.sleep(0.5)
        return None

    server.before = late
    result = run(slices[0], "--server", server.url)
    assert result.exit_code == 1 and "answer in time" in result.stderr


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((401, {"error": "no token"}, {}), "BTKERAS_TOKEN"),
        ((400, {"error": "Unrecognized servable version label: stable"}, {}), "--model-version"),
        ((302, {}, {"Location": "http://elsewhere/"}), "302"),
        ((502, {"error": "bad gateway"}, {}), "bad gateway"),
        ((200, {"outputs": []}, {}), "`predictions`"),
        ((200, {"predictions": [{}, {}]}, {}), "`predictions`"),
        ((200, {"predictions": [0.5]}, {}), "`predictions`"),
        ((200, {"predictions": [{"score": 1.0}]}, {}), "the outputs score"),
        ((200, {"predictions": [{"classes": CLASSES, "probabilities": [1.0]}]}, {}), "the outputs classes"),
        ((200, {"predictions": [{"classes": ["a"], "probabilities": [float("nan")]}]}, {}), "must be numbers"),
    ],
)
def test_what_is_no_answer_is_one_message(server: Fake, slices: list[str], reply: Reply, words: str) -> None:
    server.before = lambda number: reply
    result = run(slices[0], "--server", server.url)
    assert result.exit_code == 1 and words in result.stderr and "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_other_classes_in_the_middle_end_it(server: Fake, slices: list[str]) -> None:
    other = {"classes": ["a", "b"], "probabilities": [0.25, 0.75]}
    server.before = lambda number: (200, {"predictions": [other] * 16}, {}) if number == 0 else None
    result = run(*slices[:32], "--server", server.url, "--csv")
    assert result.exit_code == 1 and "one set of classes" in result.stderr


def test_few_requests_are_under_way_at_once(server: Fake, slices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BATCH", 1)

    def slow(number: int) -> Reply | None:
        time.sleep(0.02)
        return None

    server.before = slow
    assert run(*slices, "--server", server.url).exit_code == 0
    assert 1 < server.most <= client.WORKERS


def test_large_images_share_no_request(server: Fake, slices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BATCH_BYTES", 2 * Path(slices[0]).stat().st_size + 40)
    assert run(*slices[:6], "--server", server.url).exit_code == 0
    assert server.sizes == [2, 2, 2]


@pytest.mark.parametrize("url", ["localhost:8501", "ftp://host", "http://", "http://host/v1/models/a:predict"])
def test_an_address_must_be_one(url: str, slices: list[str]) -> None:
    result = run(slices[0], "--server", url)
    assert result.exit_code == 2 and "http://HOST:PORT" in result.stderr


def test_a_proxys_path_is_kept() -> None:
    assert Connection("https://host/tf/").predict_url("m") == "https://host/tf/v1/models/m:predict"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--server", "http://h", "--explain", "a.png"], "--explain"),
        (["--server", "http://h", "--model", "runs/a"], "--model"),
        (["--server", "http://h", "--coverage", "0.9"], "--coverage"),
        (["--name", "cpu"], "belongs to --server"),
        (["--model-version", "1"], "belongs to --server"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(options: list[str], words: str, slices: list[str]) -> None:
    result = run(slices[0], *options)
    assert result.exit_code == 2 and words in result.stderr


def test_volumes_are_sent_as_images(server: Fake, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    values = np.zeros((SIDE, SIDE, 3), np.int16)
    values[4:20, 4:20, 1] = 700
    values[4:20, 4:20, 2] = np.arange(16) * 40
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    result = run(str(tmp_path / "scan.nii.gz"), "--server", server.url, "--slice", "all", "--json")
    answers = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    assert [(answer["path"][-2:], answer["slice"], answer["slices"]) for answer in answers] == [
        ("#0", 0, 3),
        ("#1", 1, 3),
        ("#2", 2, 3),
    ]
    assert answers[0]["probabilities"]["glioma"] == 0 < answers[1]["probabilities"]["glioma"]


def test_it_starts_without_tensorflow(server: Fake, slices: list[str]) -> None:
    code = (
        "import sys\n"
        "from btkeras.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "loaded = {'tensorflow', 'keras', 'sklearn', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    arguments = ["predict", slices[0], "--server", server.url]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "meningioma" in done.stdout

"""The web page's routes: its files, headers, answers and errors."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from btkeras import Predictor
from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.inference.backends import InferenceBackend, load_backend
from btkeras.inference.overlay import LONGEST
from btkeras.preprocessing.harmonize import head_box
from btkeras.server.served_model import ServedModel
from btkeras.server.settings import ServerSettings
from tests.conftest import CLASSES
from tests.serve_tools import png, quarters_backend, running

WEB = Path(__file__).parents[1] / "btkeras" / "server" / "web"


ClientOf = Callable[[InferenceBackend], httpx.Client]


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Serves a model's page until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda backend: stack.enter_context(running(backend))[0]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(quarters_backend()) as (client, _):
        yield client


def encoded(pixels: np.ndarray) -> bytes:
    return png(pixels.astype(np.uint8))


def phantom(size: int = 96) -> np.ndarray:
    return draw_patient(PhantomConfig(image_size=size), 0)[0].image


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def opacity(text: str) -> np.ndarray:
    return np.asarray(opened(text).convert("RGBA"))[..., 3]


# Files


def test_the_page_loads_only_files_that_are_there(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:href|src)="(static/[^"]+)"', page.text)
    modules = [f"{Path(addresses[0]).parent}/{file.name}" for file in WEB.glob("*.js")]
    assert len(addresses) == 3 and len(modules) > 5
    for address in {*addresses, *modules}:
        answer = client.get(f"/{address}")
        assert answer.status_code == 200 and answer.content == (WEB / Path(address).name).read_bytes()
        assert "immutable" in answer.headers["cache-control"]
    imported = {name for file in WEB.glob("*.js") for name in re.findall(r'from "\./([^"]+)"', file.read_text())}
    assert imported <= {file.name for file in WEB.glob("*.js")}


def test_nothing_is_asked_of_others() -> None:
    for file in WEB.iterdir():
        found = [
            *re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"'`)]*""", re.sub(r"(?m)^\s*//.*$", "", file.read_text()))
        ]
        assert [address for address in found if "www.w3.org/2000/svg" not in address] == [], file.name
        assert "innerHTML" not in file.read_text() and "style=" not in file.read_text(), file.name


def test_everything_comes_with_a_strict_policy(client: httpx.Client) -> None:
    for path in ("/", "/api/model", "/model-card", client.get("/").text.split('src="')[1].split('"')[0]):
        policy = client.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;")
        assert "unsafe" not in policy and "http" not in policy


def test_browsers_keep_only_what_does_not_change(client: httpx.Client) -> None:
    for path in ("/", "/api/model"):
        assert client.get(path).headers["cache-control"] == "no-store"
    for name in ("0123456789abcdef/app.js", "none.js"):
        assert client.get(f"/static/{name}").status_code == 404


def test_the_model_card_is_a_page_and_its_markup_is_text(tmp_path: Path, client_of: ClientOf) -> None:
    client = client_of(quarters_backend(tmp_path))
    assert client.get("/model-card").status_code == 404 and not client.get("/api/model").json()["has_card"]
    card = tmp_path / "3" / "assets.extra" / "model_card.md"
    card.parent.mkdir(parents=True)
    card.write_text(
        "# Card (1)\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n<script>alert(1)</script> ![x](http://elsewhere/x.png)"
    )
    page = client.get("/model-card").text
    assert '<h1 id="card-1">Card (1)</h1>' in page and "<td>2</td>" in page
    assert client.get("/api/model").json()["has_card"]
    assert "<script>" not in page and "<img" not in page


# Answers


@pytest.fixture(scope="module")
def calibrated_run(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run, calibrated and with OOD calibration scores."""
    from btkeras.evaluation.calibrate import calibrate, fit_ood
    from btkeras.runs import open_run

    run = open_run(shutil.copytree(trained_run, tmp_path_factory.mktemp("result") / "run"))
    calibrate(run)
    fit_ood(run)
    return run.path


def test_slices_are_classified_as_predict_does(
    calibrated_run: Path, shared_images: Path, tmp_path: Path, client_of: ClientOf
) -> None:
    Image.fromarray(phantom()).save(tmp_path / "phantom.png")
    Image.fromarray(phantom()).save(tmp_path / "phantom.jpg")
    paths = [*sorted(shared_images.glob("*/000.png")), tmp_path / "phantom.png", tmp_path / "phantom.jpg"]
    predictor = Predictor(calibrated_run)
    # One at a time, as the page asks: in another batch, sums are rounded otherwise, and a slice that is its own
    # reference may be counted or not.
    expected = [prediction for path in paths for prediction in predictor.predict_files([path])]
    client = client_of(load_backend(calibrated_run))
    kinds = set()
    for path, prediction in zip(paths, expected, strict=True):
        found = client.post(f"/api/slices?name={path.name}", content=path.read_bytes()).json()
        theirs = asdict(prediction)
        assert found["name"] == path.name and found["slices"] == 1 and found["slice"] == 0
        assert found["probabilities"] == pytest.approx(theirs.pop("probabilities"), abs=1e-6)
        for name in ("label", "decision", "ood_percentile"):
            assert found[name] == theirs[name]
        assert (tuple(found["set"]), tuple(found["reasons"])) == (theirs["set"], theirs["reasons"])
        assert (found["map"] is None) == (prediction.decision == "rejected")
        kinds.add(found["decision"])
    assert {"rejected", "uncertain"} <= kinds


def test_the_answer_says_which_model_gave_it(client: httpx.Client) -> None:
    answer = client.post("/api/slices", content=encoded(phantom())).json()
    description = client.get("/api/model").json()
    assert description.items() <= answer.items()
    shown = [description[name] for name in ("model", "version", "coverage", "ood_threshold")]
    assert shown == ["quarters", 3, None, 99]
    assert description["classes"] == list(CLASSES)


def test_the_image_is_the_slice_and_the_map_lies_where_the_model_looked(client: httpx.Client) -> None:
    slice_ = phantom(128)
    slice_[:64, 64:] = np.minimum(slice_[:64, 64:] * 1.6, 255)
    answer = client.post("/api/slices", content=encoded(slice_)).json()
    np.testing.assert_array_equal(np.asarray(opened(answer["image"])), slice_)
    # The upper right quarter is the brightest, so the second class is meant, and the map is 1 there.
    assert answer["label"] == "meningioma"
    shown = opacity(answer["map"])
    assert shown.shape == slice_.shape and (shown[:56, 72:] == 255).all()
    assert not shown[72:].any() and not shown[:, :56].any()


def test_the_map_of_a_model_with_harmonized_input_lies_on_the_head(tmp_path: Path, client_of: ClientOf) -> None:
    whole = np.zeros((160, 200), np.uint8)
    whole[20:116, 90:186] = phantom(96)
    everywhere = quarters_backend(
        tmp_path, harmonize=True, explain=lambda pixels, indices: np.ones(pixels.shape[:3], np.float32)
    )
    answer = client_of(everywhere).post("/api/slices", content=encoded(whole)).json()
    box = head_box(whole)
    expected = np.zeros(whole.shape, bool)
    expected[box.top : box.bottom, box.left : box.right] = True
    np.testing.assert_array_equal(opacity(answer["map"]) > 0, expected)
    assert 0 < expected.mean() < 0.5


def test_large_images_are_shown_smaller_and_maps_with_them(client: httpx.Client) -> None:
    slice_ = np.asarray(Image.fromarray(phantom(128)).resize((1500, 1000)))
    answer = client.post("/api/slices", content=encoded(slice_)).json()
    assert (answer["width"], answer["height"]) == (1500, 1000)
    assert opened(answer["image"]).size == opened(answer["map"]).size == (LONGEST, round(LONGEST * 2 / 3))


@pytest.mark.parametrize(("file", "ready"), [("model.tflite", False), ("model.onnx", False), ("saved_model.pb", True)])
def test_maps_of_files_of_one_format_wait_for_the_first(tmp_path: Path, file: str, ready: bool) -> None:
    calls = []
    backend = quarters_backend(tmp_path, file=tmp_path / file, explain=lambda *arguments: calls.append(arguments))
    served = ServedModel(backend, ServerSettings())
    served.warm_up()
    served.close()
    assert bool(calls) == ready


def test_a_model_without_maps_gives_no_map(tmp_path: Path, client_of: ClientOf) -> None:
    client = client_of(quarters_backend(tmp_path, explain=None))
    answer = client.post("/api/slices", content=encoded(phantom())).json()
    assert answer["map"] is None and answer["image"] and answer["has_maps"] is False


def test_slices_of_a_volume_are_chosen_by_number_and_view(client: httpx.Client) -> None:
    nibabel = pytest.importorskip("nibabel")
    # Each slice along the third axis has a grey level of its own in a dark frame.
    voxels = np.zeros((40, 40, 5), np.int16)
    voxels[10:30, 10:30] = 100 * np.arange(1, 6)
    data = nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 6.0, 1.0])).to_bytes()
    middle = client.post("/api/slices", content=data).json()
    assert (middle["format"], middle["slices"], middle["slice"], middle["axis"]) == ("NIfTI", 5, 2, "axial")
    levels = [
        np.asarray(opened(client.post(f"/api/slices?slice={i}", content=data).json()["image"])).max() for i in range(5)
    ]
    assert levels == sorted(levels) and len(set(levels)) == 5
    side = client.post("/api/slices?axis=sagittal", content=data).json()
    assert (side["axis"], side["slices"]) == ("sagittal", 40) and side["height"] != side["width"]


# Errors


def test_a_missing_extra_is_named(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    answer = client.post("/api/slices?name=scan.dcm", content=b"\0" * 128 + b"DICM" + b"\0" * 400)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("DICOM files need pydicom.")
    assert answer.json()["error"].endswith("Install it: pip install 'btkeras[medical]'.")


@pytest.mark.parametrize(
    ("query", "content", "status", "message"),
    [
        ("name=notes.txt", b"These are my notes", 400, "Received: notes.txt, which is text"),
        ("", b"", 400, "an empty file"),
        ("", encoded(phantom())[:300], 400, "damaged"),
        ("slice=1", encoded(phantom()), 400, "slice 1 of 1"),
        ("slice=-1", encoded(phantom()), 400, "slice=-1"),
        ("slice=1e3", encoded(phantom()), 400, "whole number"),
        ("slice=99999999999999999999", encoded(phantom()), 400, "whole number"),
        ("", encoded(np.zeros((8, 8))), 400, "at least 16 x 16"),
    ],
)
def test_a_mistake_is_one_message(client: httpx.Client, query: str, content: bytes, status: int, message: str) -> None:
    answer = client.post(f"/api/slices?{query}", content=content)
    assert answer.status_code == status and answer.headers["cache-control"] == "no-store"
    assert set(answer.json()) == {"error"} and message in answer.json()["error"]


def test_more_pixels_than_the_server_takes_are_refused(client: httpx.Client) -> None:
    answer = client.post("/api/slices", content=encoded(np.zeros((4000, 3000))))
    assert answer.status_code == 400 and "at most 10000000 pixels" in answer.json()["error"]


def test_slices_are_posted(client: httpx.Client) -> None:
    assert client.get("/api/slices").status_code == 405

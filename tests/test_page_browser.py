"""The web page in Chromium: with mouse and keyboard, in both themes and widths, under its own policy."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.decisions.abstention import Abstention
from btkeras.decisions.calibration import Calibration
from btkeras.inference.backends import InferenceBackend, ModelOutputs
from btkeras.server.limits import Limits
from btkeras.server.settings import ServerSettings
from tests.serve_tools import quarters_backend, quarters_outputs, running

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")]
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of btkeras[dev]")

WIDTHS = {"phone": (390, 844), "desk": (1280, 900)}
THEMES = ("light", "dark")
EVERY = pytest.mark.parametrize(("width", "theme"), [(width, theme) for width in WIDTHS for theme in THEMES])
# What the browser says of a response other than 2xx; it is the page's to deal with.
_EXPECTED = re.compile(r"Failed to load resource: the server responded with a status of (400|503|401)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        # Without its sandbox, which a container often does not allow; the page is our own.
        chromium = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextlib.contextmanager
def listening(backend: InferenceBackend, settings: ServerSettings | None = None) -> Iterator[str]:
    with running(backend, settings) as (client, _):
        yield str(client.base_url).rstrip("/")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with listening(quarters_backend(tmp_path)) as url:
        yield url


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A slice that is classified, one that is uncertain, a photo, a text, and a volume."""
    drawn = draw_patient(PhantomConfig(image_size=128), 0)[0].image
    bright = drawn.copy()
    bright[:64, 64:] = np.minimum(bright[:64, 64:] * 1.7, 255)
    photo = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    images = {"slice.png": bright, "odd.png": np.minimum(drawn * 1.8, 255), "photo.png": photo}
    for name, pixels in images.items():
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("These are my notes")
    return {name: str(tmp_path / name) for name in (*images, "notes.txt")}


class Visit:
    """A page, and what went on in it behind the scenes."""

    def __init__(self, browser: Any, address: str, width: str = "desk", theme: str = "light") -> None:
        size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
        self.context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.address = address
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(
            "window.violations = []; addEventListener('securitypolicyviolation',"
            " (event) => violations.push(event.violatedDirective + ' ' + event.blockedURI))"
        )
        self.page.goto(address)

    def give(self, *paths: str) -> None:
        before = self.page.locator(".card").count()
        self.page.set_input_files("#files", list(paths))
        self.page.locator(".card").nth(before + len(paths) - 1).wait_for()
        self.settle()

    def settle(self) -> None:
        self.page.wait_for_selector("progress.over", state="attached")

    def opacity(self) -> float:
        return float(self.page.locator(".map").first.evaluate("(map) => getComputedStyle(map).opacity"))

    def check(self) -> None:
        """Nothing was asked of others, forbidden, or complained about."""
        assert [url for url in self.requests if not url.startswith((self.address, f"blob:{self.address}"))] == []
        assert self.page.evaluate("window.violations") == []
        assert [text for text in self.complaints if not _EXPECTED.match(text)] == []


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    made = Visit(browser, address)
    yield made
    made.check()
    made.context.close()


def drop(page: Any, path: str) -> None:
    """Drops a file as a mouse does."""
    data = list(Path(path).read_bytes())
    transfer = page.evaluate_handle(
        "([name, data]) => { const t = new DataTransfer();"
        " t.items.add(new File([new Uint8Array(data)], name)); return t; }",
        [Path(path).name, data],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": transfer})


def test_a_slice_is_dropped_and_classified_and_its_map_faded(visit: Visit, files: dict[str, str]) -> None:
    page = visit.page
    drop(page, files["slice.png"])
    page.wait_for_selector(".prediction.class")
    assert page.locator(".prediction-title").inner_text() == "Meningioma"
    names = [text.strip() for text in page.locator(".bars th").all_inner_texts()]
    numbers = [float(re.sub(r"[<>% ]", "", text)) for text in page.locator(".bars .number").all_inner_texts()]
    assert names == ["Glioma", "Meningioma", "No tumor", "Pituitary"] and numbers.index(max(numbers)) == 1
    assert sum(numbers) == pytest.approx(100, abs=0.3)
    assert page.locator(".image").evaluate("(image) => [image.naturalWidth, image.complete]") == [128, True]
    assert page.locator(".map").evaluate("(image) => image.naturalWidth") == 128
    assert "Meningioma" in str(page.locator(".map").get_attribute("alt"))
    assert visit.opacity() == pytest.approx(0.6)
    page.get_by_label("Opacity of the map").fill("25")
    assert visit.opacity() == pytest.approx(0.25) and page.locator("#opacity-value").inner_text() == "25 %"
    page.get_by_role("button", name="Map", exact=True).click()
    assert visit.opacity() == 0
    # The file's name stays in the browser.
    assert not any("slice.png" in url for url in visit.requests)


def test_what_is_no_class_says_why(visit: Visit, files: dict[str, str]) -> None:
    visit.give(files["photo.png"], files["odd.png"], files["notes.txt"])
    cards = visit.page.locator(".card")
    assert (
        "Rejected" in cards.nth(0).inner_text() and "No brain MRI slice: it is in colour." in cards.nth(0).inner_text()
    )
    assert cards.nth(0).locator(".map").count() == 0
    assert "Uncertain" in cards.nth(1).inner_text() and "Unlike the training slices." in cards.nth(1).inner_text()
    error = cards.nth(2).inner_text()
    assert "Not classified" in error and "PNG, JPEG, BMP" in error and "which is text" in error
    # It would be refused again.
    assert cards.nth(2).get_by_role("button", name="Try again").count() == 0


def test_reasons_name_classes_and_probabilities_as_the_rest_does(
    browser: Any, tmp_path: Path, files: dict[str, str]
) -> None:
    abstention = Abstention(0.9, risk=0.1, level=0.9, images=100, covered=80, wrong=2, bound=0.05, data="validation")
    scores = tuple(np.linspace(0, 0.9, 100).tolist())
    for threshold, words in ((None, "or No tumor or Pituitary at 95 % coverage."), (abstention, "is below 90.0 %.")):
        calibration = Calibration(1.0, scores, 0.0, 0.0, abstention=threshold)
        with listening(quarters_backend(tmp_path, calibration=calibration, ood_calibration=None)) as url:
            visit = Visit(browser, url)
            visit.give(files["odd.png"])
            text = visit.page.locator(".card").inner_text().replace("\u00a0", " ")
            assert "Uncertain" in text and words in text and "no_tumor" not in text
            visit.check()
            visit.context.close()


def test_by_keyboard_alone(visit: Visit, files: dict[str, str]) -> None:
    page = visit.page

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    def tab_to(wanted: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            if focused() == wanted:
                # What has the focus shows it.
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(wanted)

    # Listening first: it takes the browser a moment to hand its dialog over.
    with page.expect_file_chooser() as chooser:
        tab_to("drop")
        page.keyboard.press("Enter")
    chooser.value.set_files([files["slice.png"], files["photo.png"]])
    page.locator(".card").nth(1).wait_for()
    visit.settle()
    tab_to("opacity")
    page.keyboard.press("ArrowLeft")
    assert visit.opacity() == pytest.approx(0.55)
    page.locator("#list a").nth(1).focus()
    page.keyboard.press("Enter")
    assert focused() == page.locator(".card h3").nth(1).get_attribute("id")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".card").count() == 1
    assert focused() == page.locator(".card h3").first.get_attribute("id")
    page.get_by_role("button", name="Enlarge").focus()
    page.keyboard.press("Enter")
    assert page.locator("#large .image").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible() and "on-dark" in focused()


def test_predictions_are_said_to_screen_readers(visit: Visit, files: dict[str, str]) -> None:
    visit.give(files["slice.png"])
    playwright.expect(visit.page.locator("#said")).to_contain_text("slice.png: Meningioma")
    playwright.expect(visit.page.get_by_role("article", name="slice.png")).to_have_attribute("aria-busy", "false")


def test_many_files_wait_in_a_queue_and_a_busy_server_is_waited_for(browser: Any, files: dict[str, str]) -> None:
    def slow(pixels: np.ndarray) -> ModelOutputs:
        time.sleep(0.1)
        return quarters_outputs(pixels)

    settings = ServerSettings(limits=Limits(queued_images=1, instances=1))
    with listening(quarters_backend(predict=slow), settings) as url:
        visit = Visit(browser, url)
        visit.give(*[files["slice.png"]] * 4)
        assert visit.page.locator(".prediction.class").count() == 4
        assert visit.page.locator("#tally").inner_text() == "4 of 4 done"
        visit.check()
        visit.context.close()


def test_slices_of_a_volume_are_stepped_through(visit: Visit, tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    drawn = draw_patient(PhantomConfig(image_size=96), 0)[0].image.astype(np.int16)
    volume = np.stack([drawn * (index + 2) // 6 for index in range(5)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.0, 30.0, 1.0])), tmp_path / "volume.nii.gz")
    visit.give(str(tmp_path / "volume.nii.gz"))
    page = visit.page
    assert page.locator(".place").inner_text() == "3 / 5"
    page.get_by_role("button", name="Next slice").click()
    page.wait_for_selector("img[alt^='Slice 4 of 5']")
    page.get_by_label("Slice of volume.nii.gz").focus()
    page.keyboard.press("Home")
    page.wait_for_selector("img[alt^='Slice 1 of 5']")
    page.get_by_label("View of volume.nii.gz").select_option("coronal")
    page.wait_for_selector("img[alt^='Slice 49 of 96']")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert [row["path"].rpartition("#")[2] for row in rows] == ["0", "2", "3", "48"]


def test_of_a_folder_images_are_taken_and_the_others_named(visit: Visit, files: dict[str, str], tmp_path: Path) -> None:
    folder, png = tmp_path / "study", Path(files["slice.png"]).read_bytes()
    with Image.open(files["slice.png"]) as image:
        kinds = {f"{name}": image.copy() for name in ("1.bmp", "2.TIF", "3.webp", "4.gif", "5.jpe")}
    folder.mkdir()
    for name, image in kinds.items():
        image.save(folder / name, {"jpe": "JPEG", "TIF": "TIFF"}.get(name[2:], name[2:]))
    for name in ("6.png.bak", "1.2.840.7", ".hidden.png", "a_mask.png"):
        (folder / name).write_bytes(png)
    for name in ("notes.txt", "a.xml", "README"):
        (folder / name).write_text("no image")
    page = visit.page
    page.set_input_files("#folders", str(folder))
    page.locator(".card").nth(6).wait_for()
    visit.settle()
    titles = [title.inner_text() for title in page.locator(".card h3").all()]
    assert titles == ["1.2.840.7", "1.bmp", "2.TIF", "3.webp", "4.gif", "5.jpe", "6.png.bak"]
    assert page.locator(".card .error").count() == 0
    names = "study/a_mask.png, study/a.xml, study/notes.txt, study/README"
    assert page.locator("#note").inner_text() == (f"7 slices added, 4 files left out (masks, or no images): {names}.")


def test_results_are_saved_and_no_name_becomes_a_formula(visit: Visit, files: dict[str, str], tmp_path: Path) -> None:
    named = shutil.copy(files["slice.png"], tmp_path / '=1+1,"a" b.png')
    visit.give(str(named), files["notes.txt"])
    page, saved = visit.page, {}
    for kind in ("CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        saved[kind] = Path(download.value.path()).read_text()
    good, bad = csv.DictReader(io.StringIO(saved["CSV"]))
    assert good["path"] == '\'=1+1,"a" b.png' and good["decision"] == "meningioma" and not good["error"]
    assert float(good["meningioma"]) > 0.5 and "which is text" in bad["error"] and not bad["decision"]
    first, second = json.loads(saved["JSON"])
    assert first["path"] == '=1+1,"a" b.png' and first["version"] == 3 and "image" not in first
    assert "which is text" in second["error"]
    page.get_by_role("button", name="Remove all").click()
    assert page.locator(".card").count() == 0 and page.locator("#help").get_attribute("open") is not None


def test_a_server_with_a_token_is_given_one(browser: Any, files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "model_card.md").write_text("# Card")
    with listening(quarters_backend(tmp_path), ServerSettings(token="open sesame")) as url:
        visit = Visit(browser, url)
        page = visit.page
        page.locator("#token-text").fill("sesame")
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#token-wrong")).to_be_visible()
        page.locator("#token-text").fill("open sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#model strong")
        visit.give(files["slice.png"], files["slice.png"])
        assert page.locator(".prediction.class").count() == 2
        # A link carries no token.
        page.get_by_role("link", name="Model card").click()
        assert page.locator("#card h1").inner_text() == "Card"
        page.keyboard.press("Escape")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        visit.check()
        visit.context.close()


def test_a_model_without_maps_says_so(browser: Any, tmp_path: Path, files: dict[str, str]) -> None:
    with listening(quarters_backend(tmp_path, explain=None, ood_calibration=None)) as url:
        visit = Visit(browser, url)
        visit.give(files["slice.png"])
        assert "no maps" in visit.page.locator("#bar").inner_text()
        assert not visit.page.locator("#opacity").is_visible()
        assert "not calibrated" in visit.page.locator(".card").inner_text()
        visit.check()
        visit.context.close()


@EVERY
def test_it_fits_and_axe_finds_nothing(
    browser: Any, address: str, files: dict[str, str], tmp_path: Path, width: str, theme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    wide = "| figure |" + " value |" * 20 + "\n|" + " - |" * 21 + "\n| accuracy |" + " 0.98765 |" * 20
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "model_card.md").write_text(f"# Card\n\n{wide}\n\n```\n{'long ' * 50}\n```\n")
    long = shutil.copy(files["slice.png"], tmp_path / f"{'a very long name of a slice ' * 7}.png")
    visit = Visit(browser, address, width, theme)
    page = visit.page

    def violations() -> list[str]:
        found = axe.run(page, options={"resultTypes": ["violations", "passes"]}).response
        assert len(found["passes"]) > 15
        return [f"{one['id']}: {node['html']}" for one in found["violations"] for node in one["nodes"]]

    def fits() -> bool:
        return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    assert violations() == [] and fits()
    visit.give(files["slice.png"], files["odd.png"], files["photo.png"], files["notes.txt"], str(long))
    page.locator("summary").first.click()
    assert violations() == [] and fits()
    # Which end of the colors is which.
    assert [end.is_visible() for end in page.locator(".legend span").all()] == [True, True]
    assert page.get_by_text("Research use only.").is_visible()
    page.get_by_role("button", name="Enlarge").first.click()
    assert violations() == []
    page.keyboard.press("Escape")
    visit.check()
    page.goto(f"{address}/model-card")
    assert violations() == [] and fits()
    visit.context.close()

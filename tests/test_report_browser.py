"""The HTML report in a real browser: quiet, on a phone, on a desk, on paper, and without eyes."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btkeras.datasets import load_dataset
from btkeras.reporting.render import write_report
from btkeras.reporting.report import build_report
from tests.fake_experiment import fake_experiment

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome"),
]
PHONE = 390


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("browser")
    models = "cv.models=[resnet34, resnet34_multiscale, improved_resnet34, vgg16]"
    experiment = fake_experiment(folder / "cv", load_dataset(shared_images), "cv.folds=2", models)
    runs = [experiment.path / model / "fold_0" for model in ("resnet34", "improved_resnet34")]
    contents = {"experiment": [experiment.path], "run": runs[:1], "comparison": runs}
    for name, paths in contents.items():
        write_report(build_report(paths), folder / f"{name}.html", "html")
    return {name: folder / f"{name}.html" for name in contents}


@pytest.fixture(scope="module")
def report(reports: dict[str, Path]) -> Path:
    return reports["experiment"]


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without its sandbox, which a container often does not allow; the page is our own.
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *arguments]
    return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)


def test_the_browser_has_nothing_to_complain_about(report: Path) -> None:
    done = browse(report, "--dump-dom")
    assert "</footer>" in done.stdout
    # What the policy forbids, or is malformed, is said on the console.
    assert "CONSOLE" not in done.stderr, done.stderr


def test_the_page_is_no_wider_than_a_phone(report: Path, tmp_path: Path) -> None:
    # In a frame, for a window cannot be made so narrow; without its policy, for the script is the test's.
    content = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report.read_text())
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<!DOCTYPE html><iframe width="{PHONE}" style="border:0" srcdoc="{html.escape(content)}"></iframe>'
        "<script>const frame = document.querySelector('iframe'); frame.onload = () => {"
        "const root = frame.contentDocument.documentElement;"
        "const small = [...root.querySelectorAll('td, th, p, li')].filter(e => e.clientWidth && e.clientWidth < 8);"
        "document.title = [root.clientWidth, root.scrollWidth, small.length]}</script>"
    )
    found = re.search(r"<title>(\d+),(\d+),(\d+)</title>", browse(probe, "--dump-dom").stdout)
    assert found is not None
    width, needed, squeezed = map(int, found.groups())
    # A scroll bar may take some of the width.
    assert needed == width <= PHONE and squeezed == 0


def test_it_prints(report: Path, tmp_path: Path) -> None:
    browse(report, f"--print-to-pdf={tmp_path / 'report.pdf'}", "--no-pdf-header-footer")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) > 3


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of btkeras[dev]")
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("content", ["experiment", "run", "comparison"])
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_everyone_can_read_it(chromium: Any, reports: dict[str, Path], content: str, width: int, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe, of btkeras[dev]")
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=True)
    page.goto(reports[content].as_uri())
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    hints = page.locator(".hint").all()
    assert hints and all(hint.is_visible() == (width == PHONE) for hint in hints)
    page.close()


def test_a_mistake_is_enlarged_and_made_small_again(chromium: Any, report: Path) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    image = page.locator("#misclassified img").first
    assert image.bounding_box()["width"] == 200
    page.locator("#misclassified summary").first.press("Enter")
    assert image.bounding_box()["width"] == 512
    image.click()
    assert image.bounding_box()["width"] == 200
    page.close()


def test_plots_stand_side_by_side_on_a_desk(chromium: Any, report: Path) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    boxes = [plot.bounding_box() for plot in page.locator("#roc svg").all()[:3]]
    assert len({box["y"] for box in boxes}) == 1 and boxes[2]["x"] + boxes[2]["width"] > 1200
    page.close()

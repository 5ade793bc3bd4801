"""The HTML report in a real browser: quiet, as wide as a phone, and on paper."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

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
def report(tmp_path_factory: pytest.TempPathFactory, shared_images: Path) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    models = "cv.models=[resnet34, resnet34_multiscale, improved_resnet34, vgg16]"
    experiment = fake_experiment(folder / "cv", load_dataset(shared_images), "cv.folds=2", models)
    write_report(build_report([experiment.path]), folder / "report.html", "html")
    return folder / "report.html"


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

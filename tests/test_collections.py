"""Published collections: their download by name, and what `prepare` makes of their layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from btkeras.cli import main
from btkeras.datasets.download import Deposit
from tests.prepare_files import figshare_download


def test_a_download_by_name_says_whose_the_collection_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(deposit: Deposit, folder: Path) -> None:
        assert deposit.url == "https://api.figshare.com/v2/articles/1512427"
        folder.mkdir(parents=True)
        (folder / "1512427.zip").write_bytes(figshare_download())

    monkeypatch.setattr("btkeras.datasets.download.download", fetch)
    options = ["--download-dir", str(tmp_path / "downloads"), "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["prepare", "--download", "figshare", *options])
    assert result.exit_code == 0, result.output
    assert "figshare: brain tumor dataset (Cheng 2017), doi 10.6084/m9.figshare.1512427, licence: CC BY 4.0" in (
        result.stderr
    )
    assert "Sources: figshare (4)" in result.stdout

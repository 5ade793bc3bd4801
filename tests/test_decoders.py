"""Decoder packages that are installed and cannot be imported: one message that names them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.dicom_files import dicom

# What packages that were built for another Python, NumPy or system raise.
FAILURES = (
    "raise AttributeError('_ARRAY_API not found')",
    "raise OSError('libgdcmCommon.so.3.0: cannot open shared object file')",
    "raise RuntimeError('module compiled against another API version')",
    "raise SystemError('initialization failed')",
)
READ = """
import sys
from btkeras.datasets.readers.formats import open_slices
from btkeras.errors import BTKerasError
try:
    print(open_slices(sys.argv[1]).image(0).shape)
except BTKerasError as error:
    print(error)
"""


def read(folder: Path, package: str, code: str, file: str) -> str:
    """What reading a DICOM file says while a package of this code stands before the real one."""
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(code)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", READ, file], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert not done.stderr and done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def plain(tmp_path: Path) -> str:
    file = tmp_path / "plain.dcm"
    file.write_bytes(dicom(np.arange(1200, dtype=np.uint16).reshape(30, 40)))
    return str(file)


@pytest.mark.parametrize(("package", "code"), [("gdcm", code) for code in FAILURES[:3]] + [("openjpeg", FAILURES[0])])
def test_a_package_that_fails_is_named(package: str, code: str, plain: str, tmp_path: Path) -> None:
    message = read(tmp_path, package, code, plain)
    detail = code.partition("'")[2].partition("'")[0]
    assert len(message.splitlines()) == 1 and f"{package}, which fails" in message and detail in message, message
    assert "all packages that it imports must work" in message


@pytest.mark.parametrize(
    ("package", "code", "detail"),
    [
        ("gdcm", "", "AttributeError: module 'gdcm' has no attribute 'Version'"),
        ("gdcm", "class Version:\n    pass", "AttributeError: type object 'Version' has no attribute"),
        ("pylibjpeg", FAILURES[2], "RuntimeError: module compiled against another API version"),
    ],
)
def test_a_package_that_is_half_there_is_named_and_not_what_it_lacks(
    package: str, code: str, detail: str, plain: str, tmp_path: Path
) -> None:
    message = read(tmp_path, package, code, plain)
    named = "pydicom" if "class" in code else package
    assert f"Received: {named}, which fails ({detail}" in message, message


def test_pydicom_itself_may_fail(plain: str, tmp_path: Path) -> None:
    message = read(tmp_path, "pydicom", FAILURES[3], plain)
    assert "pydicom, which fails (SystemError: initialization failed)" in message


def test_a_missing_library_of_a_decoder_is_no_harm_to_other_files_and_named_for_its_own(
    plain: str, tmp_path: Path
) -> None:
    # pydicom takes it for a package that is not installed.
    code = "raise ImportError('undefined symbol: _ZNK4gdcm')"
    assert "(30, 40, 1)" in read(tmp_path, "gdcm", code, plain)
    from pydicom.data import get_testdata_file

    (tmp_path / "again").mkdir()
    message = read(tmp_path / "again", "gdcm", code, str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm")))
    assert "an installed decoder knows" in message and "gdcm fails (ImportError: undefined symbol" in message, message

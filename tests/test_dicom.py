"""DICOM files as slices. References: pydicom's own LUT and window functions, DICOM PS3.3, NumPy's sort."""

from __future__ import annotations

import io
import logging
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from btkeras.datasets.readers import MissingExtraError
from btkeras.datasets.readers import dicom as dicom_module
from btkeras.datasets.readers.formats import open_slices
from btkeras.errors import ImageError
from tests.dicom_files import NAME, dataset, dicom, item, stretched, written

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (40, 48), np.uint16)
GREY = RNG.integers(0, 256, (40, 48), np.uint8)


def shown(data: bytes, index: int = 0) -> Any:
    image = open_slices(data, "x.dcm").image(index)
    assert image.dtype == np.uint8 and image.ndim == 3
    return image[..., 0] if image.shape[-1] == 1 else image


def test_eight_bits_are_shown_as_they_are_and_more_without_their_extremes() -> None:
    np.testing.assert_array_equal(shown(dicom(GREY)), GREY)
    np.testing.assert_array_equal(shown(dicom(DEEP, BitsStored=12)), stretched(DEEP))


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (256, 256)])
@pytest.mark.parametrize("value", [0, 32767, -32768])
def test_a_hot_or_dead_pixel_changes_next_to_nothing(shape: tuple[int, int], value: int) -> None:
    values = RNG.integers(100, 900, shape).astype(np.int16)
    plain = shown(dicom(values))
    spoiled = values.copy()
    spoiled[5, 5] = value
    found = shown(dicom(spoiled))
    found[5, 5] = plain[5, 5]
    assert np.abs(found.astype(int) - plain).max() <= 8


@settings(max_examples=30)
@given(
    slope=st.floats(-20, 20).filter(lambda s: abs(s) > 1e-3),
    intercept=st.floats(-2000, 2000),
    center=st.floats(-5000, 5000),
    width=st.floats(2, 8000),
    function=st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    signed=st.booleans(),
)
def test_rescale_and_window_are_those_of_pydicom(
    slope: float, intercept: float, center: float, width: float, function: str | None, signed: bool
) -> None:
    values = DEEP.astype(np.int16) - 2000 if signed else DEEP
    made = dataset(values, BitsStored=13 if signed else 12)
    # Sixteen characters are what the type holds.
    made.RescaleSlope, made.RescaleIntercept = f"{slope:.6g}", f"{intercept:.6g}"
    made.WindowCenter, made.WindowWidth = [f"{center:.6g}", "1"], [f"{width:.6g}", "2"]
    if function:
        made.VOILUTFunction = function
    data = written(made)
    reference = dcmread(io.BytesIO(data))
    # pydicom's output range is that of the rescaled values, ours 0..255.
    with np.errstate(over="ignore"):
        windowed = apply_windowing(apply_modality_lut(reference.pixel_array, reference), reference)
        low, high = (apply_windowing(np.array([v]), reference)[0] for v in (-1e9, 1e9))
    expected = (windowed - low) / (high - low) * 255
    assert np.abs(shown(data) - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("width", ["0", "-5", "0.5"])
def test_a_window_that_means_nothing_is_none(width: str) -> None:
    np.testing.assert_array_equal(shown(dicom(DEEP, WindowCenter="100", WindowWidth=width)), stretched(DEEP))


def test_without_a_window_a_rescaling_only_matters_where_it_turns_grey_levels() -> None:
    plain = shown(dicom(DEEP))
    np.testing.assert_array_equal(shown(dicom(DEEP, RescaleSlope="3.5", RescaleIntercept="-7")), plain)
    turned = shown(dicom(DEEP, RescaleSlope="-1", RescaleIntercept="0"))
    np.testing.assert_array_equal(turned, stretched(4095 - DEEP.astype(int)))


def test_monochrome1_is_inverted() -> None:
    np.testing.assert_array_equal(shown(dicom(GREY, PhotometricInterpretation="MONOCHROME1")), 255 - GREY)
    window = {"WindowCenter": "2000", "WindowWidth": "3000"}
    inverted = shown(dicom(DEEP, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted, 255 - shown(dicom(DEEP, **window)))


def test_unused_high_bits_and_signs_are_understood() -> None:
    values = RNG.integers(-2048, 2048, (40, 48), np.int16)
    # Overlays were once kept in the four upper bits.
    dirty = (values & 0x0FFF) | (RNG.integers(0, 16, (40, 48), np.int16) << 12)
    np.testing.assert_array_equal(shown(dicom(dirty.astype(np.int16), BitsStored=12)), stretched(values))
    with pytest.raises(ImageError, match="up to bit 12"):
        shown(dicom(DEEP, BitsStored=12, HighBit=12))


def test_padding_is_black_and_does_not_count() -> None:
    padded = DEEP.astype(np.int16) + 50
    padded[:3] = -2000
    found = shown(dicom(padded, PixelPaddingValue=-2000))
    assert not found[:3].any()
    np.testing.assert_array_equal(found[3:], stretched(padded[3:]))
    assert not shown(dicom(padded, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"))[:3].any()


def test_luts_are_applied() -> None:
    lut = item(LUTDescriptor=[4096, 0, 16], LUTData=struct.pack("<4096H", *(65535 - 16 * np.arange(4096))))
    lut["LUTData"].VR = "OW"
    expected = np.floor((65535 - 16.0 * DEEP) / 65535 * 255 + 0.5)
    np.testing.assert_array_equal(shown(dicom(DEEP, VOILUTSequence=[lut])), expected)
    # Below and above its 256 entries, the first and the last hold.
    short = item(LUTDescriptor=[256, 1000, 8], LUTData=bytes(range(256)))
    short["LUTData"].VR = "OW"
    expected = np.clip(DEEP.astype(int) - 1000, 0, 255)
    np.testing.assert_array_equal(shown(dicom(DEEP, VOILUTSequence=[short])), expected)
    modality = item(LUTDescriptor=[4096, 0, 16], LUTData=struct.pack("<4096H", *(np.arange(4096) ** 2 // 256)))
    modality["LUTData"].VR = "OW"
    squared = DEEP.astype(int) ** 2 // 256
    np.testing.assert_array_equal(shown(dicom(DEEP, ModalityLUTSequence=[modality])), stretched(squared))


def in_order(made: Any, little: bool) -> bytes:
    """The file's bytes with its words in this order."""
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    made.PixelData = made.PixelData if little else np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("first", [0, 700])
def test_luts_are_those_of_pydicom_in_both_orders_of_bytes(sequence: str, vr: str, first: int) -> None:
    entries = (np.sqrt(np.arange(3000) / 3000) * 65535).astype(np.uint16)
    for little in (True, False):
        packed = entries.astype("<u2" if little else ">u2").tobytes()
        lut = item(LUTDescriptor=[3000, first, 16], LUTData=packed if vr == "OW" else entries.tolist())
        lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", vr
        data = in_order(dataset(DEEP, BitsStored=12, **{sequence: [lut]}), little)
        reference = dcmread(io.BytesIO(data))
        assert reference.original_encoding == (False, little)
        if sequence == "VOILUTSequence":
            expected = np.floor(apply_voi_lut(reference.pixel_array, reference) / 65535 * 255 + 0.5)
        else:
            expected = stretched(apply_modality_lut(reference.pixel_array, reference))
        assert expected.std() > 20
        np.testing.assert_array_equal(shown(data), expected)


def test_entries_of_eight_bits_share_words_in_both_orders_of_bytes() -> None:
    entries = 255 - np.arange(256, dtype=np.uint8)
    for little in (True, False):
        packed = entries if little else entries.reshape(-1, 2)[:, ::-1].ravel()
        lut = item(LUTDescriptor=[256, 1000, 8], LUTData=packed.tobytes())
        lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
        found = shown(in_order(dataset(DEEP, VOILUTSequence=[lut]), little))
        np.testing.assert_array_equal(found, 255 - np.clip(DEEP.astype(int) - 1000, 0, 255))


def test_frames_have_their_own_windows_and_scales() -> None:
    frames = np.stack([DEEP, DEEP // 2, DEEP // 4])
    opened = open_slices(dicom(frames), "x")
    assert (opened.kind, opened.count, opened.middle) == ("DICOM", 3, 1)
    np.testing.assert_array_equal(opened.image(2)[..., 0], stretched(frames[2]))
    windows = [
        item(
            FrameVOILUTSequence=[item(WindowCenter="500", WindowWidth=str(100 + n))],
            PixelValueTransformationSequence=[item(RescaleSlope=str(n + 1), RescaleIntercept="0")],
        )
        for n in range(3)
    ]
    enhanced = dicom(frames, PerFrameFunctionalGroupsSequence=windows)
    alone = dicom(frames[2], WindowCenter="500", WindowWidth="102", RescaleSlope="3", RescaleIntercept="0")
    np.testing.assert_array_equal(shown(enhanced, 2), shown(alone))
    shared = dicom(frames, SharedFunctionalGroupsSequence=windows[2:])
    np.testing.assert_array_equal(
        shown(shared, 0),
        shown(dicom(frames[0], WindowCenter="500", WindowWidth="102", RescaleSlope="3", RescaleIntercept="0")),
    )


def test_color_stays_color_in_either_order_of_its_samples() -> None:
    color = RNG.integers(0, 256, (40, 48, 3), np.uint8)
    np.testing.assert_array_equal(shown(dicom(color)), color)
    planes = dataset(color, PlanarConfiguration=1)
    planes.PixelData = np.moveaxis(color, -1, 0).tobytes()
    np.testing.assert_array_equal(shown(written(planes)), color)
    with pytest.raises(ImageError, match="PALETTE"):
        shown(dicom(GREY, PhotometricInterpretation="PALETTE COLOR"))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_compression_changes_nothing(syntax: str) -> None:
    frames = np.stack([DEEP, DEEP[::-1]])
    made = dataset(frames, BitsStored=12)
    made.compress(syntax, generate_instance_uid=False)
    np.testing.assert_array_equal(shown(written(made), 1), stretched(DEEP[::-1]))


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_is_read(syntax: str) -> None:
    y, x = np.mgrid[:24, :32]
    values = (x * 90 + y * 37 + (x * y) % 7 * 3).astype(np.uint16)
    made = dataset(values)
    made.file_meta.TransferSyntaxUID = syntax
    # The same values, encoded without loss by OpenJPH 0.26.3.
    made.PixelData = encapsulate([(Path(__file__).parent / "data/htj2k.j2c").read_bytes()])
    np.testing.assert_array_equal(shown(written(made)), stretched(values))


# Transfer syntaxes of pydicom's own files: with the extra's decoders only 12-bit JPEG cannot be read.
@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_encoding_of_one_slice_gives_the_same_image(name: str) -> None:
    expected = shown(Path(str(get_testdata_file("MR_small.dcm"))).read_bytes())
    assert expected.std() > 20
    np.testing.assert_array_equal(shown(Path(str(get_testdata_file(name))).read_bytes()), expected)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", (100, 100, 3)),
        ("SC_rgb_jpeg_gdcm.dcm", (100, 100, 3)),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", (100, 100, 3)),
        ("image_dfl.dcm", (512, 512)),
    ],
)
def test_jpeg_lossless_jpeg_and_deflate_are_read_as_pydicom_reads_them(name: str, shape: tuple[int, ...]) -> None:
    path = str(get_testdata_file(name))
    found = shown(Path(path).read_bytes())
    assert found.shape == shape
    if found.ndim == 3:
        np.testing.assert_array_equal(found, dcmread(path).pixel_array)


def test_jpeg_lossless_of_twelve_bits_is_read_and_broken_it_harms_nobody(tmp_path: Path) -> None:
    gdcm = pytest.importorskip("gdcm")
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    values = DEEP.astype(np.int16) - 2048
    plain.write_bytes(dicom(values, BitsStored=12))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    data = packed.read_bytes()
    np.testing.assert_array_equal(shown(data), stretched(values))
    # Sixty bits a sample: GDCM alone would end this process.
    place = data.index(b"\xff\xc3") + 4
    with pytest.raises(ImageError, match="JPEG Lossless frame"):
        shown(data[:place] + b"\x3c" + data[place + 1 :])


def test_twelve_bit_jpeg_names_what_is_missing() -> None:
    with pytest.raises(ImageError, match=r"JPEG Extended.*medical"):
        shown(Path(str(get_testdata_file("JPGExtended.dcm"))).read_bytes())


def test_files_without_preamble_or_ending_are_recognised(tmp_path: Path) -> None:
    np.testing.assert_array_equal(shown(written(dataset(GREY), bare=True)), GREY)
    (tmp_path / "IM0001").write_bytes(dicom(GREY))
    assert open_slices(tmp_path / "IM0001").kind == "DICOM"


@pytest.mark.parametrize("modality", ["CT", "US", "PT"])
def test_other_modalities_are_rejected_with_a_reason_and_not_an_error(modality: str) -> None:
    opened = open_slices(dicom(GREY, Modality=modality), "x")
    assert opened.rejection == f"the file says {modality}, not MR" and opened.image(0).any()


@pytest.mark.parametrize("modality", ["MR", "OT", ""])
def test_what_may_be_mr_is_not_rejected(modality: str) -> None:
    assert open_slices(dicom(GREY, Modality=modality), "x").rejection is None


def test_what_holds_no_image_is_an_error() -> None:
    without = dataset(GREY)
    del without.PixelData
    for data in (written(without), dicom(GREY, Modality="SEG"), dicom(GREY, Modality="SR")):
        with pytest.raises(ImageError, match="must hold an image"):
            open_slices(data, "x")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Rows": 8}, "at least 16 x 16"),
        ({"Rows": 60000, "Columns": 60000}, "25 million"),
        ({"NumberOfFrames": "100000"}, "4096 frames"),
        ({"BitsAllocated": 1}, "up to 32 bits"),
        ({"RescaleSlope": "0", "WindowCenter": "1", "WindowWidth": "9"}, "rescale slope"),
        ({"Rows": 80}, "less than expected"),
    ],
)
def test_sizes_out_of_bounds_are_errors(attributes: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        shown(dicom(GREY, **attributes))


def test_bombs_are_found_before_they_go_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_module, "MAX_BYTES", 2**20)
    made = dataset(np.zeros((1500, 1500), np.uint8))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data = written(made)
    assert len(data) < 10_000
    with pytest.raises(ImageError, match="inflate to at most 1 MiB"):
        open_slices(data, "x")
    # A frame that says it is larger than its file says.
    made = dataset(DEEP)
    made.compress(JPEG2000Lossless)
    data = written(made)
    place = data.index(b"\xff\x4f\xff\x51") + 8
    huge = data[:place] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + data[place + 8 :]
    with pytest.raises(ImageError, match="a frame of 2147483647 x 2147483647"):
        shown(huge)


def test_a_patient_s_name_is_not_parsed(caplog: pytest.LogCaptureFixture) -> None:
    data = dicom(GREY)
    assert NAME.encode() in data
    opened = open_slices(data, "x")
    cells = [cell.cell_contents for cell in opened.image.__closure__ or ()]
    headers = [cell for cell in cells if hasattr(cell, "PixelData")]
    assert headers and all("PatientName" not in header and "PatientID" not in header for header in headers)


def test_mutated_files_are_read_or_are_an_image_error(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(7)
    compressed = dataset(np.stack([DEEP, DEEP]))
    compressed.compress(RLELossless)
    lossless = dataset(DEEP)
    lossless.compress(JPEGLSLossless)
    windows = [item(FrameVOILUTSequence=[item(WindowCenter="5", WindowWidth="9")])]
    sources = [
        dicom(DEEP, WindowCenter="100", WindowWidth="50", RescaleSlope="2", RescaleIntercept="0"),
        dicom(np.stack([DEEP, DEEP]), SharedFunctionalGroupsSequence=windows),
        written(compressed),
        written(lossless),
    ]
    # Each of its frames takes a process.
    slow = Path(str(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))).read_bytes()[:20_000]
    outcomes = {True: 0, False: 0}
    with caplog.at_level(logging.DEBUG):
        for number in range(300):
            data = bytearray(sources[number % len(sources)] if number % 75 else slow)
            for _ in range(rng.integers(1, 6)):
                # Most of the bytes are pixels; the header is at the beginning.
                data[rng.integers(128, min(len(data), 1200))] = rng.integers(0, 256)
            if number % 7 == 0:
                data = data[: rng.integers(1, len(data))]
            try:
                opened = open_slices(bytes(data), "x.dcm")
                opened.image(opened.middle)
            except ImageError as error:
                outcomes[False] += 1
                assert NAME not in str(error)
            else:
                outcomes[True] += 1
    assert min(outcomes.values()) > 25, outcomes
    assert NAME not in caplog.text and not [r for r in caplog.records if r.name == "pydicom"]


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'btkeras\[medical\]'"):
        open_slices(dicom(GREY), "x")

"""Source files to the images that a dataset stores, in threads, in order, a few at a time."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from btkeras.datasets.boxes import box_in_crop, clip_box, format_box, mask_box, parse_box
from btkeras.datasets.classes import NO_TUMOR
from btkeras.datasets.identify import identify
from btkeras.datasets.mask_content import check_no_labels, check_no_mask_image, check_tumor, read_mask_image
from btkeras.datasets.mask_names import stem_of
from btkeras.datasets.pseudonyms import load_key, pseudonym
from btkeras.datasets.readers import MissingExtraError, Slices, check
from btkeras.datasets.readers.dicom import read_dicom
from btkeras.datasets.readers.dicom_identity import DicomIdentity
from btkeras.datasets.readers.figshare import read_slice
from btkeras.datasets.readers.formats import kind_of
from btkeras.datasets.readers.images import decode_image, encode_png, stored_form
from btkeras.datasets.readers.nifti import Volume, read_volume, slices_of
from btkeras.datasets.readers.nifti_masks import read_mask
from btkeras.datasets.source_image import SourceImage
from btkeras.datasets.volume_slices import VolumeSlices
from btkeras.errors import DataError, ImageError
from btkeras.machine import map_in_threads
from btkeras.preprocessing.decode import decode, to_uint8
from btkeras.preprocessing.harmonize import HeadBox, find_head, harmonize
from btkeras.preprocessing.image_file import check_image, sniff
from btkeras.preprocessing.mri_check import rejection_reason
from btkeras.preprocessing.resize import resize

# The manifest's column: the side, in pixels. An image that has it is not harmonized a second time.
HARMONIZED = "harmonized"

# Each holds up to two files in memory, which may be large.
_MAX_THREADS = 8


@dataclass(frozen=True)
class PreparedImage:
    """An image as it will be written: encoded, with its mask (0 and 255, of its size) and further columns.

    ``rejection``: why it is left out, though other slices of its file or series are not. ``pixels``: what was encoded,
    where it need not be decoded for the MRI check, which drops it.
    """

    data: bytes
    label: str
    patient: str
    extra: Mapping[str, str]
    name: str
    mask: bytes | None = None
    suffix: str = ".png"
    rejection: str | None = None
    pixels: NDArray[np.uint8] | None = None


def convert_all(
    items: Iterable[SourceImage], size: int, choice: VolumeSlices, mri_check: bool = True
) -> Iterator[tuple[SourceImage, Sequence[PreparedImage] | DataError]]:
    """Yields each item with its images, or the error that its file causes, in the items' order.

    Images are harmonized to squares of ``size`` pixels, unless that is 0; ``choice`` is of volumes.
    """
    convert = functools.partial(_convert, size=size, choice=choice, mri_check=mri_check)
    # Linear algebra in one thread each, since the threads share the cores already.
    with threadpool_limits(1):
        # Files are read one after the other, because a zip can only be read forwards.
        yield from map_in_threads(convert, map(_read, items), most=_MAX_THREADS, ahead=1)


def _read(item: SourceImage) -> tuple[SourceImage, bytes | DataError, bytes | None]:
    try:
        return item, item.file.read(), item.mask.read() if item.mask else None
    except DataError as error:
        return item, error, None


def _convert(
    source: tuple[SourceImage, bytes | DataError, bytes | None], size: int, choice: VolumeSlices, mri_check: bool
) -> tuple[SourceImage, Sequence[PreparedImage] | DataError]:
    item, data, mask = source
    if isinstance(data, DataError):
        return item, data
    try:
        images = _images(item, data, mask, choice)
        images = [_identified(item, image) for image in images]
        images = _checked(item, images) if mri_check else images
        return item, [_harmonize(image, size) for image in images] if size else images
    except MissingExtraError:
        raise
    except DataError as error:
        return item, error


def _images(item: SourceImage, data: bytes, mask: bytes | None, choice: VolumeSlices) -> list[PreparedImage]:
    if not item.label:
        return [_figshare_image(item, data)]
    kind = kind_of(data)
    if kind == "NIfTI":
        return _with_tumor(item, _volume_images(item, data, mask, choice))
    if kind == "DICOM":
        return _dicom_images(item, data)
    return _with_tumor(item, [_image(item, data, mask)])


def _identified(item: SourceImage, image: PreparedImage) -> PreparedImage:
    return replace(image, **identify(item, image.patient, image.name, image.extra)._asdict())


def _with_tumor(item: SourceImage, images: list[PreparedImage]) -> list[PreparedImage]:
    """The images whose masks show the tumour of their class; those without a mask, or of a dataset, as they are.

    Raises ImageError if a mask shows a tumour in an image of ``NO_TUMOR``.
    """
    if "mask" in item.extra:
        return images
    if item.label == NO_TUMOR:
        rule, remedy = (
            "A mask must show no tumour in a tumour-free image",
            "Move them to the tumour's class, or remove one",
        )
        name = item.mask.name if item.mask else ""
        check(not any(image.mask and image.extra.get("box") for image in images), rule, name, remedy)
        return images
    return [image for image in images if image.mask is None or image.extra.get("box")]


def _checked(item: SourceImage, images: Sequence[PreparedImage]) -> list[PreparedImage]:
    """Notes what the MRI check rejects; an error if it is a single image, or all of a file's slices."""
    checked = [replace(image, rejection=_rejection(image), pixels=None) for image in images]
    reasons = [image.rejection for image in checked]
    # The ends of a volume show next to nothing.
    of_series = item.place is not None and item.place.of > 1
    if images and all(reasons) and not of_series:
        name = item.file.name if len(images) == 1 else f"{item.file.name} in each of {len(images)} slices"
        rule, remedy = "An image must look like a slice of a head", "Remove it, or see what comes of --no-mri-check"
        raise ImageError(rule, received=f"{name} ({reasons[0]})", remedy=remedy)
    return checked


def _rejection(image: PreparedImage) -> str | None:
    # One that was cropped to its head has no background any more.
    if image.extra.get(HARMONIZED):
        return None
    return rejection_reason(decode(image.data) if image.pixels is None else image.pixels)


def _figshare_image(item: SourceImage, data: bytes) -> PreparedImage:
    found = read_slice(data, item.file.name)
    box = mask_box(found.mask)
    extra = {**item.extra, "box": format_box(box)} if box else item.extra
    mask = encode_png(found.mask * np.uint8(255))
    pixels = to_uint8(found.image)
    return PreparedImage(encode_png(pixels), found.label, found.patient, extra, item.file.stem, mask, pixels=pixels)


def _image(item: SourceImage, data: bytes, mask: bytes | None) -> PreparedImage:
    name = item.file.name
    check(
        item.extra.get("sha256") in (None, "", hashlib.sha256(data).hexdigest()),
        "An image must be the one that its manifest describes",
        f"{name} with another sha256",
        "Restore it, or empty its field sha256 if the change is meant",
    )
    extra, pixels = dict(item.extra), decode_image(data, name)
    stored, suffix = stored_form(data, pixels)
    if not (item.mask and mask is not None):
        check_no_mask_image(pixels, name)
    elif "mask" in item.extra:
        size, expected = check_image(mask, item.mask.name), check_image(stored, name)
        found = f"{item.mask.name}, {sniff(mask)} of {size[0]} x {size[1]}, for {expected[0]} x {expected[1]}"
        rule, remedy = "A mask must be a PNG as large as its image", "Make it again, or empty the field mask"
        check(size == expected and sniff(mask) == "PNG", rule, found, remedy)
    else:
        tumor = read_mask_image(mask, item.mask.name, pixels)
        box = mask_box(tumor)
        extra |= {"box": format_box(box)} if box else {}
        mask = encode_png(tumor * np.uint8(255))
    return PreparedImage(stored, item.label, item.patient, extra, item.file.stem, mask, suffix, pixels=pixels)


def _dicom_images(item: SourceImage, data: bytes) -> list[PreparedImage]:
    """Each frame, with pseudonyms of patient and series; no name of the file, which often is a person's."""
    name = item.file.name
    slices, identity = read_dicom(data, name)
    burned_in = "the file says that text about the patient is burned into its pixels" if identity.burned_in else ""
    refused = slices.rejection or burned_in
    check(not refused, "A DICOM file must be an MR slice without a name in it", f"{name} ({refused})")
    key = load_key()
    patient, series = pseudonym(identity.patient, key), pseudonym(identity.series, key, "S")
    extra = {column: value for column, value in item.extra.items() if column != "original"}
    extra |= {column: value for column, value in (("series", series), ("sequence", identity.sequence)) if value}
    extra |= {} if identity.instance is None else {"instance": str(identity.instance)}
    number = _series_number(item, identity, key)
    stem = "-".join(text for text in (patient[:9], series[:9], number) if text)
    found = []
    for index in range(slices.count):
        pixels = slices.image(index)
        image = PreparedImage(encode_png(pixels), item.label, patient, extra, stem, pixels=pixels)
        if slices.count > 1:
            image = replace(image, extra=extra | {"slice": str(index)}, name=f"{stem}-{index:04d}")
        found.append(image)
    return found


def _series_number(item: SourceImage, identity: DicomIdentity, key: bytes) -> str:
    """A number in a series' order, so that neighbours are found; or one from the file's own name."""
    if item.place and item.place.of > 1:
        return f"{item.place.number:04d}"
    return pseudonym(item.file.path, key, "F") if identity.instance is None else f"{max(identity.instance, 0):04d}"


def _volume_images(item: SourceImage, data: bytes, mask: bytes | None, choice: VolumeSlices) -> list[PreparedImage]:
    """The chosen slices of a volume, with their slices of the mask."""
    volume = read_volume(data, item.file.name, item.channel)
    planes = [slices_of(volume, item.file.name, plane) for plane in choice.views(volume)]
    check_no_labels(volume, item.file.name)
    tumor = None
    if item.mask and mask is not None:
        tumor = read_mask(mask, item.mask.name, volume)
        check_tumor(tumor.voxels, volume.voxels, item.mask.name)
    return [
        _volume_image(item, slices, index, _plane_mask(tumor, volume, slices.axis, index), bool(choice.planes))
        for slices in planes
        for index in choice.numbers(slices.axis, slices.count, tumor)
    ]


def _plane_mask(tumor: Volume | None, volume: Volume, plane: str, index: int) -> NDArray[np.bool_] | None:
    """A mask's slice, as large as the volume's."""
    if tumor is None:
        return None
    shown = np.ascontiguousarray(tumor.plane(plane, index)).astype(np.uint8)
    return np.asarray(Image.fromarray(shown).resize(volume.square(plane), Image.Resampling.NEAREST)) > 0


def _volume_image(
    item: SourceImage, slices: Slices, index: int, tumor: NDArray[np.bool_] | None, named: bool
) -> PreparedImage:
    """One slice of a volume; its plane is in its name if ``named``."""
    extra = {**item.extra, "slice": str(index), "plane": slices.axis}
    mask = None
    if tumor is not None:
        box = mask_box(tumor)
        extra |= {"box": format_box(box)} if box else {}
        mask = encode_png(tumor * np.uint8(255))
    name = f"{stem_of(item.file.path)}-{f'{slices.axis}-' if named else ''}{index:04d}"
    pixels = slices.image(index)
    return PreparedImage(encode_png(pixels), item.label, item.patient, extra, name, mask, pixels=pixels)


def _harmonize(image: PreparedImage, size: int) -> PreparedImage:
    """Crops to the head, puts it on one scale of intensity and stretches it to a grey square; mask and box follow."""
    grey = _grey(image.data)
    if image.extra.get(HARMONIZED):
        head, pixels = HeadBox(0, 0, *grey.shape), grey[..., None]
    else:
        found = find_head(grey)
        head, pixels = found.box, harmonize(grey[..., None], found)
    extra = {**image.extra, HARMONIZED: str(size)}
    if box := parse_box(extra.get("box", "")):
        clipped = clip_box(box_in_crop(box, head, *grey.shape))
        extra["box"] = format_box(clipped) if clipped else ""
    mask = None
    if image.mask is not None:
        crop = _grey(image.mask)[head.top : head.bottom, head.left : head.right, None]
        # A pixel is the tumour's if the tumour fills at least half of it.
        mask = encode_png(np.where(resize(crop, size) >= 128, np.uint8(255), np.uint8(0)))
    return replace(image, data=encode_png(resize(pixels, size)), suffix=".png", mask=mask, extra=extra)


def _grey(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L"))

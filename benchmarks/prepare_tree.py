"""Times `btkeras prepare` on a made tree in which the field's layouts are mixed, and its peak memory.

    python -m benchmarks.prepare_tree --out prepare.json
    python -m benchmarks.prepare_tree --case old=/path/of/an/older/checkout --case "new=. --sequence t1c"

A case is a name, the folder of a checkout, and options of its `prepare`. The tree holds volumes as BIDS, BraTS and
nnU-Net lay them out, each with four sequences and a mask, PNG slices in class folders with masks, and DICOM series.
Heads are synthetic, and few: files of the same content are hard links. Said are seconds, processor time, the peak
memory of the process (`resident`), and the images that it stored.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from btkeras.config import PhantomConfig
from btkeras.datasets.phantom import draw_patient
from btkeras.files import write_json
from btkeras.machine import describe

SIDE, LEVELS, HEADS = 64, 16, 24
SEQUENCES = ("t1", "t1c", "t2", "flair")
BIDS = {"t1": "T1w", "t1c": "ce-gadolinium_T1w", "t2": "T2w", "flair": "FLAIR"}
BRATS = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f"}
# Of 100 files, how many each layout has.
SHARES = {"bids": 25, "brats": 20, "nnunet": 20, "png": 25, "dicom": 10}
DATASET_JSON = {"channel_names": {str(number): name for number, name in enumerate(SEQUENCES)}, "labels": {"tumor": 1}}
LINKS = 20_000


class Head:
    """A synthetic head's files: a volume a sequence, its mask, slices and their masks."""

    def __init__(self, number: int) -> None:
        slices = draw_patient(PhantomConfig(patients=HEADS, slices=LEVELS, image_size=SIDE), number)
        values = np.stack([drawn.image for drawn in slices], axis=-1).transpose(1, 0, 2)[::-1, ::-1]
        mask = np.stack([drawn.mask for drawn in slices], axis=-1).transpose(1, 0, 2)[::-1, ::-1]
        self.volumes = {name: _nifti(values.astype(np.int16) * (3 + place)) for place, name in enumerate(SEQUENCES)}
        self.mask, self.has_tumor = _nifti(mask.astype(np.uint8)), bool(mask.any())
        self.slices = [drawn.image for drawn in slices]
        self.pngs = [_png(drawn.image) for drawn in slices]
        self.masks = [_png(drawn.mask.astype(np.uint8) * np.uint8(255)) for drawn in slices]


def _nifti(values: Any) -> bytes:
    return gzip.compress(nib.Nifti1Image(values, np.diag([3.0, 3.0, 5.0, 1.0])).to_bytes(), 1)


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def bids(number: int, head: Head) -> Iterator[tuple[str, bytes]]:
    """A subject with four sequences, and its mask among the derivatives."""
    name = f"sub-{number:04d}_ses-1"
    folder = f"sub-{number:04d}/ses-1/anat"
    for sequence, suffix in BIDS.items():
        yield f"glioma/bids/{folder}/{name}_{suffix}.nii.gz", head.volumes[sequence]
    yield f"glioma/bids/derivatives/manual/{folder}/{name}_label-lesion_mask.nii.gz", head.mask


def brats(number: int, head: Head) -> Iterator[tuple[str, bytes]]:
    """A case of BraTS with its segmentation."""
    name = f"BraTS-MEN-{number:05d}-000"
    for sequence, suffix in BRATS.items():
        yield f"meningioma/{name}/{name}-{suffix}.nii.gz", head.volumes[sequence]
    yield f"meningioma/{name}/{name}-seg.nii.gz", head.mask


def nnunet(number: int, head: Head) -> Iterator[tuple[str, bytes]]:
    """Four channels of a case, and its label map."""
    if not number:
        yield "pituitary/dataset.json", json.dumps(DATASET_JSON).encode()
    for channel, sequence in enumerate(SEQUENCES):
        yield f"pituitary/imagesTr/CASE{number:04d}_{channel:04d}.nii.gz", head.volumes[sequence]
    yield f"pituitary/labelsTr/CASE{number:04d}.nii.gz", head.mask


def png(number: int, head: Head) -> Iterator[tuple[str, bytes]]:
    """A patient's slices in a class folder, with masks."""
    for level, (image, mask) in enumerate(zip(head.pngs, head.masks, strict=True)):
        yield f"pituitary/p{number:04d}/slice-{level:02d}.png", image
        yield f"pituitary/p{number:04d}/slice-{level:02d}_mask.png", mask


def dicom(number: int, head: Head) -> Iterator[tuple[str, bytes]]:
    """A series, whose files are named as archives name them."""
    from tests.dicom_files import dicom as encode

    uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
    for level, pixels in enumerate(head.slices):
        place = {"ImagePositionPatient": [0, 0, 5 * level], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        ids = {
            "SeriesDescription": "T1 post Gd",
            "SeriesInstanceUID": uid,
            "StudyInstanceUID": f"{uid}.1",
            "SOPInstanceUID": f"{uid}.2.{level}",
        }
        made = encode(pixels.astype(np.uint16) * 9, PatientID=f"D{number}", InstanceNumber=level + 1, **place, **ids)
        yield f"no_tumor/D{number:04d}/IM{level:06d}", made


LAYOUTS = {"bids": bids, "brats": brats, "nnunet": nnunet, "png": png, "dicom": dicom}


def make_tree(folder: Path, files: int) -> int:
    """Writes a tree of about this many files and returns their number."""
    heads = [head for head in map(Head, range(HEADS)) if head.has_tumor]
    written: dict[bytes, list[Path]] = {}
    count = 0
    for layout, share in SHARES.items():
        left, number = files * share // 100, 0
        while left > 0:
            for path, data in LAYOUTS[layout](number, heads[number % len(heads)]):
                _write(folder / path, data, written)
                left, count = left - 1, count + 1
            number += 1
    return count


def _write(path: Path, data: bytes, written: dict[bytes, list[Path]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    links = written.setdefault(data, [])
    if links and len(links) % LINKS:
        os.link(links[-1], path)
    else:
        path.write_bytes(data)
    links.append(path)


def measure(tree: Path, out: Path, checkout: Path, options: list[str]) -> dict[str, Any]:
    """Prepares the tree in a process of its own."""
    command = [sys.executable, "-P", "-m", "btkeras", "prepare", str(tree), "--out", str(out), *options]
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve()), "BTKERAS_PSEUDONYM_KEY": str(out.parent / "key")}
    begun, peak, log, before = time.perf_counter(), 0, out.with_suffix(".log"), _processor_seconds()
    with log.open("w") as written, subprocess.Popen(command, env=environment, stdout=written, stderr=written) as child:
        # Not getrusage: its peak begins with the memory of the process that started this one.
        while child.poll() is None:
            peak = max(peak, _resident(child.pid))
            time.sleep(0.02)
    seconds = time.perf_counter() - begun
    images = sum(1 for _ in (out / "images").rglob("*.*")) if child.returncode == 0 else 0
    return {
        "code": child.returncode,
        "seconds": seconds,
        "processor_seconds": _processor_seconds() - before,
        "peak_resident": peak,
        "images": images,
        "summary": log.read_text().splitlines()[-20:],
    }


def _processor_seconds() -> float:
    """Of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _resident(process: int) -> int:
    """The most memory that a process has had, in bytes; 0 if it has ended."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    """Reads the command line, measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--case", action="append", metavar="NAME=CHECKOUT [OPTION...]", help="[default: this checkout]")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    options = parser.parse_args()
    cases = options.case or ["now=. --sequence t1c"]
    report: dict[str, Any] = {"machine": describe(["numpy", "pillow", "nibabel", "pydicom"]), "cases": []}
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        report["files"] = make_tree(tree, options.files)
        print(f"{report['machine']}, {report['files']:,} files\n")
        print(
            "| case | exit code | seconds | processor s | resident MB | images |\n| --- | --: | --: | --: | --: | --: |"
        )
        for number in range(options.rounds):
            for place, case in enumerate(cases):
                name, _, rest = case.partition("=")
                checkout, *further = rest.split()
                found = measure(tree, Path(scratch) / f"out-{number}-{place}", Path(checkout), further)
                report["cases"].append({"name": name, "round": number + 1, "options": further, **found})
                times = f"{found['seconds']:.1f}", f"{found['processor_seconds']:.1f}"
                cells = *times, f"{found['peak_resident'] / 1e6:,.0f}", f"{found['images']:,}"
                print(f"| {name} | {found['code']} | {' | '.join(cells)} |", flush=True)
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

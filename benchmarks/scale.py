"""Times the start of a training on datasets of very different sizes: up to the first batch, and with how much memory.

    python -m benchmarks.scale --counts 4500 45000 450000 --out scale.json
    python -m benchmarks.scale --counts 450000 --cache disk --again

A dataset is a folder with `manifest.csv` as `btkeras prepare` writes it; its files are hard links to some synthetic
slices. Each size starts a process of its own, which goes the way of `btkeras train`: read the dataset, split it, decode
its images, make the run folder and the network (a tiny one), take the first batch and a training step. Said are the
seconds of each part, processor time in all, and the process's peak memory: `anonymous` is what it holds itself,
`resident` also counts pages of files, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from btkeras.config import PhantomConfig
from btkeras.datasets.classes import CLASSES
from btkeras.datasets.dataset import Record, write_manifest
from btkeras.datasets.phantom import draw_patient
from btkeras.files import write_json
from btkeras.machine import describe

DRAWN = 64
PER_PATIENT = 13
# Links to one file that every usual file system takes.
LINKS = 20_000


def make_dataset(folder: Path, count: int, side: int) -> None:
    """Writes a dataset of ``count`` images of this side; those without tumour name no patient."""
    folder.mkdir(parents=True)
    originals = folder / ".originals"
    originals.mkdir()
    config = PhantomConfig(patients=DRAWN, slices=1, image_size=side)
    for number in range(DRAWN):
        Image.fromarray(draw_patient(config, number)[0].image).save(originals / f"{number}.png")
    records = []
    for label in CLASSES:
        (folder / "images" / label).mkdir(parents=True)
    for number in range(count):
        patient = number // PER_PATIENT
        label = CLASSES[patient % len(CLASSES)]
        path = f"images/{label}/{number:07d}.png"
        os.link(_original(originals, number), folder / path)
        named, source = ("", "no_tumor") if label == "no_tumor" else (f"p{patient:06d}", "scans")
        extra = {"original": f"{label}/{number}.png", "box": "" if label == "no_tumor" else "0.5 0.5 0.2 0.2"}
        records.append(Record(path, label, named, source, extra))
    write_manifest(folder, records)


def _original(folder: Path, number: int) -> Path:
    file, copy = folder / f"{number % DRAWN}.png", number // DRAWN // LINKS
    if copy:
        source, file = file, folder / f"{number % DRAWN}-{copy}.png"
        if not file.exists():
            file.write_bytes(source.read_bytes())
    return file


class Watch(threading.Thread):
    """Notes the highest anonymous memory of this process, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        """Looks every 20 ms."""
        while True:
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.peak = max(self.peak, 1024 * int(fields["RssAnon"].split()[0]))
            time.sleep(0.02)


def start(data: Path, out: Path, overrides: list[str]) -> dict[str, Any]:
    """Starts a training in this process and stops after its first step."""
    watch = Watch()
    watch.start()
    taken: dict[str, float] = {}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        taken[name] = time.perf_counter() - begun

    with part("import"):
        import keras

        from btkeras.config_io import load_config
        from btkeras.datasets import load_dataset
        from btkeras.machine import cache_folder
        from btkeras.runs import create_run
        from btkeras.splitting.splits import make_split
        from btkeras.training.pipeline import load_split_images, training_batches
    imported = watch.peak
    config = load_config((Path("configs/cpu.yaml"),), tuple(overrides))
    with part("read"):
        dataset = load_dataset(data)
    with part("split"):
        split = make_split(dataset, config.data, cache_folder())
    with part("decode"):
        inputs = load_split_images(dataset, split, config)
    with part("run folder"):
        create_run(out, config, dataset, split)
    with part("first batch"):
        batches = training_batches(inputs, config, range(config.train.epochs))
        images, _ = next(iter(batches))
    with part("first step"):
        model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(len(dataset.classes))])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        model.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    assert images.shape == (config.train.batch_size, *[config.data.image_size] * 2, config.data.channels)
    return {
        "cached": inputs.caches["train"].location.split(" in /")[0],
        "seconds": taken,
        "to_first_batch": sum(taken.values()) - taken["first step"],
        "imported_anonymous": imported,
        "peak_anonymous": watch.peak,
        "peak_resident": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "processor_seconds": time.process_time(),
    }


def measure(data: Path, scratch: Path, overrides: list[str], number: int) -> dict[str, Any]:
    """Starts a training in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.scale",
        "--child",
        str(data),
        str(scratch / f"run{number}"),
        "--set",
        *overrides,
    ]
    environment = os.environ | {"BTKERAS_CACHE": str(scratch / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(found.splitlines()[-1])
    return answer


HEADINGS = ("images", "cached", "to the first batch, s", "processor s", "decoding, s", "anonymous MB", "resident MB")


def line(count: int, found: dict[str, Any]) -> str:
    """A measurement as a row of a Markdown table."""
    cells = [f"{count:,}", found["cached"], f"{found['to_first_batch']:.1f}", f"{found['processor_seconds']:.1f}"]
    cells.append(f"{found['seconds']['decode']:.1f}")
    cells += [f"{found[key] / 1e6:,.0f}" for key in ("peak_anonymous", "peak_resident")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Reads the command line, measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[4500, 45_000, 450_000])
    parser.add_argument("--side", type=int, default=512, help="of the files, pixels")
    parser.add_argument("--cache", nargs="+", default=["auto"], help="data.cache")
    parser.add_argument("--again", action="store_true", help="a second start from what the first one left on disk")
    parser.add_argument("--folder", type=Path, help="where datasets are made; temporary by default")
    parser.add_argument("--set", nargs="*", default=[], help="further settings of configs/cpu.yaml")
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(start(*options.child, options.set)))
        return
    report: dict[str, Any] = {"machine": describe(["tensorflow", "keras", "numpy", "pillow"]), "side": options.side}
    report["cases"] = []
    print(f"{report['machine']}\n\n| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for count in options.counts:
            data = Path(folder) / str(count)
            make_dataset(data, count, options.side)
            for cache in options.cache:
                with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
                    for number in range(1 + options.again):
                        overrides = [*options.set, f"data.cache={cache}"]
                        found = measure(data, Path(scratch), overrides, number)
                        print(line(count, found), flush=True)
                        report["cases"].append({"images": count, "cache": cache, "start": number + 1, **found})
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

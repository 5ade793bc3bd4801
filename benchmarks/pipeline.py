"""Times the input pipeline alone, without a network: what it feeds, and what each of its stages costs.

    python -m benchmarks.pipeline --out pipeline.json
    python -m benchmarks.pipeline --configs configs/robust.yaml --training-rates 112=66 --rounds 15

A case is a configuration file. Its stages add up: images taken from the store unchanged (as an evaluation has them),
then cropped and flipped, and so on to what a training with this configuration gets, through the very
`training_batches`. Images are grey, as slices are, whatever channels the network has; `--colour`: are not. Rounds
take one epoch of each stage, in an order that is drawn anew each time, so that whatever else the machine does meets all
of them. Said are medians: images a second that a waiting training would get, and processor time an image (all
threads), which is what the pipeline takes from a training on the same cores. Decoding, which is done once for a
dataset, stands by itself.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from btkeras.augmentation.patches import Patches, PatchKind
from btkeras.config import AugmentConfig, ExperimentConfig, IntensityConfig, PhantomConfig
from btkeras.config_io import load_config
from btkeras.datasets.phantom import draw_patient
from btkeras.files import write_json
from btkeras.machine import describe, load
from btkeras.preprocessing.cache import ImageCache
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.preprocessing.resize import resize
from btkeras.training.pipeline import SplitImages, evaluation_batches, stored_size, training_batches

CONFIGS = tuple(Path("configs") / f"{name}.yaml" for name in ("paper", "cpu", "robust"))
# Different images, the side of the files that they are decoded from, as FigShare's, and how often each is.
DRAWN, FILE_SIDE, DECODED = 32, 512, 4
STILL = AugmentConfig(crop=(1.0, 1.0), horizontal_flip=False, vertical_flip=False, brightness=0.0)


@dataclass(frozen=True)
class Row:
    """What a stage, with all before it, took: medians over the rounds.

    Attributes:
        stage: Its name.
        images_per_second: By wall time.
        quartiles: A quarter of the rounds had fewer than the first, and more than the second.
        processor_ms: Milliseconds of processor time an image.
        training_rates: How many times the training rate it feeds.
    """

    stage: str
    images_per_second: float
    quartiles: tuple[float, float]
    processor_ms: float
    training_rates: float


def stages(config: ExperimentConfig) -> dict[str, tuple[AugmentConfig, IntensityConfig]]:
    """What a configuration changes, one more thing with each stage; stages that change nothing more are left out."""
    whole = config.augment
    geometry = replace(STILL, crop=whole.crop, horizontal_flip=whole.horizontal_flip, vertical_flip=whole.vertical_flip)
    bright = replace(geometry, brightness=whole.brightness)
    turned = replace(bright, rotation=whole.rotation, aspect_ratio=whole.aspect_ratio)
    plain = IntensityConfig()
    steps = {
        "crop and flips": (geometry, plain),
        "brightness": (bright, plain),
        "rotation and aspect ratio": (turned, plain),
        "tumour exchange": (whole, plain),
        "intensity": (whole, config.intensity),
    }
    before = (STILL, plain)
    chosen = {}
    for name, changes in steps.items():
        if changes != before:
            chosen[name] = before = changes
    return chosen


def drawn_images(side: int) -> NDArray[np.uint8]:
    """Synthetic slices, uint8 ``[DRAWN, side, side]``."""
    config = PhantomConfig(patients=DRAWN, slices=1, image_size=FILE_SIDE)
    images = [draw_patient(config, patient)[0].image for patient in range(DRAWN)]
    return np.stack([resize(image[..., None], side)[..., 0] for image in images])


def store_of(samples: NDArray[np.uint8], count: int, channels: int, *, color: bool) -> ImageCache:
    """A store of ``count`` samples in memory, made of a few."""
    kept = channels if color else 1
    images = np.repeat(samples[np.arange(count) % len(samples)][..., None], kept, axis=-1)
    shape, histogram = (images.shape[1], channels), np.zeros((channels, 256), np.int64)
    return ImageCache(images, shape, np.arange(count), {}, histogram, "here", grey=kept < channels)


def patches_of(count: int) -> Patches:
    """A patch of each kind for every image, from another one and a sixth of the side large."""
    rng, kinds = np.random.default_rng(0), len(PatchKind)
    first = np.arange(kinds * count, dtype=np.int32).reshape(kinds, count)
    corner = rng.uniform(0.2, 0.7, (kinds * count, 2))
    boxes = np.concatenate([corner, corner + 1 / 6], axis=1).astype(np.float32)
    sources, labels = rng.integers(0, (count, 4), (kinds * count, 2), np.int32).T
    return Patches(first, np.ones_like(first), sources, sources % 2 == 0, boxes, labels)


def measure(datasets: Mapping[str, Iterable[Any]], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Seconds that it takes to read each dataset to its end, ``[rounds, 2]``: wall and processor time."""
    order, taken = list(datasets), {name: [] for name in datasets}
    shuffled = random.Random(0)
    for number in range(rounds + 1):
        shuffled.shuffle(order)
        for name in order:
            wall, processor = time.perf_counter(), time.process_time()
            for _ in datasets[name]:
                pass
            if number:  # the first round traces
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.array(seconds) for name, seconds in taken.items()}


def row(stage: str, seconds: NDArray[np.float64], images: int, training_rate: float) -> Row:
    """From seconds ``[rounds, 2]`` for so many images to medians."""
    rate = images / seconds[:, 0]
    low, high = np.quantile(rate, [0.25, 0.75])
    median = float(np.median(rate))
    processor = float(1e3 * np.median(seconds[:, 1]) / images)
    return Row(stage, median, (float(low), float(high)), processor, median / training_rate)


def case(file: Path, options: argparse.Namespace, drawn: NDArray[np.uint8]) -> dict[str, Any]:
    """Measures the stages of a configuration, and decoding."""
    config = load_config((file,), tuple(options.set))
    size, channels, batch = config.data.image_size, config.data.channels, options.batch or config.train.batch_size
    rate = dict(options.training_rates)[size]
    side = stored_size(size, config.augment)
    count = max(options.images // batch, 2) * batch
    images = np.stack([resize(image[..., None], side)[..., 0] for image in drawn])
    store = store_of(images, count, channels, color=options.color)
    taken = measure(datasets(config, store, batch), options.rounds)
    decoded = measure_decoding(Preprocessor(side, channels, config.data.harmonize), drawn, options.rounds)
    return {
        "config": str(file),
        "size": size,
        "stored_size": side,
        "channels": channels,
        "stored_channels": store.stored_channels,
        "batch": batch,
        "images": count,
        "training_rate": rate,
        "decoding": asdict(row("decoding, once", decoded, DECODED * DRAWN, rate)),
        "stages": [asdict(row(name, seconds, count, rate)) for name, seconds in taken.items()],
    }


def datasets(config: ExperimentConfig, store: ImageCache, batch: int) -> dict[str, Iterable[Any]]:
    """An epoch of each stage."""
    labels = [number % 4 for number in range(len(store))]
    data = SplitImages(("",) * 4, {"train": store}, {"train": labels}, {}, patches_of(len(store)))
    found: dict[str, Iterable[Any]] = {"taken from the store": evaluation_batches(store, labels, 4, batch)}
    for name, (augmentation, intensity) in stages(config).items():
        changed = replace(
            config, augment=augmentation, intensity=intensity, train=replace(config.train, batch_size=batch)
        )
        found[name] = training_batches(data, changed, range(1))
    return found


def measure_decoding(preprocessor: Preprocessor, drawn: NDArray[np.uint8], rounds: int) -> NDArray[np.float64]:
    """Seconds, as ``measure``, of decoding the drawn slices, ``DECODED`` times, from PNG files of their own size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(drawn))]
        for path, image in zip(paths, drawn, strict=True):
            Image.fromarray(image).save(path)

        class Files:
            """The decoded images, as often as they are iterated over."""

            def __iter__(self) -> Any:
                return preprocessor.files(DECODED * paths)

        return measure({"decoding": Files()}, rounds)["decoding"]


HEADINGS = ("stage", "images/s", "quartiles", "processor ms an image", "times the training rate")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Stages in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for found in rows:
        low, high = found["quartiles"]
        rates = (f"{found['images_per_second']:,.0f}", f"{low:,.0f}-{high:,.0f}")
        lines.append((found["stage"], *rates, f"{found['processor_ms']:.3f}", f"{found['training_rates']:.1f}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rate_of(text: str) -> tuple[int, float]:
    """Reads SIZE=RATE."""
    size, rate = text.split("=")
    return int(size), float(rate)


def main() -> None:
    """Reads the command line, measures, prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, nargs="+", default=list(CONFIGS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as btkeras train has it")
    parser.add_argument(
        "--training-rates",
        type=rate_of,
        nargs="+",
        default=[(224, 25.0), (112, 66.0)],
        metavar="SIZE=RATE",
        help="images a second that the network takes (by default 224=25 112=66)",
    )
    parser.add_argument("--colour", action="store_true", help="files with three channels")
    parser.add_argument("--batch", type=int, help="in place of the configuration's")
    parser.add_argument("--images", type=int, default=1024, help="in an epoch")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    options = parser.parse_args()
    facts = describe(["tensorflow", "keras", "numpy", "pillow"])
    report: dict[str, Any] = {"machine": facts, "rounds": options.rounds, "cases": []}
    print(report["machine"])
    drawn = drawn_images(FILE_SIDE)
    for file in options.configs:
        found = case(file, options, drawn)
        print(f"\n{file}: {found['size']} pixels, {found['channels']} channels, batch {found['batch']}\n")
        print(table([*found["stages"], found["decoding"]]), flush=True)
        report["cases"].append(found)
    report["load_after"] = load()
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

"""Peak memory of a training beside PyTorch's: the improved network, one short epoch, a process for each.

    python -m benchmarks.memory --out memory.json
    python -m benchmarks.memory --cases btkeras-bfloat16 torch-bfloat16 --rounds 3

btkeras does what `btkeras train` does up to its first checkpoint: it decodes the images, trains an epoch, validates
and saves. PyTorch trains the same network (`scripts/make_twin_reference.py`) on the same images with the same batch
and optimizer in a plain loop, channels last, compiled, bfloat16 by autocast, and validates. Said is the median over
rounds of each process's peaks: `anonymous`, what it holds itself, looked at every 20 ms, and `resident`, which also
counts its libraries' files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from btkeras.config import PhantomConfig
from btkeras.config_io import load_config
from btkeras.datasets.phantom import write_phantom
from btkeras.files import write_json
from btkeras.machine import describe, load

# Name -> what trains, and in which precision.
CASES: Mapping[str, tuple[str, str]] = {
    "btkeras-bfloat16": ("btkeras", "mixed_bfloat16"),
    "torch-bfloat16": ("torch", "mixed_bfloat16"),
    "btkeras-float32": ("btkeras", "float32"),
    "torch-float32": ("torch", "float32"),
    "torch-eager-bfloat16": ("torch-eager", "mixed_bfloat16"),
    "torch-eager-float32": ("torch-eager", "float32"),
}
SETTINGS = ("train.epochs=1", "data.cache=memory")


def train_btkeras(data: Path, out: Path, overrides: list[str]) -> None:
    """Trains as `btkeras train` does."""
    from btkeras.datasets import load_dataset
    from btkeras.training.trainer import train

    train(load_config((Path("configs/paper.yaml"),), tuple(overrides)), load_dataset(data), out)


def train_torch(data: Path, out: Path, overrides: list[str], *, compiled: bool) -> None:
    """Trains the same network on the same images in PyTorch, and validates; `out` gets the weights."""
    import numpy as np
    import torch
    from PIL import Image

    from btkeras.datasets import load_dataset
    from btkeras.splitting.splits import make_split
    from scripts import make_twin_reference as twin

    config, dataset = load_config((Path("configs/paper.yaml"),), tuple(overrides)), load_dataset(data)
    split, batch, size = make_split(dataset, config.data), config.train.batch_size, config.data.image_size

    def tensors(part: str) -> tuple[torch.Tensor, torch.Tensor]:
        records = split.subset(part)
        images = [Image.open(data / record.path).convert("RGB").resize((size, size)) for record in records]
        labels = [dataset.classes.index(record.label) for record in records]
        return torch.from_numpy(np.stack([np.asarray(image) for image in images])), torch.tensor(labels)

    network = twin.Network(3, a=True, b=True, c=True).to(memory_format=torch.channels_last)
    model = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    cast = torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "mixed_bfloat16")

    def logits(images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2).float().sub(60).div(60).contiguous(memory_format=torch.channels_last)
        with cast:
            return model(x)[1]

    images, labels = tensors("train")
    order = torch.randperm(len(images))
    for start in range(0, len(order) // batch * batch, batch):
        chosen = order[start : start + batch]
        loss = torch.nn.functional.cross_entropy(logits(images[chosen]).float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels = tensors("validation")
    network.eval()
    with torch.no_grad():
        batches = zip(images.split(batch), labels.split(batch), strict=True)
        right = sum(int((logits(x).argmax(1) == y).sum()) for x, y in batches)
    torch.save(network.state_dict(), out)
    print(f"{right} of {len(images)}")


def measure(case: str, data: Path, out: Path, overrides: list[str]) -> dict[str, float]:
    """Trains in a process of its own, which is watched."""
    command = [sys.executable, "-m", "benchmarks.memory", "--child", case, str(data), str(out), "--set", *overrides]
    begun, peak = time.perf_counter(), 0
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "BTKERAS_CACHE": str(out) + "-cache"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        status = Path("/proc") / str(process.pid) / "status"
        resident = 0
        while process.poll() is None:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            peak = max(peak, kilobytes(fields.get("RssAnon")))
            # The kernel's own peak, as getrusage would say.
            resident = max(resident, kilobytes(fields.get("VmHWM")))
            time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{case} failed: {' '.join(command)}")
    return {"anonymous_mb": peak / 1e3, "resident_mb": resident / 1e3, "seconds": time.perf_counter() - begun}


def kilobytes(field: str | None) -> int:
    """A size in ``/proc/PID/status``; a process that ends has none."""
    return int(field.split()[0]) * 1024 // 1000 if field else 0


def main() -> None:
    """Reads the command line, measures, prints a table and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES)[:4])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=128, help="in all parts of the split")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], help="further settings of configs/paper.yaml")
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        case, data, out = options.child
        kind = CASES[case][0]
        if kind == "btkeras":
            train_btkeras(Path(data), Path(out), options.set)
        else:
            train_torch(Path(data), Path(out), options.set, compiled=kind == "torch")
        return
    facts = describe(["tensorflow", "keras", "torch"])
    taken: dict[str, list[dict[str, float]]] = {case: [] for case in options.cases}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_phantom(PhantomConfig(patients=options.images // 4, slices=4, image_size=512), data)
        for number in range(options.rounds):
            for case in options.cases:
                overrides = [*SETTINGS, f"train.batch_size={options.batch}", f"train.precision={CASES[case][1]}"]
                out = Path(folder) / f"{case}-{number}"
                taken[case].append(measure(case, data, out, [*overrides, *options.set]))
    rows = {
        case: {key: median(found[key] for found in several) for key in several[0]} for case, several in taken.items()
    }
    print(f"{facts}\n\n| training | anonymous MB | resident MB |\n| --- | --- | --- |")
    for case, row in rows.items():
        print(f"| {case} | {row['anonymous_mb']:,.0f} | {row['resident_mb']:,.0f} |")
    if options.out:
        report = {"machine": facts, "load_after": load(), "batch": options.batch, "images": options.images}
        write_json(options.out, {**report, "rounds": options.rounds, "cases": rows, "all": taken})


if __name__ == "__main__":
    main()

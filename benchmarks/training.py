"""Times training steps side by side: Keras' networks, the form that btkeras trains them in, and PyTorch.

    pip install 'btkeras[benchmark]'
    python -m benchmarks.training --out training.json
    python -m benchmarks.training --sizes 112 --channels 1 --batch 32 --rounds 21

All train the same network with the same weights (the PyTorch one is ``make_twin_reference.py``'s), batch, loss and
Adam; before anything is timed, they must have the same loss. All run in one process, in rounds of one step each, in an
order that is drawn anew for each round, so whatever else the machine does meets all of them. Said are medians over
the rounds: ``wall``, the time that passed, and ``processor``, that of all threads, which hardly changes when other
processes take cores away. ``speed`` is the median of a round's quotients, how many times as fast as the first way.
``share`` is of the rate at which this machine multiplies matrices, by processor time, with three times an image's
multiply-accumulates as a step's.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch

from benchmarks.torch_steps import MEAN, VARIANCE, Case, Step, torch_step
from btkeras.config import OptimizerConfig, ScheduleConfig
from btkeras.files import write_json
from btkeras.machine import describe, threads
from btkeras.models import build_model, count_macs
from btkeras.models.reparameterize import reparameterize
from btkeras.training.device import dtype_policy
from btkeras.training.optimizers import make_optimizer
from btkeras.training.schedules import Schedule
from scripts import make_twin_reference as twin

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
# How far the first losses may lie apart.
TOLERANCES = {"float32": 2e-3, "bfloat16": 0.1}
SIDE = 2048


# --- Ways to train ---


def keras_step(case: Case, precision: str, *, ours: bool) -> Step:
    """A step of ``fit``, on the network as Keras has it or as btkeras trains it."""
    config = OptimizerConfig()
    with dtype_policy(POLICIES[precision]):
        shape = (case.size, case.size, case.channels)
        model = build_model(case.network, input_shape=shape, mean=MEAN, variance=VARIANCE)
    for variable in model.variables:
        variable.assign(twin.twin_weights.seeded(variable.path, variable.shape))
    if ours:
        # The images are grey, as slices are.
        model = reparameterize(model, grey=True, trainable=True)
        optimizer = make_optimizer(config, Schedule(config.learning_rate, ScheduleConfig(), epochs=1, steps=1), model)
    else:
        optimizer = keras.optimizers.Adam(config.learning_rate)
    model.compile(optimizer, "categorical_crossentropy", jit_compile=False)
    images = tf.constant(case.pixels())
    targets = tf.one_hot(case.labels(), twin.twin_weights.CLASSES)
    return lambda: float(model.train_on_batch(images, targets))


# Name -> precision and how a step is made.
WAYS: Mapping[str, tuple[str, Callable[[Case, str], Step]]] = {
    f"{name}, {precision}": (precision, make)
    for precision in POLICIES
    for name, make in {
        "PyTorch": lambda case, precision: torch_step(case, precision, compiled=False),
        "PyTorch compiled": lambda case, precision: torch_step(case, precision, compiled=True),
        "Keras": lambda case, precision: keras_step(case, precision, ours=False),
        "btkeras": lambda case, precision: keras_step(case, precision, ours=True),
    }.items()
}
DEFAULT = tuple(reversed([name for name in WAYS if name != "PyTorch, bfloat16"]))
FIRST = "PyTorch compiled, bfloat16"


# --- Measurement ---


@dataclass(frozen=True)
class Row:
    """What a way took: medians over the rounds, times in milliseconds a step.

    Attributes:
        way: A key of ``WAYS``.
        wall: Time that passed.
        wall_quartiles: A quarter of the steps was faster than the first, and slower than the second.
        wall_speed: How many times as fast as the first way.
        processor: Time of all threads.
        processor_speed: As ``wall_speed``.
        images_per_second: By wall time.
        share: Of the rate at which this machine multiplies matrices.
        ready: Seconds until the first step was done.
    """

    way: str
    wall: float
    wall_quartiles: tuple[float, float]
    wall_speed: float
    processor: float
    processor_speed: float
    images_per_second: float
    share: float
    ready: float


def rows(ways: Sequence[str], case: Case, rounds: int, rates: Mapping[str, float]) -> list[Row]:
    """Measures some ways to train, the first of which is what the others are compared with."""
    steps: dict[str, Step] = {}
    losses, ready = {}, {}
    for way in ways:
        start = time.perf_counter()
        precision, make = WAYS[way]
        steps[way] = make(case, precision)
        losses[way] = float(steps[way]())
        ready[way] = time.perf_counter() - start
        print(f"  {way}: first loss {losses[way]:.4f} after {ready[way]:.0f} s", flush=True)
    for way, loss in losses.items():
        np.testing.assert_allclose(loss, losses[ways[0]], atol=max(TOLERANCES[WAYS[w][0]] for w in (way, ways[0])))
    measure(steps, 2)
    taken = measure(steps, rounds)
    macs = 3 * case.batch * count_macs(build_model(case.network, input_shape=(case.size, case.size, case.channels)))
    found = []
    for way in ways:
        wall, processor = np.median(taken[way], axis=0)
        wall_speed, processor_speed = np.median(taken[ways[0]] / taken[way], axis=0)
        low, high = 1e3 * np.quantile(taken[way][:, 0], [0.25, 0.75])
        found.append(
            Row(
                way,
                wall=float(1e3 * wall),
                wall_quartiles=(float(low), float(high)),
                wall_speed=float(wall_speed),
                processor=float(1e3 * processor),
                processor_speed=float(processor_speed),
                images_per_second=float(case.batch / wall),
                share=float(macs / processor / rates[WAYS[way][0]]),
                ready=ready[way],
            )
        )
    return found


def measure(steps: Mapping[str, Step], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each step, ``[rounds, 2]``: wall and processor time."""
    order, taken = list(steps), {way: [] for way in steps}
    shuffled = random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for way in order:
            wall, processor = time.perf_counter(), time.process_time()
            steps[way]()
            taken[way].append((time.perf_counter() - wall, time.process_time() - processor))
    return {way: np.array(seconds) for way, seconds in taken.items()}


def matrix_rate(precision: str, repeats: int = 9) -> float:
    """Multiply-accumulates a second of processor time in the product of two large square matrices."""
    values = tf.cast(tf.random.normal([SIDE, SIDE]), precision)
    product = tf.function(lambda: tf.cast(tf.matmul(values, values)[0, 0], tf.float32))
    product()
    taken = measure({"product": lambda: float(product())}, repeats)["product"]
    return SIDE**3 / float(np.median(taken[:, 1]))


# --- What is said ---

HEADINGS = ("way", "wall ms", "quartiles", "speed", "processor ms", "speed", "images/s", "of matrix rate")


def table(found: Sequence[Row]) -> str:
    """A case in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in found:
        low, high = row.wall_quartiles
        wall = (f"{row.wall:.0f}", f"{low:.0f}-{high:.0f}", f"{row.wall_speed:.2f}")
        work = (f"{row.processor:.0f}", f"{row.processor_speed:.2f}", f"{row.images_per_second:.1f}")
        lines.append((row.way, *wall, *work, f"{row.share:.0%}"))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Reads the command line, measures, prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=twin.SWITCHES, default=["improved_resnet34"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224])
    parser.add_argument("--channels", type=int, nargs="+", default=[3])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[FIRST, *(way for way in DEFAULT if way != FIRST)])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    options = parser.parse_args()
    torch.set_num_threads(threads())
    rates = {precision: matrix_rate(precision) for precision in POLICIES}
    report: dict[str, Any] = {
        "machine": describe(["tensorflow", "keras", "torch"]),
        "matrix_rate": rates,
        "rounds": options.rounds,
        "cases": [],
    }
    print(report["machine"], {name: f"{rate / 1e9:.0f} G MACs/s" for name, rate in rates.items()})
    for network in options.networks:
        for size in options.sizes:
            for channels in options.channels:
                case = Case(network, size, channels, options.batch)
                print(f"\n{network}, {size} pixels, {channels} channels, batch {case.batch}")
                found = rows(options.ways, case, options.rounds, rates)
                print(f"\n{table(found)}", flush=True)
                report["cases"].append(asdict(case) | {"rows": [asdict(row) for row in found]})
    report["load_after"] = describe()["load"]
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

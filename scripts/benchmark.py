"""Times forms of a network side by side: as trained, fused, grey, frozen, compiled.

    python scripts/benchmark.py --out benchmark.json
    python scripts/benchmark.py --sizes 112 --batches 1 --forms trained grey --rounds 31

All forms run in one process, in rounds of one call each, in an order that is drawn anew for each round; so whatever
else the machine does meets all of them. Said are medians over the rounds: ``wall``, what a caller waits, and
``processor``, the seconds of all threads, which hardly change when other processes take cores away. ``ratio`` is the
median of a round's quotients with the first form. Before anything is timed, each form must answer as the first does.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from btkeras.files import write_json
from btkeras.models import MODELS, build_model, count_macs
from btkeras.models.fuse import fuse

Call = Callable[[tf.Tensor], Any]

# Precision -> Keras' policy, and how far an answer may be from the trained network's in float32.
PRECISIONS: Mapping[str, tuple[str, float]] = {"float32": ("float32", 1e-4), "bfloat16": ("mixed_bfloat16", 0.1)}
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16")
# Of the matrices that the machine's rate is measured with.
SIDE = 2048


@dataclass(frozen=True)
class Case:
    """Attributes:
    size: Side of the pictures.
    batch: Pictures a call.
    precision: A key of ``PRECISIONS``.
    """

    size: int
    batch: int
    precision: str


@dataclass(frozen=True)
class Row:
    """What a form took in a case: medians, times in milliseconds a call.

    Attributes:
        form: A key of ``FORMS``.
        wall: Time that passed.
        wall_quartiles: A quarter of the calls was faster than the first, and slower than the second.
        wall_ratio: To the first form's.
        processor: Time of all threads.
        processor_ratio: To the first form's.
        macs: Million multiply-accumulates a picture.
        share: Of the rate at which this machine multiplies matrices, by processor time.
    """

    form: str
    wall: float
    wall_quartiles: tuple[float, float]
    wall_ratio: float
    processor: float
    processor_ratio: float
    macs: float
    share: float


# --- Forms ---


def traced(model: keras.Model, spec: tf.TensorSpec) -> Call:
    """A graph with the weights as variables."""
    return tf.function(lambda x: model(x, training=False), input_signature=[spec]).get_concrete_function()


def frozen(model: keras.Model, spec: tf.TensorSpec) -> Call:
    """A graph with the weights as constants."""
    function = convert_variables_to_constants_v2(traced(model, spec))
    return lambda x: function(x)[0]


def compiled(model: keras.Model, spec: tf.TensorSpec) -> Call:
    """A graph compiled by XLA."""
    return tf.function(lambda x: model(x, training=False), input_signature=[spec], jit_compile=True)


# Name -> the network's form, and the way it is called.
FORMS: Mapping[str, tuple[str, Callable[[keras.Model, tf.TensorSpec], Call]]] = {
    "trained": ("trained", traced),
    "trained, frozen": ("trained", frozen),
    "fused": ("fused", traced),
    "fused, frozen": ("fused", frozen),
    "grey": ("grey", traced),
    "grey, frozen": ("grey", frozen),
    "grey, XLA": ("grey", compiled),
}


def networks(name: str, size: int, precision: str) -> dict[str, keras.Model]:
    """A network of random weights, with three channels, and its deploy forms.

    Its normalisations know the statistics of some noise, as after a training: without, a softmax says 0 or 1, and forms
    that compute something else would agree.
    """
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(PRECISIONS[precision][0])
    try:
        model = build_model(name, input_shape=(size, size, 3), mean=50.0, variance=2500.0)
    finally:
        keras.config.set_dtype_policy(before)
    normalisations = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalisations]
    for layer in normalisations:
        layer.momentum = 0.0
    model(np.random.default_rng(1).integers(0, 256, (8, size, size, 3)).astype(np.float32), training=True)
    for layer, momentum in zip(normalisations, momenta, strict=True):
        layer.momentum = momentum
    return {"trained": model, "fused": fuse(model), "grey": fuse(model, grey=True)}


# --- Measurement ---


def measure(calls: Mapping[str, tuple[Call, tf.Tensor]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call, ``[rounds, 2]``: wall and processor time."""
    order, taken = list(calls), {name: [] for name in calls}
    shuffled = random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            call, images = calls[name]
            wall, processor = time.perf_counter(), time.process_time()
            np.asarray(call(images))
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: np.array(seconds) for name, seconds in taken.items()}


def matrix_rate(precision: str, repeats: int = 9) -> float:
    """Multiply-accumulates a second of processor time in the product of two large square matrices."""
    values = tf.cast(tf.random.normal([SIDE, SIDE]), precision)
    product = tf.function(lambda x: tf.cast(tf.matmul(x, x)[0, 0], tf.float32))
    product(values)
    taken = measure({"product": (product, values)}, repeats)["product"]
    return SIDE**3 / float(np.median(taken[:, 1]))


def rows(forms: Sequence[str], models: Mapping[str, keras.Model], case: Case, rounds: int, rate: float) -> list[Row]:
    """Measures some forms of a network in a case, the first of which is what the others are compared with."""
    grey = np.random.default_rng(0).integers(0, 256, (case.batch, case.size, case.size, 1)).astype(np.float32)
    calls = {}
    for name in forms:
        model, make = models[FORMS[name][0]], FORMS[name][1]
        images = tf.constant(np.repeat(grey, model.input_shape[-1], axis=-1))
        calls[name] = make(model, tf.TensorSpec(images.shape, tf.float32)), images
    first, *others = [np.asarray(call(images)) for call, images in calls.values()]
    assert 0.01 < first.max() < 0.99, "of such answers, equal ones mean nothing"
    for name, answer in zip(forms[1:], others, strict=True):
        np.testing.assert_allclose(answer, first, rtol=0, atol=PRECISIONS[case.precision][1], err_msg=name)
    measure(calls, 2)
    taken = measure(calls, rounds)
    return [_row(name, taken[name], taken[forms[0]], models[FORMS[name][0]], case.batch, rate) for name in forms]


def _row(form: str, taken: np.ndarray, reference: np.ndarray, model: keras.Model, batch: int, rate: float) -> Row:
    wall, processor = 1e3 * np.median(taken, axis=0)
    wall_ratio, processor_ratio = np.median(taken / reference, axis=0)
    low, high = 1e3 * np.quantile(taken[:, 0], [0.25, 0.75])
    macs = count_macs(model)
    return Row(
        form,
        wall=float(wall),
        wall_quartiles=(float(low), float(high)),
        wall_ratio=float(wall_ratio),
        processor=float(processor),
        processor_ratio=float(processor_ratio),
        macs=macs / 1e6,
        share=float(macs * batch / (processor / 1e3) / rate),
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    return {
        "processor": facts.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "instructions": [flag for flag in FLAGS if flag in facts.get("flags", "").split()],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


# --- What is said ---

HEADINGS = ("form", "wall ms", "quartiles", "ratio", "processor ms", "ratio", "M MACs", "of matrix rate")


def table(found: Sequence[Row]) -> str:
    """A case in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in found:
        low, high = row.wall_quartiles
        times = (f"{row.wall:.1f}", f"{low:.1f}-{high:.1f}", f"{row.wall_ratio:.2f}")
        work = (f"{row.processor:.1f}", f"{row.processor_ratio:.2f}", f"{row.macs:,.0f}", f"{row.share:.0%}")
        lines.append((row.form, *times, *work))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Reads the command line, measures, prints tables and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="improved_resnet34", choices=list(MODELS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 224])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--out", type=Path, help="JSON file with all figures")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "network": options.network, "rounds": options.rounds, "cases": []}
    print(report["machine"])
    for precision in options.precisions:
        rate = matrix_rate(precision)
        print(f"\nMatrices in {precision}: {rate / 1e9:.0f} G MACs a second of processor time")
        for size in options.sizes:
            models = networks(options.network, size, precision)
            for batch in options.batches:
                case = Case(size, batch, precision)
                found = rows(options.forms, models, case, options.rounds, rate)
                print(f"\n{size} pixels, batch {batch}, {precision}\n\n{table(found)}", flush=True)
                report["cases"].append(asdict(case) | {"rate": rate, "rows": [asdict(row) for row in found]})
    report["load_after"] = os.getloadavg()[0]
    if options.out:
        write_json(options.out, report)


if __name__ == "__main__":
    main()

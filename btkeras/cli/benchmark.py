"""``btkeras benchmark``: a model's formats timed side by side on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from btkeras.cli.common import PATH, echo, json_option, located
from btkeras.errors import BTKerasError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btkeras.inference.backends import InferenceBackend

_PACKAGES = ("btkeras", "tensorflow", "keras", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
# Instructions without which bfloat16 is slower than float32.
# Of one format in a round: long enough for several calls of one image.
_TURN_SECONDS = 0.2
_HEADER = "{:<{width}} batch       ms      p95  images/s  loaded in  differs by"
_ROW = "{format:<{width}}{batch:>6}{milliseconds:>9.1f}{p95:>9.1f}{speed:>10.1f}{loaded:>11}{difference:>12.1e}"
# A run's backend is re-parameterised for this many.
_MANY_IMAGES = 1000


class _Format(NamedTuple):
    """A format of a model: the file or run, its environment variables, and the command to predict with it."""

    name: str
    path: Path
    use: str
    images: int = _MANY_IMAGES
    environment: Mapping[str, str] = {}


@click.command(short_help="Time a model's formats on this machine.")
@click.option("--model", type=PATH, help="A run folder or an exported model.")
@click.option(
    "--batch", "batches", multiple=True, default=(1, 16), type=click.IntRange(min=1), help="Images a call; repeatable."
)
@click.option("--rounds", default=15, type=click.IntRange(min=1), help="How often each is timed.")
@json_option
def benchmark(model: Path | None, batches: tuple[int, ...], rounds: int, as_json: bool) -> None:
    """Time how fast a model predicts on this machine, in each format that it has, and say which to use.

    Of a run these are the network as trained and re-parameterised; of an exported model each file of the version. They
    are timed in turns, so that other processes slow all of them, without reading and preprocessing images. Without
    --model the pretrained model is taken.

    \b
    Columns
      ms, p95       of a call: the median, and the slowest of twenty
      images/s      of the median
      loaded in     seconds until the first prediction
      differs by    the largest difference of a probability from the first format's

    \b
    Examples:
      btkeras benchmark
      btkeras benchmark --model saved_models/first --batch 1 --batch 32
      btkeras benchmark --model runs/first --json > benchmark.json
      BTKERAS_THREADS=1 btkeras benchmark --model saved_models/first/1/model.onnx
    """
    from tqdm import tqdm

    from btkeras.inference.backends import default_model

    chosen = default_model() if model is None else model
    with tqdm(desc=str(chosen), bar_format="{desc} {n_fmt} {elapsed} {postfix}", leave=False) as bar:

        def progress(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        found = measure(chosen, batches, rounds, progress)
    echo(found, as_json, lambda found: "\n".join(format_benchmark(found)))


def measure(
    model: Path, batches: Sequence[int], rounds: int, progress: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Times the formats of a run folder, an exported model, a version or a file of it.

    Returns:
        ``model``, ``machine``, ``rounds``, ``formats`` (by name ``load_seconds``, the largest ``difference`` of a
        probability, and ``use``, the command), ``rows`` (``format``, ``batch``, ``milliseconds``, ``p95``,
        ``images_per_second``) and ``failed`` (the reasons, by format).

    Raises:
        ModelError: If there is no such model, or none of its formats can be loaded.
    """
    import numpy as np

    from btkeras.machine import describe

    failed: dict[str, str] = {}
    backends: dict[str, InferenceBackend] = {}
    formats: dict[str, dict[str, Any]] = {}
    first: NDArray[np.float32] | None = None
    for each in _formats(model):
        start = time.perf_counter()
        try:
            backend = backends[each.name] = _load(each)
        except BTKerasError as error:
            failed[each.name] = str(error)
            continue
        images = _images(backend, max(batches))
        backend.predict(images[:1])
        seconds = time.perf_counter() - start
        probabilities = backend.predict(images).probabilities
        first = probabilities if first is None else first
        difference = float(np.abs(probabilities - first).max())
        formats[each.name] = {"load_seconds": seconds, "difference": difference, "use": each.use}
        progress(f"loaded {each.name}")
    if not backends:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ModelError("At least one format of the model must load", received=reasons)
    rows = [row for batch in batches for row in _time(backends, batch, rounds, progress)]
    document = {"model": str(model), "machine": describe(_PACKAGES), "rounds": rounds, "formats": formats}
    return {**document, "rows": rows, "failed": failed}


def _formats(model: Path) -> list[_Format]:
    from importlib.util import find_spec

    from btkeras.inference.backends import locate
    from btkeras.inference.backends.single_file import ENGINE, OPENVINO, OWN_ENGINES
    from btkeras.inference.model_folder import FILES
    from btkeras.machine import has_instructions

    path = locate(model).path
    if path.is_dir():
        return [
            _Format("as trained", path, f"btkeras predict --model {path}", images=1),
            _Format("re-parameterised", path, f"btkeras export {path} --out saved_models/NAME"),
        ]
    files = [path] if model.is_file() else [path.with_name(name) for name in FILES.values()]
    found = []
    for file in filter(Path.is_file, files):
        name = next((name for name, own in FILES.items() if own == file.name), file.name)
        use = f"btkeras predict --model {file}"
        found.append(_Format(name, file, use))
        if file.suffix in OWN_ENGINES and find_spec("openvino"):
            found += [
                _Format(f"{name}, {engine}", file, f"{ENGINE}={engine} {use}", environment={ENGINE: engine})
                for engine, (precision, *others) in OPENVINO.items()
                # Both together are as fast as the images' decisions let them be.
                if not others and (precision == "f32" or has_instructions("bfloat16"))
            ]
    return found


def _load(chosen: _Format) -> InferenceBackend:
    # Imported here because it takes half as long as all of the help.
    from unittest import mock

    with located(chosen.path) as location, mock.patch.dict(os.environ, chosen.environment):
        return location.load(chosen.images)


def _images(backend: InferenceBackend, count: int) -> NDArray[np.uint8]:
    """Noise: an image's content does not change how long a prediction takes."""
    import numpy as np

    shape = (count, backend.size, backend.size, backend.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _time(
    backends: Mapping[str, InferenceBackend], batch: int, rounds: int, progress: Callable[[str], object]
) -> list[dict[str, Any]]:
    """A row for each format, timed in rounds of one turn each, in an order drawn anew."""
    import numpy as np

    names, calls = list(backends), {name: [] for name in backends}  # type: ignore[var-annotated]
    order = np.random.default_rng(0)
    for number in range(rounds):
        for name in order.permutation(names).tolist():
            images = _images(backends[name], batch)
            # The first call of a turn finds caches that the others have filled.
            backends[name].predict(images)
            end = time.perf_counter() + _TURN_SECONDS
            while (start := time.perf_counter()) < end:
                backends[name].predict(images)
                calls[name].append(time.perf_counter() - start)
        progress(f"batch {batch}, round {number + 1} of {rounds}")
    return [
        {
            "format": name,
            "batch": batch,
            "milliseconds": 1000 * float(np.median(seconds)),
            "p95": 1000 * float(np.quantile(seconds, 0.95)),
            "images_per_second": batch / float(np.median(seconds)),
        }
        for name, seconds in calls.items()
    ]


def format_benchmark(found: Mapping[str, Any]) -> list[str]:
    """A result of ``measure`` as lines of text."""
    machine, formats = found["machine"], found["formats"]
    load = "" if machine["load"] is None else f", load {machine['load']}"
    processor = f"{machine['processor']} ({' '.join(machine['instructions'])})"
    cores = f"{machine['threads']} of {machine['cores']} cores{load}"
    loaded = {name: {**own, "loaded": f"{own['load_seconds']:.2f} s"} for name, own in formats.items()}
    rows = [{**row, **loaded[row["format"]], "speed": row["images_per_second"]} for row in found["rows"]]
    width = max(map(len, formats)) + 2
    lines = [f"{processor}, {cores}; medians of {found['rounds']} rounds", "", _HEADER.format("format", width=width)]
    lines += [_ROW.format(width=width, **row) for row in rows]
    lines += ["", *(f"{name} could not be timed: {reason}" for name, reason in found["failed"].items())]
    for batch in sorted({row["batch"] for row in rows}):
        best = min((row for row in rows if row["batch"] == batch), key=lambda row: row["milliseconds"])
        at_a_time = "one image" if batch == 1 else f"{batch} images"
        lines.append(f"fastest for {at_a_time} at a time: {best['format']}. Use: {best['use']}")
    if (Path(found["model"]) / "config.yaml").is_file():
        lines.append(
            "A run has no files of other formats: export it with --format savedmodel --format onnx --format litert "
            "and benchmark what that wrote."
        )
    return lines

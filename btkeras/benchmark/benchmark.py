"""How fast a user's model answers on this machine, in every form that it is there in."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btkeras.benchmark.engines import SIDE
from btkeras.benchmark.rounds import Engine, EngineError, Taken, Worker, measure
from btkeras.errors import ConfigError, ModelError
from btkeras.inference.backends.onnx import ENGINE, OPENVINO
from btkeras.inference.model_folder import FILES, latest_version, model_file
from btkeras.machine import describe

_PACKAGES = ("btkeras", "tensorflow", "keras", "onnxruntime", "openvino", "ai-edge-litert", "numpy")
_HERE = "btkeras.benchmark.engines"
_MATRICES = "matrices"
# Instructions without which bfloat16 is slower than float32.
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


@dataclass(frozen=True)
class Form:
    """Attributes:
    name: What it is called in the table.
    engine: How it is loaded.
    use: What to type to answer with it.
    """

    name: str
    engine: Engine
    use: str


@dataclass(frozen=True)
class Row:
    """What a form took for calls of so many images.

    Attributes:
        form: Its name.
        batch: Images a call.
        milliseconds: What a caller waits, the median.
        p95: The same in the slowest of twenty calls.
        processor: Milliseconds of all threads.
        images: A second.
        ratio: To the first form's time, the median of the rounds' quotients.
        share: Of the rate at which this machine multiplies float32 matrices, by processor time; None where the
            network's multiply-accumulates are not known.
    """

    form: str
    batch: int
    milliseconds: float
    p95: float
    processor: float
    images: float
    ratio: float
    share: float | None


@dataclass(frozen=True)
class Loaded:
    """Attributes:
    form: Its name.
    seconds: Until it had loaded in a fresh process and answered for the first time.
    difference: Largest difference of a probability from the first form's.
    mebibytes: The most memory that its process held, answering all batches.
    macs: Multiply-accumulates an image; None if not known.
    use: What to type to answer with it.
    """

    form: str
    seconds: float
    difference: float
    mebibytes: float
    macs: int | None
    use: str


@dataclass(frozen=True)
class Benchmark:
    """Attributes:
    model: What was measured.
    machine: On what.
    rounds: How often.
    matrix_rate: Float32 multiply-accumulates a second of processor time in the product of large matrices.
    loaded: One for each form.
    rows: One for each form and batch.
    failed: Why a form is not among them, by its name.
    """

    model: str
    machine: dict[str, Any]
    rounds: int
    matrix_rate: float
    loaded: tuple[Loaded, ...]
    rows: tuple[Row, ...]
    failed: dict[str, str]

    def fastest(self, batch: int) -> Row:
        """The form that answers so many images in the least time."""
        return min((row for row in self.rows if row.batch == batch), key=lambda row: row.milliseconds)

    def to_json(self) -> dict[str, Any]:
        """As an object."""
        return asdict(self)


def forms(model: Path) -> list[Form]:
    """The forms that a model is there in: of a run as trained and to be deployed, of an exported version each file.

    Raises:
        ModelError: If it is neither.
    """
    if (model / "config.yaml").is_file():
        return [
            Form("as trained", _engine("network", model), f"btkeras predict --model {model}"),
            Form("deploy form", _engine("deployed", model), f"btkeras export {model} --out saved_models/NAME"),
        ]
    if model.is_file():
        return _file_forms(model)
    version = model if model_file(model) else latest_version(model)
    if version is None:
        raise ModelError(
            "A model must be a run folder or an exported model",
            received=model,
            remedy="Name what was given to `btkeras train --out` or `btkeras export --out`",
        )
    files = [version / name for name in FILES.values() if (version / name).is_file()]
    return [form for file in files for form in _file_forms(file)]


def benchmark(
    model: Path,
    batches: Sequence[int] = (1, 16),
    rounds: int = 15,
    done: Callable[[str], object] = lambda _: None,
) -> Benchmark:
    """Measures a model's forms side by side, each in a process of its own.

    Args:
        model: A run folder, an exported model, a version or a file of it.
        batches: Images a call.
        rounds: How often each is measured.
        done: Called with what was just done.

    Raises:
        ConfigError: If a number is below 1.
        ModelError: If there is no such model, or none of its forms can be measured.
    """
    if rounds < 1 or not batches or min(batches) < 1:
        raise ConfigError("Rounds and batches must be 1 or more", received=f"{rounds} rounds of {list(batches)}")
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        entered = list(_started(forms(model), stack, failed, done))
        if not entered:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise ModelError("At least one form of the model must load", received=reasons)
        images = _images(max(batches), entered[0].about)
        differences = _differences(entered, images)
        workers = {item.form.name: item.worker for item in entered}
        workers[_MATRICES] = stack.enter_context(Worker(matrix_engine()))
        workers[_MATRICES].load()
        taken = {}
        for batch in batches:
            for worker in workers.values():
                worker.answer(images[:batch])
            taken[batch] = measure(workers, rounds, lambda batch=batch: done(f"batch {batch}"))  # type: ignore[misc]
        rate = SIDE**3 / float(np.median([of[_MATRICES].processor for of in taken.values()]))
        macs = _macs(entered)
        return Benchmark(
            model=str(model),
            machine=describe(_PACKAGES),
            rounds=rounds,
            matrix_rate=rate,
            loaded=tuple(_loaded(item, differences, macs) for item in entered),
            rows=tuple(_row(item.form.name, batch, of, macs, rate) for batch, of in taken.items() for item in entered),
            failed=failed,
        )


def matrix_engine() -> Engine:
    """What multiplies large matrices of float32 with NumPy, on one core."""
    # OpenBLAS knows processors by their names, and takes those that it does not know for older ones.
    kernels = {"OPENBLAS_CORETYPE": "SkylakeX"} if "avx512f" in describe()["instructions"] else {}
    return Engine(_MATRICES, f"{_HERE}:{_MATRICES}", environment=kernels)


@dataclass(frozen=True)
class _Entered:
    """A form whose process is up."""

    form: Form
    worker: Worker
    about: Mapping[str, Any]
    seconds: float


def _engine(function: str, path: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Engine:
    return Engine(function, f"{_HERE}:{function}", MappingProxyType({"path": str(path)}), environment)


def _file_forms(file: Path) -> list[Form]:
    """A file with each engine that is at hand for it."""
    name, use = next((form for form, own in FILES.items() if own == file.name), file.name), f"predict --model {file}"
    found = [Form(name, _engine("network", file), f"btkeras {use}")]
    if file.suffix == ".onnx" and importlib.util.find_spec("openvino"):
        fits = {"f32": True, "bf16": bool(_BFLOAT16.intersection(describe()["instructions"]))}
        for engine in (engine for engine, precision in OPENVINO.items() if fits[precision]):
            chosen = {ENGINE: engine}
            found.append(
                Form(f"{name}, {engine}", _engine("network", file, chosen), f"{ENGINE}={engine} btkeras {use}")
            )
    return found


def _started(
    wanted: Sequence[Form], stack: ExitStack, failed: dict[str, str], done: Callable[[str], object]
) -> Iterator[_Entered]:
    for form in wanted:
        worker = stack.enter_context(Worker(form.engine))
        try:
            about, seconds = worker.load()
            # The first answer is part of it: only then graphs are traced and memory is there.
            _, first = worker.answer(_images(1, about))
        except EngineError as error:
            failed[form.name] = error.reason
        else:
            yield _Entered(form, worker, about, seconds + first)
        done(f"loaded {form.name}")


def _images(count: int, about: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Noise: what is in an image does not change how long an answer takes."""
    shape = (count, about["size"], about["size"], 1)
    grey = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return np.repeat(grey, about["channels"], axis=-1)


def _differences(entered: Sequence[_Entered], images: NDArray[np.uint8]) -> dict[str, float]:
    answers = {item.form.name: item.worker.answer(images)[0] for item in entered}
    first = answers[entered[0].form.name]
    return {name: float(np.abs(answer - first).max()) for name, answer in answers.items()}


def _macs(entered: Sequence[_Entered]) -> dict[str, int | None]:
    """By form; that of the run as trained is known to whoever made its deploy form."""
    trained = next((item.about["trained_macs"] for item in entered if "trained_macs" in item.about), None)
    return {item.form.name: item.about.get("macs") or trained for item in entered}


def _loaded(item: _Entered, differences: Mapping[str, float], macs: Mapping[str, int | None]) -> Loaded:
    name = item.form.name
    memory = item.worker.memory() / 2**20
    return Loaded(name, item.seconds, differences[name], memory, macs[name], item.form.use)


def _row(name: str, batch: int, taken: Mapping[str, Taken], macs: Mapping[str, int | None], rate: float) -> Row:
    own, first, cost = taken[name], next(iter(taken.values())), macs[name]
    return Row(
        form=name,
        batch=batch,
        milliseconds=1e3 * own.median,
        p95=1e3 * own.p95,
        processor=1e3 * own.processor,
        images=batch / own.median,
        ratio=own.ratios(first)[0],
        share=cost * batch / own.processor / rate if cost else None,
    )

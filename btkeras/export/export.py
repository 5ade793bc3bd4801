"""A run's best checkpoint as a version of an exported model: written, checked, and only then seen."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from btkeras.errors import DataError, ModelError
from btkeras.export import litert, onnx, saved_model
from btkeras.export.metadata import model_metadata, texts, write_image_digests, write_measured, write_texts
from btkeras.export.network import ExportNetwork, export_network
from btkeras.export.parity import Agreement, agreements, quantized_agreement
from btkeras.export.quantize import QUANTIZATIONS, Cost, cost, own_calibration, own_reference
from btkeras.export.saved_model import FILE as WARMUP
from btkeras.export.saved_model import write_warmup
from btkeras.export.selftest import write_selftest
from btkeras.export.slices import Labelled, Slices, parity_slices, phantom_image, subset_slices, training_slices
from btkeras.files import atomic_folder
from btkeras.inference.backends import InferenceBackend, load_backend
from btkeras.inference.backends.keras import backend_of
from btkeras.inference.model_folder import EXTRA, FILES, latest_version, require_engine
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run

# Formats of one file, by what writes them: they may be quantised, and carry their texts inside.
_FILE_WRITERS: MappingProxyType[str, Any] = MappingProxyType({"onnx": onnx, "litert": litert})
# What each needs beyond TensorFlow: modules, all of the extra that is named as the format.
_ENGINES = MappingProxyType(
    {"savedmodel": (), "onnx": ("onnx", "tf2onnx", "onnxruntime"), "litert": ("ai_edge_litert.interpreter",)}
)


def export(
    run: Run,
    out: Path,
    version: int | None = None,
    *,
    formats: Sequence[str] = ("savedmodel",),
    quantize: str | None = None,
) -> Path:
    """Writes ``out/VERSION/``, which needs neither Keras nor btkeras to run.

    Before the folder gets its name, each format is loaded and must agree with the checkpoint on slices of the run's
    validation part. ``assets.extra/manifest.json`` keeps what was found (``export_words.export_lines`` says it).

    Args:
        run: The run to export.
        out: The model's folder; its name is the model's name in TensorFlow Serving.
        version: A whole number above 0 that is not there yet; by default the next.
        formats: Of ``exported.FILES``; all go into the one version.
        quantize: One of ``export_quantize.QUANTIZATIONS`` for the formats of one file, or None. Its cost is measured
            on the validation part, and its figures on the test part.

    Returns:
        The version's folder.

    Raises:
        ModelError: If the version exists, the Keras backend is not TensorFlow, a package is missing, the formats and
            the quantisation do not go together, or an export disagrees with the checkpoint.
        DataError: If quantisation is wanted and the run's dataset is gone.
    """
    _check_wanted(formats, quantize)
    target = out / str(_free_version(out, version))
    deployed = export_network(run)
    size, _, channels = deployed.shape
    decoder = Preprocessor(size, channels, deployed.harmonize)
    quantization = _Quantization.of(quantize, run, decoder) if quantize else None
    work = _Work(deployed, parity_slices(run, decoder), backend_of(run, deployed.model), quantization)
    try:
        with atomic_folder(target) as temporary:
            _fill(work, temporary, out.resolve().name, [form for form in FILES if form in formats])
    except OSError as error:
        # A folder that is not empty is in the way of the renaming: another export was faster.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(out, target.name) from error
        raise
    return target


@dataclass(frozen=True)
class _Quantization:
    """A quantisation, ``training`` slices for the activations' ranges, and the parts to measure it on."""

    kind: str
    training: NDArray[np.uint8]
    validation: Labelled
    test: Labelled

    @staticmethod
    def of(kind: str, run: Run, decoder: Preprocessor) -> _Quantization:
        try:
            training = training_slices(run, decoder)
            return _Quantization(kind, training, subset_slices(run, "validation"), subset_slices(run, "test"))
        except DataError as error:
            raise DataError(
                "Quantisation needs the run's dataset, to be calibrated and to measure what it costs",
                received=str(error).rstrip("."),
                remedy="Leave --quantize away, or put the dataset back",
            ) from error


@dataclass(frozen=True)
class _Work:
    """What is exported, what it is shown, what it has to answer, and how it is quantised."""

    deployed: ExportNetwork
    slices: Slices
    expected: InferenceBackend
    quantization: _Quantization | None


def _fill(work: _Work, folder: Path, name: str, formats: Sequence[str]) -> None:
    known = model_metadata(work.deployed)
    carried = texts(known, work.deployed.calibration, work.deployed.reference)
    write_texts(folder, carried)
    rows: list[Agreement] = []
    costs: list[Cost] = []
    for form in formats:
        file = folder / FILES[form]
        if form == "savedmodel":
            saved_model.write(work.deployed, folder)
            write_warmup(folder / EXTRA / WARMUP, name, phantom_image())
            rows += agreements(form, file, work.expected, work.slices)
        elif work.quantization is None:
            _write_exact(work, form, file, carried)
            rows += agreements(form, file, work.expected, work.slices)
        else:
            found, spent = _quantized(work, work.quantization, form, file, known)
            rows += found
            costs.append(spent)
    write_image_digests(folder, work.deployed.run)
    selftest = write_selftest(folder, formats, work.quantization.kind if work.quantization else None)
    measured = {
        "formats": {form: _stored(folder, form) for form in formats},
        "parity": {"inputs": work.slices.origin, "rows": [row.to_json() for row in rows]},
        "quantization": [spent.to_json() for spent in costs],
    }
    write_measured(folder, work.deployed, known | measured, selftest)


def _write_exact(work: _Work, form: str, file: Path, carried: dict[str, str]) -> None:
    writer = _FILE_WRITERS[form]
    writer.write(work.deployed, file, None, None)
    writer.embed_metadata(file, carried)


def _quantized(
    work: _Work, quantization: _Quantization, form: str, file: Path, known: dict[str, Any]
) -> tuple[list[Agreement], Cost]:
    """Writes a quantised file, beside a float32 one that shows that nothing else went wrong and is not kept."""
    writer, kind, validation, deployed = _FILE_WRITERS[form], quantization.kind, quantization.validation, work.deployed
    exact_texts = texts(known, deployed.calibration, deployed.reference)
    with tempfile.TemporaryDirectory() as scratch:
        exact, first = Path(scratch, file.name), Path(scratch, f"first-{file.name}")
        _write_exact(work, form, exact, exact_texts)
        rows = agreements(form, exact, work.expected, work.slices)
        # It is another network, and what it carries comes from its own answers: first it is asked for these.
        writer.write(deployed, file, kind, quantization.training)
        shutil.copyfile(file, first)
        writer.embed_metadata(first, exact_texts)
        observed = load_backend(first).predict_all(validation.images)
        calibration = own_calibration(kind, deployed.calibration, validation.labels, observed)
        writer.embed_metadata(file, texts(known, calibration, own_reference(deployed.reference, observed)))
        networks = (load_backend(exact), load_backend(file))
        rows.append(quantized_agreement(f"{form} {kind}", networks[1], work.expected, work.slices))
        spent = cost((form, kind), (exact, file), networks, validation, quantization.test)
    return rows, spent


def _stored(folder: Path, form: str) -> dict[str, Any]:
    file = folder / FILES[form]
    parts = [file, *(folder / "variables").glob("*")] if form == "savedmodel" else [file]
    return {"file": file.name, "bytes": sum(part.stat().st_size for part in parts)}


def _check_wanted(formats: Sequence[str], quantize: str | None) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "Exporting needs Keras' TensorFlow backend",
            received=keras.backend.backend(),
            remedy="Run it again with KERAS_BACKEND=tensorflow; the checkpoint loads under any backend",
        )
    unknown = [form for form in formats if form not in FILES]
    if unknown or not formats:
        raise ModelError(f"A format must be one of {', '.join(FILES)}", received=", ".join(unknown) or "none")
    for form in formats:
        for module in _ENGINES[form]:
            require_engine(module, form)
    if quantize is None:
        return
    if quantize not in QUANTIZATIONS:
        raise ModelError(f"A quantisation must be one of {', '.join(QUANTIZATIONS)}", received=quantize)
    if not _FILE_WRITERS.keys() & set(formats):
        raise ModelError(
            "Only ONNX and LiteRT files are quantised", received=quantize, remedy="Add --format onnx or litert"
        )
    if quantize == "float16" and "onnx" in formats:
        raise ModelError("ONNX files are quantised to int8 only", received=quantize, remedy="Take the format litert")


def _free_version(out: Path, version: int | None) -> int:
    if version is None:
        latest = latest_version(out)
        return int(latest.name) + 1 if latest else 1
    if version < 1 or (out / str(version)).exists():
        raise _taken(out, str(version))
    return version


def _taken(out: Path, version: str) -> ModelError:
    return ModelError(
        "A version must be a whole number above 0 that is not there yet",
        received=f"{version} in {out}",
        remedy="Leave --version away to get the next",
    )

"""Exports a run's best checkpoint: load, re-parameterise, write each format, check parity, add metadata, rename."""

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

from btkeras.errors import ModelError
from btkeras.export import metadata, saved_model
from btkeras.export.network import ExportNetwork, export_network
from btkeras.export.parity import ParitySlices, Row, check_parity, parity_slices, phantom_image, quantized_row
from btkeras.export.quantize import (
    QUANTIZATIONS,
    Quantization,
    compare,
    quantized_calibration,
    quantized_ood_calibration,
)
from btkeras.export.single_file import embed_in_litert, embed_in_onnx, write_litert, write_onnx
from btkeras.files import atomic_folder
from btkeras.inference.backends import InferenceBackend, load_backend
from btkeras.inference.backends.keras import backend_of
from btkeras.inference.model_folder import EXTRA, FILES, latest_version, require_engine
from btkeras.preprocessing.preprocessor import Preprocessor
from btkeras.runs import Run

# Of the formats of one file: what writes it, and what embeds metadata in it.
_WRITERS = MappingProxyType({"onnx": (write_onnx, embed_in_onnx), "litert": (write_litert, embed_in_litert)})
# Modules of each format beyond TensorFlow, all in the extra of the format's name.
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
    validation subset; ``assets.extra/manifest.json`` has the differences.

    Args:
        run: The run to export.
        out: The model's folder; its name is the model's name in TensorFlow Serving.
        version: A whole number above 0 that does not exist yet; by default the next.
        formats: Keys of ``model_folder.FILES``; all go into the one version.
        quantize: One of ``quantize.QUANTIZATIONS`` for the formats of one file, or None. The quantized file is compared
            with the float32 one on the validation subset, and evaluated on the test subset.

    Returns:
        The version's folder.

    Raises:
        ModelError: If the version exists, the Keras backend is not TensorFlow, a package is missing, the formats and
            the quantization do not go together, or an export disagrees with the checkpoint.
        DataError: If quantization is wanted and the run's dataset is gone.
    """
    _check(formats, quantize)
    target = out / str(_free_version(out, version))
    network = export_network(run)
    size, _, channels = network.shape
    preprocessor = Preprocessor(size, channels, network.harmonize)
    exporter = _Exporter(
        network,
        backend_of(run, network.model),
        parity_slices(run, preprocessor),
        Quantization.of(quantize, run, preprocessor) if quantize else None,
    )
    try:
        with atomic_folder(target) as folder:
            exporter.write(folder, out.resolve().name, [each for each in FILES if each in formats])
    except OSError as error:
        # Renaming failed since another export was faster.
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _taken(out, target.name) from error
        raise
    return target


@dataclass(frozen=True)
class _Exporter:
    """What every format of a version is written and checked with."""

    network: ExportNetwork
    checkpoint: InferenceBackend
    slices: ParitySlices
    quantization: Quantization | None

    def write(self, folder: Path, name: str, formats: Sequence[str]) -> None:
        """Writes a whole version of the model ``name``."""
        manifest = metadata.model_metadata(self.network)
        own_files = metadata.metadata_files(manifest, self.network.calibration, self.network.ood_calibration)
        metadata.write_extra(folder, own_files)
        rows: list[Row] = []
        comparisons: list[dict[str, Any]] = []
        for each in formats:
            file = folder / FILES[each]
            if each == "savedmodel":
                saved_model.write(self.network, folder)
                saved_model.write_warmup(folder / EXTRA / saved_model.WARMUP, name, phantom_image())
            elif self.quantization is None:
                self._write_exact(each, file, own_files)
            else:
                found, comparison = self._write_quantized(each, file, manifest, self.quantization)
                rows += found
                comparisons.append(comparison)
                continue
            rows += check_parity(each, file, self.checkpoint, self.slices)
        metadata.write_image_digests(folder, self.network.run)
        selftest = metadata.write_selftest(folder, formats, self.quantization.kind if self.quantization else None)
        measured = {
            "formats": {each: _stored(folder, each) for each in formats},
            "parity": {"inputs": self.slices.origin, "rows": rows},
            "quantization": comparisons,
        }
        metadata.write_manifest(folder, self.network, manifest | measured, selftest)

    def _write_exact(self, model_format: str, file: Path, embedded: dict[str, str]) -> None:
        write, embed = _WRITERS[model_format]
        write(self.network, file, None, None)
        embed(file, embedded)

    def _write_quantized(
        self, model_format: str, file: Path, manifest: dict[str, Any], quantization: Quantization
    ) -> tuple[list[Row], dict[str, Any]]:
        """Writes a quantized file, and a temporary float32 one whose parity shows that nothing else went wrong."""
        write, embed = _WRITERS[model_format]
        network, kind = self.network, quantization.kind
        exact_files = metadata.metadata_files(manifest, network.calibration, network.ood_calibration)
        with tempfile.TemporaryDirectory() as scratch:
            exact, first = Path(scratch, file.name), Path(scratch, f"first-{file.name}")
            self._write_exact(model_format, exact, exact_files)
            rows = check_parity(model_format, exact, self.checkpoint, self.slices)
            write(network, file, kind, quantization.training)
            # Its calibration needs its own outputs, which need a file that can be loaded.
            shutil.copyfile(file, first)
            embed(first, exact_files)
            outputs = load_backend(first).predict_all(quantization.validation.images)
            calibration = quantized_calibration(kind, network.calibration, quantization.validation.labels, outputs)
            embed(file, metadata.metadata_files(manifest, calibration, quantized_ood_calibration(outputs)))
            backends = (load_backend(exact), load_backend(file))
            rows.append(quantized_row(f"{model_format} {kind}", backends[1], self.checkpoint, self.slices))
            return rows, compare((model_format, kind), (exact, file), backends, quantization)


def _stored(folder: Path, model_format: str) -> dict[str, Any]:
    file = folder / FILES[model_format]
    files = [file, *(folder / "variables").glob("*")] if model_format == "savedmodel" else [file]
    return {"file": file.name, "bytes": sum(each.stat().st_size for each in files)}


def _check(formats: Sequence[str], quantize: str | None) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "Exporting needs Keras' TensorFlow backend",
            received=keras.backend.backend(),
            remedy="Run it again with KERAS_BACKEND=tensorflow; the checkpoint loads under any backend",
        )
    unknown = [each for each in formats if each not in FILES]
    if unknown or not formats:
        raise ModelError(f"A format must be one of {', '.join(FILES)}", received=", ".join(unknown) or "none")
    for each in formats:
        for module in _ENGINES[each]:
            require_engine(module, each)
    if quantize is None:
        return
    if quantize not in QUANTIZATIONS:
        raise ModelError(f"A quantization must be one of {', '.join(QUANTIZATIONS)}", received=quantize)
    if not _WRITERS.keys() & set(formats):
        raise ModelError(
            "Only ONNX and LiteRT files are quantized", received=quantize, remedy="Add --format onnx or litert"
        )
    if quantize == "float16" and "onnx" in formats:
        raise ModelError("ONNX files are quantized to int8 only", received=quantize, remedy="Take the format litert")


def _free_version(out: Path, version: int | None) -> int:
    if version is None:
        latest = latest_version(out)
        return int(latest.name) + 1 if latest else 1
    if version < 1 or (out / str(version)).exists():
        raise _taken(out, str(version))
    return version


def _taken(out: Path, version: str) -> ModelError:
    return ModelError(
        "A version must be a whole number above 0 that does not exist yet",
        received=f"{version} in {out}",
        remedy="Leave --version away to get the next",
    )

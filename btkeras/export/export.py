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
from tensorflow.lite.python.convert import ConverterError

from btkeras.errors import ModelError
from btkeras.export import metadata, saved_model
from btkeras.export.network import ExportNetwork, export_network
from btkeras.export.parity import ParitySlices, Row, check_maps, check_parity, parity_slices, phantom_image
from btkeras.export.quantize import QUANTIZATIONS, Quantization, compare, recalibrated
from btkeras.export.single_file import (
    embed_in_litert,
    embed_in_onnx,
    maps_for_litert,
    maps_for_onnx,
    write_litert,
    write_onnx,
)
from btkeras.files import atomic_folder, write_text
from btkeras.inference.backends import load_backend
from btkeras.inference.model_folder import EXPLAINED, EXTRA, FILES, MAPS, latest_version, require_engine
from btkeras.inference.predictor import Predictor
from btkeras.logging import logger
from btkeras.runs import Run

# Of the formats of one file: what writes it, what embeds metadata in it, and what makes its maps.
_WRITERS = MappingProxyType(
    {"onnx": (write_onnx, embed_in_onnx, maps_for_onnx), "litert": (write_litert, embed_in_litert, maps_for_litert)}
)
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

    Raises:
        ModelError: If the version exists, a package is missing, an export disagrees with the checkpoint, or formats,
            quantization and the Keras backend do not go together.
        DataError: If quantization is wanted and the run's dataset is gone.
    """
    _check(formats, quantize)
    target = out / str(_free_version(out, version))
    logger.info(f"loading {run.best_model}")
    network = export_network(run)
    preprocessor = Predictor(network.checkpoint).preprocessor
    quantization = Quantization.of(quantize, run, preprocessor) if quantize else None
    exporter = _Exporter(network, parity_slices(run, preprocessor), quantization)
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
    slices: ParitySlices
    quantization: Quantization | None

    def write(self, folder: Path, name: str, formats: Sequence[str]) -> None:
        """Writes a whole version of the model ``name``."""
        manifest = metadata.model_metadata(self.network)
        own_files = metadata.metadata_files(manifest, self.network.checkpoint)
        for file_name, text in own_files.items():
            write_text(folder / EXTRA / file_name, text)
        rows: list[Row] = []
        comparisons: list[dict[str, Any]] = []
        for each in formats:
            file = folder / FILES[each]
            logger.info(f"{each}: writing it, and comparing it with the checkpoint")
            if each == "savedmodel":
                saved_model.write(self.network, folder)
                saved_model.write_warmup(folder / EXTRA / saved_model.WARMUP, name, phantom_image())
                rows += check_parity(each, file, self.network.checkpoint, self.slices)
            elif self.quantization is None:
                rows += self._write_exact(each, file, own_files)
            else:
                found, comparison = self._write_quantized(each, file, manifest, self.quantization)
                rows += found
                comparisons.append(comparison)
            rows += self._maps(each, file)
        logger.info("digests and hashes of its training and validation slices, to recognize them by")
        metadata.write_image_digests(folder, self.network.run)
        metadata.write_image_hashes(folder, self.network.run)
        selftest = metadata.write_selftest(folder, formats, self.quantization.kind if self.quantization else None)
        manifest["formats"] = {each: _stored(folder, each) for each in formats}
        manifest["maps"] = [row["format"].split()[0] for row in rows if row["signature"] == EXPLAINED]
        manifest["parity"] = {"inputs": self.slices.origin, "rows": rows}
        manifest["quantization"] = comparisons
        metadata.write_manifest(folder, self.network, manifest, selftest)

    def _write_exact(self, model_format: str, file: Path, embedded: dict[str, str]) -> list[Row]:
        write, embed, _ = _WRITERS[model_format]
        write(self.network, file, None, None)
        embed(file, embedded)
        return check_parity(model_format, file, self.network.checkpoint, self.slices)

    def _maps(self, model_format: str, file: Path) -> list[Row]:
        """Adds maps to a file of one format, and compares any format's with the checkpoint's."""
        kind = ""
        if model_format in _WRITERS:
            _, embed, make = _WRITERS[model_format]
            kind = self.quantization.kind if self.quantization else ""
            logger.info(f"{model_format}: writing its maps")
            try:
                if text := make(self.network, file):
                    embed(file, {MAPS: text})
            except (NotImplementedError, LookupError, ConverterError) as error:
                logger.warning(f"{model_format}: without maps, which it cannot hold of this network: {error}")
        return check_maps(model_format, file, self.network.checkpoint, self.slices, kind)

    def _write_quantized(
        self, model_format: str, file: Path, manifest: dict[str, Any], quantization: Quantization
    ) -> tuple[list[Row], dict[str, Any]]:
        """Writes a quantized file, and a temporary float32 one whose parity shows that nothing else went wrong."""
        write, embed, _ = _WRITERS[model_format]
        checkpoint, kind = self.network.checkpoint, quantization.kind
        exact_files = metadata.metadata_files(manifest, checkpoint)
        with tempfile.TemporaryDirectory() as scratch:
            exact, first = Path(scratch, file.name), Path(scratch, f"first-{file.name}")
            rows = self._write_exact(model_format, exact, exact_files)
            write(self.network, file, kind, quantization.training)
            # Its calibration needs its own outputs, which need a file that can be loaded.
            shutil.copyfile(file, first)
            embed(first, exact_files)
            own = recalibrated(checkpoint, load_backend(first), quantization)
            embed(file, metadata.metadata_files(manifest, own))
            rows += check_parity(model_format, file, checkpoint, self.slices, kind)
            return rows, compare(model_format, (exact, file), quantization)


def _stored(folder: Path, model_format: str) -> dict[str, Any]:
    file = folder / FILES[model_format]
    files = [file, *(folder / "variables").glob("*")] if model_format == "savedmodel" else [file]
    return {"file": file.name, "bytes": sum(each.stat().st_size for each in files)}


def _check(formats: Sequence[str], quantize: str | None) -> None:
    rule, received, remedy = "", quantize, ""
    if keras.backend.backend() != "tensorflow":
        rule, received = "Exporting needs Keras' TensorFlow backend", keras.backend.backend()
        remedy = "Run it again with KERAS_BACKEND=tensorflow; the checkpoint loads under any backend"
    elif (unknown := [each for each in formats if each not in FILES]) or not formats:
        rule, received = f"A format must be one of {', '.join(FILES)}", ", ".join(unknown) or "none"
    elif quantize not in (None, *QUANTIZATIONS):
        rule = f"A quantization must be one of {', '.join(QUANTIZATIONS)}"
    elif quantize and not _WRITERS.keys() & set(formats):
        rule, remedy = "Only ONNX and LiteRT files are quantized", "Add --format onnx or litert"
    elif quantize == "float16" and "onnx" in formats:
        rule, remedy = "ONNX files are quantized to int8 only", "Take the format litert"
    if rule:
        raise ModelError(rule, received=received, remedy=remedy)
    for model_format in formats:
        for module in _ENGINES[model_format]:
            require_engine(module, model_format)


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

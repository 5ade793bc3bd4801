"""The table of engines: what is compared, in which form of the network and in which precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks.rounds import Engine

_HERE = "benchmarks.inference"
# How far a probability may be from the trained network's in float32.
TOLERANCES: Mapping[str, float] = MappingProxyType({"float32": 1e-4, "bfloat16": 0.1, "int8": 0.2})


@dataclass(frozen=True)
class Entrant:
    """Attributes:
    name: In tables.
    precision: A key of ``TOLERANCES``.
    form: Of the network: trained, fused or grey.
    entry: ``MODULE:FUNCTION``, as ``benchmark_rounds.Engine`` has it.
    arguments: The function's keywords, but for the folder.
    ours: Whether it is what `btkeras predict`, `export` or `serve` give a user; else it is what he would have instead.
    """

    name: str
    precision: str
    form: str
    entry: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False

    @property
    def channels(self) -> int:
        """Of the images that it takes."""
        return 1 if self.form == "grey" else 3

    def engine(self, folder: str, network: str) -> Engine:
        """What to start."""
        own = {"network": network} if "torch" in self.entry else {}
        return Engine(self.name, f"{_HERE}.{self.entry}", {"folder": folder, **own, **self.arguments})


def _torch() -> Iterable[Entrant]:
    """Eager first: ratios are to the first of a precision."""
    entry = "engine_torch:load"
    compiled, frozen = {"compiled": True}, {"compiled": True, "frozen": True}
    yield Entrant("PyTorch eager", "float32", "trained", entry)
    yield Entrant("PyTorch compiled", "float32", "trained", entry, compiled)
    yield Entrant("PyTorch compiled, frozen", "float32", "trained", entry, frozen)
    yield Entrant("PyTorch eager, autocast", "bfloat16", "trained", entry, {"cast": "autocast"})
    yield Entrant("PyTorch compiled, autocast", "bfloat16", "trained", entry, {**compiled, "cast": "autocast"})
    yield Entrant("PyTorch compiled, all bfloat16", "bfloat16", "trained", entry, {**compiled, "cast": "model"})
    yield Entrant("PyTorch compiled, frozen", "bfloat16", "trained", entry, {**frozen, "cast": "model"})


def _files() -> Iterable[Entrant]:
    for form in ("trained", "fused", "grey"):
        of, ours = {"form": form}, form != "trained"
        yield Entrant(f"ONNX Runtime, {form}", "float32", form, "engine_files:onnxruntime", of, ours)
        yield Entrant(f"LiteRT, {form}", "float32", form, "engine_files:litert", of, ours)
        yield Entrant(f"TensorFlow SavedModel, {form}", "float32", form, "engine_tensorflow:saved_model", of, ours)
        for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
            hinted = {**of, "precision": hint}
            yield Entrant(f"OpenVINO, {form}", precision, form, "engine_files:openvino", hinted, ours)
    for form in ("fused", "grey"):
        of = {"form": f"{form}_int8"}
        yield Entrant(f"ONNX Runtime, {form}", "int8", form, "engine_files:onnxruntime", of, ours=True)
        yield Entrant(f"LiteRT, {form}", "int8", form, "engine_files:litert", of, ours=True)
        hinted = {**of, "precision": "f32"}
        yield Entrant(f"OpenVINO, {form}", "int8", form, "engine_files:openvino", hinted, ours=True)


def _frozen() -> Iterable[Entrant]:
    for form, precision in (("grey", "float32"), ("trained", "bfloat16"), ("fused", "bfloat16"), ("grey", "bfloat16")):
        arguments = {"form": form, "precision": precision}
        yield Entrant(f"TensorFlow frozen, {form}", precision, form, "engine_tensorflow:frozen", arguments)


ENTRANTS: tuple[Entrant, ...] = (*_torch(), *_files(), *_frozen())
# Libraries that multiply matrices, the fastest of which is the yardstick of a precision.
MATRICES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "float32": {"TensorFlow": "engine_tensorflow:matrices", "PyTorch": "engine_torch:matrices"},
        "bfloat16": {"TensorFlow": "engine_tensorflow:matrices", "PyTorch": "engine_torch:matrices"},
    }
)


def matrix_engines(precision: str, side: int) -> dict[str, Engine]:
    """By library; none for int8, which no library multiplies for everyone."""
    arguments = {"precision": precision, "side": side}
    own = MATRICES.get(precision, {})
    return {library: Engine(library, f"{_HERE}.{entry}", arguments) for library, entry in own.items()}

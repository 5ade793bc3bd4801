"""The machine: what of it this process may use, and how a report of measurements describes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_THREADS = "BTKERAS_THREADS"
_PARENT = "BTKERAS_PARENT"
# Of a processor's instructions, those that decide how fast it multiplies matrices.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimddp", "bf16", "i8mm")


def threads() -> int:
    """Threads to use: ``$BTKERAS_THREADS``, which processes that share a machine are given, or all cores."""
    return int(os.environ.get(_THREADS) or os.cpu_count() or 1)


def cache_folder() -> Path:
    """Where decoded images and the phantom are kept between runs: ``$BTKERAS_CACHE`` or ``~/.cache/btkeras``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btkeras"
    return Path(os.environ.get("BTKERAS_CACHE") or default)


def thread_environment(count: int) -> dict[str, str]:
    """Environment that limits a process, its TensorFlow and its linear algebra to ``count`` threads.

    Works only when it is set before those are loaded.
    """
    names = (_THREADS, "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return dict.fromkeys(names, str(count))


def visible_gpus() -> list[str]:
    """Identifiers of the NVIDIA GPUs that a process started now would see, without loading TensorFlow."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listing.split()


def parent_environment() -> dict[str, str]:
    """Environment under which a child that calls ``end_with_parent`` does not outlive this process."""
    return {_PARENT: str(os.getpid())}


def end_with_parent(poll_seconds: float = 0.5) -> None:
    """Ends this process once the one that started it has died, so that no job works on unseen."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(poll_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe(packages: Sequence[str] = ()) -> dict[str, Any]:
    """What figures are measured on, for a report of them; nothing is imported for the versions.

    Args:
        packages: Distributions whose versions count; those that are not installed are left out.

    Returns:
        ``processor``, ``cores``, ``threads`` (that this process may use), ``instructions``, ``memory_gib``, ``load``
        (processes that wanted to run in the last minute; None where that is not known), ``system``, ``python`` and
        ``packages``.
    """
    # Here, since whoever only asks for `threads` should not wait for these.
    import platform

    import psutil

    facts = _processor_facts()
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": _versions(packages),
    }


def load() -> float | None:
    """Processes that wanted to run in the last minute, on average; None where that is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _processor_facts() -> dict[str, str]:
    """``/proc/cpuinfo`` of one core; nothing where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _versions(packages: Sequence[str]) -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

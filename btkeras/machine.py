"""The machine: the threads and GPUs that this process may use, and a description for measurements."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from btkeras.errors import ConfigError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_THREADS = "BTKERAS_THREADS"
_PARENT = "BTKERAS_PARENT"
# Instructions without which a number format is slower than float32.
_FAST: Mapping[str, frozenset[str]] = {
    "bfloat16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "bfloat16 tiles": frozenset({"amx_bf16"}),
    "int8": frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
}
# The instructions that decide how fast a processor multiplies matrices.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimddp", "bf16", "i8mm")


def threads() -> int:
    """Threads to use: ``$BTKERAS_THREADS``, or all cores; ``ConfigError`` if that is not a whole number from 1."""
    text = os.environ.get(_THREADS)
    if not text:
        return os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        rule = f"{_THREADS} must be a whole number from 1"
        raise ConfigError(rule, received=repr(text), remedy="Unset it for all cores")
    return int(text)


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, most: int = 1024, ahead: int = 4
) -> Iterator[_Result]:
    """Yields results in the items' order; ``threads()`` threads, or ``most``, work ``ahead`` items each ahead.

    So memory stays bounded. The items themselves are made in the caller's thread.
    """
    workers = min(threads(), most)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[_Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def cache_folder() -> Path:
    """Where decoded images and the phantom are kept between runs: ``$BTKERAS_CACHE`` or ``~/.cache/btkeras``."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btkeras"
    return Path(os.environ.get("BTKERAS_CACHE") or default)


def release_pages(file: Path) -> None:
    """Frees the memory of a file's pages that are mapped for reading, on Linux; they are read again when needed."""
    listing, advice = Path("/proc/self/maps"), getattr(mmap, "MADV_DONTNEED", None)
    if advice is None or not listing.is_file():
        return
    system, name = ctypes.CDLL(None), os.fsencode(file.resolve())
    for fields in (line.split(maxsplit=5) for line in listing.read_bytes().splitlines()):
        if fields[5:] == [name] and b"w" not in fields[1]:
            start, end = (int(address, 16) for address in fields[0].split(b"-"))
            system.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def thread_environment(count: int) -> dict[str, str]:
    """Environment that limits a new process, with its TensorFlow and linear algebra, to ``count`` threads."""
    names = (_THREADS, "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    return dict.fromkeys(names, str(count))


def visible_gpus() -> list[str]:
    """Identifiers of the NVIDIA GPUs that a process started now would see, without loading TensorFlow."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
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
    """Ends this process once its parent has died, so that no job is orphaned."""
    parent = os.environ.get(_PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(poll_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def has_instructions(number_format: str) -> bool:
    """Whether the processor has instructions that make ``bfloat16`` or ``int8`` faster than float32.

    ``bfloat16 tiles``: whether it multiplies whole tiles of a matrix.
    """
    return not _FAST[number_format].isdisjoint(cpu_info()[1])


def describe(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describes the machine for a report of measurements, with those of the packages that are installed.

    Returns:
        ``processor``, ``cores``, ``threads`` (of this process), ``instructions``, ``memory_gib``, ``load``, ``system``,
        ``python`` and ``packages`` (versions).
    """
    # Imported here because `threads` is asked for at every start.
    import platform

    import psutil

    processor, flags = cpu_info()
    return {
        "processor": processor or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "instructions": [name for name in _INSTRUCTIONS if name in flags],
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": load(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": package_versions(packages),
    }


def load() -> float | None:
    """Mean number of runnable processes in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_info() -> tuple[str, list[str]]:
    """Name of the processor and its instruction sets, from ``/proc/cpuinfo``; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "", []
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return info.get("model name", ""), info.get("flags", info.get("Features", "")).split()


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those of the distributions that are installed."""
    from importlib import metadata

    found = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found

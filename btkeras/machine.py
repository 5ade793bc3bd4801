"""What of the machine this process may use."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time

_THREADS = "BTKERAS_THREADS"
_PARENT = "BTKERAS_PARENT"


def threads() -> int:
    """Threads to use: ``$BTKERAS_THREADS``, which processes that share a machine are given, or all cores."""
    return int(os.environ.get(_THREADS) or os.cpu_count() or 1)


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

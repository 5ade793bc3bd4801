"""Many clients against a server of TensorFlow Serving's REST interface: rates, latencies, errors, memory.

    python benchmarks/load_test.py slices/ --url http://localhost:8501 --name cpu --clients 64 --seconds 120 \
        --pid $(pgrep -fo 'btkeras serve') --json load.json
    python benchmarks/load_test.py slices/ --name cpu --pid 4711 \
        --restart-command 'btkeras serve saved_models/cpu'

Each client sends its next request when it has the response to the last one (a closed loop), on a connection that stays
open. The bodies are made beforehand and responses are not parsed, so that the clients take little of the machine.
After a 503 a client waits as long as Retry-After says, at most a second.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

SUFFIXES = (".png", ".jpg", ".jpeg")
MIB = 2**20
# Of the memory's samples, those at the beginning that are left out of the slope: buffers are still growing.
SETTLING = 0.25


@dataclass
class Tally:
    """Requests of one client.

    Attributes:
        latencies: Seconds, of each request answered with 200.
        codes: Requests by status code.
        errors: Connections that failed, by reason.
        ends: When each 200 came, seconds since the start.
        unexpected: The last response other than 200 and 503.
    """

    latencies: list[float] = field(default_factory=list)
    codes: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    ends: list[float] = field(default_factory=list)
    unexpected: str = ""


@dataclass
class Load:
    """Attributes:
    url: Of the server.
    path: That requests go to.
    bodies: Requests to choose from.
    seconds: How long new requests are sent.
    start: On the monotonic clock.
    """

    url: str
    path: str
    bodies: Sequence[bytes]
    seconds: float
    start: float = 0.0

    def now(self) -> float:
        return time.monotonic() - self.start

    def client(self, number: int, tally: Tally) -> None:
        """Sends requests until the time is over."""
        connection = connect(self.url)
        while self.now() < self.seconds:
            begin = time.monotonic()
            try:
                pause = self._once(connection, self.bodies[number % len(self.bodies)], begin, tally)
            except (OSError, http.client.HTTPException) as error:
                tally.errors[type(error).__name__] += 1
                connection.close()
                pause = 0.1
            number += 1
            if pause:
                time.sleep(pause)
        connection.close()

    def _once(self, connection: http.client.HTTPConnection, body: bytes, begin: float, tally: Tally) -> float:
        """One request; returns seconds to wait after it."""
        connection.request("POST", self.path, body, headers())
        response = connection.getresponse()
        content = response.read()
        took = time.monotonic() - begin
        tally.codes[response.status] += 1
        if response.status == 200 and b'"predictions"' in content:
            tally.latencies.append(took)
            tally.ends.append(self.now())
            return 0.0
        if response.status != 503:
            tally.unexpected = f"{response.status}: {content[:300].decode(errors='replace')}"
        asked = response.headers.get("Retry-After", "")
        return min(1.0, float(asked)) if asked.isdecimal() else 0.05


def headers() -> dict[str, str]:
    """Of each request, with the token of the environment."""
    token = os.environ.get("BTKERAS_TOKEN")
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})


def connect(url: str) -> http.client.HTTPConnection:
    """A connection that opens with the first request, and again after it was closed."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "localhost", parts.port, timeout=60)


def bodies_of(images: Sequence[Path], batch: int) -> list[bytes]:
    """A request's body for each group of ``batch`` images; the last group is filled with the first images."""
    files = [file for path in images for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not files:
        sys.exit(f"There must be PNG or JPEG images to send. Received: {', '.join(map(str, images))}.")
    encoded = [{"image_bytes": {"b64": base64.b64encode(file.read_bytes()).decode()}} for file in files]
    starts = range(0, len(encoded), batch)
    groups = [[encoded[(start + i) % len(encoded)] for i in range(batch)] for start in starts]
    return [json.dumps({"instances": group}).encode() for group in groups]


def status(url: str, name: str) -> dict[str, Any]:
    """The model's status as the server reports it; empty if it cannot be asked."""
    connection = connect(url)
    try:
        connection.request("GET", f"/v1/models/{name}", headers=headers())
        answer = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else {}


class Memory(threading.Thread):
    """Reads a process's resident memory, with its children's, every second."""

    def __init__(self, load: Load, pid: int) -> None:
        super().__init__(daemon=True)
        self.load, self.pid = load, pid
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        while self.load.now() < self.load.seconds:
            try:
                process = psutil.Process(self.pid)
                rss = sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
                self.samples.append((self.load.now(), rss / MIB))
            except psutil.Error:
                # Killed, and not yet there again.
                pass
            time.sleep(1)

    def summarize(self) -> dict[str, Any]:
        """In MiB; the slope is of a straight line through all samples but the first quarter."""
        if not self.samples:
            return {}
        times, values = np.array(self.samples).T
        late = times >= SETTLING * self.load.seconds
        slope = np.polyfit(times[late], values[late], 1)[0] * 60 if late.sum() > 2 else None
        known = {"first": values[0], "last": values[-1], "most": values.max()}
        rounded = {name: round(float(value), 1) for name, value in known.items()}
        rounded["slope_per_minute"] = None if slope is None else round(float(slope), 2)
        return rounded | {"samples": [round(float(value), 1) for value in values]}


def summarize(load: Load, tallies: Sequence[Tally], batch: int) -> dict[str, Any]:
    """Rates and latencies (milliseconds) of all clients together."""
    latencies = np.concatenate([tally.latencies for tally in tallies])
    ends = np.sort(np.concatenate([tally.ends for tally in tallies]))
    codes: Counter[int] = sum((tally.codes for tally in tallies), Counter())
    errors: Counter[str] = sum((tally.errors for tally in tallies), Counter())
    took = max(load.seconds, float(ends[-1]) if len(ends) else 0.0)
    found: dict[str, Any] = {
        "requests": {str(code): count for code, count in sorted(codes.items())},
        "connection_errors": dict(errors),
        "images_per_second": round(len(latencies) * batch / took, 2),
        "longest_gap_seconds": round(float(np.diff(ends, prepend=0).max()), 2) if len(ends) else None,
        "per_second": np.bincount(ends.astype(int), minlength=int(load.seconds)).tolist() if len(ends) else [],
        "unexpected": next((tally.unexpected for tally in tallies if tally.unexpected), ""),
    }
    if len(latencies):
        p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
        found["latency_ms"] = {
            name: round(float(value) * 1000, 1)
            for name, value in (("p50", p50), ("p95", p95), ("p99", p99), ("max", latencies.max()))
        }
    return found


def run(load: Load, clients: int, halfway: Callable[[], None]) -> list[Tally]:
    """Runs the clients, and at half-time what is to happen then."""
    tallies = [Tally() for _ in range(clients)]
    threads = [threading.Thread(target=load.client, args=pair, daemon=True) for pair in enumerate(tallies)]
    load.start = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, load.seconds / 2 - load.now()))
    halfway()
    for thread in threads:
        thread.join()
    return tallies


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="PNG or JPEG files, or folders of them")
    parser.add_argument("--url", default="http://127.0.0.1:8501")
    parser.add_argument("--name", default="btkeras", help="the model's name; also NAME/versions/N")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--batch", type=int, default=1, help="images a request")
    parser.add_argument("--pid", type=int, help="the server's process, whose memory is read")
    parser.add_argument(
        "--restart-command", help="at half-time, kill the process of --pid and start this; ended at the end"
    )
    parser.add_argument("--json", type=Path, help="where the report goes")
    chosen = parser.parse_args(arguments)
    if chosen.restart_command and not chosen.pid:
        parser.error("--restart-command needs --pid, the process to kill")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if there was a response other than 200 and 503, or a failed connection without a restart."""
    chosen = parsed(arguments)
    path = f"/v1/models/{chosen.name}:predict"
    load = Load(chosen.url, path, bodies_of(chosen.images, chosen.batch), chosen.seconds, time.monotonic())
    memory = Memory(load, chosen.pid) if chosen.pid else None
    events: dict[str, Any] = {}
    started: list[subprocess.Popen[bytes]] = []

    def halfway() -> None:
        if chosen.restart_command:
            os.kill(chosen.pid, signal.SIGKILL)
            events["killed"] = {"at": round(load.now(), 1)}
            started.append(subprocess.Popen(shlex.split(chosen.restart_command)))
            if memory:
                memory.pid = started[0].pid

    if memory:
        memory.start()
    cpu = time.process_time()
    try:
        tallies = run(load, chosen.clients, halfway)
        wall = load.now()
        found = {name: getattr(chosen, name) for name in ("clients", "seconds", "batch")}
        found |= summarize(load, tallies, chosen.batch) | events
        found["clients_cpu_share"] = round((time.process_time() - cpu) / wall, 3)
        found["memory_mib"] = memory.summarize() if memory else {}
        found["status"] = status(chosen.url, chosen.name.split("/")[0])
    finally:
        for process in started:
            process.terminate()
            process.wait(60)
    print(
        json.dumps(found | {"memory_mib": {k: v for k, v in found["memory_mib"].items() if k != "samples"}}, indent=2)
    )
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    wrong = set(found["requests"]) - {"200", "503"} or (found["connection_errors"] and not started)
    return 1 if wrong or not found.get("latency_ms") else 0


if __name__ == "__main__":
    sys.exit(main())

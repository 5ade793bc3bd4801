"""What Prometheus is told, in a registry of its own, so that several servers in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Attributes:
    requests: Answered requests by ``route`` (predict, status, metadata, page, health, metrics, other), ``signature``
        ("" where there is none) and status ``code``.
    seconds: Time from a request's headers to its answer by ``route``.
    images: Images that the network saw.
    batches: Images in each batch.
    version: Number of the version that requests without one get; 0 if there is none.
    loads: Loaded versions by ``result`` (ok, failed).
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "btkeras_requests", "Answered requests.", ("route", "signature", "code"), registry=self._registry
        )
        self.seconds = Histogram(
            "btkeras_request_seconds",
            "From a request's headers to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.images = Counter("btkeras_images", "Images that the network saw.", registry=self._registry)
        self.batches = Histogram(
            "btkeras_batch_images", "Images in a batch.", buckets=_BATCHES, registry=self._registry
        )
        self.version = Gauge("btkeras_model_version", "The version that is served; 0: none.", registry=self._registry)
        self.loads = Counter("btkeras_model_loads", "Versions loaded.", ("result",), registry=self._registry)

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read when it is asked for."""
        Gauge(f"btkeras_{name}", help_text, registry=self._registry).set_function(value)

    def page(self) -> tuple[bytes, str]:
        """The text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

"""Figures of a server for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts and times of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "pcaseg_requests", "Requests for labels, by way and status.", ["way", "status"], registry=self._registry
        )
        self.rejections = Counter(
            "pcaseg_rejections",
            "Requests for labels without an answer, by status.",
            ["status"],
            registry=self._registry,
        )
        self.latency = Histogram(
            "pcaseg_request_seconds",
            "From the head of a request for labels to its answer.",
            ["way"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.network = Histogram(
            "pcaseg_batch_seconds", "From a batch to its labels.", buckets=_SECONDS, registry=self._registry
        )
        self.batch = Histogram("pcaseg_batch_images", "Images of a batch.", buckets=_SIZES, registry=self._registry)
        self.queue = Gauge("pcaseg_queue_requests", "Requests read, waiting or running.", registry=self._registry)

    def answered(self, way: str, status: int, seconds: float) -> None:
        """Notes an answer to a request for labels."""
        self.requests.labels(way, str(status)).inc()
        self.latency.labels(way).observe(seconds)
        if status >= 400:
            self.rejections.labels(str(status)).inc()

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)

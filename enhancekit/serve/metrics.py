"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from enhancekit._version import __version__
from enhancekit.serve.service import Done

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of their own.

    Parameters
    ----------
    in_hand : callable
        Gives how many pictures are in hand or waiting.

    Examples
    --------
    >>> metrics = Metrics(lambda: 3)
    >>> metrics.answered("/healthz", 200)
    >>> b'enhancekit_requests_total{route="/healthz",status="200"} 1.0' in metrics.text()
    True
    >>> b"enhancekit_pictures_in_hand 3.0" in metrics.text()
    True
    """

    def __init__(self, in_hand: Callable[[], int]) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._registry = registry
        self._requests = Counter(
            "enhancekit_requests", "Requests answered", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "enhancekit_stage_seconds",
            "Time of each stage of an enhanced picture",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._pictures = Counter(
            "enhancekit_pictures", "Pictures enhanced", ("enhancer",), registry=registry
        )
        self._pixels = Counter("enhancekit_pixels", "Pixels given back", registry=registry)
        self._bytes = Counter(
            "enhancekit_bytes", "Bytes of pictures", ("direction",), registry=registry
        )
        Gauge("enhancekit_info", "Version", ("version",), registry=registry).labels(
            __version__
        ).set(1)
        Gauge(
            "enhancekit_pictures_in_hand", "Pictures in hand or waiting", registry=registry
        ).set_function(in_hand)

    def answered(self, route: str, status: int) -> None:
        """Count a response."""
        self._requests.labels(route, str(status)).inc()

    def enhanced(self, given: int, done: Done) -> None:
        """Count an enhanced picture that came as so many bytes."""
        self._pictures.labels(done.enhancer).inc()
        self._pixels.inc(done.size[0] * done.size[1])
        self._bytes.labels("in").inc(given)
        self._bytes.labels("out").inc(len(done.body))
        for stage, seconds in done.seconds.items():
            self._seconds.labels(stage).observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

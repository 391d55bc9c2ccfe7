"""The server's metrics for Prometheus. Rates, such as frames per second, are `rate()` of the counters."""

from __future__ import annotations

from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_BUCKETS = (
    0.01,
    0.02,
    0.03,
    0.05,
    0.075,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    5.0,
)
_STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_BATCH_SIZE_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class Metrics:
    """One server's metrics, in a separate registry, each named like its attribute. Any thread may change them.

    Times are in seconds. `reason` and `kind` are words from a small fixed set.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        gauge = partial(Gauge, registry=registry)
        counter = partial(Counter, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.sessions = gauge("personalive_sessions", "Sessions that are open now.")
        self.sessions_opened = counter("personalive_sessions_opened", "Sessions opened.")
        self.sessions_ended = counter("personalive_sessions_ended", "Sessions ended, by reason.", ["reason"])
        self.frames_in = counter("personalive_frames_in", "Driving frames that came.")
        self.frames_out = counter("personalive_frames_out", "Animated frames that were sent.")
        self.frames_dropped = counter(
            "personalive_frames_dropped",
            "Frames left out: in, before the pipeline; out, after it.",
            ["reason"],
        )
        self.frames_without_face = counter(
            "personalive_frames_without_face", "Animated frames whose driver has no face."
        )
        self.chunk_seconds = histogram(
            "personalive_chunk_seconds", "Time of one step.", buckets=_STEP_BUCKETS
        )
        self.chunk_sessions = histogram(
            "personalive_chunk_sessions", "Sessions in one step.", buckets=_BATCH_SIZE_BUCKETS
        )
        self.queue_seconds = histogram(
            "personalive_queue_seconds", "Wait before a step.", buckets=_LATENCY_BUCKETS
        )
        self.latency_seconds = histogram(
            "personalive_latency_seconds",
            "From a driving frame's arrival to sending the frame that shows it.",
            buckets=_LATENCY_BUCKETS,
        )
        self.errors = counter("personalive_errors", "Errors, by kind.", ["kind"])
        self.gpu_memory_bytes = gauge("personalive_gpu_memory_bytes", "GPU memory that this process holds.")

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

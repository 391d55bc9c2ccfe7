"""The server's metrics for Prometheus. Rates, such as frames per second, are `rate()` of the counters."""

from __future__ import annotations

from collections.abc import Callable

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
    """One server's metrics, in a separate registry. Any thread may call the methods. Times are in seconds."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._live = Gauge("personalive_sessions", "Sessions that are open now.", registry=registry)
        self._opened = Counter("personalive_sessions_opened", "Sessions opened.", registry=registry)
        self._ended = Counter(
            "personalive_sessions_ended", "Sessions ended, by reason.", ["reason"], registry=registry
        )
        self._in = Counter("personalive_frames_in", "Driving frames that came.", registry=registry)
        self._out = Counter("personalive_frames_out", "Animated frames that were sent.", registry=registry)
        self._dropped = Counter(
            "personalive_frames_dropped",
            "Frames left out: in, before the pipeline; out, after it.",
            ["reason"],
            registry=registry,
        )
        self._no_face = Counter(
            "personalive_frames_without_face", "Animated frames whose driver has no face.", registry=registry
        )
        self._chunk = Histogram(
            "personalive_chunk_seconds", "Time of one step.", buckets=_STEP_BUCKETS, registry=registry
        )
        self._batch_size = Histogram(
            "personalive_chunk_sessions",
            "Sessions in one step.",
            buckets=_BATCH_SIZE_BUCKETS,
            registry=registry,
        )
        self._queue = Histogram(
            "personalive_queue_seconds", "Wait before a step.", buckets=_LATENCY_BUCKETS, registry=registry
        )
        self._latency = Histogram(
            "personalive_latency_seconds",
            "From a driving frame's arrival to sending the frame that shows it.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._errors = Counter("personalive_errors", "Errors, by kind.", ["kind"], registry=registry)
        self._memory = Gauge(
            "personalive_gpu_memory_bytes", "GPU memory that this process holds.", registry=registry
        )

    def bind(self, count_sessions: Callable[[], int], read_gpu_memory: Callable[[], float]) -> None:
        """Set the functions that are called at each `render` for the open sessions and the GPU memory in bytes."""
        self._live.set_function(count_sessions)
        self._memory.set_function(read_gpu_memory)

    def count_session_opened(self) -> None:
        """Count a session that was opened."""
        self._opened.inc()

    def count_session_ended(self, reason: str) -> None:
        """Count a session that has ended; `reason` is a word from a small fixed set."""
        self._ended.labels(reason).inc()

    def count_frames_in(self, count: int) -> None:
        """Count driving frames that arrived."""
        self._in.inc(count)

    def count_frames_out(self, count: int) -> None:
        """Count animated frames that were sent."""
        self._out.inc(count)

    def count_dropped(self, reason: str, count: int) -> None:
        """Count frames that were dropped; `reason` is `in`, before the pipeline, or `out`, after it."""
        self._dropped.labels(reason).inc(count)

    def count_no_face(self, count: int) -> None:
        """Count animated frames whose driving frame has no face."""
        self._no_face.inc(count)

    def observe_chunk(self, seconds: float, sessions: int) -> None:
        """Record a session's chunk from a step that took `seconds` for `sessions` sessions together."""
        self._chunk.observe(seconds)
        self._batch_size.observe(sessions)

    def observe_queue_wait(self, seconds: float) -> None:
        """Record the seconds that a chunk waited for its step."""
        self._queue.observe(seconds)

    def observe_latency(self, seconds: float) -> None:
        """Record the seconds from a driving frame's arrival to sending the frame that shows it."""
        self._latency.observe(seconds)

    def count_error(self, kind: str) -> None:
        """Count an error; `kind` is a word from a small fixed set."""
        self._errors.labels(kind).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus's text format, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

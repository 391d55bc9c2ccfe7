from __future__ import annotations

import re
import threading

from prometheus_client.parser import text_string_to_metric_families

from personalive.server.telemetry.metrics import Metrics


def figures(metrics: Metrics) -> dict[str, float]:
    """Every sample by its name and labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_what_is_told_is_counted() -> None:
    metrics = Metrics()
    metrics.sessions_opened.inc()
    metrics.sessions_ended.labels("client_closed").inc()
    metrics.frames_in.inc(4)
    metrics.frames_out.inc(3)
    metrics.frames_dropped.labels("in").inc(2)
    metrics.frames_without_face.inc(1)
    metrics.errors.labels("defect").inc()
    metrics.sessions.set_function(lambda: 5)
    metrics.gpu_memory_bytes.set_function(lambda: 2.5e9)
    found = figures(metrics)
    for name, value in {
        "personalive_sessions{}": 5,
        "personalive_sessions_opened_total{}": 1,
        "personalive_sessions_ended_total{reason=client_closed}": 1,
        "personalive_frames_in_total{}": 4,
        "personalive_frames_out_total{}": 3,
        "personalive_frames_dropped_total{reason=in}": 2,
        "personalive_frames_without_face_total{}": 1,
        "personalive_errors_total{kind=defect}": 1,
        "personalive_gpu_memory_bytes{}": 2.5e9,
    }.items():
        assert found[name] == value


def test_times_go_into_buckets_that_tell_them_apart() -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.012, 0.09, 0.35, 4.0, 60.0):
        metrics.latency_seconds.observe(seconds)
        metrics.queue_seconds.observe(seconds)
    metrics.chunk_seconds.observe(0.02)
    metrics.chunk_sessions.observe(3)
    found = figures(metrics)
    below = {
        float(re.findall(r"le=([\d.]+|\+Inf)", name)[0].replace("+", "")): value
        for name, value in found.items()
        if name.startswith("personalive_latency_seconds_bucket")
    }
    assert [below[edge] for edge in (0.01, 0.1, 0.4, 5.0, float("inf"))] == [1, 3, 4, 5, 6]
    assert found["personalive_queue_seconds_count{}"] == 6
    assert found["personalive_chunk_seconds_sum{}"] == 0.02
    assert found["personalive_chunk_sessions_sum{}"] == 3


def test_servers_count_for_themselves_and_the_process_is_there() -> None:
    first, second = Metrics(), Metrics()
    first.frames_in.inc()
    assert figures(second)["personalive_frames_in_total{}"] == 0
    assert figures(second)["process_resident_memory_bytes{}"] > 1e6


def test_any_thread_may_count() -> None:
    metrics = Metrics()

    def count() -> None:
        for _ in range(500):
            metrics.frames_out.inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert figures(metrics)["personalive_frames_out_total{}"] == 2000

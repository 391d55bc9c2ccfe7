"""What a client in another process sees of the delay: real sockets, a camera whose frames carry numbers.

The bounds here are wide, for machines that are busy with other tests; benchmarks/delay.py has the figures.
"""

from __future__ import annotations

import itertools
import statistics

import pytest

from benchmarks.delay import Case, evaluate
from tests.server.report import Report, quantile
from tests.server.running import ClientProcess, running

BUSY = 0.35
"""Seconds that a machine with other work may add to any delay."""

SHORT = [Case(30, 1, chunk=4, delay=12), Case(30, 0.5, chunk=4, delay=4), Case(60, 0.5, chunk=1, delay=2)]


def name(case: Case) -> str:
    return f"{case.fps:g}fps-speed{case.speed:g}-chunk{case.chunk}-delay{case.delay}"


def watch(case: Case, seconds: float, *flags: object) -> Report:
    load = {"chunk_frames": case.chunk, "delay_frames": case.delay, "cost": case.cost}
    with running({"pipeline": "paced", "load_params": load}) as server:
        server.wait_until_loaded()
        with ClientProcess(server.url, "--fps", case.fps, "--seconds", seconds, *flags) as client:
            return client.report(seconds + 60)


@pytest.mark.slow
@pytest.mark.parametrize("case", SHORT, ids=name)
def test_frames_come_in_order_in_time_and_evenly(case: Case) -> None:
    report = watch(case, 6.5)
    settled = report.between(1.5, 6.5)
    assert report.backwards() == 0
    assert settled.rate > 0.3 * case.rate
    assert quantile(settled.latencies, 0.5) < case.allowed + BUSY
    # Two peers' encoding, decoding and reassembly come on top: each waits for the next frame to know the last.
    assert quantile(settled.delays, 0.5) < case.allowed + 2 / case.rate + 2 * BUSY
    assert_thinned_evenly(settled, case.fps / case.rate)
    assert_little_waits(report, case)


def assert_thinned_evenly(report: Report, thinning: float) -> None:
    steps = [float(later - earlier) for earlier, later in itertools.pairwise(report.numbers)]
    assert statistics.mean(steps) < 1.7 * thinning
    assert quantile(steps, 0.9) <= 3 * thinning


def assert_little_waits(report: Report, case: Case) -> None:
    told = report.told("stats")
    assert len(told) >= 4
    assert max(message["queue_in"] for message in told) <= 2 * case.chunk
    assert max(message["queue_out"] for message in told) <= 2 * case.chunk + 1
    last = told[-1]
    lost = last["dropped_in"] + last["dropped_out"]
    assert last["frames_in"] - last["frames_out"] - lost <= case.delay + 4 * case.chunk + 1
    assert last["frames_in"] <= len(report.captured)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "flags"), [("H264", []), ("VP8", ["--trickle"])])
def test_a_camera_may_grow_while_it_streams(codec: str, flags: list[str]) -> None:
    report = watch(Case(15, 2, chunk=4, delay=4), 6, "--codec", codec, "--growing", *flags)
    assert report.codec == codec
    assert {(seen.width, seen.height) for seen in report.seen} == {(512, 512)}
    assert report.between(4, 6).rate > 4
    unread = sum(seen.number is None for seen in report.seen)
    assert unread <= 4 + 0.1 * len(report.seen)  # the transition at the beginning has no numbers
    assert report.backwards() == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(30, speed, 4, 12) for speed in (0.5, 2)], ids=name)
def test_a_delay_does_not_creep(case: Case) -> None:
    """A queue that grows would add seconds in this time; the five minutes are the benchmark's."""
    seconds = 45
    measured = evaluate(case, watch(case, seconds), seconds, None)
    assert measured.backwards == 0
    assert measured.sent_ends[1] < 1.25 * measured.sent_ends[0] + BUSY / 2
    assert measured.shown_ends[1] < 1.25 * measured.shown_ends[0] + BUSY / 2
    assert measured.sent < case.allowed + BUSY

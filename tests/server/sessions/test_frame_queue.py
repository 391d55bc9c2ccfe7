from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.sessions.frame_queue import FrameQueue, QueuedFrame, SourceClock, to_image

SMALL, LARGE = av.VideoFrame(32, 16, "yuv420p"), av.VideoFrame(64, 32, "yuv420p")


PICTURE = np.zeros((16, 32, 3), np.uint8)


def put(intake: FrameQueue, arrived: QueuedFrame) -> None:
    """Add a frame, and prepare it at once."""
    intake.put(arrived)
    while (unprepared := intake.next_unprepared()) is not None:
        assert intake.set_prepared(unprepared, PICTURE, arrived.arrived_at)


def fill(intake: FrameQueue, times: list[float], frame: av.VideoFrame = SMALL) -> None:
    for time in times:
        put(intake, QueuedFrame(frame, time, time))


def taken(intake: FrameQueue, now: float) -> list[float]:
    return [arrived.time for arrived in intake.pop_chunk(now) or []]


@given(
    st.integers(1, 6), st.lists(st.floats(0.001, 0.3), max_size=60), st.lists(st.integers(0, 12), max_size=20)
)
def test_what_is_kept_is_bounded_ordered_and_ends_with_the_newest(
    chunk: int, gaps: list[float], pauses: list[int]
) -> None:
    intake, now, fed, got, newest = FrameQueue(chunk), 0.0, 0, 0, -1.0
    steps = iter(gaps)
    for pause in [*pauses, 60]:
        for gap in [gap for gap, _ in zip(steps, range(pause), strict=False)]:
            now += gap
            fill(intake, [now])
            fed += 1
        assert len(intake) <= 2 * chunk
        left = len(intake) - chunk
        chosen = taken(intake, now)
        assert len(chosen) in {0, chunk}
        assert chosen == sorted(set(chosen))
        if chosen:
            assert chosen[0] > newest
            newest = chosen[-1]
            assert len(intake) in {0, left}
            assert newest == now or 0 < left < chunk
        got += len(chosen)
    assert got + intake.dropped + len(intake) == fed


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("slower", [2, 3, 5])
def test_a_slow_pipeline_gets_an_evenly_thinned_stream(chunk: int, slower: int) -> None:
    """A camera of 30 frames a second and a pipeline of 30 / `slower`."""
    intake, interval, seen = FrameQueue(chunk), 1 / 30, list[float]()
    for frame in range(40 * chunk * slower):
        fill(intake, [frame * interval])
        if frame % (chunk * slower) == chunk * slower - 1:
            seen += taken(intake, frame * interval)
    gaps = np.diff(seen[chunk:])
    assert gaps.mean() == pytest.approx(slower * interval, rel=0.02)
    # Twice as slow is perfectly even; slower than that, no gap is twice what it should be.
    assert gaps.max() <= (1.01 if slower == 2 else 2.01) * slower * interval


def test_a_pipeline_that_keeps_up_loses_nothing() -> None:
    intake, random, now = FrameQueue(4), np.random.default_rng(0), 0.0
    for _ in range(400):
        now += float(random.uniform(0.02, 0.045))
        fill(intake, [now])
        if intake.has_chunk:
            taken(intake, now)
    assert intake.dropped == 0


def test_a_burst_loses_nothing_that_can_be_caught_up_with() -> None:
    intake = FrameQueue(4)
    for time in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        put(intake, QueuedFrame(SMALL, time, 0.5))
    assert taken(intake, 0.501) == [0.0, 0.1, 0.2, 0.3]
    assert taken(intake, 0.502) == []
    assert (len(intake), intake.dropped) == (2, 0)


def test_who_is_behind_by_less_than_a_chunk_does_not_stay_so() -> None:
    """A pipeline that is one part in a hundred too slow: it is late by a frame's time at most, not by a chunk's."""
    intake, interval, step, waited = FrameQueue(4), 1 / 30, 4.04 / 30, list[float]()
    now = free = 0.0
    for frame in range(3000):
        now = frame * interval
        while free < now and (chosen := intake.pop_chunk(free)):
            waited.append(free - chosen[0].arrived_at)
            free += step
        free = max(free, now) if not intake.has_chunk else free
        put(intake, QueuedFrame(SMALL, now, now))
    assert max(waited) <= 4.1 * interval
    assert 0 < intake.dropped <= 0.012 * 3000


def test_another_size_begins_anew() -> None:
    intake = FrameQueue(4)
    fill(intake, [0.0, 0.1, 0.2])
    fill(intake, [0.3, 0.4, 0.5, 0.6], LARGE)
    assert intake.dropped == 3
    assert [arrived.size for arrived in intake.pop_chunk(0.6) or []] == [(64, 32)] * 4


def test_what_is_old_goes_whatever_room_there_is() -> None:
    intake = FrameQueue(4)
    fill(intake, [0.0, 0.1, 9.0, 9.1])
    assert not intake.has_chunk
    assert intake.dropped == 2
    assert intake.pop_chunk(9.1) is None


@given(st.lists(st.tuples(st.none() | st.floats(-100, 100), st.floats(0, 2)), min_size=2, max_size=50))
def test_a_source_clock_always_goes_on(stamps: list[tuple[float | None, float]]) -> None:
    clock, now, times = SourceClock(), 5.0, list[float]()
    for stamp, passed in stamps:
        now += passed
        times.append(clock.read(stamp, now))
    assert times[0] == 0.0
    assert (np.diff(times) > 0).all()
    assert abs(times[-1] - (now - 5.0 - stamps[0][1])) < 1.01 + 2e-3 * len(stamps) + 1e-3 * now


@pytest.mark.parametrize("rate", [0.9995, 1.0005])
def test_a_source_whose_clock_is_a_little_off_never_jumps(rate: float) -> None:
    clock, interval = SourceClock(), 1 / 15
    times = [clock.read(k * interval * rate, k * interval) for k in range(15 * 3600)]
    assert np.allclose(np.diff(times), interval * rate)


def test_a_source_clock_is_the_sources_own() -> None:
    clock = SourceClock()
    stamps = [7.0 + k / 30 for k in range(30)]
    jitter = np.random.default_rng(1).uniform(0, 0.05, 30)
    times = [
        clock.read(stamp, 100 + k / 30 + float(late))
        for k, (stamp, late) in enumerate(zip(stamps, jitter, strict=True))
    ]
    assert np.allclose(np.diff(times), 1 / 30)
    # A source that is replaced by one with another clock goes on where time is.
    assert clock.read(5000.0, 101.1) == pytest.approx(times[-1] + 1.1 - 29 / 30, abs=0.06)


@given(st.floats(1.5, 60), st.integers(0, 100))
def test_a_burst_after_a_standstill_does_not_run_ahead(stopped: float, kept: int) -> None:
    """The system keeps some of the frames that came while the process stood still, and gives them all at once."""
    clock = SourceClock()
    for k in range(50):
        clock.read(k / 25, k / 25)
    now = 2 + stopped
    times = [clock.read(2 + k / 25, now) for k in range(kept)]
    times += [clock.read(now + k / 25, now + k / 25) for k in range(50)]
    assert (np.diff(times) > 0).all()
    assert abs(times[-1] - (now + 49 / 25)) < 0.4


def test_only_prepared_frames_are_taken_and_the_oldest_is_prepared_first() -> None:
    intake = FrameQueue(2)
    arrived = [QueuedFrame(SMALL, k / 25, k / 25) for k in range(3)]
    for each in arrived:
        intake.put(each)
    assert not intake.has_chunk
    assert intake.pop_chunk(1.0) is None
    for each in arrived[:2]:
        assert intake.next_unprepared() is each
        assert intake.set_prepared(each, PICTURE, 0.1)
    assert intake.has_chunk
    assert intake.pop_chunk(0.1) == arrived[:2]
    assert intake.next_unprepared() is arrived[2]
    assert len(intake) == 1


@pytest.mark.parametrize(("until", "expected"), [(0.5, [0.0, 0.1]), (0.12, [0.0, 0.1]), (0.05, [0.1, 0.3])])
def test_frames_that_the_pipeline_would_wait_for_are_left_if_there_are_others(
    until: float, expected: list[float]
) -> None:
    intake = FrameQueue(2)
    fill(intake, [0.0, 0.1])
    if until == 0.05:  # too few that are ready: the chunk is spread over all
        fill(intake, [0.2, 0.3])
    assert [arrived.time for arrived in intake.pop_chunk(0.11, until) or []] == expected


def test_what_is_left_comes_with_the_next_chunk() -> None:
    intake = FrameQueue(2)
    fill(intake, [0.0, 0.1, 0.2, 0.3])
    assert [arrived.time for arrived in intake.pop_chunk(0.31, 0.15) or []] == [0.0, 0.1]
    assert taken(intake, 0.32) == [0.2, 0.3]
    assert intake.dropped == 0


def test_a_frame_that_was_dropped_while_it_was_prepared_is_told_apart() -> None:
    intake, gone = FrameQueue(1), QueuedFrame(SMALL, 0.0, 0.0)
    intake.put(gone)
    intake.clear()
    assert not intake.set_prepared(gone, PICTURE, 0.0)
    assert intake.pop_discarded() == []


@given(st.lists(st.floats(0.001, 0.9), min_size=1, max_size=40), st.integers(1, 4))
def test_prepared_frames_are_taken_waiting_or_discarded(gaps: list[float], chunk: int) -> None:
    intake, now, fed, got = FrameQueue(chunk), 0.0, set[float](), set[float]()
    for gap in gaps:
        now += gap
        fill(intake, [now])
        fed.add(now)
        if gap > 0.5:
            got |= set(taken(intake, now))
    discarded = intake.pop_discarded()
    assert len(set(discarded)) == len(discarded)
    assert intake.pop_discarded() == []
    # What a step passes over needs no discarding: it is older than the step's last frame.
    passed = {time for time in fed if got and time < max(got)} - got
    assert set(discarded) | got | passed | {arrived.time for arrived in intake._frames} == fed
    assert not set(discarded) & got


def test_pictures() -> None:
    grey = np.full((1440, 2560, 3), 128, np.uint8)
    image = to_image(av.VideoFrame.from_ndarray(grey, format="rgb24"))
    assert (image.shape, image.dtype) == ((720, 1280, 3), np.dtype(np.uint8))
    assert to_image(SMALL).shape == (16, 32, 3)

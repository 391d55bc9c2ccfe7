from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from personalive.pipelines.base import FrameState
from personalive.server.sessions.playout_buffer import PlayoutBuffer, PlayoutDelay, PlayoutFrame, SentFrame

IMAGE = np.zeros((8, 8, 3), np.uint8)
PLANES = np.zeros((12, 8), np.uint8)


def frames(*times: float) -> list[PlayoutFrame]:
    return [PlayoutFrame(IMAGE, PLANES, at, FrameState.ANIMATED, None) for at in times]


def played(
    act: Callable[[PlayoutBuffer], object], seconds: float, capacity: int = 8
) -> tuple[list[tuple[float, float]], PlayoutBuffer]:
    """The source time and the moment of each frame sent, and the outlet."""
    sent: list[tuple[float, float]] = []

    async def play() -> PlayoutBuffer:
        outlet = PlayoutBuffer(capacity, lambda frame, now: sent.append((frame.time, now)))
        act(outlet)
        await asyncio.sleep(seconds)
        await outlet.close()
        return outlet

    return sent, asyncio.run(play())


def test_a_chunk_is_spread_over_its_source_times() -> None:
    sent, _ = played(lambda outlet: outlet.push(frames(0.0, 0.1, 0.2, 0.3)), 0.5)
    times, moments = zip(*sent, strict=True)
    assert times == (0.0, 0.1, 0.2, 0.3)
    assert np.abs(np.diff(moments) - 0.1).max() < 0.06


def test_more_than_fits_loses_the_oldest() -> None:
    sent, outlet = played(lambda outlet: outlet.push(frames(*(k / 1000 for k in range(20)))), 0.1, capacity=5)
    assert [round(1000 * at) for at, _ in sent] == [15, 16, 17, 18, 19]
    assert outlet.dropped == 15


def test_whoever_comes_late_gets_the_last_frame_at_once() -> None:
    async def play() -> list[SentFrame]:
        outlet, seen = PlayoutBuffer(4, lambda frame, now: None), list[SentFrame]()
        outlet.push(frames(1.0))
        await asyncio.sleep(0.05)
        unsubscribe = outlet.add_listener(seen.append)
        await asyncio.sleep(0.05)
        outlet.repeat_last()
        unsubscribe()
        outlet.push(frames(1.1))
        await asyncio.sleep(0.15)
        await outlet.close()
        return seen

    first, repeated = asyncio.run(play())
    assert first.time == 1.0
    assert 1.04 < repeated.time < 1.5


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=40))
def test_a_lag_is_within_what_was_seen_and_shrinks_slowly(lags: list[float]) -> None:
    pace, before = PlayoutDelay(), 0.0
    for step, lag in enumerate(lags):
        now = step * 0.1
        pace.observe(lag, now)
        shown = pace.get(now)
        assert min(lags) <= shown <= max(lags)
        assert shown >= before - 0.25 * 0.1 - 1e-9
        before = shown


def lags_over(seconds: float, needed: Callable[[float], float]) -> list[float]:
    """The lag at each twentieth of a second."""
    pace, found = PlayoutDelay(), []
    for step in range(round(seconds * 20)):
        pace.observe(needed(step / 20), step / 20)
        found.append(pace.get(step / 20))
    return found


def test_one_late_chunk_moves_nothing() -> None:
    assert set(lags_over(5, lambda now: 0.9 if now == 2 else 0.1)) == {0.1}


def test_a_slower_pipeline_is_followed_and_left_again() -> None:
    lags = lags_over(15, lambda now: 0.6 if 4 <= now < 9 else 0.1)
    assert lags[3 * 20] == 0.1
    assert lags[5 * 20] == 0.6
    assert 0.1 < lags[10 * 20] <= 0.6  # frames hurry gently
    assert abs(lags[-1] - 0.1) < 1e-9


def test_an_overflow_is_no_lasting_loss() -> None:
    """Frames that wait behind a lag that has become too long are shown, not dropped one after the other."""

    def act(outlet: PlayoutBuffer) -> None:
        for k in range(3):
            outlet.push(frames(-1.0 + k / 1000))
        outlet.push(frames(*(k / 1000 for k in range(6))))

    sent, outlet = played(act, 0.2, capacity=5)
    assert outlet.dropped == 4
    assert len(sent) == 5


@given(st.floats(1.5, 600), st.integers(1, 5))
def test_a_standstill_is_no_lag(stopped: float, late: int) -> None:
    """Some chunks were on their way when the process was stopped."""
    pace = PlayoutDelay()
    for step in range(60):
        pace.observe(0.1, step / 20)
        assert pace.get(step / 20) == 0.1
    for step in range(60):
        now = 3 + stopped + step / 20
        pace.observe(stopped if step < late else 0.1, now)
        assert pace.get(now) == 0.1


def test_a_pipeline_that_is_seconds_slower_from_now_on_is_followed() -> None:
    lags = lags_over(8, lambda now: 3.0 if now >= 4 else 0.1)
    assert (lags[4 * 20], lags[-1]) == (0.1, 3.0)


def test_a_frame_that_waits_is_sent_when_it_turns_out_that_it_need_not() -> None:
    async def play() -> list[float]:
        sent: list[float] = []
        outlet = PlayoutBuffer(3, lambda frame, now: sent.append(frame.time))
        now = time.monotonic()
        outlet.push(frames(now - 60))  # a lag of a minute
        await asyncio.sleep(0.05)
        for k in range(6):
            outlet.push(frames(now + k / 1000))
            await asyncio.sleep(0.02)
        await outlet.close()
        return sent

    sent = asyncio.run(play())
    assert len(sent) > 2


def test_frames_given_late_are_sent_at_once() -> None:
    def act(outlet: PlayoutBuffer) -> None:
        outlet.push(frames(0.0))
        outlet.push(frames(-0.2, -0.1))

    begun = time.monotonic()
    sent, _ = played(act, 0.35)
    assert len(sent) == 3
    assert max(moment for _, moment in sent) - begun < 0.4

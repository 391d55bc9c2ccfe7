from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.pipelines.prefetch import Prefetcher

IMAGE = np.zeros((16, 16, 3), np.uint8)


class Counter:
    """A looker that gives each frame its number, and notes the times it looked at."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.count = 0
        self.closed = 0

    def analyze(self, image: np.ndarray, time: float) -> int:
        assert image is IMAGE
        self.times.append(time)
        self.count += 1
        return self.count

    def state(self) -> dict[str, Any]:
        return {"count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def reset(self) -> None:
        self.count = 0

    def close(self) -> None:
        self.closed += 1


def test_a_prepared_frame_is_looked_at_once() -> None:
    looker = Counter()
    ahead = Prefetcher(looker)
    for time in (0.0, 0.1, 0.2):
        ahead.prepare(IMAGE, time)
    assert [ahead.get(IMAGE, time) for time in (0.0, 0.1, 0.2, 0.3)] == [1, 2, 3, 4]
    assert looker.times == [0.0, 0.1, 0.2, 0.3]


def test_frames_of_one_time_each_have_their_result() -> None:
    ahead = Prefetcher(Counter())
    ahead.prepare(IMAGE, 1.0)
    ahead.prepare(IMAGE, 1.0)
    assert [ahead.get(IMAGE, 1.0) for _ in range(2)] == [1, 2]


def test_results_for_frames_that_were_passed_over_are_dropped() -> None:
    ahead = Prefetcher(Counter())
    for time in (0.0, 0.1, 0.2):
        ahead.prepare(IMAGE, time)
    assert ahead.get(IMAGE, 0.2) == 3
    assert len(ahead) == 0


def test_a_discarded_frame_takes_no_room() -> None:
    ahead = Prefetcher(Counter())
    ahead.prepare(IMAGE, 0.0)
    ahead.prepare(IMAGE, 0.1)
    ahead.discard(0.0)
    ahead.discard(7.0)
    assert len(ahead) == 1
    assert ahead.get(IMAGE, 0.1) == 2


def test_a_frame_before_the_prepared_ones_is_looked_at_and_they_stay() -> None:
    ahead = Prefetcher(Counter())
    ahead.prepare(IMAGE, 0.5)
    assert ahead.get(IMAGE, 0.1) == 2
    assert ahead.get(IMAGE, 0.5) == 1


@given(st.integers(0, 8), st.integers(0, 8))
def test_a_paused_session_and_its_continuation_look_alike(stepped: int, prepared: int) -> None:
    looker = Counter()
    ahead = Prefetcher(looker)
    for time in range(stepped + prepared):
        ahead.prepare(IMAGE, time)
    for time in range(stepped):
        ahead.get(IMAGE, time)
    state = ahead.save_state()
    continued = Prefetcher(Counter())
    continued.restore_state(state)
    times = range(stepped, stepped + prepared + 2)
    assert [ahead.get(IMAGE, time) for time in times] == [continued.get(IMAGE, time) for time in times]
    assert looker.times[-2:] == list(times)[-2:]


@pytest.mark.parametrize("forget", ["reset", "resume", "close"])
def test_nothing_prepared_outlives_a_reset(forget: str) -> None:
    looker = Counter()
    ahead = Prefetcher(looker)
    ahead.prepare(IMAGE, 0.0)
    if forget == "resume":
        ahead.restore_state({"count": 0})
    else:
        getattr(ahead, forget)()
    assert len(ahead) == 0
    assert looker.closed == (forget == "close")
    ahead.get(IMAGE, 0.0)
    assert looker.times == [0.0, 0.0]


def test_one_thread_prepares_while_another_looks() -> None:
    ahead, times = Prefetcher(Counter()), [float(time) for time in range(2000)]

    def prepare() -> None:
        for time in times:
            ahead.prepare(IMAGE, time)

    thread = threading.Thread(target=prepare)
    thread.start()
    seen = [ahead.get(IMAGE, time) for time in times]
    thread.join()
    assert len(set(seen)) == len(seen)

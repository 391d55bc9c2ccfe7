from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.errors import InputError
from personalive.media import VideoFrame, resample

from .clips import level


def clip(times: list[float], last: float = 0.04, start: float = 0.0) -> list[VideoFrame]:
    ends = [*times[1:], times[-1] + last]
    return [
        VideoFrame(level(i % 256, 2, 2), start + t, i, e - t)
        for i, (t, e) in enumerate(zip(times, ends, strict=True))
    ]


def shown(frames: list[VideoFrame], fps: float) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in resample(frames, fps)]


def test_same_rate_is_unchanged() -> None:
    for fps in (24, 25, 30, 30000 / 1001, 60):
        assert shown(clip([i / fps for i in range(50)], 1 / fps), fps) == list(range(50))


def test_rates_rounded_by_the_container_do_not_stutter() -> None:
    assert shown(clip([round(i / 30, 3) for i in range(90)], 0.033), 30) == list(range(90))


def test_halving_drops_and_doubling_repeats() -> None:
    source = clip([i / 50 for i in range(10)], 0.02)
    assert shown(source, 25) == [0, 2, 4, 6, 8]
    assert shown(source, 100) == [i // 2 for i in range(20)]


def test_variable_rate_shows_the_frame_on_screen() -> None:
    assert shown(clip([0.0, 0.1, 0.5, 0.52], 0.08), 10) == [0, 1, 1, 1, 1, 2]


def test_times_and_indices_start_anew() -> None:
    frames = list(resample(clip([0.0, 0.04, 0.08], start=7.3), 25))
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.time for frame in frames] == [0, 1 / 25, 2 / 25]
    assert {frame.duration for frame in frames} == {1 / 25}


def test_one_short_frame_gives_one() -> None:
    assert shown(clip([0.0], 0.001), 5) == [0]
    assert shown([], 5) == []


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_bad_rates(fps: float) -> None:
    with pytest.raises(InputError):
        resample([], fps)


def test_is_lazy() -> None:
    def endless() -> Iterator[VideoFrame]:
        index = 0
        while True:
            yield VideoFrame(np.zeros((1, 1, 3), np.uint8), index / 25, index, 1 / 25)
            index += 1

    stream = resample(endless(), 30)
    assert [next(stream).index for _ in range(100)] == list(range(100))


@given(
    st.lists(st.floats(0.001, 0.5), min_size=1, max_size=30),
    st.sampled_from([5.0, 24.0, 25.0, 30000 / 1001, 60.0]),
)
def test_length_and_order(durations: list[float], fps: float) -> None:
    times = [sum(durations[:i]) for i in range(len(durations))]
    result = shown(clip(times, durations[-1]), fps)
    assert abs(len(result) - sum(durations) * fps) <= 1.1
    assert result == sorted(result)

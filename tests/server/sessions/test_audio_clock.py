from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.sessions.audio_clock import AudioClock


def observed(picture_s: float, sound_s: float, source: float | None, *, off: float = 0.0) -> float:
    """By how much too late sound counts whose packets take `sound_s`, beside a picture that takes `picture_s`."""
    clock = AudioClock()
    times: list[float] = []
    for index in range(100):
        captured = index / 50
        reported = None if source is None else source + captured
        clock.note_frame(captured, reported, 1000 + captured + picture_s)
        heard = None if reported is None else reported + off
        at = clock.read(77.0 + captured, heard, 1000 + captured + sound_s)
        assert at is not None
        times.append(at - captured)
    return times[-1]


def test_without_a_picture_there_is_no_time() -> None:
    assert AudioClock().read(1.0, None, 5.0) is None


@settings(deadline=None)
@given(st.floats(0, 0.5), st.floats(0, 0.4), st.floats(0, 4e9))
def test_reports_make_up_for_different_ways(picture_s: float, sound_s: float, source: float) -> None:
    assert observed(picture_s, sound_s, source) == pytest.approx(0, abs=1e-3)


@settings(deadline=None)
@given(st.floats(0, 0.5), st.floats(0, 0.4))
def test_without_reports_what_arrives_together_counts_as_together(picture_s: float, sound_s: float) -> None:
    assert observed(picture_s, sound_s, None) == pytest.approx(sound_s - picture_s, abs=1e-3)


@settings(deadline=None)
@given(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(1.5, 1e6), st.sampled_from([-1, 1]))
def test_reports_that_cannot_be_are_not_believed(
    picture_s: float, sound_s: float, off: float, sign: int
) -> None:
    assert observed(picture_s, sound_s, 1e6, off=sign * off) == pytest.approx(sound_s - picture_s, abs=1e-3)


def test_timestamps_that_jump_begin_a_new_clock() -> None:
    clock = AudioClock()
    clock.note_frame(0.0, None, 100.0)
    for index in range(50):
        clock.read(index / 50, None, 100 + index / 50)
    assert clock.read(5000.0, None, 101.0) == pytest.approx(1.0)

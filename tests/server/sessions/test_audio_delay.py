"""The buffer that delays sound: what is put in comes out when it is due, whole, and without a click."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE, AudioDelay, Samples

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE
AMPLITUDE = 8000
STEEPEST = AMPLITUDE * 2 * np.pi * 200 / SAMPLE_RATE
"""The largest step from one sample of the tone to the next."""


def tone(begin: int, count: int) -> Samples:
    wave = AMPLITUDE * np.sin(2 * np.pi * 200 * np.arange(begin, begin + count) / SAMPLE_RATE)
    return np.repeat(np.rint(wave).astype(np.int16)[:, None], 2, axis=1)


def click(begin: int, count: int, at: int) -> Samples:
    places = np.arange(begin, begin + count)
    return np.repeat(np.where((places >= at) & (places < at + 480), 8000, 0).astype(np.int16)[:, None], 2, 1)


def play(delay: AudioDelay, lags: list[float], first: int = 0) -> NDArray[np.int64]:
    """Put a tone in block by block, and read with each of these lags in turn."""
    out = []
    for index, lag in enumerate(lags, first):
        delay.put(tone(index * BLOCK_SAMPLES, BLOCK_SAMPLES), index * BLOCK_SAMPLES, index * BLOCK_S)
        out.append(delay.read((index + 1) * BLOCK_S - lag))
    return np.concatenate(out)[:, 0].astype(np.int64)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.03, 1.0), st.integers(0, 3000), st.integers(-(2**40), 2**40))
def test_sound_comes_out_when_it_is_due(lag: float, at: int, position: int) -> None:
    """Wherever the source begins to count."""
    delay, out = AudioDelay(), []
    at += SAMPLE_RATE // 2
    for index in range(round((lag + 1) / BLOCK_S) + 5):
        begin = index * BLOCK_SAMPLES
        delay.put(click(begin, BLOCK_SAMPLES, at), position + begin, index * BLOCK_S)
        out.append(delay.read((index + 1) * BLOCK_S - lag))
    heard = np.concatenate(out)[:, 0]
    loud = np.flatnonzero(heard > 4000)
    assert abs((loud[0] + BLOCK_SAMPLES) / SAMPLE_RATE - (at / SAMPLE_RATE + lag)) < 0.001
    assert 478 <= len(loud) <= 481


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(0.03, 1.5), min_size=1, max_size=4))
def test_a_delay_that_changes_makes_no_click_and_is_followed(lags: list[float]) -> None:
    delay = AudioDelay()
    heard = play(delay, [lag for lag in lags for _ in range(150)])
    assert np.abs(np.diff(heard)).max() < 2.5 * STEEPEST
    assert delay.read_time is not None
    now = 150 * len(lags) * BLOCK_S
    assert delay.read_time == pytest.approx(now - lags[-1], abs=0.012)


@settings(deadline=None, max_examples=10)
@given(st.floats(-0.035, 0.035))
def test_small_changes_are_made_up_without_a_gap(change: float) -> None:
    heard = play(AudioDelay(), [0.1] * 20 + [0.1 + change] * 400)
    body = heard[15 * BLOCK_SAMPLES :]
    # A period of the tone has 240 samples: no part of it is left out or silent.
    assert np.abs(body).reshape(-1, 240).max(1).min() > 0.98 * AMPLITUDE
    assert np.abs(np.diff(body)).max() < 1.05 * STEEPEST


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(10, 90), max_size=30, unique=True))
def test_lost_packets_are_silent_and_shift_nothing(lost: list[int]) -> None:
    delay, out = AudioDelay(), []
    for index in range(100):
        if index not in lost:
            delay.put(tone(index * BLOCK_SAMPLES, BLOCK_SAMPLES), index * BLOCK_SAMPLES, index * BLOCK_S)
        out.append(delay.read((index + 1) * BLOCK_S - 0.2))
    heard = np.concatenate(out)[:, 0].astype(np.int64)
    assert np.abs(np.diff(heard)).max() < 2.5 * STEEPEST
    for index in set(range(20, 88)) - set(lost) - {one + 1 for one in lost} - {one - 1 for one in lost}:
        place = (index + 9) * BLOCK_SAMPLES  # 0.2 s later, and read a block before it ends
        expected = tone(index * BLOCK_SAMPLES, BLOCK_SAMPLES)[:, 0]
        assert np.abs(heard[place : place + BLOCK_SAMPLES] - expected).max() <= 1


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.integers(-(2**33), 2**33), st.floats(-1e4, 1e4), st.integers(0, 5000), st.floats(-1e4, 1e4)
        ),
        max_size=20,
    )
)
def test_no_source_makes_it_grow_or_fail(puts: list[tuple[int, float, int, float]]) -> None:
    delay = AudioDelay(1.0)
    for position, at, count, read_at in puts:
        delay.put(np.ones((count, 2), np.int16), position, at)
        assert len(delay) <= SAMPLE_RATE
        assert delay.read(read_at).shape == (BLOCK_SAMPLES, 2)


@settings(deadline=None, max_examples=10)
@given(st.floats(0.5, 200), st.booleans())
def test_after_a_pause_sound_comes_when_it_is_due(pause: float, counted: bool) -> None:
    """Whether or not the source has counted on meanwhile."""
    delay = AudioDelay()
    play(delay, [0.1] * 50)
    begin = 1.0 + pause
    for index in range(min(round(pause / BLOCK_S), 3000)):
        delay.read(1.02 + index * BLOCK_S - 0.1)
    first = round(begin * SAMPLE_RATE) if counted else 50 * BLOCK_SAMPLES
    out = []
    for index in range(40):
        shift = index * BLOCK_SAMPLES
        delay.put(click(shift, BLOCK_SAMPLES, 4800), first + shift, begin + index * BLOCK_S)
        out.append(delay.read(begin + (index + 1) * BLOCK_S - 0.1))
    loud = np.flatnonzero(np.concatenate(out)[:, 0] > 4000)
    # The click is 0.1 s after the beginning, and the first block was read after 20 ms.
    assert loud[0] / SAMPLE_RATE == pytest.approx(0.1 + 0.1 - BLOCK_S, abs=0.012)


def test_without_sound_it_is_silent() -> None:
    delay = AudioDelay()
    assert not delay.read(0.0).any()
    assert delay.read_time is None
    play(delay, [0.1] * 20)
    delay.clear()
    assert len(delay) == 0
    assert np.abs(np.diff(delay.read(0.42)[:, 0].astype(int))).max() < 2 * STEEPEST  # what was heard fades
    assert not delay.read(0.44).any()

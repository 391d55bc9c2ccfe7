from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.telemetry.session_stats import (
    DELAY_PARTS,
    DelayStats,
    RateCounter,
    SessionStats,
)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate, now = RateCounter(), time.monotonic()
    for k in range(200):
        rate.count(now + k / 20)
    assert rate.per_second(now + 200 / 20) == pytest.approx(20, rel=0.03)
    assert rate.per_second(now + 20) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_one_of_the_delays(delays: list[float], share: float) -> None:
    kept = DelayStats()
    for delay in delays:
        kept.add({"step": delay}, 0.0)
    found = kept.quantile(share)
    assert found in delays
    assert found is not None
    assert sum(delay < found for delay in delays) <= share * len(delays)


def test_old_delays_are_forgotten() -> None:
    kept = DelayStats()
    assert kept.quantile(0.5) is None
    kept.add({"step": 9.0}, 0.0)
    kept.add({"chunk": 0.25, "step": 0.75}, 11.0)
    assert kept.quantile(1.0) == 1.0


def test_parts_of_the_delay_are_unknown_before_the_first_frame() -> None:
    assert SessionStats().delays.medians() == {"chunk": None, "window": None, "step": None, "send": None}


@given(
    st.lists(st.fixed_dictionaries({name: st.floats(0, 5) for name in DELAY_PARTS}), min_size=1, max_size=60)
)
def test_half_of_the_frames_spent_no_less_than_the_median(frames: list[dict[str, float]]) -> None:
    kept = DelayStats()
    for parts in frames:
        kept.add(parts, 0.0)
    for name, median in kept.medians().items():
        assert median is not None
        assert 2 * sum(parts[name] < median for parts in frames) <= len(frames)
        assert 2 * sum(parts[name] > median for parts in frames) <= len(frames)


def test_one_slow_frame_does_not_move_a_part_of_the_delay() -> None:
    kept = DelayStats()
    for k, step in enumerate([0.1, 0.1, 3.0, 0.1, 0.1]):
        kept.add({"chunk": 0.07, "step": step}, k / 25)
    assert kept.medians() == {"chunk": 0.07, "window": None, "step": 0.1, "send": None}


def test_old_parts_of_the_delay_are_forgotten() -> None:
    kept = DelayStats()
    kept.add({"chunk": 9.0, "window": 0.4}, 0.0)
    kept.add({"chunk": 1.0}, 11.0)
    assert kept.medians() == {"chunk": 1.0, "window": None, "step": None, "send": None}


def test_a_part_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no part of the delay called queue"):
        DelayStats().add({"queue": 0.1}, 0.0)

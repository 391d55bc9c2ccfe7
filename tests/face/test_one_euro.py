from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from personalive.face.one_euro import OneEuroFilter

finite = st.floats(-1e4, 1e4)
steps = st.lists(st.floats(1e-3, 0.4), min_size=1, max_size=40)


@given(value=hnp.arrays(np.float64, (3, 2), elements=finite), steps=steps)
def test_constant_input_gives_exactly_that(value: np.ndarray, steps: list[float]) -> None:
    euro = OneEuroFilter(beta=0.5)
    for time in np.cumsum(steps):
        assert np.array_equal(euro.filter(value, float(time)), value)


@given(
    samples=st.lists(st.tuples(finite, st.floats(0.0, 0.4)), min_size=1, max_size=60),
    cutoff=st.floats(0.01, 50),
    beta=st.floats(0, 10),
)
def test_never_leaves_the_range_of_the_input(
    samples: list[tuple[float, float]], cutoff: float, beta: float
) -> None:
    euro = OneEuroFilter(min_cutoff=cutoff, beta=beta)
    time = 0.0
    seen: list[float] = []
    for value, step in samples:
        time += step
        seen.append(value)
        out = float(euro.filter(value, time))
        slack = 1e-9 * max(1.0, *map(abs, seen))
        assert min(seen) - slack <= out <= max(seen) + slack


@given(start=finite, end=finite, steps=st.lists(st.floats(0.01, 0.1), min_size=400, max_size=400))
def test_a_step_is_approached_and_reached(start: float, end: float, steps: list[float]) -> None:
    euro = OneEuroFilter(min_cutoff=1.0)
    euro.filter(start, 0.0)
    distance = abs(end - start)
    for time in np.cumsum(steps):
        left = abs(end - float(euro.filter(end, float(time))))
        assert left <= distance
        distance = left
    assert distance <= 1e-6 * max(1.0, abs(end - start))


def test_uneven_steps_lag_no_more_than_even_ones() -> None:
    """Two runs over the same ramp, one with every third frame dropped, end at nearly the same value."""
    times = np.arange(0, 2, 1 / 60)
    full, dropped = OneEuroFilter(min_cutoff=2.0), OneEuroFilter(min_cutoff=2.0)
    a = [float(full.filter(3 * t, t)) for t in times][-1]
    b = [float(dropped.filter(3 * t, t)) for i, t in enumerate(times) if i % 3 or i == len(times) - 1][-1]
    assert a == pytest.approx(b, abs=0.02)


def test_noise_at_rest_shrinks_and_movement_passes() -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (300, 2))
    times = np.arange(300) / 30
    slow, quick = OneEuroFilter(min_cutoff=0.5), OneEuroFilter(min_cutoff=0.5, beta=0.05)
    rest = np.array([slow.filter(sample, t) for sample, t in zip(noise, times, strict=True)])
    assert rest[60:].std() < 0.35 * noise.std()
    ramp = 100.0 * times
    lag_slow = (
        ramp[-1]
        - [float(slow.filter(np.full(2, v), 20 + t)[0]) for v, t in zip(ramp, times, strict=True)][-1]
    )
    lag_quick = (
        ramp[-1] - [float(quick.filter(np.full(2, v), t)[0]) for v, t in zip(ramp, times, strict=True)][-1]
    )
    assert lag_quick < 0.2 * lag_slow


def test_a_gap_or_time_running_backwards_starts_anew() -> None:
    euro = OneEuroFilter(gap=0.5)
    euro.filter(0.0, 0.0)
    assert euro.filter(10.0, 0.1) < 10
    assert euro.filter(10.0, 0.7) == 10
    assert euro.filter(3.0, 0.2) == 3
    euro.reset()
    assert euro.filter([1.0, 2.0], 0.3).tolist() == [1.0, 2.0]


def test_a_repeated_time_changes_nothing() -> None:
    euro = OneEuroFilter()
    euro.filter(0.0, 1.0)
    before = euro.filter(1.0, 1.1)
    assert euro.filter(50.0, 1.1) == before


def test_the_result_is_the_callers_own() -> None:
    euro = OneEuroFilter()
    sample = np.zeros(2)
    first = euro.filter(sample, 0.0)
    first += 5
    sample += 7
    assert euro.filter(np.zeros(2), 0.1).tolist() == [0.0, 0.0]


def test_bad_input_is_refused() -> None:
    euro = OneEuroFilter()
    with pytest.raises(ValueError, match="not finite"):
        euro.filter(np.nan, 0.0)
    euro.filter(np.zeros(2), 0.0)
    with pytest.raises(ValueError, match="shape"):
        euro.filter(np.zeros(3), 0.1)
    with pytest.raises(ValueError, match="positive"):
        OneEuroFilter(min_cutoff=0)

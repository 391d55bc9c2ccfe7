from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.serving.observing.figures import Delays, Rate


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate, now = Rate(), time.monotonic()
    for k in range(200):
        rate.count(now + k / 20)
    assert rate.read(now + 200 / 20) == pytest.approx(20, rel=0.03)
    assert rate.read(now + 20) == 0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_one_of_the_delays(delays: list[float], share: float) -> None:
    kept = Delays()
    for delay in delays:
        kept.add(delay, 0.0)
    found = kept.quantile(share)
    assert found in delays
    assert found is not None
    assert sum(delay < found for delay in delays) <= share * len(delays)


def test_old_delays_are_forgotten() -> None:
    kept = Delays()
    assert kept.quantile(0.5) is None
    kept.add(9.0, 0.0)
    kept.add(1.0, 11.0)
    assert kept.quantile(1.0) == 1.0

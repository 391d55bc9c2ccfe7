from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from personalive.server.websocket.rate_limit import MessageRateLimit


@given(st.floats(1, MessageRateLimit.PER_SECOND - 1))
def test_a_client_within_the_limit_is_never_stopped(rate: float) -> None:
    limit = MessageRateLimit(0.0)
    assert all(limit.take(k / rate) for k in range(2000))


@given(st.floats(MessageRateLimit.PER_SECOND * 1.2, 1e5))
def test_a_client_beyond_it_is(rate: float) -> None:
    limit = MessageRateLimit(0.0)
    assert not all(limit.take(k / rate) for k in range(20 * MessageRateLimit.PER_SECOND))

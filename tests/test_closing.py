from __future__ import annotations

import pytest

from personalive.closing import Closing


class Thing(Closing):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_it_is_closed_when_the_block_is_left_by_an_error_too() -> None:
    thing = Thing()
    with thing as inner:
        assert inner is thing
    assert thing.closed
    other = Thing()
    with pytest.raises(KeyError), other:
        raise KeyError
    assert other.closed

from __future__ import annotations

import pytest

from personalive.closing import Closing


class Thing(Closing):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_closed_when_the_block_is_left_by_an_error_too() -> None:
    thing = Thing()
    with thing as inner:
        assert inner is thing
        assert not thing.closed
    with pytest.raises(KeyError), thing:
        raise KeyError
    assert thing.closed == 2

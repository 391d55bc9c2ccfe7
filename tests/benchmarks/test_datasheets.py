from __future__ import annotations

import pytest

from benchmarks.datasheets import CARDS, Card, card

DATA_CENTRE = {"T4", "L4", "A10", "A100", "L40S", "H100", "H200"}
PER_CYCLE = {(7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 9): 1024, (9, 0): 4096, (12, 0): 1024}
"""FLOP of a multiprocessor's 16-bit products in a cycle, at the full rate."""


@pytest.mark.parametrize("each", CARDS, ids=lambda each: each.name)
def test_a_rate_is_processors_times_clock_and_half_of_it_on_geforce(each: Card) -> None:
    full = PER_CYCLE[each.capability] if each.name in DATA_CENTRE else PER_CYCLE[each.capability] / 2
    assert each.tensor == pytest.approx(each.processors * each.clock * full / 1000, rel=0.015)


def test_what_the_whitepapers_state_of_arithmetic_follows() -> None:
    assert card("RTX 4090").tensor8 == pytest.approx(330.3, rel=0.001)
    assert card("RTX 4090").float32 == pytest.approx(82.6, rel=0.001)
    assert card("RTX 3090").float32 == pytest.approx(35.6, rel=0.001)
    assert card("A100").float32 == pytest.approx(19.5, rel=0.001)
    assert card("A100").tensor8 is None


def test_an_unknown_card_is_refused() -> None:
    with pytest.raises(KeyError):
        card("RTX 9090")

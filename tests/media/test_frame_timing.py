from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.media import frame_timing

FEW = settings(max_examples=60, deadline=None)
RATES = st.sampled_from([10, 15, 24, 24000 / 1001, 25, 30000 / 1001, 30, 50, 60, 120])
TICKS = st.sampled_from([1 / 90_000, 1 / 12_800, 0.001])


def ticked(rate: float, count: int, tick: float, begin: float = 0.0) -> list[float]:
    """The times of a clip of constant rate, in a clock of `tick` seconds."""
    return [round((begin + k / rate) / tick) * tick for k in range(count)]


@FEW
@given(RATES, TICKS, st.integers(20, 90), st.floats(0, 100), st.randoms(use_true_random=False))
def test_the_rate_of_a_clip_whose_frames_come_in_any_order(
    rate: float, tick: float, count: int, begin: float, random: object
) -> None:
    stamps = ticked(rate, count, tick, begin)
    random.shuffle(stamps)  # type: ignore[attr-defined]
    step = frame_timing.estimate_step(stamps, tick)
    assert frame_timing.estimate_rate(step) == pytest.approx(rate, rel=0.02)
    # A header that states the rate is exact, and one that states the clock's is not believed.
    assert frame_timing.estimate_rate(step, [1 / tick if tick == 0.001 else 1000, rate]) == rate


@FEW
@given(RATES, st.integers(12, 40), st.data())
def test_pauses_and_repeated_stamps_do_not_change_the_rate(
    rate: float, count: int, data: st.DataObject
) -> None:
    stamps = ticked(rate, count, 0.001)
    for place in data.draw(st.sets(st.integers(1, count - 1), max_size=count // 4)):
        pause = data.draw(st.floats(0.3, 20))
        stamps[place:] = [stamp + pause for stamp in stamps[place:]]
    for place in data.draw(st.sets(st.integers(1, count - 1), max_size=count // 6)):
        stamps[place] = stamps[place - 1]
    assert frame_timing.estimate_rate(frame_timing.estimate_step(stamps, 0.001)) == pytest.approx(
        rate, rel=0.1
    )


@given(st.integers(2, 40), RATES)
def test_frames_that_share_stamps_share_the_time(count: int, rate: float) -> None:
    pairs = [2 * (k // 2) / rate for k in range(2 * count)]
    assert frame_timing.estimate_rate(frame_timing.estimate_step(pairs, 0.001)) == pytest.approx(
        rate, rel=0.01
    )


@pytest.mark.parametrize("stamps", [[], [3.0], [0.0] * 30, [0.0, 5000.0]])
def test_stamps_that_tell_nothing(stamps: list[float]) -> None:
    assert frame_timing.estimate_step(stamps, 0.001) is None
    assert frame_timing.estimate_rate(None, [1000, 24]) == 24
    assert frame_timing.estimate_rate(None, [1000]) == 25


STAMPS = st.lists(
    st.one_of(st.none(), st.floats(-5, 5), st.integers(-3, 90).map(lambda k: k / 25), st.floats(-1e7, 1e7)),
    max_size=40,
)


@FEW
@given(STAMPS, st.floats(0.001, 0.2), st.booleans())
def test_whatever_the_stamps_times_rise_and_nothing_is_lost(
    stamps: list[float | None], step: float, sort: bool
) -> None:
    stamped = enumerate(stamps)
    timed = list(
        frame_timing.make_increasing(frame_timing.sort_timestamps(stamped) if sort else stamped, step)
    )
    assert [item for item, _ in timed] == list(range(len(stamps)))
    assert all(later > time for (_, time), (_, later) in pairwise(timed))


@FEW
@given(st.lists(st.floats(0.002, 0.5), max_size=40), st.floats(0.01, 0.1))
def test_stamps_that_rise_are_kept(steps: list[float], step: float) -> None:
    times = [sum(steps[:k]) for k in range(len(steps) + 1)]
    timed = list(frame_timing.make_increasing(frame_timing.sort_timestamps(enumerate(times)), step))
    assert [time for _, time in timed] == pytest.approx(times)


@FEW
@given(st.integers(1, 60), st.sampled_from([None, 0.0]))
def test_without_usable_stamps_frames_come_at_the_usual_step(count: int, stamp: float | None) -> None:
    timed = list(frame_timing.make_increasing(((k, stamp) for k in range(count)), 0.04))
    assert [time for _, time in timed] == pytest.approx([0.04 * k for k in range(count)])


@FEW
@given(st.integers(3, 40), st.data())
def test_missing_stamps_are_filled_in(count: int, data: st.DataObject) -> None:
    missing = data.draw(st.sets(st.integers(1, count - 1), max_size=count // 2))
    stamped = [(k, None if k in missing else k * 0.04) for k in range(count)]
    assert [time for _, time in frame_timing.make_increasing(stamped, 0.04)] == pytest.approx(
        [0.04 * k for k in range(count)]
    )


@FEW
@given(st.integers(2, 30), st.randoms(use_true_random=False))
def test_stamps_of_the_decoding_order_are_put_in_that_of_showing(groups: int, random: object) -> None:
    times = [k * 0.04 for k in range(4 * groups)]
    mixed: list[float | None] = []
    for begin in range(0, len(times), 4):
        part = times[begin : begin + 4]
        random.shuffle(part)  # type: ignore[attr-defined]
        mixed.extend(part)
    assert [stamp for _, stamp in frame_timing.sort_timestamps(enumerate(mixed))] == times


def test_a_leap_is_left_out() -> None:
    stamps = [0, 0.04, 0.08, 7000.0, 7000.04, 0.0, 0.04]
    times = [
        time
        for _, time in frame_timing.make_increasing(frame_timing.sort_timestamps(enumerate(stamps)), 0.04)
    ]
    assert times == pytest.approx([0.04 * k for k in range(7)])

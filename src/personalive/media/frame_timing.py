"""The times of a clip's pictures and its rate, estimated from its timestamps.

Headers are unreliable: a browser's WebM has no rate at all, and FFmpeg then reports that of the clock. Timestamps
count, and a header's claim only where it agrees with them.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import fmean, median_low
from typing import TypeVar

DEFAULT_FPS = 25.0
"""Frames per second of sources without a rate: stills, folders of pictures, clips without usable timestamps."""

MAX_FPS = 1000.0
MAX_STEP = 600.0
"""Seconds. A longer step in time is a damaged timestamp or a splice, not a pause."""
_MAX_STEP_BACK = 1.0
# Seconds: closer together than this, two timestamps count as equal.
_SAME_TIME = 0.0005
# Most frames that wait for later timestamps to order them: as many as an encoder reorders.
_LOOKAHEAD = 8
# Relative. Steps of one rate differ by their rounding, and a camera's by its jitter.
_SIMILARITY_TOLERANCE = 0.25
_MIN_SAMPLES = 5
_CLAIM_TOLERANCE = 0.02
_USUAL_TOLERANCE = 0.005
# A higher claim that no timestamp confirms is the clock's rate.
_HIGHEST_CLAIM = 240.0
# Recordings of browsers and screens, which state no rate, do not use television's fractional rates.
_USUAL_RATES = (10.0, 12.0, 15.0, 20.0, 24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 90.0, 100.0, 120.0, 144.0, 240.0)

Item = TypeVar("Item")


def estimate_step(stamps: Iterable[float], tick: float) -> float | None:
    """Return the typical seconds from one frame to the next; None where the timestamps do not allow an estimate.

    The stamps may come in any order, and are multiples of `tick` seconds. The median step is taken, so that pauses
    and a first picture shown for long do not matter. Where a stamp is repeated, its frames share the step after it.
    """
    counts = sorted(Counter(stamps).items())
    shared = [(later - time) / count for (time, count), (later, _) in pairwise(counts)]
    return estimate_typical([step for step in shared if 1 / MAX_FPS <= step <= MAX_STEP], tick)


def estimate_typical(steps: Sequence[float], tick: float) -> float | None:
    """Return the median of steps in seconds; None if there are none.

    It is refined by the mean of similar steps, since times are rounded to `tick` seconds: 30 frames per second are
    33, 33 and 34 ms in Matroska, and 3, 3 and 4 hundredths in GIF.
    """
    if not steps:
        return None
    middle = median_low(steps)
    reach = max(_SIMILARITY_TOLERANCE * middle, min(tick * 1.01, middle / 2))
    return fmean(step for step in steps if abs(step - middle) <= reach)


def estimate_rate(step: float | None, claims: Sequence[float] = (), *, frames: int = _MIN_SAMPLES) -> float:
    """Return the frames per second of a clip whose typical step is `step` seconds.

    A header's claim or a usual rate that agrees is taken, since it is exact where the timestamps are rounded.
    Without a step, and where it was estimated from only a few `frames`, the first credible claim is taken.
    """
    credible = [claim for claim in claims if 0 < claim <= _HIGHEST_CLAIM]
    if step is None:
        return credible[0] if credible else DEFAULT_FPS
    if frames < _MIN_SAMPLES and credible:
        return credible[0]
    measured = 1 / step
    for known, tolerance in ((claims, _CLAIM_TOLERANCE), (_USUAL_RATES, _USUAL_TOLERANCE)):
        nearest = min(known, key=lambda value: abs(value - measured), default=0.0)
        if abs(nearest - measured) <= tolerance * measured:
            return nearest
    return measured


def make_increasing(
    stamped: Iterable[tuple[Item, float | None]], step: float
) -> Iterator[tuple[Item, float]]:
    """Yield each item with a time in seconds after its predecessor's, its timestamp where possible.

    Items without a stamp, and those whose stamp is not after the last, share the time until the next that is; where
    none comes soon they follow each other by `step`. A jump in the stamps is removed. Up to 8 items are held.
    """
    last: float | None = None
    shift = 0.0
    waiting: list[Item] = []
    for item, stamp in stamped:
        if last is None:
            last = max(0.0, stamp if stamp is not None else 0.0)
            yield item, last
            continue
        time = last if stamp is None else stamp + shift
        if not -_MAX_STEP_BACK <= time - last <= MAX_STEP:
            expected = last + step * (len(waiting) + 1)
            shift += expected - time
            time = expected
        if time > last + _SAME_TIME:
            yield from _spread_evenly(waiting, last, min(step, (time - last) / (len(waiting) + 1)))
            waiting.clear()
            yield item, time
            last = time
            continue
        waiting.append(item)
        if len(waiting) == _LOOKAHEAD:
            yield from _spread_evenly(waiting, last, step)
            last += step * len(waiting)
            waiting.clear()
            if stamp is not None:
                shift = last - stamp
    if last is not None:
        yield from _spread_evenly(waiting, last, step)


def sort_timestamps(stamped: Iterable[tuple[Item, float | None]]) -> Iterator[tuple[Item, float | None]]:
    """Yield items in the given order with their timestamps sorted, where these are slightly out of order.

    Each takes the earliest stamp among itself and the next 8 items, which are held. Stamps after a jump are not
    mixed with those before.
    """
    items: deque[tuple[Item, bool]] = deque()
    stamps: list[float] = []
    for item, stamp in stamped:
        if stamps and stamp is not None and abs(stamp - stamps[-1]) > _MAX_STEP_BACK:
            while items:
                yield _earliest(items, stamps)
        items.append((item, stamp is not None))
        if stamp is not None:
            insort(stamps, stamp)
        if len(items) > _LOOKAHEAD:
            yield _earliest(items, stamps)
    while items:
        yield _earliest(items, stamps)


def _earliest(items: deque[tuple[Item, bool]], stamps: list[float]) -> tuple[Item, float | None]:
    item, has_stamp = items.popleft()
    return item, stamps.pop(0) if has_stamp else None


def _spread_evenly(items: Sequence[Item], last: float, step: float) -> Iterator[tuple[Item, float]]:
    for number, item in enumerate(items, 1):
        yield item, last + number * step

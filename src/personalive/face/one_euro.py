"""The One-Euro filter: steady when the signal rests, quick when it moves.

A first-order low-pass whose cut-off rises with the signal's own speed: noise is filtered hard while nothing
happens, and a fast movement passes with little lag. Every step uses the true time between two samples, so
dropped and unevenly spaced frames are filtered correctly.

See: Casiez, Roussel, Vogel, "1€ Filter", CHI 2012, https://gery.casiez.net/1euro/
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

_SAME_TIME = 1e-6
"""Seconds: samples closer than this count as one, because their difference says nothing about speed."""
_SPEED_CUTOFF = 1.0
"""Hz: the cut-off with which the speed is smoothed."""


class OneEuroFilter:
    """A filter for an array of any shape; every element is filtered independently.

    `min_cutoff` Hz: the cut-off at rest; lower is steadier and lags more. `beta` Hz per (unit of the signal
    per second): how fast the cut-off rises with speed, so it depends on the signal's unit. After more than
    `gap` seconds without a sample, or when time runs backwards, the filter restarts from the sample it is given.

    Every output lies between the previous output and the input, so it never leaves the input's range.
    """

    def __init__(self, *, min_cutoff: float = 1.0, beta: float = 0.0, gap: float = 0.5) -> None:
        if not (min_cutoff > 0 and beta >= 0 and gap > 0):
            raise ValueError("cut-offs and gap must be positive and beta not negative")
        self._min_cutoff = min_cutoff
        self._beta = beta
        self._gap = gap
        self._time = 0.0
        self._value: Float64 | None = None
        self._speed: Float64 = np.zeros(())

    def filter(self, value: ArrayLike, time: float) -> Float64:
        """Return the filtered sample, float64 of the sample's shape; `time` in seconds.

        A repeated time, to the microsecond, leaves the output as it was. Raises `ValueError` where the shape
        changes without a `reset` or a value is not finite: it would stay in the filter forever.
        """
        sample = np.asarray(value, np.float64)
        if not np.isfinite(sample).all():
            raise ValueError("the sample holds values that are not finite")
        elapsed = time - self._time
        if self._value is None or not 0.0 <= elapsed <= self._gap:
            self._time, self._value, self._speed = time, sample.copy(), np.zeros_like(sample)
            return sample.copy()
        if sample.shape != self._value.shape:
            raise ValueError(f"the sample's shape is {sample.shape}, the filter's {self._value.shape}")
        if elapsed > _SAME_TIME:
            speed = (sample - self._value) / elapsed
            self._speed = self._speed + _smoothing_factor(_SPEED_CUTOFF, elapsed) * (speed - self._speed)
            cutoff = self._min_cutoff + self._beta * np.abs(self._speed)
            self._value = self._value + _smoothing_factor(cutoff, elapsed) * (sample - self._value)
            self._time = time
        return self._value.copy()

    def reset(self) -> None:
        """Forget everything: the next sample passes unchanged."""
        self._value = None

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON; the filter's settings are not part of it."""
        if self._value is None:
            return {}
        return {"time": self._time, "value": self._value.tolist(), "speed": self._speed.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue as the filter whose `state` this is."""
        self.reset()
        if state:
            self._time = float(state["time"])
            self._value, self._speed = (np.array(state[name], np.float64) for name in ("value", "speed"))


def _smoothing_factor(cutoff: float | Float64, elapsed: float) -> Float64:
    """Return the share, 0…1, of the way to the sample that a low-pass goes in `elapsed` seconds."""
    turn = np.asarray(2.0 * math.pi * elapsed * cutoff, np.float64)
    return turn / (turn + 1.0)

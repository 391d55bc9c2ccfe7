"""A bounded buffer that delays sound, and follows a delay that changes without a click.

Sound is put in with its time on the session's clock and read with the time that is due. Where the two differ, a
small difference is made up by playing up to 1.5 % faster or slower, which nobody hears. A larger one is cut out
with a cross-fade, or waited for in silence; in a quiet place even a small one is cut, where the cut is not heard.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48_000
CHANNELS = 2
BLOCK_SAMPLES = 960
"""Samples of 20 ms, the usual packet of sound."""
MAX_DELAY_S = 30.0
"""The longest delay. Where the picture is later than that, older sound is lost."""

_MAX_GAP_S = 2.0
"""The longest gap in a source's timestamps that counts as lost packets. A longer one is another stream."""
_ROUNDING = 96
"""Samples by which timestamps may miss the end of the sound before: what rounding and resampling make, 2 ms."""
_MAX_RATE_CHANGE = 0.015
_CORRECTION_S = 2.0
"""Seconds in which a difference would be made up if it did not shrink meanwhile."""
_TOLERANCE = 48
"""Samples of difference that are not worth a correction: a millisecond."""
_QUIET_CUT = 240
"""Samples of difference that are cut out in a quiet place."""
_LOUD_CUT = 1920
"""Samples of difference that are cut out anywhere."""
_QUIET_LEVEL = 200
"""Highest sample of a quiet place, 44 dB below the loudest."""
_FADE = 480
"""Samples of a cross-fade."""
_DECLICK = 240
"""Samples in which sound fades where it breaks off or begins."""

Samples = NDArray[np.int16]
"""Sound, (samples, `CHANNELS`) at `SAMPLE_RATE`."""
_Signal = NDArray[np.float32]
_Sound = TypeVar("_Sound", Samples, _Signal)


class AudioDelay:
    """A buffer of at most `capacity_s` seconds of sound; when it is full, the oldest is lost."""

    def __init__(self, capacity_s: float = MAX_DELAY_S) -> None:
        self._capacity = round(capacity_s * SAMPLE_RATE)
        self._ring = np.zeros((self._capacity, CHANNELS), np.int16)
        self._shift = 0  # from a source's position to one in the ring
        self._start = self._end = 0
        self._offset: float | None = None
        self._at = 0.0
        self._reading = self._silent = False
        self._read_time: float | None = None
        self._last: _Signal = np.zeros(CHANNELS, np.float32)
        self._broke_off = True

    def __len__(self) -> int:
        return self._end - self._start

    @property
    def read_time(self) -> float | None:
        """The time of the first sample that was read last, None where nothing had been put."""
        return self._read_time

    def clear(self) -> None:
        """Drop all sound."""
        self._start = self._end
        self._reading = False

    # -- in

    def put(self, samples: Samples, position: int, time: float) -> None:
        """Add sound: `position` counts the source's samples, `time` is that of the first one, in seconds.

        Positions that are missing are silent, and those that came before are dropped.
        """
        if self._at >= self._end:
            self.clear()  # all has been read: sound begins once more, and its clock may be another by now
        if self._offset is None:
            self._shift = self._end - position
        at = position + self._shift
        if not -_MAX_GAP_S <= (at - self._end) / SAMPLE_RATE <= _MAX_GAP_S:
            self._start_over(position, time)
            at = position + self._shift
        if abs(at - self._end) <= _ROUNDING:
            at = self._end
        self._offset = time - at / SAMPLE_RATE
        samples = samples[max(self._end - at, 0) :][-self._capacity :]
        if not len(samples):
            return
        if at > self._end:
            self._skip(at - self._end)
            samples = _fade_in(samples)
        self._write(samples)

    def _start_over(self, position: int, time: float) -> None:
        """Continue with another stream of sound, which begins where its time says."""
        assert self._offset is not None
        gap = round((time - self._offset) * SAMPLE_RATE) - self._end
        self._shift = self._end + min(max(gap, 0), self._capacity) - position

    def _skip(self, count: int) -> None:
        """Add silence, into which the sound before it fades."""
        tail = np.arange(max(self._end - _DECLICK, self._start), self._end)
        faded = self._ring[tail % self._capacity] * np.linspace(1, 0, len(tail), dtype=np.float32)[:, None]
        self._ring[tail % self._capacity] = np.rint(faded)
        self._write(np.zeros((min(count, self._capacity), CHANNELS), np.int16))

    def _write(self, samples: Samples) -> None:
        begin = self._end % self._capacity
        whole = min(len(samples), self._capacity - begin)
        self._ring[begin : begin + whole] = samples[:whole]
        self._ring[: len(samples) - whole] = samples[whole:]
        self._end += len(samples)
        self._start = max(self._start, self._end - self._capacity)

    # -- out

    def read(self, time: float, count: int = BLOCK_SAMPLES) -> Samples:
        """Return the `count` samples that are due from `time` on; silence where there are none."""
        if self._offset is None:
            return np.zeros((count, CHANNELS), np.int16)
        wanted = (time - self._offset) * SAMPLE_RATE
        if not self._reading:
            self._at, self._reading, self._silent = float(round(wanted)), True, True
        out = self._read_from(wanted, count)
        self._last, self._broke_off = out[-1], self._silent or not self._has(int(self._at) - 1)
        # What is older than a fade can only be needed if the delay grows, and then silence is heard instead.
        self._start = min(max(self._start, int(self._at) - SAMPLE_RATE), self._end)
        return np.clip(np.rint(out), -32768, 32767).astype(np.int16)

    def _read_from(self, wanted: float, count: int) -> _Signal:
        assert self._offset is not None
        error = wanted - self._at
        self._read_time = self._at / SAMPLE_RATE + self._offset
        if self._silent and error < 0:
            return self._wait(wanted, count)
        if error < -_LOUD_CUT:
            return self._stop(count)
        old = self._take(self._at, count)
        quiet = float(np.abs(old).max()) <= _QUIET_LEVEL
        if self._silent or error > _LOUD_CUT or (quiet and abs(error) > _QUIET_CUT):
            return self._cut(old, float(round(wanted)), count)
        change = error / (_CORRECTION_S * SAMPLE_RATE) if abs(error) > _TOLERANCE else 0.0
        rate = 1 + min(max(change, -_MAX_RATE_CHANGE), _MAX_RATE_CHANGE)
        out = self._declick(old if rate == 1 else self._take(self._at, count, rate), self._at)
        self._at += count * rate
        return out

    def _wait(self, wanted: float, count: int) -> _Signal:
        """Return silence until the sound at which reading stopped is due."""
        assert self._offset is not None
        self._read_time = wanted / SAMPLE_RATE + self._offset
        out = np.zeros((count, CHANNELS), np.float32)
        begin = int(self._at - wanted)
        if begin <= count - _DECLICK:  # else it begins with the next block, where there is time to fade in
            out[begin:] = _fade_in(self._take(self._at, count - begin))
            self._at += count - begin
            self._silent = False
        return out

    def _stop(self, count: int) -> _Signal:
        """Return sound that fades, and stop there: the delay has grown."""
        out = self._take(self._at, count)
        out[:_FADE] *= np.linspace(1, 0, min(_FADE, count), dtype=np.float32)[:, None]
        out[_FADE:] = 0
        out = self._declick(out, self._at)
        self._at += min(_FADE, count)
        self._silent = True
        return out

    def _cut(self, old: _Signal, to: float, count: int) -> _Signal:
        """Return a cross-fade from `old` to what lies elsewhere: the delay has shrunk, or nobody hears it."""
        assert self._offset is not None
        out = self._take(to, count)
        fade = np.linspace(0, 1, min(_FADE, count), dtype=np.float32)[:, None]
        before = np.zeros_like(old) if self._silent else self._declick(old, self._at)
        out[:_FADE] = out[:_FADE] * fade + before[:_FADE] * (1 - fade)
        self._at = to + count
        self._read_time = to / SAMPLE_RATE + self._offset
        self._silent = False
        return out

    def _declick(self, out: _Signal, at: float) -> _Signal:
        """Let the last sample fade where `out`, which is what lies at `at`, is missing; fade in after a gap."""
        ramp = np.linspace(0, 1, min(_DECLICK, len(out)), dtype=np.float32)[:, None]
        if not self._has(int(at)):
            out[: len(ramp)] += self._last * (1 - ramp)
        elif self._broke_off:
            out[: len(ramp)] *= ramp
        return out

    def _has(self, place: int) -> bool:
        return self._start <= place < self._end

    def _take(self, at: float, count: int, rate: float = 1.0) -> _Signal:
        """Return `count` samples from `at` on, interpolated (Catmull-Rom) where they lie between samples."""
        first = int(np.floor(at))
        places = at - first + rate * np.arange(count)
        near = self._gather(first - 1, first + int(places[-1]) + 3)
        if rate == 1 and at == first:
            return near[1 : count + 1].copy()
        whole = places.astype(np.int64)
        part = (places - whole).astype(np.float32)[:, None]
        a, b, c, d = (near[whole + shift] for shift in range(4))
        curve = b + 0.5 * part * (c - a + part * (2 * a - 5 * b + 4 * c - d + part * (3 * (b - c) + d - a)))
        return np.asarray(curve, np.float32)

    def _gather(self, begin: int, end: int) -> _Signal:
        """Return the samples from `begin` to `end`, zero where there are none; the end of the sound fades."""
        out = np.zeros((end - begin, CHANNELS), np.float32)
        low, high = max(begin, self._start), min(end, self._end)
        if low >= high:
            return out
        out[low - begin : high - begin] = self._ring[np.arange(low, high) % self._capacity]
        if high < end - 3:  # not only the neighbours for interpolation are missing
            length = min(_DECLICK, high - low)
            out[high - begin - length : high - begin] *= np.linspace(1, 0, length, dtype=np.float32)[:, None]
        return out


def _fade_in(samples: _Sound) -> _Sound:
    length = min(_DECLICK, len(samples))
    out = samples.copy()
    out[:length] = samples[:length] * np.linspace(0, 1, length, dtype=np.float32)[:, None]
    return out

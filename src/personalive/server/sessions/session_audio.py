"""The sound of one session: the driver's, delayed by as much as the picture.

It goes out in blocks of 20 ms, at an even pace for as long as sound is on; without sound, and while the session is
paused, they are silent. It is later than the picture only where it arrives later than the picture is shown.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import av
import numpy as np

from personalive.server.sessions.audio_clock import AudioClock
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, CHANNELS, SAMPLE_RATE, AudioDelay, Samples
from personalive.server.sessions.listeners import Listeners
from personalive.server.sessions.playout_buffer import PictureLag

BLOCK_S = BLOCK_SAMPLES / SAMPLE_RATE
_MAX_BEHIND_S = 1.0
"""Seconds by which blocks may be late; more are left out."""
_MAX_EXTRA_S = 1.0
"""Seconds by which sound may be later than the picture because it arrives so late."""
_ARRIVALS = 250
"""Blocks whose arrival counts: five seconds."""
_ARRIVAL_QUANTILE = 0.95
_RATES = range(8_000, 192_001)
_MAX_CHANNELS = 8
_MAX_FRAME_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SentAudio:
    """A block of sound as it is sent.

    `time` is in seconds since the session's beginning, such that what was captured together is sent with the same
    time as a `SentFrame` has; it was due at `due_at`, in seconds of `time.monotonic`. `position` counts the samples
    that were sent before.
    """

    samples: Samples
    time: float
    position: int
    due_at: float


AudioCallback = Callable[[SentAudio], None]


class SessionAudio:
    """The sound of one session, off until `set_enabled`. Use it on the event loop's thread only."""

    def __init__(self, picture_lag: Callable[[float], PictureLag | None]) -> None:
        """Set what returns the picture's lag at a time of `time.monotonic`."""
        self.paused = False
        self.lead = 0.0
        """Seconds by which blocks are sent before they are due, for outputs that play later than they take them."""
        self.dropped = 0
        """Frames of sound that could not be used."""
        self._picture_lag = picture_lag
        self._clock = AudioClock()
        self._delay: AudioDelay | None = None
        self._resampler: av.AudioResampler | None = None
        self._arrivals: deque[float] = deque(maxlen=_ARRIVALS)
        self._listeners: Listeners[SentAudio] = Listeners()
        self._position = 0
        self._expected = 0.0
        self._sent_delay: tuple[float, float] | None = None
        """The delay of the sound that was sent last, and by how much it was later than the picture's."""
        self._task: asyncio.Task[None] | None = None

    @property
    def enabled(self) -> bool:
        """Whether sound is taken and sent."""
        return self._task is not None

    def set_enabled(self, enabled: bool) -> None:
        """Switch the sound on or off."""
        if enabled and self._task is None:
            self._delay = AudioDelay()
            self._task = asyncio.get_running_loop().create_task(self._send_blocks(), name="sound")
        elif not enabled and self._task is not None:
            self._task.cancel()
            self._task = self._delay = self._resampler = self._sent_delay = None
            self._arrivals.clear()

    def close(self) -> None:
        """Send nothing more."""
        self.set_enabled(False)
        self._listeners.clear()

    def add_listener(self, listener: AudioCallback) -> Callable[[], None]:
        """Call `listener` with each block that is sent; return a function that ends that."""
        return self._listeners.add(listener)

    @property
    def offset(self) -> float:
        """By how many seconds the sound that was sent last was later than the picture; 0 without sound."""
        return 0.0 if self._sent_delay is None else self._sent_delay[1]

    def stats(self) -> dict[str, float | int] | None:
        """Return the sound's delay, and how much later than the picture it is; None without sound."""
        if self._sent_delay is None:
            return None
        delay, offset = self._sent_delay
        return {
            "delay_ms": round(1000 * delay, 1),
            "offset_ms": round(1000 * offset, 1),
            "dropped": self.dropped,
        }

    # -- in

    def note_frame(self, time: float, source_time: float | None, now: float) -> None:
        """Note the time of a driving frame that has arrived; see `AudioClock.note_frame`."""
        self._clock.note_frame(time, source_time, now)

    def put(self, frame: av.AudioFrame, source_time: float | None = None) -> None:
        """Take sound of the driver that has arrived.

        `source_time` is when its first sample was captured, by the clock by which the source tells that of driving
        frames too; None where there is none.
        """
        if self._delay is None or self.paused:
            return
        if not _is_usable(frame):
            self.dropped += 1
            return
        now = time.monotonic()
        begin = self._expected if frame.time is None else float(frame.time)
        self._expected = begin + frame.samples / frame.sample_rate
        at = self._clock.read(begin, source_time, now)
        if at is None:
            return
        self._arrivals.append(now - at)
        position = round(begin * SAMPLE_RATE)
        for samples in self._resample(frame):
            self._delay.put(samples, position, at + (position / SAMPLE_RATE - begin))
            position += len(samples)

    def _resample(self, frame: av.AudioFrame) -> Iterator[Samples]:
        """Yield the frame's samples as they are sent."""
        if (frame.sample_rate, frame.format.name, frame.layout.name) == (SAMPLE_RATE, "s16", "stereo"):
            yield cast(Samples, frame.to_ndarray()).reshape(-1, CHANNELS)
            return
        frame.pts = None
        for attempt in range(2):
            if self._resampler is None:
                self._resampler = av.AudioResampler(format="s16", layout="stereo", rate=SAMPLE_RATE)
            try:
                resampled = self._resampler.resample(frame)
            except ValueError:  # the source's format has changed
                self._resampler = None
                if attempt:
                    self.dropped += 1
                continue
            yield from (cast(Samples, one.to_ndarray()).reshape(-1, CHANNELS) for one in resampled)
            return

    # -- out

    async def _send_blocks(self) -> None:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if due > now:
                await asyncio.sleep(due - now)
                continue
            due += max(math.ceil((now - _MAX_BEHIND_S - due) / BLOCK_S), 0) * BLOCK_S
            self._send_block(due + self.lead, now)
            due += BLOCK_S

    def _send_block(self, due: float, now: float) -> None:
        assert self._delay is not None
        picture = self._picture_lag(now)
        if picture is None:  # no frame has been animated yet
            return
        lag = picture.due + picture.trail
        at = due - self._choose_lag(lag)
        if self.paused:
            self._delay.clear()
            samples = np.zeros((BLOCK_SAMPLES, CHANNELS), np.int16)
        else:
            samples = self._delay.read(at)
            at = at if self._delay.read_time is None else self._delay.read_time
        self._sent_delay = due + self._clock.ahead - at, due - at - lag
        sent = SentAudio(samples, at + picture.trail, self._position, due)
        self._position += BLOCK_SAMPLES
        self._listeners.notify(sent)

    def _choose_lag(self, picture: float) -> float:
        """Return the lag of the sound: the picture's, or more where sound arrives later than that."""
        if not self._arrivals:
            return picture
        ordered = sorted(self._arrivals)
        # A block must have arrived when its last sample is sent, and so a block earlier than its first.
        needed = ordered[math.ceil(_ARRIVAL_QUANTILE * (len(ordered) - 1))] + BLOCK_S + self.lead
        return max(picture, min(needed, picture + _MAX_EXTRA_S))


def _is_usable(frame: av.AudioFrame) -> bool:
    """Return whether the frame's rate, channels and length are what a source may send."""
    return (
        frame.sample_rate in _RATES
        and 0 < frame.layout.nb_channels <= _MAX_CHANNELS
        and 0 < frame.samples <= _MAX_FRAME_S * frame.sample_rate
    )

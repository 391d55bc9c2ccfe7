"""A speaker, such as a virtual cable that a call takes for its microphone.

The device's clock is not this machine's: over minutes it takes a few blocks more or less. So what it takes is read
from a buffer that plays slightly faster or slower, as the delay of the picture is followed (`AudioDelay`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from personalive.live.audio_devices import AudioDeviceError, find_speaker
from personalive.live.targets.target import TargetEvents
from personalive.server.sessions.audio_clock import ClockOffset
from personalive.server.sessions.audio_delay import CHANNELS, SAMPLE_RATE, AudioDelay, Samples
from personalive.server.sessions.session_audio import SentAudio

_BLOCK = 480
"""Samples that are written at once, 10 ms."""
_BUFFER = 1920
"""Samples that the device is asked to buffer, 40 ms."""
_CAPACITY_S = 3.0
_OBSERVED_EVERY = 5
"""Blocks after which the device is asked how late it plays."""
_MARGIN_S = 0.035
"""Seconds by which blocks should come before they are needed: one of them, one of ours, and what a busy machine
delays."""
_MAX_LEAD_S = 0.5
_LEAD_STEP_S = 0.01
_RETRY_S = 2.0
_STOP_TIMEOUT_S = 3.0


class SpeakerFeed:
    """The samples that a device takes next: what is due when they are heard, by a clock that may be wrong.

    `put` may be called on another thread than the rest. Times are of `time.monotonic`, in seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._delay = AudioDelay(_CAPACITY_S)
        self._clock = ClockOffset()
        self._count = 0

    def put(self, block: SentAudio) -> None:
        """Take a block, which is heard when it is due."""
        with self._lock:
            self._delay.put(block.samples, block.position, block.due_at)

    def start_over(self) -> None:
        """Begin with a device that was opened again."""
        self._clock, self._count = ClockOffset(), 0

    def observe(self, heard_at: float) -> None:
        """Note that the next samples will be heard at this time."""
        self._clock.observe(heard_at - self._count / SAMPLE_RATE)

    def read(self) -> Samples:
        """Return the next samples. Call `observe` before the first time."""
        assert self._clock.value is not None
        with self._lock:
            samples = self._delay.read(self._clock.value + self._count / SAMPLE_RATE, _BLOCK)
        self._count += len(samples)
        return samples


class Speaker:
    """Plays sound when it is due, on a thread; the device is opened again when it is lost."""

    def __init__(self, events: TargetEvents, wanted: str, on_lead: Callable[[float], None]) -> None:
        """Play on the device that `wanted` names.

        `on_lead` is called on the thread with how many seconds before it is due a block is needed.
        """
        self._events = events
        self._wanted = wanted
        self._on_lead = on_lead
        self._lead = 0.0
        self._feed = SpeakerFeed()
        self._opened: Future[None] = Future()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="speaker", daemon=True)

    async def open(self) -> None:
        """Open the device. Raises `AudioDeviceError`."""
        self._thread.start()
        await asyncio.wrap_future(self._opened)

    def put_audio(self, block: SentAudio) -> None:
        """Take a block, which is heard when it is due."""
        self._feed.put(block)

    async def close(self) -> None:
        """Stop and close the device."""
        self._stopping.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT_S)

    def _run(self) -> None:
        told = False
        while not self._stopping.is_set():
            try:
                device = find_speaker(self._wanted)
                with device.handle.player(
                    samplerate=SAMPLE_RATE, channels=CHANNELS, blocksize=_BUFFER
                ) as player:
                    if told:
                        self._events.on_notice(f"The speaker {device.name} is back.")
                        told = False
                    if not self._opened.done():
                        self._events.on_notice(f"The sound is played on {device.name}.")
                        self._opened.set_result(None)
                    self._play(player)
            except Exception as error:  # SoundCard raises errors of many classes
                problem = self._explain(error)
                if not self._opened.done():
                    self._opened.set_exception(problem)
                    return
                if not told and not self._stopping.is_set():
                    self._events.on_notice(f"{str(problem).rstrip('.')}. Trying again.")
                    told = True
                self._stopping.wait(_RETRY_S)

    def _explain(self, error: Exception) -> AudioDeviceError:
        if isinstance(error, AudioDeviceError):
            return error
        return AudioDeviceError(
            f"The speaker {self._wanted} cannot be played on ({type(error).__name__}: {error}): connect it, and "
            "close programs that have it for themselves."
        )

    def _play(self, player: Any) -> None:
        """Play until the end. Raises what SoundCard raises when the device is lost."""
        latencies = deque[float](maxlen=9)
        self._feed.start_over()
        for number in itertools.count():
            if self._stopping.is_set():
                return
            if number % _OBSERVED_EVERY == 0:
                latencies.append(_read_latency(player))
                self._feed.observe(time.monotonic() + latencies[-1])
                self._tell_lead(statistics.median(latencies))
            player.play(self._feed.read().astype(np.float32) / 32768)

    def _tell_lead(self, latency: float) -> None:
        lead = min(latency + _MARGIN_S, _MAX_LEAD_S)
        if not self._lead - 3 * _LEAD_STEP_S <= lead <= self._lead + _LEAD_STEP_S:
            self._lead = lead
            self._on_lead(lead)


def _read_latency(player: Any) -> float:
    """Return after how many seconds a block that is written now is heard, as far as the system tells."""
    with contextlib.suppress(AttributeError):  # PulseAudio only
        latency = float(player.latency)
        if 0 < latency < _CAPACITY_S:
            return latency
    return _BUFFER / SAMPLE_RATE

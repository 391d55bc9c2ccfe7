"""A microphone as a source of sound, read block by block."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from personalive.live.audio_devices import AudioDevice, AudioDeviceError, find_microphone
from personalive.server.sessions.audio_delay import SAMPLE_RATE

_BLOCK = 480
"""Samples that are read at once, 10 ms: what waits to be read makes sound late."""


class MicrophoneReader:
    """Reads the sound of a microphone. Open, iterate and close it on one thread."""

    def __init__(self, wanted: str, stopping: threading.Event) -> None:
        """Open the microphone that `wanted` names, until `stopping` is set. Raises `AudioDeviceError`."""
        self._stopping = stopping
        self.device = find_microphone(wanted)
        self._channels = min(_count_channels(self.device), 2)
        self._stack = contextlib.ExitStack()
        try:
            self._recorder: Any = self._stack.enter_context(
                self.device.handle.recorder(samplerate=SAMPLE_RATE, channels=self._channels, blocksize=_BLOCK)
            )
        except Exception as error:  # SoundCard raises errors of many classes
            raise AudioDeviceError(
                f"{self.device.name} cannot be opened ({error}): close other programs that record with it, and "
                "allow this one to use the microphone."
            ) from error

    @property
    def repeats(self) -> bool:
        """Whether it is expected to end: never."""
        return False

    def __iter__(self) -> Iterator[av.AudioFrame]:
        """Yield blocks as they come, their times counted by the microphone. Raises `AudioDeviceError`."""
        count = round(time.monotonic() * SAMPLE_RATE)  # goes on where it is opened again
        while not self._stopping.is_set():
            try:
                block = self._recorder.record(numframes=_BLOCK)
            except Exception as error:  # as above
                raise AudioDeviceError(
                    f"The microphone {self.device.name} was lost ({error}): connect it again."
                ) from error
            samples = np.rint(np.clip(block, -1, 1) * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                samples, format="s16", layout="mono" if self._channels == 1 else "stereo"
            )
            frame.sample_rate = SAMPLE_RATE
            frame.pts, frame.time_base = count, Fraction(1, SAMPLE_RATE)
            count += frame.samples
            yield frame

    def close(self) -> None:
        """Close the microphone."""
        with contextlib.suppress(Exception):  # it may be gone
            self._stack.close()


def _count_channels(device: AudioDevice) -> int:
    channels = device.handle.channels
    return max(channels if isinstance(channels, int) else len(channels), 1)

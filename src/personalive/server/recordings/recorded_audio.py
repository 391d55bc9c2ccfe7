"""The sound of a recording, on the clock of its file."""

from __future__ import annotations

from collections.abc import Iterator

from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE, AudioDelay, Samples
from personalive.server.sessions.session_audio import SentAudio

_CAPACITY_S = 10.0
"""Seconds of sound that may wait until they are written. A picture that stands still comes once a second."""


class RecordedAudio:
    """A queue of sound that is read in one piece, from the beginning of the file on."""

    def __init__(self) -> None:
        self._delay = AudioDelay(_CAPACITY_S)
        self._written = 0

    def put(self, sound: SentAudio, shift: float) -> None:
        """Add sound; `shift` is added to its time to make one of the file, in seconds."""
        self._delay.put(sound.samples, sound.position, sound.time + shift)

    def read_until(self, until: float) -> Iterator[Samples]:
        """Yield what was not read yet of the sound before `until`, silence where there is none."""
        while self._written < (end := round(until * SAMPLE_RATE)):
            count = min(BLOCK_SAMPLES, end - self._written)
            yield self._delay.read(self._written / SAMPLE_RATE, count)
            self._written += count

"""The sound of a recording, on the clock of its file."""

from __future__ import annotations

from personalive.media import FragmentedWriter
from personalive.server.sessions.audio_delay import BLOCK_SAMPLES, SAMPLE_RATE, AudioDelay
from personalive.server.sessions.session_audio import SentAudio

_CAPACITY_S = 10.0
"""Seconds of sound that may wait until they are written. A picture that stands still comes once a second."""


class RecordedAudio:
    """A queue of sound that is written in one piece, from the beginning of the file on.

    Nothing is written before there is sound, so that a file without any gets no track for it.
    """

    def __init__(self) -> None:
        self._delay = AudioDelay(_CAPACITY_S)
        self._first: int | None = None
        """Samples from the beginning of the file to the first sound."""
        self._written = 0

    def put(self, sound: SentAudio, shift: float) -> None:
        """Add sound; `shift` is added to its time to make one of the file, in seconds."""
        if self._first is None:
            self._first = max(round((sound.time + shift) * SAMPLE_RATE), 0)
        self._delay.put(sound.samples, sound.position, sound.time + shift)

    def write_until(self, writer: FragmentedWriter, until: float) -> None:
        """Write the sound before `until` that was not written yet, silence where there is none.

        Raises what writing raises.
        """
        end = round(until * SAMPLE_RATE)
        if self._first is None or self._first >= end:
            return
        if not self._written:
            writer.write_silence(self._first)
            self._written = self._first
        while self._written < end:
            count = min(BLOCK_SAMPLES, end - self._written)
            writer.write_audio(self._delay.read(self._written / SAMPLE_RATE, count))
            self._written += count

"""The sound of a clip, read in step with its picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.stream import AudioStream
from av.packet import Packet

from personalive.errors import InputError
from personalive.media.audio import AudioInput, AudioTrack, open_audio

SoundHandler = Callable[[av.AudioFrame, float | None], None]
"""Called with sound and the time at which it was captured, by the clock by which the source tells its frames'."""
_TIME_BASE = Fraction(1, 1_000_000)


def decode_sound(stream: AudioStream, packet: Packet[AudioStream]) -> list[av.AudioFrame]:
    """Decode a packet; one that is damaged gives no frame, and is left silent."""
    try:
        return stream.codec_context.decode(packet)
    except (av.error.FFmpegError, ValueError):
        return []


class ClipSound:
    """Passes the sound of a file on, again from its beginning after each `rewind`."""

    def __init__(self, path: Path, handler: SoundHandler) -> None:
        """Open the file. Raises `InputError` where it has no sound, or a subclass where it cannot be read."""
        self._path = path
        self._handler = handler
        self._source = self._open()
        self._frames = self._decode()
        self._next: av.AudioFrame | None = None

    def _open(self) -> AudioInput:
        source = open_audio(AudioTrack(self._path))
        if source is None:
            raise InputError(
                f"{self._path.name} has no sound: leave --sound out, or take that of a --microphone."
            )
        return source

    def _decode(self) -> Iterator[av.AudioFrame]:
        for packet in self._source.packets():
            yield from decode_sound(self._source.stream, packet)

    def play_until(self, until: float, offset: float) -> None:
        """Pass on what begins before `until`, in seconds of the clip; `offset` is added to its time."""
        while (frame := self._next or next(self._frames, None)) is not None:
            at = 0.0 if frame.pts is None else self._source.to_output_time(frame.pts)
            if at >= until:
                self._next = frame
                return
            self._next = None
            if at < 0:
                continue
            frame.pts, frame.time_base = round((offset + at) / _TIME_BASE), _TIME_BASE
            self._handler(frame, offset + at)

    def rewind(self) -> None:
        """Begin with the clip once more."""
        self.close()
        self._source = self._open()
        self._frames, self._next = self._decode(), None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

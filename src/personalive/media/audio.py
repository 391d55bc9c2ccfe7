"""The sound of the driving file, written to the output alongside the video.

Sound is copied where the container accepts its codec, and re-encoded elsewhere. It is fed in step with the
video, so neither waits for the other in memory. Damaged sound never fails a job: the output has what could be
read, and a warning says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, TypeAlias, cast

import av
import av.container
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from personalive.errors import MediaError
from personalive.media.containers import open_container, read_stream_origin
from personalive.media.image import is_image_file
from personalive.media.ratios import to_fraction
from personalive.media.tracks import select_audio_stream, select_video_stream
from personalive.media.user_paths import is_folder

AudioMode: TypeAlias = Literal["copy", "encode"]

_COPYABLE_CODECS = {"mp4": {"aac", "mp3"}, "mov": {"aac", "mp3"}, "webm": {"opus", "vorbis"}}
_ENCODERS = {"mp4": "aac", "mov": "aac", "webm": "libopus"}
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}
_DEFAULT_RATE = 48_000
_BITS_PER_CHANNEL = 80_000
# Seconds. Timestamps of sound jitter with their rounding; a larger step is a gap or a splice.
_MAX_GAP = 0.05
_SILENCE_BLOCK = 4800


@dataclass(frozen=True)
class AudioTrack:
    """The sound of `path` from `start` on, in seconds from the start of its video; it ends with the output."""

    path: Path
    start: float = 0.0


class AudioInput:
    """The opened source of an `AudioTrack`; times are those of the output."""

    def __init__(self, track: AudioTrack) -> None:
        self._track = track
        self.name = track.path.name
        self.warnings: list[str] = []
        self._open()
        self._seek()

    def _open(self) -> None:
        self._container = open_container(self._track.path)
        stream = select_audio_stream(self._container)
        if stream is None or stream.time_base is None:
            self._container.close()
            raise MediaError(f"{self.name} holds no sound.")
        self.stream = stream
        self.time_base = to_fraction(stream.time_base)
        video = select_video_stream(self._container)
        self.offset = (
            read_stream_origin(self._track.path, video if video is not None else stream) + self._track.start
        )

    def _seek(self) -> None:
        if self._track.start <= 0:
            return
        try:
            # Start a second early, for decoders that need earlier packets.
            self._container.seek(int((self.offset - 1) / self.time_base), stream=self.stream)
        except (av.error.FFmpegError, OverflowError):
            self.close()
            self._open()

    def packets(self) -> Iterator[Packet[AudioStream]]:
        """Yield the packets that hold sound until the end, or until the file breaks off."""
        time = 0.0
        try:
            for packet in self._container.demux(self.stream):
                if not packet.size:
                    # A decoder takes any empty packet for the end.
                    continue
                time = self.to_output_time(packet.pts) if packet.pts is not None else time
                yield packet
        except (av.error.FFmpegError, OSError):
            self.warnings.append(
                f"The sound of {self.name} is damaged after {max(time, 0.0):.1f} s: it ends there."
            )

    def to_output_time(self, stamp: int) -> float:
        """Convert a timestamp of the source to seconds of the output."""
        return float(stamp * self.time_base) - self.offset

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class AudioFeed(ABC):
    """A source of sound that writes to an output container. `warnings` are those of the source."""

    def __init__(self, source: AudioInput, output: av.container.OutputContainer) -> None:
        self._source = source
        self._output = output
        self.warnings = source.warnings

    @abstractmethod
    def advance(self, until: float) -> None:
        """Mux the sound before `until` (seconds of the output). Raises what muxing raises."""

    def finish(self) -> None:  # noqa: B027  (few hold anything back)
        """Mux what is still held back, if anything."""

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class AudioCopier(AudioFeed):
    """A feed that copies packets unchanged, cut at packet boundaries (about 20 ms)."""

    def __init__(self, source: AudioInput, output: av.container.OutputContainer, kind: str) -> None:
        super().__init__(source, output)
        self._stream = output.add_stream_from_template(source.stream)
        self._shift = round(source.offset / source.time_base)
        # MP4 can hide the start of a packet; WebM would delay the picture instead.
        self._may_straddle = kind != "webm"
        self._packets = source.packets()
        self._next: Packet[AudioStream] | None = None
        self._last_dts: int | None = None

    def advance(self, until: float) -> None:
        """Mux the packets that begin before `until`."""
        while (packet := self._next if self._next is not None else next(self._packets, None)) is not None:
            self._next = packet
            if packet.pts is None or packet.dts is None:
                self._next = None
                continue
            begin = self._source.to_output_time(packet.pts)
            if begin >= until:
                return
            self._next = None
            length = float((packet.duration or 0) * self._source.time_base)
            if (begin + length > 0) if self._may_straddle else (begin > -length / 2):
                self._mux(packet)

    def _mux(self, packet: Packet[AudioStream]) -> None:
        assert packet.pts is not None
        assert packet.dts is not None
        floor = None if self._may_straddle else 0
        packet.pts = _at_least(packet.pts - self._shift, floor)
        packet.dts = _at_least(packet.dts - self._shift, floor)
        if self._last_dts is not None and packet.dts <= self._last_dts:
            # Muxers refuse times that do not increase, which would fail the whole output.
            return
        self._last_dts = packet.dts
        packet.stream = self._stream
        self._output.mux(packet)


class AudioEncoder(AudioFeed):
    """A feed that decodes, cuts to the sample and re-encodes, in mono or stereo. Gaps become silence."""

    def __init__(self, source: AudioInput, output: av.container.OutputContainer, kind: str) -> None:
        super().__init__(source, output)
        encoder = _ENCODERS[kind]
        given = source.stream.codec_context
        self._rate = (
            given.sample_rate if encoder == "aac" and given.sample_rate in _AAC_RATES else _DEFAULT_RATE
        )
        self._layout = "mono" if given.layout.nb_channels == 1 else "stereo"
        stream = cast(AudioStream, output.add_stream(encoder, rate=self._rate))
        stream.codec_context.layout = self._layout
        stream.codec_context.bit_rate = _BITS_PER_CHANNEL * (1 if self._layout == "mono" else 2)
        self._stream = stream
        self._blocks = self._decode_blocks()
        self._block: tuple[int, NDArray[np.float32]] | None = None
        self._written = 0
        self._lost = 0

    def advance(self, until: float) -> None:
        """Encode the samples before `until`."""
        limit = round(until * self._rate)
        while self._written < limit:
            if self._block is None:
                self._block = next(self._blocks, None)
            if self._block is None:
                return
            position, samples = self._block
            if position > self._written:
                count = min(position, limit, self._written + _SILENCE_BLOCK) - self._written
                self._encode(np.zeros((samples.shape[0], count), np.float32))
                continue
            fresh = samples[:, self._written - position :]
            now, later = np.split(fresh, [limit - self._written], axis=1)
            self._block = None
            if now.shape[1]:
                self._encode(now)
            if later.shape[1]:
                self._block = (self._written, later)

    def finish(self) -> None:
        """Mux what the encoder still buffers."""
        self._output.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the source."""
        if self._lost:
            name = self._source.name
            self.warnings.append(
                f"The sound of {name} is damaged: {self._lost} pieces of it are left silent."
            )
            self._lost = 0
        super().close()

    def _encode(self, samples: NDArray[np.float32]) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._written
        frame.time_base = Fraction(1, self._rate)
        self._written += samples.shape[1]
        self._output.mux(self._stream.encode(frame))

    def _decode_blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield blocks of samples (channels, count) with their position in the output, which may overlap."""
        resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=self._rate)
        expected: float | None = None
        position = 0
        for frame in self._frames():
            time = self._source.to_output_time(frame.pts) if frame.pts is not None else (expected or 0.0)
            if expected is None:
                position = round(time * self._rate)
            elif abs(time - expected) > _MAX_GAP:
                position += round((time - expected) * self._rate)
            expected = time + frame.samples / frame.sample_rate
            # The resampler expects times without gaps; positions are kept here.
            frame.pts = None
            for block in resampler.resample(frame):
                yield position, cast("NDArray[np.float32]", block.to_ndarray())
                position += block.samples
        for block in resampler.resample(None):
            yield position, cast("NDArray[np.float32]", block.to_ndarray())
            position += block.samples

    def _frames(self) -> Iterator[av.AudioFrame]:
        for packet in self._source.packets():
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: Packet[AudioStream] | None) -> list[av.AudioFrame]:
        try:
            return self._source.stream.codec_context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            self._lost += 1
            return []


def open_audio(track: AudioTrack) -> AudioInput | None:
    """Open the sound of a driving file; return None if it has none: a silent file, a picture or a folder of them.

    Raises:
        MediaError: the file cannot be opened.

    """
    if is_folder(track.path) or is_image_file(track.path):
        return None
    container = open_container(track.path)
    silent = select_audio_stream(container) is None
    container.close()
    return None if silent else AudioInput(track)


def can_copy(source: AudioInput, kind: str) -> bool:
    """Return whether a container accepts the sound's codec, so that it can be copied."""
    context = source.stream.codec_context
    # The decoder's own name may differ, as "mp3float" does.
    codec = context.codec.canonical_name
    # AAC with its configuration in each packet (ADTS, in AVI) cannot be copied into MP4.
    return codec in _COPYABLE_CODECS[kind] and (codec != "aac" or bool(context.extradata))


def add_audio(
    source: AudioInput, output: av.container.OutputContainer, kind: str, mode: AudioMode
) -> AudioFeed:
    """Add a sound stream to an output whose header is not written yet, and return the feed that fills it."""
    return AudioCopier(source, output, kind) if mode == "copy" else AudioEncoder(source, output, kind)


def _at_least(value: int, floor: int | None) -> int:
    return value if floor is None else max(value, floor)

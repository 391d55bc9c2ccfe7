"""Decode a driver's sound and encode a session's, one packet of Opus in each message. Use each on one thread."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av

from personalive.errors import InputError
from personalive.server.sessions.audio_delay import SAMPLE_RATE, Samples
from personalive.server.webrtc.output_tracks import OPUS_DELAY_S

AudioCodec = Literal["opus"]

MAX_PACKET_BYTES = 8192
"""More than a packet of Opus can have: 120 ms in frames of 1275 bytes."""
OPUS_DELAY_US = round(1e6 * OPUS_DELAY_S)
_CODEC = "libopus"
_BITRATE = 64_000
_GAP_S = 0.01
"""Seconds by which a timestamp may differ from the end of the sound before; more is sound that was left out."""
_TIMESTAMPS = 50
"""Packets whose timestamps count: a second."""
_MAX_FAILURES = 3


class UndecodableAudioError(InputError):
    """Raised when a client's sound cannot be decoded."""


@dataclass(frozen=True, slots=True, eq=False)
class ReceivedAudio:
    """Sound of a driver. `source_time` is when its first sample was captured, in seconds of the client's clock."""

    frame: av.AudioFrame
    source_time: float


class OpusDecoder:
    """The decoder of one client's sound.

    Samples are counted, since timestamps are rounded and jitter; when they were captured is what the timestamps of
    the last second say, so that a microphone whose clock is another one stays in step.
    """

    def __init__(self) -> None:
        self._context: av.AudioCodecContext | None = None
        self._failures = 0
        self._position = 0
        self._offsets: deque[float] = deque(maxlen=_TIMESTAMPS)
        """From the time by the count of samples to that by a timestamp, in seconds."""

    def decode(self, data: bytes, timestamp: int) -> ReceivedAudio | None:
        """Decode a packet with that timestamp in microseconds; return None where it cannot be decoded.

        Raises `UndecodableAudioError` if one packet after another fails, or one is too large.
        """
        if len(data) > MAX_PACKET_BYTES:
            raise UndecodableAudioError(
                f"A packet of sound may have {MAX_PACKET_BYTES} bytes, not {len(data)}."
            )
        frame = self._decode(data)
        if frame is None:
            self._failures += 1
            if self._failures >= _MAX_FAILURES:
                raise UndecodableAudioError(
                    "The sound cannot be decoded: send one packet of Opus, mono or stereo, in each message."
                )
            return None
        self._failures = 0
        captured = timestamp / 1e6
        if not self._offsets:
            self._offsets.append(captured)
        expected = self._position / SAMPLE_RATE + statistics.median(self._offsets)
        if abs(captured - expected) > _GAP_S:
            self._position += round((captured - expected) * SAMPLE_RATE)
        self._offsets.append(captured - self._position / SAMPLE_RATE)
        frame.pts, frame.time_base = self._position, Fraction(1, SAMPLE_RATE)
        source_time = self._position / SAMPLE_RATE + statistics.median(self._offsets)
        self._position += frame.samples
        return ReceivedAudio(frame, source_time)

    def _decode(self, data: bytes) -> av.AudioFrame | None:
        if self._context is None:
            self._context = cast(av.AudioCodecContext, av.CodecContext.create(_CODEC, "r"))
            self._context.sample_rate, self._context.layout = SAMPLE_RATE, "stereo"
        if not data:  # it would flush the decoder
            return None
        try:
            frames = self._context.decode(av.Packet(data))
        except av.FFmpegError:
            return None
        return frames[-1] if frames else None


class OpusEncoder:
    """The encoder of a session's sound for one client: each block of samples is one packet."""

    def __init__(self) -> None:
        self._context: av.AudioCodecContext | None = None
        self._position = 0

    def encode(self, samples: Samples) -> bytes:
        """Encode a block. A decoder has its first sample `OPUS_DELAY_US` microseconds after the packet begins."""
        if self._context is None:
            self._context = _make_encoder()
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        frame.pts, frame.time_base = self._position, Fraction(1, SAMPLE_RATE)
        self._position += len(samples)
        return b"".join(map(bytes, self._context.encode(frame)))


def _make_encoder() -> av.AudioCodecContext:
    context = cast(av.AudioCodecContext, av.CodecContext.create(_CODEC, "w"))
    context.sample_rate, context.layout, context.format = SAMPLE_RATE, "stereo", "s16"
    context.time_base, context.bit_rate = Fraction(1, SAMPLE_RATE), _BITRATE
    context.options = {"frame_duration": "20"}
    return context


def check_audio_codecs() -> tuple[AudioCodec, ...]:
    """Return the codecs of sound that can be both decoded and encoded here."""
    try:
        av.codec.Codec(_CODEC, "r")
        av.codec.Codec(_CODEC, "w")
    except Exception:  # its class depends on PyAV's version
        return ()
    return ("opus",)

"""Decode driving frames and encode animated ones, one frame in, one frame out. Each codec is used on one thread."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av
from av.video.frame import PictureType

from personalive.errors import InputError
from personalive.server.sessions.playout_buffer import Planes

VideoCodec = Literal["H264", "VP8"]

MAX_PIXELS = 2560 * 1440
"""The most pixels of a driving frame; FFmpeg refuses a larger one before it allocates memory."""
TIME_BASE = Fraction(1, 1_000_000)
_MAX_FAILURES = 3
_DECODERS: dict[VideoCodec, str] = {"H264": "h264", "VP8": "vp8"}
_ENCODERS: dict[VideoCodec, str] = {"H264": "libx264", "VP8": "libvpx"}
_KEYFRAME_INTERVAL = 100_000
"""Frames between keyframes: those that a client asks for suffice."""
_FRAME_RATE = 30
_BUFFER_S = 0.25
"""Seconds at the bitrate that the largest frame, a keyframe, may take."""


class UndecodableVideoError(InputError):
    """Raised when a client's video cannot be decoded, keyframes included."""


class VideoDecoder:
    """The decoder of one client's driving frames."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec_name = codec
        self._failures = 0
        self._context: av.VideoCodecContext | None = None

    def decode(self, data: bytes, timestamp: int, *, is_keyframe: bool) -> av.VideoFrame | None:
        """Decode a frame with that timestamp in microseconds.

        Return None where a keyframe is needed first: at the beginning, and after an undecodable frame.

        Raises `UndecodableVideoError` if one frame after another fails, or one has too many pixels.
        """
        if self._context is None:
            if not is_keyframe:
                return None
            self._context = _make_decoder(self._codec_name)
        packet = av.Packet(data)
        packet.pts, packet.time_base = timestamp, TIME_BASE
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            frames = []
        frame = frames[-1] if frames else None
        if frame is None:
            self._on_failure()
            return None
        if frame.width * frame.height > MAX_PIXELS:
            raise UndecodableVideoError(f"Driving frames may have {MAX_PIXELS} pixels at most.")
        self._failures = 0
        frame.pts, frame.time_base = timestamp, TIME_BASE
        return frame

    def _on_failure(self) -> None:
        self._context = None
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise UndecodableVideoError(
                f"The video cannot be decoded as {self._codec_name}: send one complete frame of at most "
                f"{MAX_PIXELS} pixels in each message, and a keyframe when it is asked for."
            )


def _make_decoder(codec: VideoCodec) -> av.VideoCodecContext:
    context = cast(av.VideoCodecContext, av.CodecContext.create(_DECODERS[codec], "r"))
    # A thread for each frame, and waiting for reordered frames, would delay all of them.
    context.thread_type = "SLICE"
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.low_delay
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return context


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """An encoded frame: for H.264 with start codes (Annex B), and parameter sets before a keyframe."""

    data: bytes
    is_keyframe: bool


class VideoEncoder:
    """The encoder of the animated frames for one client."""

    def __init__(self, codec: VideoCodec) -> None:
        self._codec_name = codec
        self._context: av.VideoCodecContext | None = None
        self._bitrate = 0
        self._pts = -1

    def encode(self, planes: Planes, timestamp: int, bitrate: int, *, keyframe: bool) -> EncodedFrame | None:
        """Encode planes of YUV 4:2:0, uint8 (1.5 × height, width), at `bitrate` in bits per second.

        `timestamp` is in microseconds. `keyframe` asks for a keyframe. Return None if the encoder left it out.
        """
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        context = self._context
        if context is None or (frame.width, frame.height, bitrate) != (
            context.width,
            context.height,
            self._bitrate,
        ):
            # Setting a bitrate while an encoder runs has no effect.
            context = self._context = _make_encoder(self._codec_name, frame.width, frame.height, bitrate)
            self._bitrate = bitrate
        self._pts = max(self._pts + 1, timestamp)
        frame.pts, frame.time_base = self._pts, TIME_BASE
        frame.pict_type = PictureType.I if keyframe else PictureType.NONE
        packets = context.encode(frame)
        if not packets:
            return None
        return EncodedFrame(
            b"".join(map(bytes, packets)), is_keyframe=any(packet.is_keyframe for packet in packets)
        )

    def close(self) -> None:
        """Free the encoder."""
        self._context = None


def _make_encoder(codec: VideoCodec, width: int, height: int, bitrate: int) -> av.VideoCodecContext:
    context = cast(av.VideoCodecContext, av.CodecContext.create(_ENCODERS[codec], "w"))
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = TIME_BASE, Fraction(_FRAME_RATE)
    context.bit_rate, context.gop_size = bitrate, _KEYFRAME_INTERVAL
    context.thread_count = 1
    buffer = str(round(bitrate * _BUFFER_S))
    if codec == "H264":
        context.options = {
            "preset": "superfast",
            "tune": "zerolatency",
            "profile": "baseline",
            "maxrate": str(bitrate),
            "bufsize": buffer,
        }
    else:
        context.qmin, context.qmax = 2, 56
        context.options = {
            "deadline": "realtime",
            "cpu-used": "-8",
            "lag-in-frames": "0",
            "minrate": str(bitrate),
            "maxrate": str(bitrate),
            "bufsize": str(round(bitrate * 2 * _BUFFER_S)),
            "undershoot-pct": "100",
            "overshoot-pct": "15",
            "static-thresh": "1",
        }
    return context


def check_codecs() -> tuple[VideoCodec, ...]:
    """Return the codecs that can be both decoded and encoded here, the preferred one first."""
    found: list[VideoCodec] = []
    for codec, decoder in _DECODERS.items():
        with contextlib.suppress(Exception):  # the class of the error depends on PyAV's version
            av.codec.Codec(decoder, "r")
            av.codec.Codec(_ENCODERS[codec], "w")
            found.append(codec)
    return tuple(found)

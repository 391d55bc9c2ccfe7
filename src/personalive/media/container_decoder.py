"""Decoding of the intact frames of a container's picture track, as far as the file can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media.containers import open_container, read_stream_origin
from personalive.media.deinterlace import deinterlace
from personalive.media.dolby_vision import find_incompatible_profile
from personalive.media.frame_shape import MAX_IMAGE_PIXELS, check_shape, describe_shape_problem
from personalive.media.ratios import to_fraction
from personalive.media.tracks import select_audio_stream, select_video_stream
from personalive.media.user_paths import translate_read_errors

# FFmpeg's own decoders of these ignore transparency.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class ContainerDecoder:
    """An opened file. `lost_frames` counts the frames that could not be decoded since it was opened.

    Raises:
        MediaError: the file cannot be opened, holds no picture track, or is Dolby Vision that cannot be shown as
            anything else.
        MediaTooLargeError: its frames have too many pixels; `MediaError` where their shape cannot be used.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open()

    def _open(self) -> None:
        self.container = open_container(self._path)
        stream = select_video_stream(self.container)
        if stream is None or stream.time_base is None:
            sound = select_audio_stream(self.container) is not None
            self.container.close()
            what = "holds sound only" if sound else "holds no video that can be decoded"
            raise MediaError(f"{self._path.name} {what}: there is no picture in it to read.")
        self.stream = stream
        self.time_base = to_fraction(stream.time_base)
        try:
            self._refuse_dolby_vision()
            self._check_claimed_shape()
            self._codec = _create_decoder(stream)
            self.origin = read_stream_origin(self._path, stream)
        except BaseException:
            self.container.close()
            raise
        self.lost_frames = 0
        self._trailing_loss = False
        self._broken_off = False
        self._last_end = 0.0

    def _check_claimed_shape(self) -> None:
        # 0 where the header does not say; then the first frame is checked.
        width, height = self.stream.codec_context.width, self.stream.codec_context.height
        if width and height:
            check_shape(width, height, self._path.name)

    def _refuse_dolby_vision(self) -> None:
        with translate_read_errors(self._path):
            profile = find_incompatible_profile(self._path)
        if profile is not None:
            raise MediaError(
                f"{self._path.name} is Dolby Vision profile {profile}, whose colours only Dolby's decoders know: "
                "convert it to HDR10, HLG or SDR first."
            )

    def reopen(self) -> None:
        """Open the file again, to read it from its start."""
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def seek(self, time: float) -> bool:
        """Seek to the last keyframe before `time`, seconds from the track's start; return False if that fails."""
        try:
            self.container.seek(int((time + self.origin) / self.time_base), stream=self.stream)
        except (av.error.FFmpegError, OverflowError):
            # GIF cannot seek, nor can files without an index.
            return False
        self._codec.flush_buffers()
        return True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield the remaining frames, in presentation order and deinterlaced."""
        return deinterlace(self._decode_intact())

    def ended_early(self, slack: float) -> bool:
        """Return whether the file broke off, or more than `slack` seconds of what its header claims are missing."""
        return self._broken_off or self._trailing_loss or self._claimed_end() - self._last_end > slack

    def _decode_intact(self) -> Iterator[av.VideoFrame]:
        for packet in self._packets():
            yield from filter(self._is_intact, self._decode(packet))
        # The decoder still holds the frames that it was reordering. Flushing packets do not say for certain which
        # track they belong to, and none come where the file breaks off.
        yield from filter(self._is_intact, self._decode(None))

    def _decode(self, packet: Packet[VideoStream] | None) -> list[av.VideoFrame]:
        try:
            return self._codec.decode(packet)
        except (av.error.FFmpegError, ValueError):
            self._count_lost()
            return []

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        # Sound packets are read too, undecoded, only to see how far into its time the file reaches.
        streams = (*self.container.streams.video, *self.container.streams.audio)
        try:
            for packet in self.container.demux(*streams):
                if not packet.size:
                    # A flushing packet, or one of AVI's that mean "as before": a decoder takes both for the end.
                    continue
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * to_fraction(packet.time_base))
                    self._last_end = max(self._last_end, end)
                if packet.stream_index == self.stream.index:
                    yield cast("Packet[VideoStream]", packet)
        except (av.error.FFmpegError, OSError):
            self._broken_off = True

    def _is_intact(self, frame: av.VideoFrame) -> bool:
        # Concealed errors come out as grey smears; repeating the frame before looks better.
        if frame.is_corrupt or describe_shape_problem(frame.width, frame.height):
            self._count_lost()
            return False
        self._trailing_loss = False
        return True

    def _count_lost(self) -> None:
        self.lost_frames += 1
        self._trailing_loss = True

    def _claimed_end(self) -> float:
        rate = self.stream.average_rate
        if self.container.format.name == "avi" and rate:
            # FFmpeg shortens the duration of a cut AVI to what is there, but not the count of frames.
            return self.stream.frames / float(to_fraction(rate)) + self.origin
        return (self.container.duration or 0) / av.time_base


def _create_decoder(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder of a track: FFmpeg's choice, or another where that would ignore transparency."""
    codec, given = stream.codec_context, stream.codec_context
    other = _WITH_ALPHA.get(given.codec.canonical_name)
    if other in av.codecs_available and stream.metadata.get("alpha_mode") == "1":
        codec = cast(VideoCodecContext, av.CodecContext.create(other, "r"))
        codec.extradata = given.extradata
    codec.thread_type = "AUTO"
    codec.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}
    return codec

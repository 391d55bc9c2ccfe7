"""Frames of a video file in order, with true times, as far as the file can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import cast

import av
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media import colour
from personalive.media.containers import audio_stream, open_container, stream_origin, video_stream
from personalive.media.ratios import fraction
from personalive.media.shapes import MAX_IMAGE_PIXELS, check_shape, objection
from personalive.media.sources import DEFAULT_FPS, Shown
from personalive.media.types import Image, VideoInfo

_MAX_FPS = 1000.0
# A step in time beyond these is a damaged timestamp or a splice, not a pause.
_LONGEST_STEP = 600.0
_LONGEST_STEP_BACK = 1.0
# What a frame gets whose time is not after its predecessor's: it is on for a blink, and nothing drifts.
_BLINK = 0.001
# How far before the wanted moment to look for a keyframe, should the nearest one turn out to lie after it.
_SEEK_MARGINS = (0.0, 3.0, 15.0)
# Headers round, and tracks end a little apart: only more than this missing is a file cut short.
_SLACK = 0.25


class ContainerSource:
    """An opened video file. One frame is decoded on opening, which shows the true size and orientation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.warnings: list[str] = []
        self.ended_early = False
        self.lost = 0
        self._open()
        try:
            # Kept, not just peeked at: one packet can bring many frames.
            self._rest = self._decoded()
            first = self._first_of(self._rest)
            self._first: av.VideoFrame | None = first
            self._size = self._display_size(first)
            matrix = colour.display_matrix(first)
            self._turn = colour.orientation(matrix)
            self.info = self._describe(colour.clockwise_turn(matrix))
            kind = colour.hdr_kind(first)
            if kind is not None:
                self.warnings.append(f"{path.name} is HDR ({kind}): its colours will look flat.")
        except BaseException:
            self.close()
            raise

    def frames(self, start: float) -> Iterator[Shown]:
        """Yield frames from the last keyframe before `start` on; see `Source.frames`."""
        for frame, time in self._frames_from(start):
            yield Shown(time, self._duration(frame), partial(self._image, frame))
        self._note_damage()

    def close(self) -> None:
        """Let go of the file."""
        self._first = None
        self._container.close()

    def _open(self) -> None:
        self._container = open_container(self._path)
        stream = video_stream(self._container)
        if stream is None or stream.time_base is None:
            sound = audio_stream(self._container) is not None
            self._container.close()
            what = "holds sound only" if sound else "holds no video"
            raise MediaError(f"{self._path.name} {what}: there is no picture in it to read.")
        # 0 where the header does not say; the first frame does then.
        if stream.codec_context.width and stream.codec_context.height:
            check_shape(stream.codec_context.width, stream.codec_context.height, self._path.name)
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_IMAGE_PIXELS)}
        self._stream = stream
        self._time_base = fraction(stream.time_base)
        self._origin = stream_origin(self._path, stream)
        self._nominal = 1 / _rate(stream)
        self.lost = 0
        self._trailing_loss = False
        self._broken_off = False
        self._last_end = 0.0
        self.ended_early = False

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    # Decoding

    def _decoded(self) -> Iterator[av.VideoFrame]:
        packets = self._packets()
        for packet in packets:
            try:
                frames = packet.decode()
            except (av.error.FFmpegError, ValueError):
                self._lose()
                continue
            yield from filter(self._intact, frames)
        if self._broken_off:
            # No flushing packet came, and the decoder still holds the frames it was reordering.
            try:
                yield from filter(self._intact, self._stream.codec_context.decode(None))
            except (av.error.FFmpegError, ValueError):
                self._lose()

    def _first_of(self, frames: Iterator[av.VideoFrame]) -> av.VideoFrame:
        for frame in frames:
            return frame
        raise MediaError(f"{self._path.name} is damaged: none of its frames can be decoded.")

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        # Sound is read along, undecoded, only to see how far into its time the file reaches.
        streams = (*self._container.streams.video, *self._container.streams.audio)
        try:
            for packet in self._container.demux(*streams):
                if packet.pts is not None:
                    end = float((packet.pts + (packet.duration or 0)) * fraction(packet.time_base))
                    self._last_end = max(self._last_end, end)
                if packet.stream_index == self._stream.index:
                    yield cast("Packet[VideoStream]", packet)
        except (av.error.FFmpegError, OSError):
            self._broken_off = True

    def _intact(self, frame: av.VideoFrame) -> bool:
        # Concealed errors come out as grey smears; the frame before is the better picture.
        if frame.is_corrupt or objection(frame.width, frame.height):
            self._lose()
            return False
        self._trailing_loss = False
        return True

    def _lose(self) -> None:
        self.lost += 1
        self._trailing_loss = True

    # Time

    def _frames_from(self, start: float) -> Iterator[tuple[av.VideoFrame, float]]:
        if self._first is not None and start <= 0:
            first, self._first = self._first, None
            return self._timed(chain([first], self._rest))
        self._first = None
        for margin in _SEEK_MARGINS:
            if start - margin <= 0:
                break
            offset = int((start - margin + self._origin) / self._time_base)
            try:
                self._container.seek(offset, stream=self._stream)
            except (av.error.FFmpegError, OverflowError):
                # GIF cannot seek, nor can files without an index.
                break
            timed = self._timed(self._decoded())
            first_timed = next(timed, None)
            if first_timed is not None and first_timed[1] <= start:
                return chain([first_timed], timed)
        self._reopen()
        return self._timed(self._decoded())

    def _timed(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, float]]:
        last: float | None = None
        shift = 0.0
        for frame in frames:
            stamp = self._timestamp(frame)
            if last is None:
                time = max(0.0, stamp if stamp is not None else 0.0)
            elif stamp is None:
                time = last + self._nominal
            else:
                time = stamp + shift
                if not -_LONGEST_STEP_BACK <= time - last <= _LONGEST_STEP:
                    shift += last + self._nominal - time
                    time = last + self._nominal
                elif time <= last:
                    time = last + _BLINK
            yield frame, time
            last = time

    def _timestamp(self, frame: av.VideoFrame) -> float | None:
        stamp = frame.pts if frame.pts is not None else frame.dts
        return None if stamp is None else float(stamp * self._time_base) - self._origin

    def _duration(self, frame: av.VideoFrame) -> float:
        seconds = float(frame.duration * self._time_base) if frame.duration else self._nominal
        return seconds if 0 < seconds <= _LONGEST_STEP else self._nominal

    # Pictures

    def _image(self, frame: av.VideoFrame) -> Image:
        try:
            image = colour.to_rgb(frame, *self._size)
        except (av.error.FFmpegError, ValueError) as error:
            kind = frame.format.name
            raise MediaError(f"{self._path.name}: frames of format {kind} cannot be converted.") from error
        return image if self._turn is None else self._turn(image)

    def _display_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        check_shape(frame.width, frame.height, self._path.name)
        aspect = fraction(self._stream.sample_aspect_ratio or Fraction(1))
        if not aspect or aspect == 1 or not Fraction(1, 10) < aspect < 10:
            return frame.width, frame.height
        width = max(1, round(frame.width * aspect))
        check_shape(width, frame.height, self._path.name)
        return width, frame.height

    def _describe(self, rotation: int) -> VideoInfo:
        width, height = self._size if rotation % 180 == 0 else self._size[::-1]
        fps = _rate(self._stream)
        duration = self._claimed_duration()
        count = self._stream.frames or (round(duration * fps) if duration else None)
        sound = audio_stream(self._container) is not None
        return VideoInfo(width, height, fps, duration, count, rotation, sound)

    def _claimed_duration(self) -> float | None:
        if self._stream.duration and self._stream.duration > 0:
            return float(self._stream.duration * self._time_base)
        whole = self._container.duration
        return whole / av.time_base if whole and whole > 0 else None

    def _claimed_end(self) -> float:
        if self._container.format.name == "avi":
            # FFmpeg shortens the duration of a cut AVI to what is there, but not the count of frames.
            return self._stream.frames * self._nominal + self._origin
        return (self._container.duration or 0) / av.time_base

    def _note_damage(self) -> None:
        missing = self._claimed_end() - self._last_end
        self.ended_early = self._broken_off or self._trailing_loss or missing > _SLACK + 2 * self._nominal


def _rate(stream: VideoStream) -> float:
    """The rate that the clip is meant to have, in frames per second.

    The average also counts what an edit list cuts away, so a nominal rate close to it is the truer one; far from
    it, the clip has a variable rate and the average is what there is.
    """
    average, nominal, base = (
        fraction(rate) if rate else None
        for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate)
    )
    close = average and nominal and abs(nominal - average) < 0.03 * average
    for rate in (nominal if close else average, average, nominal, base):
        if rate and 0 < rate <= _MAX_FPS:
            return float(rate)
    return DEFAULT_FPS

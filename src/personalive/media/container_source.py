"""Frames of a video file in order, with true times, as far as the file can be decoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import av
import av.error
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media import colour
from personalive.media.container_decoder import ContainerDecoder
from personalive.media.frame_shape import check_shape
from personalive.media.frame_timing import (
    MAX_FPS,
    MAX_STEP,
    estimate_rate,
    estimate_step,
    make_increasing,
    sort_timestamps,
)
from personalive.media.image import fit_size, fit_within
from personalive.media.packet_scan import PacketScan, scan_packets
from personalive.media.picture_sources import FrameSource, TimedImage, shape_change_warning
from personalive.media.ratios import to_fraction
from personalive.media.tracks import describe_audio_choice, describe_video_choice, select_audio_stream
from personalive.media.types import Image, VideoInfo

# Seconds before the wanted moment to seek to, tried in turn where the keyframe found lies after that moment.
_SEEK_MARGINS = (0.0, 3.0, 15.0)
# Headers round, and tracks end a little apart: a file counts as cut short only if more than this is missing.
_MAX_MISSING_SECONDS = 0.25
_TIME_ROUNDING = 0.0011
_REORDERING_CODECS = {"h264", "hevc", "vvc", "mpeg4", "mpeg2video", "mpeg1video", "vc1", "wmv3", "msmpeg4v3"}


class ContainerSource(FrameSource):
    """An opened video file. Its first frame is decoded on opening, since it has the true size and orientation."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._decoder = ContainerDecoder(path)
        try:
            stream = self._decoder.stream
            scan = scan_packets(path, stream.index)
            claims = _candidate_rates(stream)
            self._fps = estimate_rate(
                estimate_step(scan.timestamps, scan.tick), claims, frames=len(scan.timestamps)
            )
            self._guesses = [1 / claim for claim in claims if claim != self._fps]
            # Where frames are coded in another order than they are shown in, the timestamps of their packets do not
            # increase; if they do, they are decoding times.
            self._doubtful = scan.is_in_order == (
                stream.codec_context.codec.canonical_name in _REORDERING_CODECS
            )
            # The iterator is kept, since one packet can bring many frames.
            self._rest = self._decoder.frames()
            first = self._read_first_frame(self._rest)
            self._first: av.VideoFrame | None = first
            self._size = self._display_size(first)
            matrix = colour.read_display_matrix(first)
            self._turn = colour.make_orient(matrix)
            self.info = self._describe(colour.rotation_degrees(matrix), scan)
        except BaseException:
            self.close()
            raise

    @property
    def lost_frames(self) -> int:
        """Number of frames that could not be decoded."""
        return self._decoder.lost_frames

    def frames(self, start: float) -> Iterator[TimedImage]:
        """Yield frames from the last keyframe before `start` on; see `Source.frames`."""
        odd = 0
        for frame, time in self._frames_from(start):
            size = self._display_size(frame)
            odd += fit_size(size, self._size) != self._size
            duration = self._frame_duration(float((frame.duration or 0) * self._decoder.time_base))
            yield TimedImage(time, duration, partial(self._image, frame))
        if odd:
            self.warnings.append(shape_change_warning(self._path.name, odd, self._size))
        self.ended_early = self._decoder.ended_early(_MAX_MISSING_SECONDS + 2 / self._fps)

    def close(self) -> None:
        """Close the file."""
        self._first = None
        self._decoder.close()

    # Time

    def _frames_from(self, start: float) -> Iterator[tuple[av.VideoFrame, float]]:
        self.ended_early = False
        if self._first is not None and start <= 0:
            first, self._first = self._first, None
            return self._with_timestamps(chain([first], self._rest))
        self._first = None
        for margin in _SEEK_MARGINS:
            if start - margin <= 0 or not self._decoder.seek(start - margin):
                break
            timed = self._with_timestamps(self._decoder.frames())
            first_timed = next(timed, None)
            if first_timed is not None and first_timed[1] <= start:
                return chain([first_timed], timed)
        self._decoder.reopen()
        return self._with_timestamps(self._decoder.frames())

    def _with_timestamps(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[av.VideoFrame, float]]:
        stamped = ((frame, self._timestamp(frame)) for frame in frames)
        return make_increasing(sort_timestamps(stamped) if self._doubtful else stamped, 1 / self._fps)

    def _timestamp(self, frame: av.VideoFrame) -> float | None:
        stamp = frame.pts if frame.pts is not None else frame.dts
        return None if stamp is None else float(stamp * self._decoder.time_base) - self._decoder.origin

    def _frame_duration(self, seconds: float) -> float:
        """Return a frame's duration: the `seconds` stated for it, or the usual time where these are not reliable.

        Where a file states no durations FFmpeg derives them from the rate that the header claims.
        """
        guessed = any(abs(seconds - guess) < _TIME_ROUNDING for guess in self._guesses)
        return seconds if 0 < seconds <= MAX_STEP and not guessed else 1 / self._fps

    # Pictures

    def _read_first_frame(self, frames: Iterator[av.VideoFrame]) -> av.VideoFrame:
        for frame in frames:
            return frame
        raise MediaError(f"{self._path.name} is damaged: none of its frames can be decoded.")

    def _image(self, frame: av.VideoFrame) -> Image:
        try:
            image = colour.to_rgb(frame, *fit_size(self._display_size(frame), self._size))
        except (av.error.FFmpegError, ValueError) as error:
            kind = frame.format.name
            raise MediaError(f"{self._path.name}: frames of format {kind} cannot be converted.") from error
        image = fit_within(image, self._size)
        return image if self._turn is None else self._turn(image)

    def _display_size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return the width and height of a frame with square pixels."""
        check_shape(frame.width, frame.height, self._path.name)
        aspect = to_fraction(self._decoder.stream.sample_aspect_ratio or Fraction(1))
        if not aspect or aspect == 1 or not Fraction(1, 10) < aspect < 10:
            return frame.width, frame.height
        width = max(1, round(frame.width * aspect))
        check_shape(width, frame.height, self._path.name)
        return width, frame.height

    # Header

    def _describe(self, rotation: int, scan: PacketScan) -> VideoInfo:
        width, height = self._size if rotation % 180 == 0 else self._size[::-1]
        container, name = self._decoder.container, self._path.name
        duration = scan.length(1 / self._fps, self._frame_duration(scan.last)) or self._claimed_duration()
        count = scan.frames or self._decoder.stream.frames
        choice, sound_choice = describe_video_choice(container, name), describe_audio_choice(container, name)
        return VideoInfo(
            width,
            height,
            self._fps,
            duration,
            count or (round(duration * self._fps) if duration else None),
            rotation,
            has_audio=select_audio_stream(container) is not None,
            notes=(choice,) if choice else (),
            sound_notes=(sound_choice,) if sound_choice else (),
        )

    def _claimed_duration(self) -> float | None:
        stream = self._decoder.stream
        if stream.duration and stream.duration > 0:
            return float(stream.duration * self._decoder.time_base)
        whole = self._decoder.container.duration
        return whole / av.time_base if whole and whole > 0 else None


def _candidate_rates(stream: VideoStream) -> list[float]:
    """Return the rates that a header may state, likeliest first; FFmpeg has guessed some of them from the clock."""
    given = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    rates = [float(to_fraction(value)) for value in given if value]
    return [value for value in rates if 0 < value <= MAX_FPS]

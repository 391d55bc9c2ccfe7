"""MP4, MOV and WebM output: H.264 or VP9, BT.709, with the driving file's sound and the synthetic mark."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import cast

import av.container
import numpy as np
from av.video.stream import VideoStream

from personalive.media import colour
from personalive.media.atomic_writer import VideoWriter
from personalive.media.audio import AudioTrack
from personalive.media.muxer import Muxer
from personalive.media.provenance import Provenance
from personalive.media.types import Image

_BT709, _LIMITED = 1, 1
_CODECS = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx-vp9"}
_CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "31", "deadline": "realtime", "cpu-used": "6", "row-mt": "1", "lag-in-frames": "0"},
}
# x264's macroblock tree weighs a row of macroblocks sixteen at a time and reads past rows that do not fill
# that: the memory behind them then changes bits, and the same frames give different files.
_MACROBLOCK_TREE_WIDTH = 256
# By default the encoder starts a thread per core: the same frames would give other files on another machine, and a
# job resumed there would not give the same result.
_THREADS = 4


class ContainerWriter(VideoWriter):
    """A writer of frames of one size to a video file; see `open_writer`."""

    def __init__(
        self,
        path: Path,
        kind: str,
        *,
        size: tuple[int, int],
        rate: Fraction,
        provenance: Provenance,
        audio: AudioTrack | None,
        overwrite: bool,
        quality: int | None,
    ) -> None:
        self._kind = kind
        super().__init__(path, size)
        self._rate = rate
        self._quality = quality
        self._file = Muxer(
            path, kind, self._add_video, provenance=provenance, audio=audio, overwrite=overwrite
        )
        self.warnings = self._file.warnings

    def _add(self, image: Image) -> None:
        frame = colour.to_limited_bt709(pad_to_stream(image, self._file.video), "yuv420p")
        frame.pts = self._count
        frame.time_base = 1 / self._rate
        self._file.mux(self._file.video.encode(frame), float((self._count + 1) / self._rate))

    def _complete(self) -> None:
        self._file.mux(self._file.video.encode(None), float(self._count / self._rate))
        self._file.complete()

    def _discard(self) -> None:
        self._file.discard()

    def _add_video(self, container: av.container.OutputContainer) -> VideoStream:
        quality = {} if self._quality is None else {"crf": str(self._quality)}
        return add_video_stream(container, self._kind, self._size, self._rate, quality)


def add_video_stream(
    container: av.container.OutputContainer,
    kind: str,
    size: tuple[int, int],
    rate: Fraction,
    options: Mapping[str, str],
) -> VideoStream:
    """Add a stream for frames of `size` (width, height) at `rate`; `options` are added to the codec's defaults."""
    codec = _CODECS[kind]
    codec_options = {**_CODEC_OPTIONS[codec], **options}
    width, height = size
    if codec == "libx264" and _round_up_to_even(width) % _MACROBLOCK_TREE_WIDTH:
        codec_options["x264-params"] = "mbtree=0"
    stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=codec_options))
    stream.width, stream.height = (
        (width, height) if kind == "webm" else (_round_up_to_even(width), _round_up_to_even(height))
    )
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.thread_count = _THREADS
    if codec == "libx264":
        # A frame per thread: with a slice per thread, the same quality takes 7 % more bytes and more time.
        context.thread_type = "FRAME"
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    if kind == "webm":
        context.bit_rate = 0
    return stream


def pad_to_stream(image: Image, video: VideoStream) -> Image:
    """Pad the image to the stream's size, which is even where the image's is odd."""
    height, width = image.shape[:2]
    if (width, height) == (video.width, video.height):
        return image
    below, right = video.height - height, video.width - width
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")


def _round_up_to_even(size: int) -> int:
    return size + size % 2

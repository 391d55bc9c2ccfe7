"""MP4, MOV and WebM output: H.264 or VP9, BT.709, with the driving file's sound and the synthetic mark."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.error
import numpy as np
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media import colour, xmp
from personalive.media.audio import (
    AudioFeed,
    AudioInput,
    AudioMode,
    AudioTrack,
    can_copy,
    feed_audio,
    open_audio,
)
from personalive.media.output import OutputFile, write_failure
from personalive.media.provenance import Provenance
from personalive.media.staged_writer import StagedWriter
from personalive.media.types import Image

_BT709, _LIMITED = 1, 1
_CODECS = {"mp4": "libx264", "mov": "libx264", "webm": "libvpx-vp9"}
_CODEC_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "31", "deadline": "realtime", "cpu-used": "6", "row-mt": "1", "lag-in-frames": "0"},
}


class ContainerWriter(StagedWriter):
    """Writes frames of one size to a video file; see `open_writer`."""

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
        self._provenance = provenance
        self._audio: AudioFeed | None = None
        self._output = OutputFile(path, overwrite=overwrite)
        try:
            self._start(audio)
        except BaseException:
            self._output.discard()
            raise

    def _add(self, image: Image) -> None:
        frame = colour.to_limited_bt709(self._padded(image), "yuv420p")
        frame.pts = self._count
        frame.time_base = 1 / self._rate
        self._container.mux(self._video.encode(frame))
        if self._audio is not None:
            self._audio.advance(float((self._count + 1) / self._rate))

    def _complete(self) -> None:
        self._container.mux(self._video.encode(None))
        if self._audio is not None:
            self._audio.advance(float(self._count / self._rate))
            self._audio.finish()
        self._container.close()
        if self._kind != "webm":
            xmp.append_to_iso_media(self._output.partial, xmp.build(self._provenance.metadata()))
        self._close_audio()
        self._output.commit()

    def _discard(self) -> None:
        # First the file, then its trailer: moving the index of a long video to the front takes a while, and
        # FFmpeg would do it even now.
        self._output.discard()
        with contextlib.suppress(Exception):
            self._container.close()
        self._close_audio()

    def _close_audio(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self.warnings.extend(self._audio.warnings)
            self._audio = None

    def _start(self, track: AudioTrack | None) -> None:
        """Write the header, with the best form of sound that the container takes."""
        source = self._open_audio(track)
        modes: list[AudioMode] = []
        if source is not None:
            modes = ["copy", "encode"] if can_copy(source, self._kind) else ["encode"]
        for mode in modes:
            assert source is not None
            try:
                self._begin()
                self._audio = feed_audio(source, self._container, self._kind, mode)
                self._container.start_encoding()
            except (av.error.FFmpegError, ValueError):
                self._audio = None
                with contextlib.suppress(Exception):
                    self._container.close()
            else:
                return
        if source is not None:
            source.close()
            self.warnings.append(f"The sound of {source.name} cannot be used: the output has none.")
        try:
            self._begin()
            self._container.start_encoding()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise write_failure(self._path, error) from error

    def _open_audio(self, track: AudioTrack | None) -> AudioInput | None:
        if track is None:
            return None
        try:
            return open_audio(track)
        except MediaError as error:
            self.warnings.append(f"The output has no sound: {error}")
            return None

    def _begin(self) -> None:
        options = {} if self._kind == "webm" else {"movflags": "+faststart+use_metadata_tags"}
        self._container = av.open(
            "file:" + os.fspath(self._output.partial), "w", format=self._kind, container_options=options
        )
        self._container.metadata.update(self._provenance.metadata())
        codec = _CODECS[self._kind]
        codec_options = dict(_CODEC_OPTIONS[codec])
        if self._quality is not None:
            codec_options["crf"] = str(self._quality)
        stream = cast(VideoStream, self._container.add_stream(codec, rate=self._rate, options=codec_options))
        width, height = self._size
        stream.width, stream.height = (
            (width, height) if self._kind == "webm" else (_even(width), _even(height))
        )
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        if self._kind == "webm":
            context.bit_rate = 0
        self._video = stream

    def _padded(self, image: Image) -> Image:
        height, width = image.shape[:2]
        if (width, height) == (self._video.width, self._video.height):
            return image
        below, right = self._video.height - height, self._video.width - width
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")


def _even(size: int) -> int:
    return size + size % 2

"""Muxing of MP4, MOV and WebM: one video stream, the driving file's sound, the synthetic mark."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import av.container
import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from personalive.errors import MediaError
from personalive.media import xmp
from personalive.media.audio import (
    AudioFeed,
    AudioInput,
    AudioMode,
    AudioTrack,
    add_audio,
    can_copy,
    open_audio,
)
from personalive.media.output import OutputFile, translate_write_errors
from personalive.media.provenance import Provenance

AddVideo = Callable[[av.container.OutputContainer], VideoStream]
"""Adds the video stream to a container. Called again with another one if the first does not accept the sound."""


class Muxer:
    """An output file whose header is written, and which appears at `path` when it is complete.

    `video` is its video stream, `warnings` says what was wrong with the sound; `staging` is the folder that holds
    the file until then, on the same file system, by default that of `path`.

    Raises:
        OutputExistsError: `path` exists and `overwrite` is False.
        MediaError: the file cannot be created where it should go.

    """

    def __init__(
        self,
        path: Path,
        kind: str,
        add_video: AddVideo,
        *,
        provenance: Provenance,
        audio: AudioTrack | None,
        overwrite: bool,
        staging: Path | None = None,
    ) -> None:
        self.warnings: list[str] = []
        self._path = path
        self._kind = kind
        self._add_video = add_video
        self._provenance = provenance
        self._audio: AudioFeed | None = None
        self._output = OutputFile(path, overwrite=overwrite, staging=staging)
        try:
            self._write_header(audio)
        except BaseException:
            self._output.discard()
            raise

    def mux(self, packets: Iterable[Packet[VideoStream]], until: float) -> None:
        """Add video packets, and the sound before `until` (seconds). Raises what muxing raises."""
        for packet in packets:
            self._container.mux(packet)
        if self._audio is not None:
            self._audio.advance(until)

    def complete(self) -> None:
        """Finish the file and move it to its path. Raises what writing raises, and `OutputExistsError`."""
        if self._audio is not None:
            self._audio.finish()
        self._container.close()
        if self._kind != "webm":
            xmp.append_to_iso_media(self._output.partial, xmp.build_packet(self._provenance.metadata()))
        self._close_audio()
        self._output.commit()

    def discard(self) -> None:
        """Close the file and remove it. Does not raise."""
        # The file is removed before the container is closed, which writes the trailer: moving the index of a long
        # video to the front takes a while, and FFmpeg would do it even now.
        self._output.discard()
        with contextlib.suppress(Exception):
            self._container.close()
        self._close_audio()

    def _close_audio(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self.warnings.extend(self._audio.warnings)
            self._audio = None

    def _write_header(self, track: AudioTrack | None) -> None:
        """Write the header, with the best form of sound that the container accepts."""
        source = self._open_audio(track)
        modes: list[AudioMode] = []
        if source is not None:
            modes = ["copy", "encode"] if can_copy(source, self._kind) else ["encode"]
        for mode in modes:
            assert source is not None
            try:
                self._open_container()
                self._audio = add_audio(source, self._container, self._kind, mode)
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
        with translate_write_errors(self._path):
            self._open_container()
            self._container.start_encoding()

    def _open_audio(self, track: AudioTrack | None) -> AudioInput | None:
        if track is None:
            return None
        try:
            return open_audio(track)
        except MediaError as error:
            self.warnings.append(f"The output has no sound: {error}")
            return None

    def _open_container(self) -> None:
        options = {} if self._kind == "webm" else {"movflags": "+faststart+use_metadata_tags"}
        self._container = av.open(
            "file:" + os.fspath(self._output.partial), "w", format=self._kind, container_options=options
        )
        self._container.metadata.update(self._provenance.metadata())
        self.video = self._add_video(self._container)

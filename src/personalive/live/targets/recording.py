"""A video file, written as the server writes its recordings: with the mark, and safe against a sudden end."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from pathlib import Path

from personalive.file_replace import replace_file
from personalive.live.targets.target import TargetError, TargetEvents
from personalive.media import Provenance
from personalive.media.output import check_output
from personalive.server.recordings import recovery
from personalive.server.recordings.recorder import SessionRecorder
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session_audio import SentAudio

SUFFIXES = (".mp4", ".m4v")


class RecordingTarget:
    """Writes all frames to an MP4 file at a constant rate; the file appears when it is closed."""

    wants_still = False

    def __init__(
        self,
        events: TargetEvents,
        path: Path,
        provenance: Provenance,
        *,
        fps: float,
        overwrite: bool,
    ) -> None:
        self.name = str(path)
        self._events = events
        self._path = path
        # What exists is replaced once the new file is complete.
        self._written = path.with_name(f".{path.stem}.new{path.suffix}") if path.exists() else path
        self._provenance = provenance
        self._fps = fps
        self._overwrite = overwrite
        self._recorder: SessionRecorder | None = None
        self._ended = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Check that the file can be written, and start to write. Raises `InputError` or a subclass."""
        if self._path.suffix.lower() not in SUFFIXES:
            raise TargetError(f"{self.name}: live video is written to an .mp4 file; name it so.")
        if not self._path.exists() and await asyncio.to_thread(recovery.recover_file, self._path):
            self._events.on_notice(
                f"{self.name} was left unfinished by a run that was cut short; it is complete now."
            )
        check_output(self._path, self._overwrite)
        self._recorder = SessionRecorder(
            self._written,
            self._provenance,
            fps=self._fps,
            max_duration_s=math.inf,
            on_end=self._on_recorder_end,
        )

    def put(self, frame: SentFrame) -> None:
        """Take a frame."""
        if self._recorder is not None and not self._closing:
            self._recorder.put_frame(frame)
            self._events.on_delivered(self, frame, time.monotonic())

    def put_audio(self, block: SentAudio) -> None:
        """Take sound."""
        if self._recorder is not None and not self._closing:
            self._recorder.put_audio(block)

    def _on_recorder_end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._on_end)

    def _on_end(self) -> None:
        self._ended.set()
        if not self._closing and self._recorder is not None:
            progress = self._recorder.progress
            self._events.on_target_end(self, progress.error or progress.note)

    async def close(self) -> str | None:
        """Complete the file and return what was written."""
        if self._recorder is None:
            return None
        self._closing = True
        self._recorder.finish()
        await self._ended.wait()
        progress = self._recorder.progress
        if progress.error is not None:
            return f"{self.name}: {progress.error}"
        if self._written != self._path:
            try:
                await asyncio.to_thread(replace_file, self._written, self._path)
            except OSError as error:
                return f"{self.name} could not be replaced ({error.strerror}): the video is {self._written}."
        dropped = f", {progress.dropped} dropped as the encoder was behind" if progress.dropped else ""
        return f"{self.name}: {progress.frames} frames, {self._recorder.seconds:.1f} s{dropped}."

"""Record one session to one file: a separate thread writes its frames at a constant rate.

The file is written in fragments under a hidden name, and made a complete one at the end. If the recording is cut
short, what was recorded until then is kept: by this process, or by the next one that looks into the folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from queue import SimpleQueue

import av.error

from personalive.errors import MediaError, PersonaLiveError
from personalive.face.crop import ImageSize
from personalive.media import (
    FragmentedWriter,
    Provenance,
    VideoFrame,
    exact_rate,
    finalize_fragments,
    fit_image,
    resample,
)
from personalive.server.recordings import recovery
from personalive.server.recordings.recorded_audio import RecordedAudio
from personalive.server.sessions.audio_delay import SAMPLE_RATE
from personalive.server.sessions.playout_buffer import SentFrame
from personalive.server.sessions.session_audio import SentAudio

_log = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 * 2**20
"""Free bytes at which a recording ends: its file must still be completed, and others need the disk too."""
_MAX_PENDING_BYTES = 64 * 2**20
"""Bytes of frames that may wait for the encoder. Further frames are dropped; the one before is shown longer."""
_MAX_GAP_S = 5.0
"""Longest gap between two frames, in seconds; longer ones are shortened to it. A session without new frames
repeats its last one each second, so a longer gap means that a clock has jumped."""
_AUDIO_BEHIND_S = 1.0
"""Seconds by which sound is written later than the picture, so that all of it has come."""
_DISK_CHECK_INTERVAL_S = 2
_MAX_ERRNO = 4096
"""FFmpeg's own errors have larger numbers, which the system does not know."""


@dataclass(slots=True)
class RecordingProgress:
    """What was recorded so far. Only the recording's thread writes it; others read it.

    `error` is why there is no file, `note` why the recording ended early.
    """

    frames: int = 0
    dropped: int = 0
    size: ImageSize | None = None
    note: str | None = None
    error: str | None = None


class SessionRecorder:
    """A recorder for one session: call `put_frame` for each frame, then `finish`.

    The file appears at `path` when it is complete. Call `put_frame` from one thread only. No method blocks; the
    recorder's own thread does the work and calls `on_end` last.
    """

    def __init__(
        self,
        path: Path,
        provenance: Provenance,
        *,
        fps: float,
        max_duration_s: float,
        on_end: Callable[[], None],
        min_free_bytes: int = MIN_FREE_BYTES,
    ) -> None:
        self.path = path
        self.fps = float(exact_rate(fps))
        self.progress = RecordingProgress()
        self._provenance = provenance
        self._max_duration_s = max_duration_s
        self._min_free_bytes = min_free_bytes
        self._on_end = on_end
        self._queue: SimpleQueue[SentFrame | SentAudio | None] = SimpleQueue()
        self._audio = RecordedAudio()
        self._budget = _ByteBudget(_MAX_PENDING_BYTES)
        self._finished = False
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Length of what was written so far, in seconds."""
        return self.progress.frames / self.fps

    def put_frame(self, frame: SentFrame) -> None:
        """Add the next frame. It is dropped, and counted, when the encoder is too far behind."""
        if self._finished:
            return
        if self._budget.acquire(frame.image.nbytes):
            self._queue.put(frame)
        else:
            self.progress.dropped += 1

    def put_audio(self, sound: SentAudio) -> None:
        """Add the next sound. It is dropped when the encoder is too far behind."""
        if not self._finished and self._budget.acquire(sound.samples.nbytes):
            self._queue.put(sound)

    def finish(self) -> None:
        """Take no more frames and complete the file."""
        self._finished = True
        self._queue.put(None)

    def _run(self) -> None:
        try:
            self._write()
        except PersonaLiveError as error:
            self.progress.error = str(error)
        except Exception as error:
            _log.exception("a recording failed")
            self.progress.error = f"The recording failed: {type(error).__name__}: {error}"
        finally:
            self._finished = True
            self._on_end()

    def _write(self) -> None:
        frames = resample(self._iter_queued(), self.fps)
        first = next(frames, None)
        if first is None:
            raise MediaError("Nothing was recorded: no frame came.")
        height, width = first.image.shape[:2]
        self.progress.size = width, height
        partial = recovery.fragments_path(self.path)
        with recovery.hold_lock(self.path):
            try:
                self._write_frames(partial, chain([first], frames))
            except (av.error.FFmpegError, OSError) as error:
                self.progress.note = f"The recording ended early: {_describe_os_error(error)}."
            try:
                kept = finalize_fragments(partial, self.path, self._provenance)
            except (MediaError, OSError) as error:
                raise MediaError(
                    f"{self.progress.note or 'The recording failed.'} {_describe_loss(error)}"
                ) from error
        if self.progress.note is not None:
            self.progress.frames = kept

    def _write_frames(self, partial: Path, frames: Iterator[VideoFrame]) -> None:
        assert self.progress.size is not None
        writer = FragmentedWriter(
            partial,
            size=self.progress.size,
            rate=exact_rate(self.fps),
            provenance=self._provenance,
            audio_rate=SAMPLE_RATE,
        )
        with contextlib.closing(writer):
            for frame in frames:
                writer.write(fit_image(frame.image, self.progress.size))
                self.progress.frames += 1
                self._audio.write_until(writer, self.seconds - _AUDIO_BEHIND_S)
                if (
                    self.progress.frames % round(_DISK_CHECK_INTERVAL_S * self.fps) == 0
                    and not self._has_disk_space()
                ):
                    self.progress.note = "The recording ended early: the disk is nearly full."
                    break
            self._audio.write_until(writer, self.seconds)

    def _has_disk_space(self) -> bool:
        """Return whether the disk has enough free space. Raises `OSError` where the folder is gone."""
        return shutil.disk_usage(self.path.parent).free >= self._min_free_bytes

    def _iter_queued(self) -> Iterator[VideoFrame]:
        """Yield the frames in the order they were put, with times that start at 0 and never decrease."""
        time = last = 0.0
        index = 0
        while (frame := self._queue.get()) is not None:
            if isinstance(frame, SentAudio):
                self._budget.release(frame.samples.nbytes)
                if index:
                    self._audio.put(frame, time - last)
                continue
            self._budget.release(frame.image.nbytes)
            if index:
                time += min(max(frame.time - last, 0.0), _MAX_GAP_S)
            if time >= self._max_duration_s:
                self.progress.note = (
                    f"The recording ended after {self._max_duration_s:g} s, the longest that is allowed."
                )
                return
            last = frame.time
            yield VideoFrame(frame.image, time, index, 1 / self.fps)
            index += 1


def _describe_os_error(error: Exception) -> str:
    """Return the system's message for the error, without the file name."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and 0 < number < _MAX_ERRNO:
        return os.strerror(number)
    return f"it could not be written ({type(error).__name__})"


def _describe_loss(error: Exception) -> str:
    if isinstance(error, MediaError):
        return "No part of it reached the disk."
    return (
        f"The recordings' folder cannot be used ({_describe_os_error(error)}); the part that reached it will be "
        "listed when it can be used."
    )


class _ByteBudget:
    """A limit on the bytes that wait, for a thread that adds and one that removes."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = threading.Lock()

    def acquire(self, count: int) -> bool:
        """Reserve `count` bytes; return False where there is no room for them."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def release(self, count: int) -> None:
        """Free `count` bytes that were reserved."""
        with self._lock:
            self._free += count

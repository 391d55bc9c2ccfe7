"""One session into one file: frames that come when they come, written at a constant rate by a thread of its own.

The file is written in fragments, under a hidden name, and made a complete one at the end. Whatever ends it before,
what was recorded until then is kept: by this process, or by the next one that looks into the folder.
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
from personalive.server.sessions.playout_buffer import SentFrame

_log = logging.getLogger(__name__)

MIN_FREE_BYTES = 256 * 2**20
"""A recording ends while there is still so much room: the file must be completed, and others need the disk too."""
_MAX_PENDING_BYTES = 64 * 2**20
"""How much may wait for the encoder; what comes then is dropped, and the frame before it stands longer."""
_MAX_GAP_S = 5.0
"""A longer gap between two frames is cut down to that. A stream that stands still repeats its frame each second,
so such a gap is a clock that jumped."""
_DISK_CHECK_INTERVAL_S = 2
_MAX_ERRNO = 4096
"""FFmpeg's own errors have larger numbers, of which the system knows nothing."""


@dataclass(slots=True)
class RecordingProgress:
    """What was recorded so far. The recording's thread writes, others read.

    `error` is why there is no file, `note` why it ended by itself.
    """

    frames: int = 0
    dropped: int = 0
    size: ImageSize | None = None
    note: str | None = None
    error: str | None = None


class SessionRecorder:
    """`put_frame` frames of a session, then `finish`; the file appears at `path` when it is complete.

    Put from one thread only. Nothing here waits but the recorder's own thread, which calls `on_end` last.
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
        self._queue: SimpleQueue[SentFrame | None] = SimpleQueue()
        self._budget = _ByteBudget(_MAX_PENDING_BYTES)
        self._finished = False
        self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Length of what was written so far."""
        return self.progress.frames / self.fps

    def put_frame(self, frame: SentFrame) -> None:
        """The next frame; dropped, and counted, when the encoder is too far behind."""
        if self._finished:
            return
        if self._budget.acquire(frame.image.nbytes):
            self._queue.put(frame)
        else:
            self.progress.dropped += 1

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
            partial, size=self.progress.size, rate=exact_rate(self.fps), provenance=self._provenance
        )
        with contextlib.closing(writer):
            for frame in frames:
                writer.write(fit_image(frame.image, self.progress.size))
                self.progress.frames += 1
                if (
                    self.progress.frames % round(_DISK_CHECK_INTERVAL_S * self.fps) == 0
                    and not self._has_disk_space()
                ):
                    self.progress.note = "The recording ended early: the disk is nearly full."
                    break

    def _has_disk_space(self) -> bool:
        """Raises `OSError` where the folder is gone."""
        return shutil.disk_usage(self.path.parent).free >= self._min_free_bytes

    def _iter_queued(self) -> Iterator[VideoFrame]:
        """Frames as they were put, their times from 0 on and never decreasing."""
        time = last = 0.0
        index = 0
        while (frame := self._queue.get()) is not None:
            self._budget.release(frame.image.nbytes)
            if index:
                time += min(max(frame.time - last, 0.0), _MAX_GAP_S)
            if time >= self._max_duration_s:
                self.progress.note = (
                    f"The recording ended by itself after {self._max_duration_s:g} s, the most there is."
                )
                return
            last = frame.time
            yield VideoFrame(frame.image, time, index, 1 / self.fps)
            index += 1


def _describe_os_error(error: Exception) -> str:
    """What the system says, without the file that it says it of."""
    number = getattr(error, "errno", None)
    if isinstance(number, int) and 0 < number < _MAX_ERRNO:
        return os.strerror(number)
    return f"it could not be written ({type(error).__name__})"


def _describe_loss(error: Exception) -> str:
    if isinstance(error, MediaError):
        return "Nothing of it reached the disk."
    return f"The recordings' folder cannot be used ({_describe_os_error(error)}); what reached it is listed when it can."


class _ByteBudget:
    """Counts bytes that wait, for a thread that adds and one that takes away."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._lock = threading.Lock()

    def acquire(self, count: int) -> bool:
        """Whether there was room for so many."""
        with self._lock:
            if count > self._free:
                return False
            self._free -= count
            return True

    def release(self, count: int) -> None:
        """So many wait no longer."""
        with self._lock:
            self._free += count

"""The recordings of sessions: started and stopped over REST, kept in one folder under names made here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from personalive.media import COMPOSITE_SYNTHETIC, TRAINED_ALGORITHMIC_MEDIA, Provenance
from personalive.pipelines.base import PipelineInfo
from personalive.server.errors import ConflictError, HttpError, NotFoundError
from personalive.server.recordings import recovery
from personalive.server.recordings.recorder import MIN_FREE_BYTES, SessionRecorder
from personalive.server.sessions.session import ServerSession
from personalive.server.sessions.session_manager import UnknownSessionError
from personalive.server.telemetry import logs

DEFAULT_FPS = 30.0
MAX_DURATION_S = 3600.0
MAX_FILES = 100
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_TIME_FORMAT = "%Y%m%d-%H%M%S"
_SUFFIX = recovery.SUFFIX
_RECOVERED_NOTE = "The server ended before this recording did; the part that reached the disk is kept."


class InsufficientStorageError(HttpError):
    """Raised where there is no room for a recording."""

    status = 507


class RecordingInfo(BaseModel):
    """A recording that is running, complete (`note` says why, if it ended early), or failed."""

    recording_id: str
    state: Literal["recording", "finished", "failed"]
    session_id: str | None = Field(None, description="Null for a file of an earlier run of the server.")
    started_at: datetime
    fps: float | None = Field(None, description="Constant rate of the file.")
    frames: int | None = Field(None, description="Frames written, repeats included.")
    dropped: int = Field(0, description="Frames left out because the encoder was too far behind.")
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = Field(None, description="Size of the complete file.")
    url: str | None = Field(None, description="Address of the complete file.")
    note: str | None = Field(None, description="Why it ended early, or failed.")


@dataclass(frozen=True, slots=True, eq=False)
class _ActiveRecording:
    id: str
    session_id: str
    started_at: datetime
    recorder: SessionRecorder
    done: asyncio.Future[RecordingInfo]
    is_awaited: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request waits for its end."""


class RecordingManager:
    """All recordings. Use it on the event loop only.

    At most `max_files` files are kept, and none is deleted unless a client asks for it.
    """

    def __init__(
        self, directory: Path, *, max_duration_s: float = MAX_DURATION_S, max_files: int = MAX_FILES
    ) -> None:
        self._directory = directory
        self._max_duration_s = max_duration_s
        self._max_files = max_files
        self._start_lock = asyncio.Lock()
        self._running: dict[str, _ActiveRecording] = {}  # by the session's id
        self._ended: dict[str, RecordingInfo] = {}
        self._watched_sessions: set[str] = set()
        self._recovered: set[str] = set()
        self._unreported: dict[str, RecordingInfo] = {}  # by the session's id: ended, and not yet returned
        self._recovery_task: asyncio.Task[None] | None = None

    def start_recovery(self) -> None:
        """Start to complete the files that another process, or a lost disk, has left unfinished in the folder."""
        if self._recovery_task is None or self._recovery_task.done():
            self._recovery_task = asyncio.get_running_loop().create_task(
                self._recover(), name="sweep-recordings"
            )

    async def _recover(self) -> None:
        try:
            found = await asyncio.to_thread(recovery.recover, self._directory)
        except OSError as error:
            logs.event("recording_recovery_failed", level=logging.WARNING, error=error.strerror)
            return
        self._recovered.update(found)
        for id in found:
            logs.event("recording_recovered", recording=id)

    async def start(
        self, session: ServerSession, *, fps: float = DEFAULT_FPS, reference_sha256: str | None = None
    ) -> RecordingInfo:
        """Start to record what a session sends. The file's provenance names its pipeline and reference.

        Raises:
            ConflictError: The session is being recorded already.
            InsufficientStorageError: There is no room for a recording.
            InputError: The rate is not possible.
        """
        async with self._start_lock:  # one at a time, so that two cannot take the last place
            if session.id in self._running:
                raise ConflictError("This session is being recorded already.")
            await asyncio.to_thread(self._require_room)
            if session.ended:
                raise UnknownSessionError
            running = self._start_recorder(
                session, make_provenance(session.pipeline_info, reference_sha256), fps
            )
        logs.event("recording_started", session=session.id, recording=running.id)
        return self._make_info(running)

    async def finish(self, session_id: str) -> RecordingInfo:
        """End a session's recording, and return when the file is complete.

        A recording that has ended early is returned once. Raises `NotFoundError` where there is none.
        """
        running = self._running.get(session_id)
        if running is None:
            ended = self._unreported.pop(session_id, None)
            if ended is None:
                raise NotFoundError("This session is not being recorded.")
            return ended
        running.is_awaited.set()
        running.recorder.finish()
        # A client that disconnects must not cancel the result for another one that still waits.
        return await asyncio.shield(running.done)

    async def stop(self) -> None:
        """End all recordings, and return when their files are complete."""
        if self._recovery_task is not None:
            self._recovery_task.cancel()
        ends = [running.done for running in self._running.values()]
        for running in self._running.values():
            running.recorder.finish()
        await asyncio.gather(*map(asyncio.shield, ends))

    async def all(self) -> list[RecordingInfo]:
        """Return every recording, newest first."""
        found = await asyncio.to_thread(self._list_files)
        if await asyncio.to_thread(self._has_unfinished):
            self.start_recovery()
        infos = {id: self._make_file_info(id, size) for id, size in found.items()}
        infos |= {info.recording_id: info for info in self._ended.values() if info.state == "failed"}
        infos |= {running.id: self._make_info(running) for running in self._running.values()}
        return sorted(infos.values(), key=lambda info: info.started_at, reverse=True)

    async def get_path(self, id: str) -> Path:
        """Return the path of a complete file.

        Raises `NotFoundError` where there is none, and `ConflictError` while it is being written.
        """
        self._require_ended(id)
        path = self._make_path(id)
        if not await asyncio.to_thread(path.is_file):
            raise NotFoundError("There is no such recording.")
        return path

    async def delete(self, id: str) -> None:
        """Remove a complete file, or the entry of a failed recording. Raises what `get_path` raises."""
        self._require_ended(id)
        forgotten = self._ended.pop(id, None)
        try:
            await asyncio.to_thread(self._make_path(id).unlink)
        except FileNotFoundError:
            if forgotten is None:
                raise NotFoundError("There is no such recording.") from None
        logs.event("recording_deleted", recording=id)

    def _start_recorder(self, session: ServerSession, provenance: Provenance, fps: float) -> _ActiveRecording:
        loop = asyncio.get_running_loop()

        def ended() -> None:  # on the recorder's thread
            with contextlib.suppress(RuntimeError):  # the loop may be gone by then
                loop.call_soon_threadsafe(self._on_recorder_end, running, subscriptions)

        now = datetime.now(UTC)
        name = f"{now.strftime(_TIME_FORMAT)}-{secrets.token_hex(4)}"
        path = self._directory / (name + _SUFFIX)
        recorder = SessionRecorder(
            path, provenance, fps=fps, max_duration_s=self._max_duration_s, on_end=ended
        )
        running = _ActiveRecording(name, session.id, now, recorder, loop.create_future())
        self._running[session.id] = running
        self._unreported.pop(session.id, None)
        subscriptions = [
            session.add_frame_listener(recorder.put_frame),
            session.audio.add_listener(recorder.put_audio),
        ]
        if session.id not in self._watched_sessions:
            self._watched_sessions.add(session.id)
            session.on_end.append(self._on_session_end)
        return running

    def _on_recorder_end(
        self, running: _ActiveRecording, subscriptions: Sequence[Callable[[], None]]
    ) -> None:
        for unsubscribe in subscriptions:
            unsubscribe()
        self._running.pop(running.session_id, None)
        info = self._make_info(running, ended=True)
        self._ended[running.id] = info
        if not running.is_awaited.is_set():
            self._unreported[running.session_id] = info
        for infos in (self._ended, self._unreported):
            while len(infos) > self._max_files:
                del infos[next(iter(infos))]
        logs.event(
            "recording_ended",
            session=running.session_id,
            recording=running.id,
            state=info.state,
            frames=info.frames,
            note=info.note,
        )
        if not running.done.done():
            running.done.set_result(info)

    async def _on_session_end(self, session: ServerSession) -> None:
        self._watched_sessions.discard(session.id)
        running = self._running.get(session.id)
        if running is not None:
            running.recorder.finish()

    def _make_info(self, running: _ActiveRecording, *, ended: bool = False) -> RecordingInfo:
        recorder, progress = running.recorder, running.recorder.progress
        whole = ended and progress.error is None
        width, height = progress.size or (None, None)
        return RecordingInfo(
            recording_id=running.id,
            state="finished" if whole else "failed" if ended else "recording",
            session_id=running.session_id,
            started_at=running.started_at,
            fps=recorder.fps,
            frames=progress.frames,
            dropped=progress.dropped,
            seconds=round(recorder.seconds, 3),
            width=width,
            height=height,
            bytes=_file_size(recorder.path) if whole else None,
            url=_recording_url(running.id) if whole else None,
            note=progress.error or progress.note,
        )

    def _make_file_info(self, id: str, size: int) -> RecordingInfo:
        known = self._ended.get(id)
        if known is not None:
            return known
        return RecordingInfo(
            recording_id=id,
            state="finished",
            started_at=_parse_time(id),
            bytes=size,
            url=_recording_url(id),
            note=_RECOVERED_NOTE if id in self._recovered else None,
        )

    def _has_unfinished(self) -> bool:
        """Return whether the folder has unfinished files that this process does not write."""
        with contextlib.suppress(OSError):
            return bool(
                recovery.list_unfinished(self._directory) - {one.id for one in self._running.values()}
            )
        return False

    def _list_files(self) -> dict[str, int]:
        """Return the size in bytes of each complete file, by id."""
        found: dict[str, int] = {}
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                # Other files belong to somebody else, or are not complete.
                if path.suffix == _SUFFIX and _is_recording_id(path.stem):
                    with contextlib.suppress(OSError):  # deleted meanwhile
                        found[path.stem] = path.stat().st_size
        return found

    def _require_room(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._directory).free
            count = len(self._list_files()) + len(self._running)
        except OSError as error:
            raise InsufficientStorageError(
                f"Recordings cannot be kept in the server's folder: {error.strerror or error}."
            ) from error
        if free < MIN_FREE_BYTES:
            raise InsufficientStorageError(
                "The server's disk is nearly full: delete recordings, or free space there."
            )
        if count >= self._max_files:
            raise InsufficientStorageError(
                f"No more than {self._max_files} recordings are kept: delete some first."
            )

    def _require_ended(self, id: str) -> None:
        if any(running.id == id for running in self._running.values()):
            raise ConflictError("This recording is not complete: stop it first.")

    def _make_path(self, id: str) -> Path:
        if not _is_recording_id(id):
            raise NotFoundError("There is no such recording.")
        return self._directory / (id + _SUFFIX)


def make_provenance(info: PipelineInfo, reference_sha256: str | None) -> Provenance:
    """Return the provenance of what a session of this pipeline sends."""
    return Provenance(
        software=f"personalive {version('personalive')}",
        pipeline=info.id,
        reference_sha256=reference_sha256,
        digital_source_type=TRAINED_ALGORITHMIC_MEDIA if info.generative else COMPOSITE_SYNTHETIC,
    )


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # deleted meanwhile
        return None


def _recording_url(id: str) -> str:
    return f"/api/v1/recordings/{id}"


def _is_recording_id(text: str) -> bool:
    """Return whether a name was made here; no other name is looked up on the disk."""
    if not _ID.fullmatch(text):
        return False
    try:
        _parse_time(text)
    except ValueError:
        return False
    return True


def _parse_time(id: str) -> datetime:
    return datetime.strptime(id[:15], _TIME_FORMAT).replace(tzinfo=UTC)

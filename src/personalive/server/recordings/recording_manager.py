"""The recordings of sessions: started and stopped over REST, kept in one folder under names made here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
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
from personalive.server.recordings.recorder import LEAST_FREE_BYTES, Recorder
from personalive.server.sessions.session import Stream
from personalive.server.sessions.session_manager import UnknownSessionError
from personalive.server.telemetry import logs

DEFAULT_FPS = 30.0
LONGEST_S = 3600.0
MOST_FILES = 100
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_TIME = "%Y%m%d-%H%M%S"
_SUFFIX = recovery.SUFFIX
_RECOVERED = "The server ended before this recording did: what reached the disk is kept."


class StorageError(HttpError):
    """There is no room for a recording."""

    status = 507


class RecordingInfo(BaseModel):
    """A recording: running, complete (`note` says where it ended early), or failed."""

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
    url: str | None = Field(None, description="Where the complete file is fetched.")
    note: str | None = Field(None, description="Why it ended by itself, or failed.")


@dataclass(frozen=True, slots=True, eq=False)
class _Running:
    id: str
    session_id: str
    started_at: datetime
    recorder: Recorder
    ended: asyncio.Future[RecordingInfo]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether somebody waits for its end."""


class Recordings:
    """Use it on the event loop only. Holds at most `MOST_FILES` files; nothing is ever deleted unasked."""

    def __init__(self, directory: Path, *, longest_s: float = LONGEST_S, most: int = MOST_FILES) -> None:
        self._directory = directory
        self._longest_s = longest_s
        self._most = most
        self._starting = asyncio.Lock()
        self._running: dict[str, _Running] = {}  # by the session's id
        self._ended: dict[str, RecordingInfo] = {}
        self._watched: set[str] = set()
        self._recovered: set[str] = set()
        self._by_itself: dict[str, RecordingInfo] = {}  # by the session's id: ended, and nobody was told yet
        self._sweeping: asyncio.Task[None] | None = None

    def sweep(self) -> None:
        """Begin to complete what another process, or a disk that was gone, has left in the folder."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="sweep-recordings")

    async def _sweep(self) -> None:
        try:
            found = await asyncio.to_thread(recovery.sweep, self._directory)
        except OSError as error:
            logs.event("recordings_not_swept", level=logging.WARNING, error=error.strerror)
            return
        self._recovered.update(found)
        for id in found:
            logs.event("recording_recovered", recording=id)

    async def start(
        self, stream: Stream, *, fps: float = DEFAULT_FPS, reference_sha256: str | None = None
    ) -> RecordingInfo:
        """Begin to record what a session sends. The file's provenance names its pipeline and reference.

        Raises `ConflictError` where it is recorded already, `StorageError` where there is no room, `InputError`
        for a rate that cannot be.
        """
        async with self._starting:  # one at a time, so that two cannot take the last place
            if stream.id in self._running:
                raise ConflictError("This session is being recorded already.")
            await asyncio.to_thread(self._require_room)
            if stream.ended:
                raise UnknownSessionError
            running = self._begin(stream, provenance_of(stream.info, reference_sha256), fps)
        logs.event("recording_started", session=stream.id, recording=running.id)
        return self._told(running)

    async def finish(self, session_id: str) -> RecordingInfo:
        """End a session's recording; returns when the file is complete. One that ended by itself is told once.

        Raises `NotFoundError`.
        """
        running = self._running.get(session_id)
        if running is None:
            ended = self._by_itself.pop(session_id, None)
            if ended is None:
                raise NotFoundError("This session is not being recorded.")
            return ended
        running.asked.set()
        running.recorder.finish()
        # A client that goes away must not take the result from the one that still waits.
        return await asyncio.shield(running.ended)

    async def stop(self) -> None:
        """End all recordings; returns when their files are complete."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        ends = [running.ended for running in self._running.values()]
        for running in self._running.values():
            running.recorder.finish()
        await asyncio.gather(*map(asyncio.shield, ends))

    async def all(self) -> list[RecordingInfo]:
        """Every recording, newest first."""
        found = await asyncio.to_thread(self._files)
        if await asyncio.to_thread(self._left):
            self.sweep()
        told = {id: self._of_file(id, size) for id, size in found.items()}
        told |= {info.recording_id: info for info in self._ended.values() if info.state == "failed"}
        told |= {running.id: self._told(running) for running in self._running.values()}
        return sorted(told.values(), key=lambda info: info.started_at, reverse=True)

    async def path(self, id: str) -> Path:
        """The complete file of that id. Raises `NotFoundError`, and `ConflictError` while it is being written."""
        self._require_ended(id)
        path = self._path(id)
        if not await asyncio.to_thread(path.is_file):
            raise NotFoundError("There is no such recording.")
        return path

    async def delete(self, id: str) -> None:
        """Remove a complete file, or the note of a failed one. Raises as `path` does."""
        self._require_ended(id)
        forgotten = self._ended.pop(id, None)
        try:
            await asyncio.to_thread(self._path(id).unlink)
        except FileNotFoundError:
            if forgotten is None:
                raise NotFoundError("There is no such recording.") from None
        logs.event("recording_deleted", recording=id)

    def _begin(self, stream: Stream, provenance: Provenance, fps: float) -> _Running:
        loop = asyncio.get_running_loop()

        def ended() -> None:  # on the recorder's thread
            with contextlib.suppress(RuntimeError):  # the loop may be gone by then
                loop.call_soon_threadsafe(self._end, running, unsubscribe)

        now = datetime.now(UTC)
        name = f"{now.strftime(_TIME)}-{secrets.token_hex(4)}"
        path = self._directory / (name + _SUFFIX)
        recorder = Recorder(path, provenance, fps=fps, longest_s=self._longest_s, on_end=ended)
        running = _Running(name, stream.id, now, recorder, loop.create_future())
        self._running[stream.id] = running
        self._by_itself.pop(stream.id, None)
        unsubscribe = stream.subscribe(recorder.put)
        if stream.id not in self._watched:
            self._watched.add(stream.id)
            stream.on_end.append(self._session_ended)
        return running

    def _end(self, running: _Running, unsubscribe: object) -> None:
        assert callable(unsubscribe)
        unsubscribe()
        self._running.pop(running.session_id, None)
        info = self._told(running, ended=True)
        self._ended[running.id] = info
        if not running.asked.is_set():
            self._by_itself[running.session_id] = info
        for told in (self._ended, self._by_itself):
            while len(told) > self._most:
                del told[next(iter(told))]
        logs.event(
            "recording_ended",
            session=running.session_id,
            recording=running.id,
            state=info.state,
            frames=info.frames,
            note=info.note,
        )
        if not running.ended.done():
            running.ended.set_result(info)

    async def _session_ended(self, stream: Stream) -> None:
        self._watched.discard(stream.id)
        running = self._running.get(stream.id)
        if running is not None:
            running.recorder.finish()

    def _told(self, running: _Running, *, ended: bool = False) -> RecordingInfo:
        recorder, tally = running.recorder, running.recorder.tally
        whole = ended and tally.error is None
        width, height = tally.size or (None, None)
        return RecordingInfo(
            recording_id=running.id,
            state="finished" if whole else "failed" if ended else "recording",
            session_id=running.session_id,
            started_at=running.started_at,
            fps=recorder.fps,
            frames=tally.frames,
            dropped=tally.dropped,
            seconds=round(recorder.seconds, 3),
            width=width,
            height=height,
            bytes=_size(recorder.path) if whole else None,
            url=_url(running.id) if whole else None,
            note=tally.error or tally.note,
        )

    def _of_file(self, id: str, size: int) -> RecordingInfo:
        known = self._ended.get(id)
        if known is not None:
            return known
        return RecordingInfo(
            recording_id=id,
            state="finished",
            started_at=_time_of(id),
            bytes=size,
            url=_url(id),
            note=_RECOVERED if id in self._recovered else None,
        )

    def _left(self) -> bool:
        """Whether something lies there that nobody here writes."""
        with contextlib.suppress(OSError):
            return bool(recovery.waiting(self._directory) - {one.id for one in self._running.values()})
        return False

    def _files(self) -> dict[str, int]:
        """Size in bytes of each complete file, by id."""
        found: dict[str, int] = {}
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                # Whatever else lies there is somebody else's, or not complete.
                if path.suffix == _SUFFIX and _is_id(path.stem):
                    with contextlib.suppress(OSError):  # deleted meanwhile
                        found[path.stem] = path.stat().st_size
        return found

    def _require_room(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._directory).free
            count = len(self._files()) + len(self._running)
        except OSError as error:
            raise StorageError(
                f"Recordings cannot be kept in the server's folder: {error.strerror or error}."
            ) from error
        if free < LEAST_FREE_BYTES:
            raise StorageError("The server's disk is nearly full: delete recordings, or free space there.")
        if count >= self._most:
            raise StorageError(f"No more than {self._most} recordings are kept: delete some first.")

    def _require_ended(self, id: str) -> None:
        if any(running.id == id for running in self._running.values()):
            raise ConflictError("This recording is not complete: stop it first.")

    def _path(self, id: str) -> Path:
        if not _is_id(id):
            raise NotFoundError("There is no such recording.")
        return self._directory / (id + _SUFFIX)


def provenance_of(info: PipelineInfo, reference_sha256: str | None) -> Provenance:
    """The mark of what a session of this pipeline sends."""
    return Provenance(
        software=f"personalive {version('personalive')}",
        pipeline=info.id,
        reference_sha256=reference_sha256,
        digital_source_type=TRAINED_ALGORITHMIC_MEDIA if info.generative else COMPOSITE_SYNTHETIC,
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # taken away meanwhile
        return None


def _url(id: str) -> str:
    return f"/api/v1/recordings/{id}"


def _is_id(text: str) -> bool:
    """Whether a name was made here: no other is ever looked up on the disk."""
    if not _ID.fullmatch(text):
        return False
    try:
        _time_of(text)
    except ValueError:
        return False
    return True


def _time_of(id: str) -> datetime:
    return datetime.strptime(id[:15], _TIME).replace(tzinfo=UTC)

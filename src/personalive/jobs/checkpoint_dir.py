"""The folder in which a job in segments keeps what it has finished, so that another run can continue.

    .out.mp4.resume/
      lock                 held by the current run
      manifest.json        the job's fingerprint: a run of another job must not continue here
      segment-00000.mp4    finished segments of the picture, each a complete video
      state                the job's progress, in one line, followed by the session's snapshot

A segment counts once `state` names it, and `state` is replaced in one step: a run may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from personalive.errors import InputError, OutputLockedError
from personalive.file_names import shorten
from personalive.jobs.fingerprint import Fingerprint, differing_keys
from personalive.locking import ProcessLock
from personalive.media.output import OutputFile, translate_write_errors
from personalive.pipelines.base import FrameState

_FORMAT = 1
_OWN_FILES = re.compile(r"lock|manifest\.json|state|segment-\d+\.\w+|\..+\.partial-\d+-\d+(\.\w+)?")


class SegmentInfo(BaseModel):
    """A finished segment of the picture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int
    size: int
    """Size of its file in bytes."""


class CheckpointState(BaseModel):
    """The progress of a job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: tuple[SegmentInfo, ...] = ()
    states: dict[FrameState, int] = {}
    """How many of the frames are in each state."""
    taken: int = 0
    """Driving frames given to the session; those that the segments do not show wait for their result."""
    padding: int = 0
    """Repeated frames after them that only filled up the last chunk."""
    seconds: float = 0.0
    """Time spent on all frames."""
    warnings: tuple[str, ...] = ()
    finished: bool = False
    """Whether all segments are finished."""

    @property
    def frames(self) -> int:
        """How many output frames are finished."""
        return sum(segment.frames for segment in self.segments)


def checkpoint_dir_path(output: Path) -> Path:
    """Return the path of the work folder of the job with that `output`."""
    # Beside the target of a link: the result is renamed to that, in one step.
    target = output.resolve()
    return target.with_name(f".{shorten(target.name, 200, keep_end=True)}.resume")


def remove_checkpoint_dir(output: Path) -> None:
    """Remove the work folder of the job with that `output` if it exists, but no foreign files in it."""
    _remove(checkpoint_dir_path(output))


def _remove(folder: Path) -> None:
    # Errors are ignored: the result is in place. The lock file is last, as Windows does not remove locked files.
    with contextlib.suppress(OSError):
        _clear(folder, keep={"lock"})
        (folder / "lock").unlink(missing_ok=True)
        folder.rmdir()


def _clear(folder: Path, keep: set[str]) -> None:
    """Remove the job's files except those in `keep`. Raises `OSError`."""
    # The state first: without it, files left by a kill are ignored.
    for path in sorted(folder.iterdir(), key=lambda path: path.name != "state"):
        if path.name not in keep and _OWN_FILES.fullmatch(path.name):
            path.unlink()


def segment_path(folder: Path, index: int) -> Path:
    """Return the path of a segment's file in the work folder at that path."""
    return folder / f"segment-{index:05d}{folder.with_suffix('').suffix}"


def _count_finished_frames(state: Path) -> int:
    """Return how many frames a state file says are finished; 0 where it is damaged or missing."""
    try:
        return CheckpointState.model_validate_json(state.read_bytes().partition(b"\n")[0]).frames
    except (OSError, ValidationError):
        return 0


class CheckpointDir:
    """The work folder of the job with that `fingerprint` whose result goes to `output`, as a context manager.

    Entering opens the folder as an earlier run left it, or creates it; another job's work is removed if `overwrite`
    is True. `state` and `snapshot` hold the progress. A folder without a finished segment is removed on leaving.

    Raises:
        InputError: The folder belongs to another job, or is damaged.
        OutputLockedError: Another run is using it.
        MediaError: It cannot be written to.


    """

    def __init__(self, output: Path, fingerprint: Fingerprint, *, overwrite: bool) -> None:
        self.path = checkpoint_dir_path(output)
        self._fingerprint: Fingerprint = json.loads(json.dumps({"format": _FORMAT, **fingerprint}))
        self._overwrite = overwrite
        self._lock = ProcessLock(self.path / "lock")
        self.state = CheckpointState()
        self.snapshot = b""
        self.discarded_frames = 0
        """How many finished frames of another job were discarded for this one."""

    @property
    def segments(self) -> list[Path]:
        """The files of all finished segments, in order."""
        return [segment_path(self.path, index) for index in range(len(self.state.segments))]

    @property
    def next_segment(self) -> Path:
        """The path for the file of the next segment."""
        return segment_path(self.path, len(self.state.segments))

    def add_segment(self, frames: int) -> tuple[SegmentInfo, ...]:
        """Flush the next segment's file to the disk; return all segments for the next `state`."""
        path = self.next_segment
        with translate_write_errors(path):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            return (*self.state.segments, SegmentInfo(frames=frames, size=path.stat().st_size))

    def save(self, state: CheckpointState, snapshot: bytes) -> None:
        """Replace the state atomically."""
        self._write("state", state.model_dump_json().encode() + b"\n" + snapshot)
        self.state, self.snapshot = state, snapshot

    def remove(self) -> None:
        """Remove the job's files, and the folder unless it holds foreign files."""
        self.state, self.snapshot = CheckpointState(), b""
        _remove(self.path)

    def __enter__(self) -> Self:
        with translate_write_errors(self.path, self._lock.release):
            self.path.mkdir(exist_ok=True)
            if not self._lock.acquire():
                raise OutputLockedError(f"Another run is using {self.path}: wait for it to end.")
            self._load_or_reset()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if not self.state.segments:
                self.remove()
        finally:
            self._lock.release()
            if not self.state.segments:
                # On Windows the lock file could not be removed before it was released.
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def _load_or_reset(self) -> None:
        manifest, state = self.path / "manifest.json", self.path / "state"
        if manifest.exists() and state.exists():
            other = differing_keys(self._fingerprint, self._read_manifest(manifest))
            if not other:
                self._load_state(state)
                _clear(
                    self.path,
                    keep={"lock", manifest.name, state.name, *(path.name for path in self.segments)},
                )
                return
            if not self._overwrite:
                raise InputError(
                    f"{self.path} holds the work of an earlier run that differs in {', '.join(other)}: give the "
                    "same options and files again, remove that folder, or allow overwriting (-y, overwrite=True)."
                )
            self.discarded_frames = _count_finished_frames(state)
        _clear(self.path, keep={"lock"})
        self._write(manifest.name, json.dumps(self._fingerprint, indent=1).encode())

    def _read_manifest(self, path: Path) -> Fingerprint:
        try:
            facts = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._damaged_error() from error
        return facts if isinstance(facts, dict) else {}

    def _load_state(self, path: Path) -> None:
        try:
            line, _, self.snapshot = path.read_bytes().partition(b"\n")
            self.state = CheckpointState.model_validate_json(line)
            sizes = [file.stat().st_size for file in self.segments]
        except (OSError, ValidationError) as error:
            raise self._damaged_error() from error
        if sizes != [segment.size for segment in self.state.segments]:
            raise self._damaged_error()

    def _damaged_error(self) -> InputError:
        return InputError(f"{self.path} is damaged: remove that folder to start over.")

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        with (
            OutputFile(path, overwrite=True) as output,
            translate_write_errors(path),
            output.partial.open("wb") as file,
        ):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

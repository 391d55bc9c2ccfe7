"""The records of all jobs of a batch, kept beside the results so that the same command can resume.

`manifest.jsonl` in the output folder has a header line, then a line for each job. The one process that hands out
the work writes it, each time as a whole and in one step.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from personalive.batch import storage
from personalive.errors import InputError

MANIFEST_NAME = "manifest.jsonl"
_MIN_INTERVAL_RATIO = 10.0
"""A manifest that took t seconds to write is written again after ten times t, unless it must be."""


class JobState(StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobRecord(BaseModel):
    """The record of one job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The output as the user wrote it; unique."""
    state: JobState = JobState.PENDING
    reason: str | None = None
    """Why the job failed."""
    key: str = ""
    """A hash of the job's inputs and options: where the key differs, it is another job."""
    attempts: int = 0
    """How often a worker has begun it."""
    crashes: int = 0
    """How often in a row it ended without a result and without another finished segment."""
    worker: str | None = None
    """The worker that had it last."""
    size: int | None = None
    """Size of the output in bytes."""
    seconds: float = 0.0
    """Time spent on its frames, in all attempts together."""
    frames: int = 0
    segments: int = 0
    """Finished segments, as far as is known; 0 for a job that has none."""
    fps: float | None = None
    """Frames per second of the output."""
    width: int | None = None
    height: int | None = None
    pipeline: str | None = None
    pipeline_name: str | None = None
    """The pipeline as it is shown to people."""
    notes: tuple[str, ...] = ()
    """What may be wrong with the result, one sentence each."""


class _ManifestHeader(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    made_by: str = "personalive batch"


class Manifest:
    """The records of all jobs that were ever done in an output folder, by name."""

    def __init__(self, out: str, entries: Iterable[JobRecord] = ()) -> None:
        self._uri = storage.join(out, MANIFEST_NAME)
        self._records = {entry.name: entry for entry in entries}
        self._dirty = False
        self._written_at, self._write_seconds = 0.0, 0.0

    @classmethod
    def read(cls, out: str) -> Manifest:
        """Read the manifest in a folder; it is empty where there is none. Raises `InputError` for a damaged one."""
        data = storage.read_bytes(storage.join(out, MANIFEST_NAME))
        return cls(out) if data is None else cls(out, parse(data, storage.join(out, MANIFEST_NAME)))

    def __getitem__(self, name: str) -> JobRecord:
        return self._records[name]

    def get(self, name: str) -> JobRecord:
        """Return the record of that name, or a new one of a job that was never begun."""
        return self._records.get(name) or JobRecord(name=name)

    def set(self, entry: JobRecord) -> None:
        """Replace the record of the same name."""
        self._records[entry.name] = entry
        self._dirty = True

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(self._records.values())

    def save(self, *, now: bool = False) -> None:
        """Write the manifest if it has changed and was not written just before; `now` does not wait.

        Raises `MediaError` or `RemoteStorageError` where it cannot be written.
        """
        begun = time.monotonic()
        if not self._dirty or not (
            now or begun > self._written_at + _MIN_INTERVAL_RATIO * self._write_seconds
        ):
            return
        storage.write_bytes(self._uri, serialize(self._records.values()))
        self._dirty = False
        self._written_at = time.monotonic()
        self._write_seconds = self._written_at - begun


def serialize(entries: Iterable[JobRecord]) -> bytes:
    """Return a manifest's bytes."""
    lines = [_ManifestHeader().model_dump_json()]
    lines += (entry.model_dump_json(exclude_defaults=True) for entry in entries)
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes, place: str) -> list[JobRecord]:
    """Return the records in a manifest's bytes, read from `place`. Raises `InputError` where they are none."""
    try:
        header, *lines = data.decode().removesuffix("\n").split("\n")
        _ManifestHeader.model_validate(json.loads(header))
        return [JobRecord.model_validate_json(line) for line in lines]
    except (UnicodeDecodeError, ValidationError, ValueError, TypeError) as error:
        raise InputError(
            f"{place} is damaged, or of another version: remove it to start over; finished jobs will be done again."
        ) from error

"""What is known of every job of a batch, kept beside the results so that the same command can go on.

`manifest.jsonl` in the output folder: a line that says what it is, then a line for each job. It is written by the
one process that hands out the work, anew and in one step each time.
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
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobRecord(BaseModel):
    """What is known of one job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The output as the user wrote it; no two jobs have the same."""
    state: JobState = JobState.PENDING
    reason: str | None = None
    """Why it failed."""
    key: str = ""
    """A hash of its inputs and options: a job of another key is another job."""
    attempts: int = 0
    """How often a worker has taken it up."""
    crashes: int = 0
    """How often in a row it ended without a result and without having come any further."""
    worker: str | None = None
    """Who had it last."""
    size: int | None = None
    """Of the output, in bytes."""
    seconds: float = 0.0
    """Spent on its frames, in all attempts together."""
    frames: int = 0
    segments: int = 0
    """Finished, as far as is known; 0 for a job that has none."""
    fps: float | None = None
    """Frames per second of the output."""
    width: int | None = None
    height: int | None = None
    pipeline: str | None = None
    pipeline_name: str | None = None
    """As people are told it."""
    notes: tuple[str, ...] = ()
    """What may be wrong with the result, one sentence each."""


class _ManifestHeader(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    made_by: str = "personalive batch"


class Manifest:
    """The entries of all jobs that were ever done in an output folder, by name."""

    def __init__(self, out: str, entries: Iterable[JobRecord] = ()) -> None:
        self._uri = storage.join(out, MANIFEST_NAME)
        self._records = {entry.name: entry for entry in entries}
        self._dirty = False
        self._written_at, self._write_seconds = 0.0, 0.0

    @classmethod
    def read(cls, out: str) -> Manifest:
        """The manifest in a folder, empty where there is none. Raises `InputError` for one that is damaged."""
        data = storage.read_bytes(storage.join(out, MANIFEST_NAME))
        return cls(out) if data is None else cls(out, parse(data, storage.join(out, MANIFEST_NAME)))

    def __getitem__(self, name: str) -> JobRecord:
        return self._records[name]

    def get(self, name: str) -> JobRecord:
        """The entry of that name; one of a job that was never taken up where there is none."""
        return self._records.get(name) or JobRecord(name=name)

    def set(self, entry: JobRecord) -> None:
        """Put an entry in the place of the one of its name."""
        self._records[entry.name] = entry
        self._dirty = True

    def __iter__(self) -> Iterator[JobRecord]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)

    def save(self, *, now: bool = False) -> None:
        """Write it if it has changed, and was not written just before; `now` does not wait.

        Raises `MediaError` or `StorageError` where it cannot be written.
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
    """A manifest's bytes."""
    lines = [_ManifestHeader().model_dump_json()]
    lines += (entry.model_dump_json(exclude_defaults=True) for entry in entries)
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes, place: str) -> list[JobRecord]:
    """The entries in a manifest's bytes, which came from that place. Raises `InputError` for other bytes."""
    try:
        header, *lines = data.decode().removesuffix("\n").split("\n")
        _ManifestHeader.model_validate(json.loads(header))
        return [JobRecord.model_validate_json(line) for line in lines]
    except (UnicodeDecodeError, ValidationError, ValueError, TypeError) as error:
        raise InputError(
            f"{place} is damaged, or of another version: remove it to begin anew; what is done will be done again."
        ) from error

"""The work folder of an unfinished job whose output goes to a store, kept there beside the output to be resumed.

`.out.mp4.resume/` in the store has the same files as the work folder of that name on a disk: see
`personalive.jobs.checkpoint_dir`. Segments are uploaded before the state that names them.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pydantic import ValidationError

from personalive.batch import storage
from personalive.errors import MediaError, PersonaLiveError
from personalive.jobs.checkpoint_dir import (
    CheckpointDir,
    CheckpointState,
    SegmentInfo,
    checkpoint_dir_path,
    remove_checkpoint_dir,
    segment_path,
)


def remove_checkpoint(output_uri: str) -> None:
    """Remove the work folder of an output that is known to be finished. Raises `RemoteStorageError`."""
    if not storage.is_remote(output_uri):
        remove_checkpoint_dir(Path(output_uri))
        return
    storage.remove(_checkpoint_uri(output_uri))


def count_finished_segments(output_uri: str) -> int:
    """Return how many segments of an output any worker has uploaded; 0 where that cannot be read."""
    with contextlib.suppress(PersonaLiveError, ValidationError):
        if (state := storage.read_bytes(storage.join(_checkpoint_uri(output_uri), "state"))) is not None:
            return len(_parse_segments(state))
    return 0


def _parse_segments(state: bytes) -> tuple[SegmentInfo, ...]:
    """Return the segments that a state names. Raises `ValidationError`."""
    return CheckpointState.model_validate_json(state.partition(b"\n")[0]).segments


def _checkpoint_uri(output_uri: str) -> str:
    if not storage.is_remote(output_uri):
        return str(checkpoint_dir_path(Path(output_uri)))
    # A store has no links to follow, unlike `checkpoint_dir_path` on a disk.
    name = checkpoint_dir_path(Path("/") / storage.file_name(output_uri)).name
    return storage.join(storage.parent_uri(output_uri), name)


class RemoteWorkdir:
    """Copies the work folder of `output`, a path on this machine, to and from the folder beside a store's URI."""

    def __init__(self, output: Path, target: str) -> None:
        self._path = checkpoint_dir_path(output)
        self._uri = _checkpoint_uri(target)
        self._uploaded_count = 0
        """How many segments are in the store already."""

    def download(self) -> None:
        """Download what an earlier attempt finished; where it is inconsistent, nothing, and the job starts over."""
        shutil.rmtree(self._path, ignore_errors=True)
        state, manifest = (
            storage.read_bytes(storage.join(self._uri, name)) for name in ("state", "manifest.json")
        )
        if state is None or manifest is None:
            return
        self._path.mkdir()
        (self._path / "manifest.json").write_bytes(manifest)
        (self._path / "state").write_bytes(state)
        try:
            segments = _parse_segments(state)
            fits = all(self._download_segment(index, segment.size) for index, segment in enumerate(segments))
        except (MediaError, ValidationError):
            fits = False
        if fits:
            self._uploaded_count = len(segments)
        else:
            shutil.rmtree(self._path)

    def _download_segment(self, index: int, size: int) -> bool:
        path = segment_path(self._path, index)
        storage.download(storage.join(self._uri, path.name), path)
        return path.stat().st_size == size

    def upload(self, folder: CheckpointDir) -> None:
        """Upload the finished segments that the store lacks, and then the state."""
        segments = folder.segments
        if len(segments) < self._uploaded_count:  # the download was another job's work, and was discarded
            self._uploaded_count = 0
        if len(segments) == self._uploaded_count:
            return
        if self._uploaded_count == 0:
            storage.upload(folder.path / "manifest.json", storage.join(self._uri, "manifest.json"))
        for path in segments[self._uploaded_count :]:
            storage.upload(path, storage.join(self._uri, path.name))
        storage.upload(folder.path / "state", storage.join(self._uri, "state"))
        self._uploaded_count = len(segments)

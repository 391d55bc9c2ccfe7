"""The work of an unfinished job whose output goes to a store: kept beside the output, for whoever goes on.

`.out.mp4.resume/` there holds what the work folder of that name holds on a shared disk: see
`personalive.jobs.checkpoint_dir`. What the state names is there before the state is.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from pydantic import ValidationError

from personalive.batch import storage
from personalive.errors import MediaError, PersonaLiveError
from personalive.jobs.checkpoint_dir import Segment, State, WorkFolder, remove_work, segment_path, work_path


def remove_leftovers(target: str) -> None:
    """Remove what is kept of the work on an output, which is known to be there. Raises `StorageError`."""
    if not storage.is_url(target):
        remove_work(Path(target))
        return
    storage.remove(_place(target))


def finished_segments(target: str) -> int:
    """How many segments of an output are kept there, by whoever has worked on it; 0 where that cannot be read."""
    with contextlib.suppress(PersonaLiveError, ValidationError):
        if (state := storage.read(storage.join(_place(target), "state"))) is not None:
            return len(_segments(state))
    return 0


def _segments(state: bytes) -> tuple[Segment, ...]:
    """Raises `ValidationError`."""
    return State.model_validate_json(state.partition(b"\n")[0]).segments


def _place(target: str) -> str:
    if not storage.is_url(target):
        return str(work_path(Path(target)))
    # No link is followed in a store: the name is all that matters here.
    name = work_path(Path("/") / storage.name_of(target)).name
    return storage.join(storage.parent_of(target), name)


class Mirror:
    """Carries the work folder of `output`, a path on this machine, to and from beside the place `target`."""

    def __init__(self, output: Path, target: str) -> None:
        self._path = work_path(output)
        self._place = _place(target)
        self._there = 0
        """Segments that are in the store already."""

    def fetch(self) -> None:
        """Bring what an earlier attempt finished; what does not fit together is left, and the job begins anew."""
        shutil.rmtree(self._path, ignore_errors=True)
        state, manifest = (
            storage.read(storage.join(self._place, name)) for name in ("state", "manifest.json")
        )
        if state is None or manifest is None:
            return
        self._path.mkdir()
        (self._path / "manifest.json").write_bytes(manifest)
        (self._path / "state").write_bytes(state)
        try:
            segments = _segments(state)
            fits = all(self._fetch_segment(index, segment.size) for index, segment in enumerate(segments))
        except (MediaError, ValidationError):
            fits = False
        if fits:
            self._there = len(segments)
        else:
            shutil.rmtree(self._path)

    def _fetch_segment(self, index: int, size: int) -> bool:
        path = segment_path(self._path, index)
        storage.fetch(storage.join(self._place, path.name), path)
        return path.stat().st_size == size

    def push(self, folder: WorkFolder) -> None:
        """Bring to the store what it lacks of the folder's finished segments, and then the state."""
        segments = folder.segments
        if len(segments) < self._there:  # what was fetched is of another job, and was given up
            self._there = 0
        if len(segments) == self._there:
            return
        if self._there == 0:
            storage.put(folder.path / "manifest.json", storage.join(self._place, "manifest.json"))
        for path in segments[self._there :]:
            storage.put(path, storage.join(self._place, path.name))
        storage.put(folder.path / "state", storage.join(self._place, "state"))
        self._there = len(segments)

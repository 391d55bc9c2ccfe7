"""What servers leave in the recordings' folder that are killed, or lose the disk: completed, or removed.

While a file is being written its process holds a lock beside it, which the system lets go of however the process
ends.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.errors import PersonaLiveError
from personalive.locking import ProcessLock
from personalive.media import keep_fragments

SUFFIX = ".mp4"
_FRAGMENTS, _LOCK = ".fragments" + SUFFIX, ".lock"
_OURS = re.compile(
    r"\.([0-9]{8}-[0-9]{6}-[0-9a-f]{8})(?:\.fragments\.mp4|\.partial-[0-9]+-[0-9]+\.mp4|\.lock)"
)


def fragments_of(path: Path) -> Path:
    """Where a recording is written that is to be at `path`."""
    return path.with_name(f".{path.stem}{_FRAGMENTS}")


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold the recording that is to be at `path`, and say whether nobody else does; False without locks."""
    lock_path = path.with_name(f".{path.stem}{_LOCK}")
    lock = ProcessLock(lock_path)
    taken = False
    with contextlib.suppress(OSError):
        taken = path.parent.is_dir() and lock.take()  # which would make the folder
    try:
        yield taken
    finally:
        if taken:
            lock.release()
            with contextlib.suppress(OSError):
                lock_path.unlink(missing_ok=True)


def waiting(directory: Path) -> set[str]:
    """The ids of recordings that a process has left in the middle, or still writes. Raises `OSError`."""
    if not directory.is_dir():
        return set()
    found = (_OURS.fullmatch(path.name) for path in directory.iterdir())
    return {match[1] for match in found if match is not None}


def sweep(directory: Path) -> list[str]:
    """Complete what can be played of what nobody writes any more, and remove the rest.

    Returns the ids of what was completed, each of which may take a while. Raises `OSError`.
    """
    completed = []
    for id in sorted(waiting(directory)):
        path = directory / (id + SUFFIX)
        with held(path) as ours:
            if ours and _complete(path):
                completed.append(id)
    return completed


def _complete(path: Path) -> bool:
    fragments = fragments_of(path)
    for other in path.parent.glob(f".{path.stem}.partial-*{SUFFIX}"):  # a copy that was not finished
        with contextlib.suppress(OSError):
            other.unlink()
    if not fragments.exists():
        return False
    if path.exists():  # completed, and only not cleared away
        fragments.unlink()
        return False
    try:
        keep_fragments(fragments, path)
    except (PersonaLiveError, OSError):
        return False
    return True

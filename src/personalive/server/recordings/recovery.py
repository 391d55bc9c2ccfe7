"""Complete or remove the files that a server leaves unfinished when it is killed or loses the disk.

While a file is being written, its process holds a lock file beside it. The system releases the lock when the
process ends, for any reason.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.errors import PersonaLiveError
from personalive.locking import ProcessLock
from personalive.media import finalize_fragments

SUFFIX = ".mp4"
_FRAGMENTS_SUFFIX, _LOCK_SUFFIX = ".fragments" + SUFFIX, ".lock"
_FRAGMENTS_PATTERN = re.compile(
    r"\.([0-9]{8}-[0-9]{6}-[0-9a-f]{8})(?:\.fragments\.mp4|\.partial-[0-9]+-[0-9]+\.mp4|\.lock)"
)


def fragments_path(path: Path) -> Path:
    """Return where a recording is written before it is complete and moved to `path`."""
    return path.with_name(f".{path.stem}{_FRAGMENTS_SUFFIX}")


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Lock the recording at `path`; yield False where another process holds it, or locks do not work."""
    lock_path = path.with_name(f".{path.stem}{_LOCK_SUFFIX}")
    lock = ProcessLock(lock_path)
    taken = False
    with contextlib.suppress(OSError):
        taken = path.parent.is_dir() and lock.acquire()  # acquire() would create the folder
    try:
        yield taken
    finally:
        if taken:
            lock.release()
            with contextlib.suppress(OSError):
                lock_path.unlink(missing_ok=True)


def list_unfinished(directory: Path) -> set[str]:
    """Return the ids of recordings that a process has left unfinished, or still writes. Raises `OSError`."""
    if not directory.is_dir():
        return set()
    found = (_FRAGMENTS_PATTERN.fullmatch(path.name) for path in directory.iterdir())
    return {match[1] for match in found if match is not None}


def recover(directory: Path) -> list[str]:
    """Complete the unfinished recordings that no process writes any more, and remove what cannot be played.

    Returns the ids of those that were completed; each may take a while. Raises `OSError`.
    """
    completed = []
    for id in sorted(list_unfinished(directory)):
        if recover_file(directory / (id + SUFFIX)):
            completed.append(id)
    return completed


def recover_file(path: Path) -> bool:
    """Complete the recording at `path` if a process that has ended left it unfinished; return whether it did."""
    with hold_lock(path) as ours:
        return ours and _complete_file(path)


def _complete_file(path: Path) -> bool:
    fragments = fragments_path(path)
    for other in path.parent.glob(f".{path.stem}.partial-*{SUFFIX}"):  # a copy that was not finished
        with contextlib.suppress(OSError):
            other.unlink()
    if not fragments.exists():
        return False
    if path.exists():  # completed, but its fragments were not removed
        fragments.unlink()
        return False
    try:
        finalize_fragments(fragments, path)
    except (PersonaLiveError, OSError):
        return False
    return True

"""Locks between processes, the same on every system: files that one process at a time may lock."""

from __future__ import annotations

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout


class ProcessLock:
    """A lock on the file at `path`, which is created if it does not exist.

    The system releases it when the process ends, by a crash too. One thread may acquire it and another release it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Shared between threads: a job is opened on one and completed on another.
        self._lock = FileLock(path, thread_local=False)

    def acquire(self, *, blocking: bool = False) -> bool:
        """Acquire the lock and return True; return False where another holds it and `blocking` is False.

        Raises `OSError` where the file cannot be created, or its file system does not support locks.
        """
        try:
            self._lock.acquire(timeout=-1 if blocking else 0)
        except Timeout:
            return False
        except NotImplementedError as error:
            raise OSError(f"{self._path} cannot be locked: {error}") from error
        return True

    def release(self) -> None:
        """Release the lock, if it is held."""
        with contextlib.suppress(OSError):
            self._lock.release()

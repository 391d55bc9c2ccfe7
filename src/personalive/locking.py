"""Locks between processes, the same on every system: a file that one process at a time may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout


class ProcessLock:
    """A lock on the file at `path`, made if need be.

    The system lets go of it when the process ends, however it ends. One thread may take it and another release it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Shared between threads: a job is opened on one and completed on another.
        self._lock = FileLock(path, thread_local=False)

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._lock.is_locked

    def acquire(self, *, blocking: bool = False) -> bool:
        """Take it, and return whether that could be; False only where another has it and `blocking` is False.

        Raises `OSError` where the file cannot be made, or its file system knows no locks.
        """
        try:
            self._lock.acquire(timeout=-1 if blocking else 0)
        except Timeout:
            return False
        except NotImplementedError as error:
            raise OSError(f"{self._path} cannot be locked: {error}") from error
        return True

    def release(self) -> None:
        """Let go of it, if it is held."""
        with contextlib.suppress(OSError):
            self._lock.release()

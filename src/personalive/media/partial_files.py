"""Partial files: hidden names of unfinished outputs, locks while they are written, and removal of stale ones.

A run that is killed leaves its partial files. The next run in that folder removes them, if the process in the name
is gone and no lock is held: a folder may be shared with other machines and containers, whose processes are not
visible here but whose locks are.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import sys
from pathlib import Path

from personalive.file_names import shorten

_NAME = re.compile(r"\..*\.partial-([0-9]{1,10})-[0-9]+(\.\w+)?", re.DOTALL)
_serial = itertools.count()
_own_names: set[str] = set()
"""Names of this process's partial files that are still in use."""


def partial_path(target: Path, folder: Path | None = None) -> Path:
    """Return an unused hidden name in `folder`, or beside `target`, with the same suffix."""
    # Names may have 255 bytes; a long one is shortened to leave room for the addition.
    name = f".{shorten(target.stem, 180)}.partial-{os.getpid()}-{next(_serial)}{target.suffix}"
    _own_names.add(name)
    return target.with_name(name) if folder is None else folder / name


class PartialFileLock:
    """A lock that keeps the existing file or folder at `path` from removal, until `release` or the process ends."""

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._held = _open_locked(path)

    def release(self) -> None:
        """Release the lock. May be called twice."""
        _own_names.discard(self._name)
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def remove_stale_partials(folder: Path) -> None:
    """Remove from a folder the partial files of killed runs, as far as possible."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [Path(entry.path) for entry in entries if _is_stale(entry.name)]
        for path in left:
            _remove(path)


def _is_stale(name: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None or name in _own_names:
        return False
    process = int(match[1])
    # A file with this process's number may be another's: process numbers repeat across containers.
    return process == os.getpid() or not _is_process_running(process)


def _remove(path: Path) -> None:
    if sys.platform == "win32":  # which removes nothing that is open
        _delete(path)
        return
    held = _open_locked(path)
    if held is not None:
        try:
            _delete(path)
        finally:
            os.close(held)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


if sys.platform == "win32":
    import ctypes

    _QUERY, _STILL_ACTIVE = 0x1000, 259

    def _open_locked(path: Path) -> int | None:
        del path  # a lock there would keep the writer out as well
        return None

    def _is_process_running(process: int) -> bool:
        kernel = ctypes.WinDLL("kernel32")
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = ctypes.c_void_p(kernel.OpenProcess(_QUERY, False, process))
        if not handle:
            return False
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return not known or code.value == _STILL_ACTIVE

else:
    import fcntl

    def _open_locked(path: Path) -> int | None:
        """Return a descriptor that holds the lock on a file or folder; None if it is taken or locks do not work."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _is_process_running(process: int) -> bool:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):  # another user's
            return True
        return True

"""Writing to the set's folder: one writer at a time, enough free space, and clear errors."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.errors import DiskFullError, DownloadError, PipelineUnavailableError
from personalive.installation import install_command
from personalive.locking import ProcessLock
from personalive.pipelines.diffusion.checkpoints.download.progress import ProgressTracker

STAGING_DIR = ".incomplete"
_LOCK_FILE = ".lock"
_FREE_SPACE_MARGIN = 256 * 2**20
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT}


def format_bytes(count: int) -> str:
    """Format a number of bytes for people: "3.4 GB"."""
    from rich.filesize import decimal

    return decimal(count)


def missing_library_error(name: str) -> PipelineUnavailableError:
    """Return the error for a library of the diffusion extra that is not installed."""
    return PipelineUnavailableError(
        f"The weights cannot be fetched without {name}: run {install_command('diffusion')}"
    )


def free_space(root: Path) -> int:
    """Return the free bytes of the disk where `root` is or will be."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_free_space(root: Path, needed: int) -> None:
    """Raise `DiskFullError` unless `needed` bytes and a margin of 256 MiB are free where `root` is."""
    lacking = needed + _FREE_SPACE_MARGIN - free_space(root)
    if needed and lacking > 0:
        raise DiskFullError(
            f"{format_bytes(needed)} are to be written into {root}, but its disk lacks {format_bytes(lacking)} for "
            "that: free as much there, or choose another place with --dir."
        )


@contextmanager
def lock_folder(root: Path, tracker: ProgressTracker) -> Iterator[Path]:
    """Make the folder and lock it against other downloads; yields a hidden folder for unfinished files.

    The hidden folder is removed when the block succeeds, and kept otherwise, so that the next run can continue.

    Raises `DiskFullError` when the disk fills up within the block, `DownloadError` when the folder cannot be
    written.
    """
    staging = root / STAGING_DIR
    with _translate_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with _hold_lock(root, tracker):
            staging.mkdir(exist_ok=True)
            yield staging
            shutil.rmtree(staging)


@contextmanager
def _hold_lock(root: Path, tracker: ProgressTracker) -> Iterator[None]:
    lock = ProcessLock(root / _LOCK_FILE)
    if not lock.acquire():
        tracker.note(f"another download into {root} is running; waiting for it")
        lock.acquire(blocking=True)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _translate_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise DiskFullError(
                f"The disk of {root} is full: free some space there and run the same command again; "
                "what was fetched is kept."
            ) from error
        where = error.filename or root
        raise DownloadError(
            f"{where} cannot be written ({error.strerror or error}): make {root} a folder that you may write "
            "to, or choose another with --dir."
        ) from error

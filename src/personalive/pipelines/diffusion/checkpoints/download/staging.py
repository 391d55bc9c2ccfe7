"""The set's folder as a place to write: one writer at a time, enough space, and what may go wrong."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.errors import DiskFullError, DownloadError, PipelineUnavailableError
from personalive.installation import install_command
from personalive.locking import ProcessLock
from personalive.pipelines.diffusion.checkpoints.download.progress import Tally

STAGING = ".incomplete"
_LOCK = ".lock"
_MARGIN = 256 * 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT}


def sized(count: int) -> str:
    """Bytes as people read them: "3.4 GB"."""
    from rich.filesize import decimal

    return decimal(count)


def library_missing(name: str) -> PipelineUnavailableError:
    """The error for a library of the diffusion extra that is not installed."""
    return PipelineUnavailableError(
        f"The weights cannot be fetched without {name}: run {install_command('diffusion')}"
    )


def free_space(root: Path) -> int:
    """Bytes free where `root` is or will be."""
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def require_space(root: Path, needed: int) -> None:
    """Raise `DiskFullError` unless `needed` bytes, and a little more, are free where `root` is."""
    lacking = needed + _MARGIN - free_space(root)
    if needed and lacking > 0:
        raise DiskFullError(
            f"{sized(needed)} are to be written into {root}, but its disk lacks {sized(lacking)} for that: "
            "free as much there, or choose another place with --dir."
        )


@contextmanager
def claimed(root: Path, tally: Tally) -> Iterator[Path]:
    """Make the folder and keep every other download out of it; gives a hidden folder for unfinished files.

    That one goes when the block ends well, and stays, for the next run to go on from, when it does not.

    Raises `DiskFullError` when the disk fills up within the block, `DownloadError` when the folder cannot be
    written.
    """
    staging = root / STAGING
    with _told(root):
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, tally):
            staging.mkdir(exist_ok=True)
            yield staging
            shutil.rmtree(staging)


@contextmanager
def _locked(root: Path, tally: Tally) -> Iterator[None]:
    lock = ProcessLock(root / _LOCK)
    if not lock.take():
        tally.note(f"another download into {root} is running; waiting for it")
        lock.take(wait=True)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _told(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"The disk of {root} is full: free some space there and run the same command again; "
                "what was fetched is kept."
            ) from error
        where = error.filename or root
        raise DownloadError(
            f"{where} cannot be written ({error.strerror or error}): make {root} a folder that you may write "
            "to, or choose another with --dir."
        ) from error

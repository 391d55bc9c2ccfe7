"""Download of one file from the hub to the staging folder, resumed where it stopped and verified when complete."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from personalive.errors import CorruptDownloadError, DownloadError
from personalive.pipelines.diffusion.checkpoints.download.hub import HubClient, HubFile, RepositoryListing
from personalive.pipelines.diffusion.checkpoints.download.progress import ProgressTracker
from personalive.pipelines.diffusion.checkpoints.download.retry import RetryPolicy, TransientError
from personalive.pipelines.diffusion.checkpoints.download.staging import format_bytes
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile


@dataclass(frozen=True, slots=True)
class DownloadItem:
    """A file of the set that is to be fetched, and the hub's data on it."""

    file: PublishedFile
    published: HubFile
    listing: RepositoryListing

    @property
    def name(self) -> str:
        """The path of the file, relative to the set's folder."""
        return (self.file.folder / self.published.path.rpartition("/")[2]).as_posix()

    def partial_path(self, staging: Path) -> Path:
        """Return the path of the file while it is incomplete, named by its hash, so that versions never mix.

        Raises `DownloadError` for a symbolic link, since its target must not be written to.
        """
        part = staging / self.published.digest.value
        if part.is_symlink():
            raise DownloadError(f"{part} is a symbolic link, which no download makes: remove it.")
        return part

    def partial_size(self, staging: Path) -> int:
        """Return how many bytes an earlier run left."""
        part = self.partial_path(staging)
        return part.stat().st_size if part.is_file() else 0


def is_complete(path: Path, published: HubFile, name: str, tracker: ProgressTracker) -> bool:
    """Return whether the file is the published one, by size and hash. Raises `OSError`."""
    if path.stat().st_size != published.size:
        return False
    tracker.begin("checking", name, published.size)
    return published.digest.matches(path, lambda count: tracker.advance(count, in_all=False))


def fetch_file(
    hub: HubClient, item: DownloadItem, staging: Path, tracker: ProgressTracker, retry: RetryPolicy
) -> Path:
    """Complete the file in `staging` and return it, verified.

    Raises `CorruptDownloadError` when it is wrong twice, `DownloadError` when the connection fails for good,
    the errors of `HubClient.list_files`, and `OSError` when it cannot be written.
    """
    part = item.partial_path(staging)
    for last in (False, True):
        _complete(hub, item, staging, tracker, retry)
        if is_complete(part, item.published, item.name, tracker):
            return part
        tracker.advance(-min(part.stat().st_size, item.published.size))
        part.unlink()
        if not last:
            tracker.note(f"{item.name} arrived damaged; fetching it again")
    raise CorruptDownloadError(
        f"{item.name} arrived damaged twice from {hub.address} (its size or hash is not the published one) and "
        "was thrown away: run the same command again later, or from another network."
    )


def _complete(
    hub: HubClient, item: DownloadItem, staging: Path, tracker: ProgressTracker, retry: RetryPolicy
) -> None:
    there = item.partial_size(staging)
    if there > item.published.size:  # not left by a download of this file
        item.partial_path(staging).unlink()
        tracker.advance(-item.published.size)
        there = 0
    tracker.begin("fetching", item.name, item.published.size, there)
    try:
        retry.run(
            lambda: _attempt(hub, item, staging, tracker),
            tracker.note,
            received=lambda: item.partial_size(staging),
        )
    except TransientError as hiccup:
        _raise_connection_error(hub, item, item.partial_size(staging), hiccup)


def _attempt(hub: HubClient, item: DownloadItem, staging: Path, tracker: ProgressTracker) -> None:
    try:
        _resume(hub, item, staging, tracker)
    except TransientError as hiccup:
        if hiccup.restart:
            tracker.advance(-item.partial_size(staging))
            item.partial_path(staging).unlink(missing_ok=True)
        raise


def _resume(hub: HubClient, item: DownloadItem, staging: Path, tracker: ProgressTracker) -> None:
    there, size = item.partial_size(staging), item.published.size
    if there < size:
        with (
            hub.open_file(item.listing, item.published.path, there) as body,
            item.partial_path(staging).open("ab") as stream,
        ):
            if body.start < there:  # a server that does not support ranges
                stream.truncate(body.start)
                tracker.advance(body.start - there)
                there = body.start
            for piece in body.chunks:
                kept = piece[: size + 1 - there]  # one byte too many is enough to fail the check
                stream.write(kept)
                there += len(kept)
                tracker.advance(len(kept))
                if there > size:
                    break
            stream.flush()
            os.fsync(stream.fileno())
    if there < size:
        raise TransientError(f"{hub.address} ended {item.name} early")


def _raise_connection_error(
    hub: HubClient, item: DownloadItem, received: int, error: TransientError
) -> NoReturn:
    again = (
        f"run the same command again to go on at {format_bytes(received)} of "
        f"{format_bytes(item.published.size)}"
    )
    if error.busy:
        raise rate_limit_error(hub, error, f"then {again}") from error
    raise DownloadError(
        f"The connection broke again and again while {item.name} was fetched ({error.reason}): {again}."
    ) from error


def rate_limit_error(hub: HubClient, error: TransientError, advice: str) -> DownloadError:
    """Return the error for a hub that keeps limiting the rate of requests. `advice` says how to continue."""
    wait = f"wait {max(1, round(error.wait / 60))} min" if error.wait else "wait a few minutes"
    token = " (with HF_TOKEN set the limits are wider)" if "429" in error.reason else ""
    return DownloadError(f"{hub.address} limits requests for now ({error.reason}): {wait}, {advice}{token}.")

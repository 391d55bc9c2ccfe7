"""One file from the hub into the staging folder: it goes on where it stopped, and is checked when complete."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from personalive.errors import CorruptDownloadError, DownloadError
from personalive.pipelines.diffusion.checkpoints.download.hub import Hub, Listing, Published
from personalive.pipelines.diffusion.checkpoints.download.progress import Tally
from personalive.pipelines.diffusion.checkpoints.download.retry import Hiccup, Patience
from personalive.pipelines.diffusion.checkpoints.download.staging import sized
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile


@dataclass(frozen=True, slots=True)
class Item:
    """A file of the set that is to be fetched, and what the hub says of it."""

    file: PublishedFile
    published: Published
    listing: Listing

    @property
    def name(self) -> str:
        """Where it goes, relative to the set's folder."""
        return (self.file.folder / self.published.path.rpartition("/")[2]).as_posix()

    def part(self, staging: Path) -> Path:
        """The file while it is incomplete. Named by content, so that no two versions ever mix.

        Raises `DownloadError` for a link: what it leads to is not ours to write to.
        """
        part = staging / self.published.digest.value
        if part.is_symlink():
            raise DownloadError(f"{part} is a link, so it is none of ours: remove it.")
        return part

    def staged(self, staging: Path) -> int:
        """How many bytes an earlier run left."""
        part = self.part(staging)
        return part.stat().st_size if part.is_file() else 0


def whole(path: Path, published: Published, name: str, tally: Tally) -> bool:
    """Whether the file is the published one, by size and hash. Raises `OSError`."""
    if path.stat().st_size != published.size:
        return False
    tally.begin("checking", name, published.size)
    return published.digest.matches(path, lambda count: tally.advance(count, in_all=False))


def fetch(hub: Hub, item: Item, staging: Path, tally: Tally, patience: Patience) -> Path:
    """Complete the file in `staging` and return it, verified.

    Raises `CorruptDownloadError` when it is wrong twice, `DownloadError` when the connection fails for good,
    what `Hub.listing` raises, and `OSError` when it cannot be written.
    """
    part = item.part(staging)
    for last in (False, True):
        _complete(hub, item, staging, tally, patience)
        if whole(part, item.published, item.name, tally):
            return part
        tally.advance(-min(part.stat().st_size, item.published.size))
        part.unlink()
        if not last:
            tally.note(f"{item.name} arrived damaged; fetching it anew")
    raise CorruptDownloadError(
        f"{item.name} arrived damaged twice from {hub.address} (its size or hash is not the published one) and "
        "was thrown away: run the same command again later, or from another network."
    )


def _complete(hub: Hub, item: Item, staging: Path, tally: Tally, patience: Patience) -> None:
    there = item.staged(staging)
    if there > item.published.size:  # nothing of ours
        item.part(staging).unlink()
        tally.advance(-item.published.size)
        there = 0
    tally.begin("fetching", item.name, item.published.size, there)
    try:
        patience.persist(
            lambda: _try(hub, item, staging, tally), tally.note, gained=lambda: item.staged(staging)
        )
    except Hiccup as hiccup:
        _give_up(hub, item, item.staged(staging), hiccup)


def _try(hub: Hub, item: Item, staging: Path, tally: Tally) -> None:
    try:
        _go_on(hub, item, staging, tally)
    except Hiccup as hiccup:
        if hiccup.restart:
            tally.advance(-item.staged(staging))
            item.part(staging).unlink(missing_ok=True)
        raise


def _go_on(hub: Hub, item: Item, staging: Path, tally: Tally) -> None:
    there, size = item.staged(staging), item.published.size
    if there < size:
        with (
            hub.reading(item.listing, item.published.path, there) as body,
            item.part(staging).open("ab") as stream,
        ):
            if body.start < there:  # a server that knows no ranges
                stream.truncate(body.start)
                tally.advance(body.start - there)
                there = body.start
            for piece in body.pieces:
                kept = piece[: size + 1 - there]  # one byte too many is enough to be found wrong
                stream.write(kept)
                there += len(kept)
                tally.advance(len(kept))
                if there > size:
                    break
            stream.flush()
            os.fsync(stream.fileno())
    if there < size:
        raise Hiccup(f"{hub.address} ended {item.name} early")


def _give_up(hub: Hub, item: Item, there: int, hiccup: Hiccup) -> NoReturn:
    again = f"run the same command again to go on at {sized(there)} of {sized(item.published.size)}"
    if hiccup.busy:
        raise busy(hub, hiccup, f"then {again}") from hiccup
    raise DownloadError(
        f"The connection broke again and again while {item.name} was fetched ({hiccup.reason}): {again}."
    ) from hiccup


def busy(hub: Hub, hiccup: Hiccup, again: str) -> DownloadError:
    """The error for a hub that keeps putting us off. `again` says how to go on."""
    wait = f"wait {max(1, round(hiccup.wait / 60))} min" if hiccup.wait else "wait a few minutes"
    token = " (with HF_TOKEN set the limits are wider)" if "429" in hiccup.reason else ""
    return DownloadError(f"{hub.address} has no time for us now ({hiccup.reason}): {wait}, {again}{token}.")

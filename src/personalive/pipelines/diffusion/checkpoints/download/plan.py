"""Comparison of a set on disk with the published files: which exist, and which are to be fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from personalive.errors import DownloadError, InputError, WeightsError
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.fetch import DownloadItem, is_complete
from personalive.pipelines.diffusion.checkpoints.download.hub import RepositoryListing
from personalive.pipelines.diffusion.checkpoints.download.progress import ProgressTracker
from personalive.pipelines.diffusion.checkpoints.download.staging import STAGING_DIR, format_bytes
from personalive.pipelines.diffusion.checkpoints.download.verified_files import VerifiedFiles
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile, Repository

_MAX_HEADER_BYTES = 100 * 2**20  # what the safetensors library accepts
_IN_CONVERTED_UNET = {
    (file.folder, file.names) for file in (layout.TEMPORAL_MODULE, layout.BASE_UNET, layout.BASE_UNET_CONFIG)
}


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """The names of the files that exist, relative to `root`, and the files to fetch."""

    root: Path
    kept: tuple[str, ...]
    items: tuple[DownloadItem, ...] = ()
    later: int = 0
    """Bytes that may have to be fetched afterwards."""

    @property
    def describe_later(self) -> str:
        """A note on what may have to be fetched afterwards, for the end of a message; empty if nothing may."""
        return (
            f" ({format_bytes(self.later)} more if they leave entries to the base UNet)" if self.later else ""
        )

    @property
    def size(self) -> int:
        """The number of bytes of the files to fetch."""
        return sum(item.published.size for item in self.items)

    @property
    def staged(self) -> int:
        """The number of these bytes that an earlier run left."""
        return sum(
            min(item.published.size, item.partial_size(self.root / STAGING_DIR)) for item in self.items
        )


def files_of_set(
    *, tiny: bool = False, revisions: Mapping[str, str] | None = None
) -> tuple[PublishedFile, ...]:
    """Return the files of a set, the optional ones only with `tiny`, at other `revisions` by repository if given.

    Raises `InputError` for a repository that no file comes from.
    """
    revisions = revisions or {}
    known = sorted({file.repository.name for file in layout.FILES})
    for name in revisions:
        if name not in known:
            raise InputError(f"No weights come from {name!r}; they come from {', '.join(known)}.")
    files = (file for file in layout.FILES if tiny or not file.optional)
    return tuple(replace(file, repository=_with_revision(file.repository, revisions)) for file in files)


def _with_revision(repository: Repository, revisions: Mapping[str, str]) -> Repository:
    return Repository(repository.name, revisions.get(repository.name, repository.revision))


def present_files(root: Path, files: Sequence[PublishedFile]) -> tuple[str, ...]:
    """Return the names of those files that exist, whole or not."""
    found = (file.find_in(root) for file in files)
    return tuple(path.relative_to(root).as_posix() for path in found if path is not None)


def needed_files(root: Path, files: Sequence[PublishedFile]) -> tuple[PublishedFile, ...]:
    """Return those files that the set at `root` has or needs, as far as is known without reading weights.

    A converted denoising UNet contains its base and temporal module, and would be overridden by them, so they are
    left out. Otherwise the base is included if it exists, or was found to be needed.
    """
    path = layout.DENOISING_UNET.find_in(root)
    if path is None or not _is_converted_unet(path):
        base = layout.BASE_UNET.find_in(root) is not None or VerifiedFiles(root).needs_base_unet()
        return tuple(file for file in files if base or not file.fallback)
    return tuple(
        file
        for file in files
        if (file.folder, file.names) not in _IN_CONVERTED_UNET or file.find_in(root) is not None
    )


def undecided_files(root: Path, files: Sequence[PublishedFile]) -> tuple[PublishedFile, ...]:
    """Return those files that the set may need, which is not known yet: the base UNet's, or none."""
    path = layout.DENOISING_UNET.find_in(root)
    settled = VerifiedFiles(root).needs_base_unet() is not None or (
        path is not None and _is_converted_unet(path)
    )
    there = layout.BASE_UNET.find_in(root) is not None
    return () if settled or there else tuple(file for file in files if file.fallback)


def decide_base_unet(root: Path) -> bool:
    """Find out whether the set at `root` needs a base UNet, and record it if that can be written.

    This takes seconds, as the loader is imported. Where it cannot be imported, the answer is that a base is needed.
    Where it cannot load the files, a base would not help, so the answer is that none is needed.
    """
    try:
        from personalive.pipelines.diffusion.checkpoints.loader import needs_base_unet

        found = needs_base_unet(root)
    except ImportError:
        return True
    except WeightsError:
        found = False
    with suppress(OSError):
        VerifiedFiles(root).set_needs_base_unet(found)
    return found


def _is_converted_unet(path: Path) -> bool:
    """Return whether a denoising UNet has entries of all its parts, by its safetensors header or its index."""
    if path.name.endswith(layout.INDEX_SUFFIX):
        text = path.read_bytes()
        return b'"conv_in.weight"' in text and b".temporal_modules." in text
    if path.suffix != ".safetensors":
        return False
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    return b'"conv_in.weight"' in header and b".temporal_modules." in header


def unverified(root: Path, files: Sequence[PublishedFile]) -> tuple[PublishedFile, ...]:
    """Return the files that are missing, or were not verified by an earlier run."""
    receipt = VerifiedFiles(root)
    return tuple(file for file in files if not receipt.is_verified(file))


def compare(
    root: Path,
    files: Sequence[PublishedFile],
    listings: Mapping[Repository, RepositoryListing],
    tracker: ProgressTracker,
    *,
    thorough: bool = True,
    later: int = 0,
) -> DownloadPlan:
    """Compare each file of the set at `root` with the published one.

    If `thorough`, hashes are compared, and verified files are recorded in the receipt; otherwise a file of the
    right size counts as whole, and nothing is written. Files with a valid receipt are not read, and need no
    listing. Raises `DownloadError` when a repository lacks a file, and `OSError`.
    """
    receipt = VerifiedFiles(root)
    items = []
    for file in files:
        if not receipt.is_verified(file):
            listing = listings[file.repository]
            items.append(_compare_file(root, file, listing, receipt if thorough else None, tracker))
    missing = tuple(item for item in items if item is not None)
    to_fetch = {item.file for item in missing}
    return DownloadPlan(
        root, present_files(root, [file for file in files if file not in to_fetch]), missing, later
    )


def _compare_file(
    root: Path,
    file: PublishedFile,
    listing: RepositoryListing,
    receipt: VerifiedFiles | None,
    tracker: ProgressTracker,
) -> DownloadItem | None:
    """Return what to fetch for a file; None when it exists. Without a receipt, only its size is compared."""
    available = _available_items(file, listing)
    path = file.find_in(root)
    if path is None:
        return available[0]
    name = path.relative_to(root).as_posix()
    same = next((item for item in available if item.name == name), None)
    if same is None:  # a user's conversion, which loaders prefer to the published file
        tracker.note(f"{path} is not published under that name and is kept as it is")
    elif not _is_complete(path, same, tracker, thorough=receipt is not None):
        tracker.note(f"{path} is not the published file: it is replaced")
        return available[0]
    if receipt is not None:
        receipt.add(path, file, same.published.digest if same else None, listing.commit)
    return None


def _available_items(file: PublishedFile, listing: RepositoryListing) -> list[DownloadItem]:
    """Return the file under each of the names that its repository has, the preferred one first."""
    found = [
        DownloadItem(file, listing.files[path], listing) for path in file.remote if path in listing.files
    ]
    if not found:
        name, revision = listing.repository.name, listing.repository.revision
        raise DownloadError(
            f"{name} at revision {revision} has no {' and no '.join(file.remote)}: name a revision that has one "
            f"with --revision {name}=..., or take a newer version of personalive."
        )
    return found


def _is_complete(path: Path, item: DownloadItem, tracker: ProgressTracker, *, thorough: bool) -> bool:
    if not thorough:
        return path.stat().st_size == item.published.size
    return is_complete(path, item.published, item.name, tracker)

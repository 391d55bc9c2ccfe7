"""The receipt of a set: which of its files were verified, so that they need not be read again.

Hashing ten gigabytes takes a minute. So the result is kept in a small JSON file in the set's folder, with the
file's size and modification time. As long as both are unchanged, the file counts as unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from personalive.file_replace import replace_file
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.layout import PublishedFile

VERIFIED_FILES = ".receipt.json"
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Digest:
    """The hash that a file's content must have: `sha256` of the bytes, or git's `sha1` of a blob."""

    algorithm: str
    value: str

    def matches(self, path: Path, advance: Callable[[int], None] = lambda count: None) -> bool:
        """Read the file and compare its hash; `advance` is called with each piece's bytes. Raises `OSError`."""
        hasher = hashlib.new(self.algorithm, usedforsecurity=False)
        if self.algorithm == "sha1":
            hasher.update(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK_BYTES):
                hasher.update(piece)
                advance(len(piece))
        return hasher.hexdigest() == self.value


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A file at the time of its verification. `digest` is None for one that is not published under its name.

    `needs_base_unet`, for the denoising UNet only: whether it and the temporal module leave entries to a base UNet.
    """

    size: int
    mtime_ns: int
    digest: str | None
    repository: str
    revision: str
    commit: str
    needs_base_unet: bool | None = None


class VerifiedFiles:
    """The receipt of the set at `root`. If it is missing or damaged, or an entry is outdated, nothing is known."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._entries = _read_entries(root / VERIFIED_FILES)

    def is_verified(self, file: PublishedFile) -> bool:
        """Return whether the file is unchanged since its verification, and from the wanted revision."""
        path = file.find_in(self._root)
        entry = None if path is None else self._current_entry(path)
        wanted = (file.repository.name, file.repository.revision)
        return entry is not None and (entry.repository, entry.revision) == wanted

    def add(self, path: Path, file: PublishedFile, digest: Digest | None, commit: str) -> None:
        """Record a file as verified and write the receipt. Raises `OSError` when it cannot be written."""
        found = path.stat()
        self._entries[self._key(path)] = VerifiedFile(
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            digest=f"{digest.algorithm}:{digest.value}" if digest else None,
            repository=file.repository.name,
            revision=file.repository.revision,
            commit=commit,
        )
        self._write()

    def needs_base_unet(self) -> bool | None:
        """Return whether a base UNet is needed; None where that was not determined for the existing files."""
        entry = self._denoising_entry()
        return None if entry is None else entry.needs_base_unet

    def set_needs_base_unet(self, needed: bool) -> None:
        """Record whether a base UNet is needed, if the denoising UNet has an entry. Raises `OSError`."""
        path, entry = layout.DENOISING_UNET.find_in(self._root), self._denoising_entry()
        if path is not None and entry is not None:
            self._entries[self._key(path)] = replace(entry, needs_base_unet=needed)
            self._write()

    def _denoising_entry(self) -> VerifiedFile | None:
        path = layout.DENOISING_UNET.find_in(self._root)
        return self._current_entry(path) if path is not None else None

    def _current_entry(self, path: Path) -> VerifiedFile | None:
        """Return the entry of a file if the file is unchanged."""
        entry, found = self._entries.get(self._key(path)), path.stat()
        same = entry is not None and (entry.size, entry.mtime_ns) == (found.st_size, found.st_mtime_ns)
        return entry if same else None

    def _write(self) -> None:
        text = json.dumps({key: asdict(entry) for key, entry in sorted(self._entries.items())}, indent=1)
        beside = self._root / f"{VERIFIED_FILES}.new"
        beside.write_text(text + "\n", encoding="utf-8")
        replace_file(beside, self._root / VERIFIED_FILES)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _read_entries(path: Path) -> dict[str, VerifiedFile]:
    try:
        return {
            key: VerifiedFile(**value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):  # there is no receipt, or it is invalid
        return {}

"""A worker's own folder on its machine, and the bounded cache in it of inputs from elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalive.cluster.batch import storage
from personalive.errors import MediaError
from personalive.media.output import write_failure


class Scratch:
    """A folder for the time of a block. What killed workers left on this machine is removed on the way in."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(tempfile.gettempdir()) / f"personalive-batch-{os.getuid()}"
        self._lock = -1
        self.path = self._root

    def __enter__(self) -> Scratch:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._root.stat().st_uid != os.getuid():
                raise MediaError(f"{self._root} belongs to somebody else: set TMPDIR to another folder.")
            self._sweep()
            self.path = Path(tempfile.mkdtemp(prefix="worker-", dir=self._root))
            self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise write_failure(self._root, error) from error
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _sweep(self) -> None:
        for folder in self._root.glob("worker-*"):
            with contextlib.suppress(OSError):  # another worker may be sweeping, or beginning
                lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
                try:
                    # The system lets go of a lock when its process ends, however it ends.
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)

    def folder(self, *names: str) -> Path:
        """A folder in it, made if need be."""
        path = self.path.joinpath(*names)
        path.mkdir(parents=True, exist_ok=True)
        return path


class InputCache:
    """Copies of files from stores, the least recently used removed when they pass `max_bytes` in all.

    Jobs on several threads may use it.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: dict[Path, int] = {}
        self._sizes: dict[Path, int] = {}
        """Size of each copy, the least recently used first."""

    @contextmanager
    def local(self, place: str) -> Iterator[Path]:
        """A path with the file's contents, there for the time of the block; a path stands for itself.

        Raises `MediaError` where there is no such file, `StorageError` where its store cannot be asked.
        """
        if not storage.is_url(place):
            yield Path(place)
            return
        with self._lock:
            path = self._copy(place)
            self._held[path] = self._held.get(path, 0) + 1
        try:
            yield path
        finally:
            with self._lock:
                self._held[path] -= 1
                self._shrink()

    def _copy(self, place: str) -> Path:
        stamp = storage.stamp(place)
        if stamp is None:
            raise MediaError(f"{place} cannot be read: no such file.")
        key = hashlib.sha256(f"{place}\n{stamp.size}\n{stamp.version}".encode()).hexdigest()[:24]
        # Under its own name: its suffix says what it is, and messages should name it.
        path = self._folder / key / storage.name_of(place)
        if path not in self._sizes:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(".partial")
            storage.fetch(place, partial)
            partial.replace(path)
        self._sizes[path] = self._sizes.pop(path, path.stat().st_size)
        return path

    def _shrink(self) -> None:
        total = sum(self._sizes.values())
        for path in list(self._sizes):
            if total <= self._max_bytes:
                return
            if not self._held.get(path):
                total -= self._sizes.pop(path)
                shutil.rmtree(path.parent, ignore_errors=True)
